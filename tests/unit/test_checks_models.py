"""One mistake each: its code and its place, and nothing else."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from builder.artifacts import Operator
from builder.catalogue import Severity
from builder.checks.context import Context
from builder.checks.models import check_models
from builder.findings import Finding, ordered

PIPELINES = Path(__file__).parent / "data" / "pipelines"
SERIALIZED = (PIPELINES / "declared" / "model.dali").read_bytes()

LIBRARY = "/models/libcustomcopy.so"
NVIDIA = Context(
    "ngc",
    (LIBRARY,),
    operators={LIBRARY: (Operator(name="CustomCopy", devices=("cpu", "gpu")),)},
    has_gpu=True,
    dali="2.1.1",
)
EMBEDDED = replace(NVIDIA, target="embedded", embedded=True, backends=frozenset({"dali", "python"}), has_gpu=False)

COPY = """from nvidia.dali import fn, pipeline_def, plugin_manager, types
from nvidia.dali.plugin.triton import autoserialize
plugin_manager.load_library("/models/libcustomcopy.so")
@autoserialize
@pipeline_def(batch_size=8, num_threads=2, output_dtype=types.FLOAT, output_ndim=2)
def pipeline():
    a = fn.external_source(name="A", dtype=types.FLOAT, ndim=2)
    b = fn.external_source(name="B", dtype=types.UINT8, ndim=1)
    return fn.custom_copy(a, device="cpu", name="X"), fn.cast(b, dtype=types.FLOAT, name="Y")
"""
CONFIG = """name: "m"
backend: "dali"
max_batch_size: 8
input [
  { name: "A" data_type: TYPE_FP32 dims: [ -1, 3 ] },
  { name: "B" data_type: TYPE_UINT8 dims: [ -1 ] }
]
output [
  { name: "X" data_type: TYPE_FP32 dims: [ -1, 3 ] },
  { name: "Y" data_type: TYPE_FP32 dims: [ -1, -1 ] }
]
"""
Files = Mapping[str, str | bytes | None]
GOOD: Files = {"m/config.pbtxt": CONFIG, "m/1/dali.py": COPY}


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


def written(root: Path, files: Files) -> Path:
    for name, content in files.items():
        path = root / "model_repository" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root / "model_repository"


def found(root: Path, files: Files, context: Context = NVIDIA) -> list[Finding]:
    return ordered(check_models(root, written(root, files), context))


def brief(findings: list[Finding]) -> list[str]:
    return [f"{each.code} {str(each.place).removeprefix('model_repository/')}" for each in findings]


@pytest.mark.parametrize("context", [NVIDIA, replace(EMBEDDED, has_gpu=False), Context("bare")])
@pytest.mark.parametrize(
    "files",
    [
        GOOD,
        {"m/config.pbtxt": CONFIG, "m/1/model.dali": b"garbage", "m/1/dali.py": COPY},  # the build makes another one
        {
            "m/config.pbtxt": CONFIG + parameter("plugin_libs", LIBRARY) + parameter("num_threads", "4"),
            "m/1/dali.py": COPY,
        },
        {"m/config.pbtxt": CONFIG, "m/1/dali.py": COPY, "m/2/dali.py": COPY, "m/labels/x.txt": "", "m/.git/x": ""},
        {
            "m/config.pbtxt": 'backend: "python"\ninput { name: "A" data_type: TYPE_STRING dims: 1 }\n',
            "m/1/model.py": "",
        },
        {"notes.txt": "not a model"},
        {**GOOD, "__pycache__/x.pyc": b"x"},
    ],
)
def test_what_is_right_is_left_alone(tmp_path: Path, files: Files, context: Context) -> None:
    assert brief(found(tmp_path, files, context)) == []


# A text of config.pbtxt that is replaced, by what, and what must be found then, where NVIDIA's image is the target.
CONFIG_MISTAKES = [
    ('name: "m"', 'name: "n"', "config-name-mismatch m/config.pbtxt:1:1"),
    ("max_batch_size", "max_batch_sice", "config-invalid m/config.pbtxt:3:1"),
    ('backend: "dali"\n', "", "backend-missing m/config.pbtxt"),
    ('backend: "dali"', 'platform: "dali"', "backend-missing m/config.pbtxt:2:1"),
    ('backend: "dali"', 'platform: "tensorrt_plan2"', "backend-missing m/config.pbtxt:2:1"),
    ('"A"', '"a"', "input-name-mismatch m/config.pbtxt:5:5", "input-missing"),
    ("TYPE_UINT8", "TYPE_INT8", "input-dtype-mismatch m/config.pbtxt:6:15"),
    ("dims: [ -1 ]", "dims: [ -1, 1 ]", "input-rank-mismatch m/config.pbtxt:6:45"),
    ("TYPE_FP32 dims: [ -1, -1 ]", "TYPE_UINT8 dims: [ -1, -1 ]", "output-dtype-mismatch m/config.pbtxt:10:15"),
    ("dims: [ -1, -1 ]", "dims: [ -1 ]", "output-rank-mismatch m/config.pbtxt:10:44"),
    (
        "[ -1, -1 ] }\n",
        '[ 1, 1 ] }, { name: "Z" data_type: TYPE_FP32 dims: 1 }\n',
        "output-count-mismatch m/config.pbtxt:10:54",
    ),
    ('"X"', '"OTHER"', "output-name-differs m/config.pbtxt:9:5"),
    (
        '"A" data_type: TYPE_FP32 dims: [ -1, 3 ]',
        '"A" data_type: TYPE_FP32 dims: [ 0, -2 ]',
        "dims-invalid m/config.pbtxt:5:44",
    ),
    ("TYPE_UINT8", "TYPE_STRING", "dtype-unsupported m/config.pbtxt:6:15", "input-dtype-mismatch"),
    ("TYPE_UINT8", "TYPE_BF16", "dtype-unsupported m/config.pbtxt:6:15", "input-dtype-mismatch"),
    ('{ name: "B"', "{", "tensor-name-missing m/config.pbtxt:6:3"),
    ('"Y"', '"X"', "tensor-name-repeated m/config.pbtxt:10:5", "output-name-differs"),
    ("size: 8", "size: 9", "batch-size-differs m/config.pbtxt:3:1"),
    ("size: 8", "size: 4", "batch-size-differs m/config.pbtxt:3:1"),
    ("size: 8", "size: 0", "batch-size-differs m/config.pbtxt:3:1"),
    ("size: 8\n", "size: 8\n" + parameter("num_threads", "many"), "num-threads-invalid m/config.pbtxt:4:33"),
    ("size: 8\n", "size: 8\n" + parameter("num_threads", ""), "num-threads-invalid m/config.pbtxt:4:33"),
    (
        "size: 8\n",
        "size: 8\n" + parameter("plugin_libs", "/models/a.so;/models/b.so"),
        "plugin-separator m/config.pbtxt:4:33",
    ),
    (
        "size: 8\n",
        "size: 8\n" + parameter("plugin_libs", "/models/a.so,/models/b.so"),
        "plugin-separator m/config.pbtxt:4:33",
    ),
    ("size: 8\n", "size: 8\n" + parameter("plugin_libs", "libcustomcopy.so"), "plugin-path m/config.pbtxt:4:33"),
    (
        "size: 8\n",
        "size: 8\n" + parameter("plugin_libs", "/models/libcustomcpy.so"),
        "plugin-missing m/config.pbtxt:4:33",
    ),
    (
        "size: 8\n",
        "size: 8\n" + parameter("split_along_outer_axis", "X:Z"),
        "split-output-unknown m/config.pbtxt:4:44",
        "output-rank-mismatch",
    ),
    ("size: 8\n", "size: 8\ninstance_group { kind: KIND_CPU gpus: 0 }\n", "instance-group-invalid m/config.pbtxt:4:33"),
    ("size: 8\n", "size: 8\ninstance_group { count: 0 }\n", "instance-count-invalid m/config.pbtxt:4:18"),
    (
        "size: 8\n",
        "size: 0\ndynamic_batching { }\n",
        "dynamic-batching-needs-batches m/config.pbtxt:4:1",
        "batch-size-differs",
    ),
    (
        "size: 8\n",
        "size: 8\ndynamic_batching { preferred_batch_size: [ 4, 16 ] }\n",
        "preferred-batch-size-invalid m/config.pbtxt:4:47",
    ),
    ("size: 8\n", 'size: 8\ndefault_model_filename: "modle.dali"\n', "default-model-file-missing m/config.pbtxt:4:1"),
    ("size: 8\n", "size: 8\nversion_policy { specific { versions: 3 } }\n", "version-missing m/config.pbtxt:4:1"),
    ('backend: "dali"', 'backend: "dali"\nensemble_scheduling { }', "ensemble-platform m/config.pbtxt:3:1"),
    ('backend: "dali"', 'platform: "ensemble"', "ensemble-platform m/config.pbtxt:2:1"),
]


@pytest.mark.parametrize(("old", "new", "expected", "also"), [(*row, "", "")[:4] for row in CONFIG_MISTAKES])
def test_a_mistake_in_config_pbtxt_has_its_place(tmp_path: Path, old: str, new: str, expected: str, also: str) -> None:
    assert CONFIG.count(old) >= 1
    findings = found(tmp_path, {**GOOD, "m/config.pbtxt": CONFIG.replace(old, new, 1)})
    assert expected in brief(findings)
    assert {each.code for each in findings} - {also.split(" ")[0]} == {expected.split(" ")[0]}
    for finding in findings:
        assert finding.remedy
        assert finding.model == "m"


OUTPUTS_SWAPPED = CONFIG.replace('"X"', '"?"').replace('"Y"', '"X"').replace('"?"', '"Y"')


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"m/config.pbtxt": OUTPUTS_SWAPPED}, ["output-order m/config.pbtxt:9:5"]),
        ({"m/1/dali.py": COPY.replace("return", "return (")}, ["pipeline-syntax m/1/dali.py:9:12"]),
        ({"m/1/dali.py": COPY.replace("@autoserialize\n", "")}, ["autoserialize-missing m/1/dali.py:1"]),
        ({"m/1/dali.py": COPY.replace("custom_copy(a", "custom_cpoy(a")}, ["operator-unregistered m/1/dali.py:9"]),
        ({"m/1/dali.py": COPY.replace('"cpu"', '"mixed"')}, ["operator-device-missing m/1/dali.py:9"]),
        ({"m/1/dali.py": COPY.replace("libcustomcopy", "libother")}, ["plugin-missing m/1/dali.py:3"]),
        ({"m/1/dali.py": COPY.replace("/models/", "./")}, ["plugin-path m/1/dali.py:3"]),
        ({"m/1/dali.py": COPY.replace("batch_size=8, ", "")}, ["batch-size-missing m/1/dali.py:5:2"]),
        ({"m/v2/dali.py": COPY}, ["version-not-a-number m/v2"]),
        ({"m/02/dali.py": COPY}, ["version-not-a-number m/02"]),
        ({"m/2/x": ""}, ["pipeline-missing m/2"]),
        ({"m/2/model.dali": b""}, ["model-file-invalid m/2/model.dali"]),
        ({"m/2/model.dali": SERIALIZED[:-9]}, ["model-file-invalid m/2/model.dali"]),
        ({"m/2/model.dali": SERIALIZED[:-400]}, ["model-file-invalid m/2/model.dali"]),
        ({"m/2/model.dali": b"version https://git-lfs"}, ["model-file-invalid m/2/model.dali"]),
        ({"n": None}, ["model-empty n"]),
        ({"n.x": None}, ["model-empty n.x"]),
        ({".git/objects/x": "", ".git/HEAD": ""}, ["model-empty .git"]),
        ({".ipynb_checkpoints": None}, ["model-empty .ipynb_checkpoints"]),
        ({"n/config.pbtxt": 'backend: "dali"'}, ["version-missing n"]),
        ({"n/config.pbtxt": 'backend: "python"', "n/1/x": ""}, ["python-model-missing n/1"]),
        ({"n/1/dali.py": COPY}, ["config-missing n"]),
        (
            {"n/config.pbtxt": 'backend: "onnxruntime"\nmax_batch_size: -1', "n/1/model.onnx": ""},
            ["max-batch-size-invalid n/config.pbtxt:2:1"],
        ),
        (
            {"n/config.pbtxt": 'backend: "python"\ninput { name: "A" }', "n/1/model.py": ""},
            ["dims-empty n/config.pbtxt:2:1", "dtype-unsupported n/config.pbtxt:2:1"],
        ),
    ],
)
def test_a_mistake_elsewhere_has_its_place(tmp_path: Path, files: Files, expected: list[str]) -> None:
    assert brief(found(tmp_path, {**GOOD, **files})) == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_batch_size: 8\n", ""),  # the pipeline's
        (',\n  { name: "B" data_type: TYPE_UINT8 dims: [ -1 ] }', ""),  # declared
        (" data_type: TYPE_UINT8 dims: [ -1 ]", ""),
        (',\n  { name: "Y" data_type: TYPE_FP32 dims: [ -1, -1 ] }', ""),
    ],
)
def test_what_the_server_fills_in_is_missing_where_it_is_told_not_to(tmp_path: Path, old: str, new: str) -> None:
    assert old in CONFIG
    files = {**GOOD, "m/config.pbtxt": CONFIG.replace(old, new, 1)}
    assert brief(found(tmp_path, files)) == brief(found(tmp_path, files, EMBEDDED)) == []
    assert found(tmp_path, files, replace(NVIDIA, completes=False))


def test_a_number_of_threads_with_words_after_it_is_one_to_nvidia_s_backend_alone(tmp_path: Path) -> None:
    """As C++ reads it."""
    config = CONFIG.replace("size: 8\n", "size: 8\n" + parameter("num_threads", "4 of them"), 1)
    files = {**GOOD, "m/config.pbtxt": config}
    assert brief(found(tmp_path, files)) == []
    assert [each.code for each in found(tmp_path, files, EMBEDDED)] == ["num-threads-invalid"]


def test_a_folder_named_after_the_backend_needs_no_config_where_all_is_declared(tmp_path: Path) -> None:
    files = {"m.dali/1/dali.py": COPY, "n.dali/1/dali.py": COPY.replace(", ndim=2)", ")")}
    assert brief(found(tmp_path, files)) == ["config-missing n.dali"]
    context = replace(EMBEDDED, completes=False)
    assert brief(found(tmp_path, files, context)) == ["config-missing m.dali", "config-missing n.dali"]


def test_a_pipeline_that_cannot_be_read_is_not_held_against_the_config(tmp_path: Path) -> None:
    unreadable = COPY.replace("import fn,", "import fn as f_,").replace(
        "def pipeline():", "def pipeline():\n    fn = make()"
    )
    config = CONFIG.replace('"A"', '"C"').replace("TYPE_UINT8", "TYPE_INT8").replace("[ -1, -1 ]", "[ 1, -1 ]")
    assert brief(found(tmp_path, {"m/config.pbtxt": config, "m/1/dali.py": unreadable})) == []


def test_the_last_build_tells_what_the_source_does_not(tmp_path: Path) -> None:
    """Its model.dali counts where its dali.py is that of the source, byte for byte."""
    source = "from elsewhere import pipeline\n"
    recorded = tmp_path / "parts"
    for name, content in (("dali.py", source.encode()), ("model.dali", SERIALIZED)):
        (recorded / "m/1").mkdir(parents=True, exist_ok=True)
        (recorded / "m/1" / name).write_bytes(content)
    files = {"m/config.pbtxt": CONFIG, "m/1/dali.py": source}
    context = replace(NVIDIA, recorded=recorded)
    assert {each.code for each in found(tmp_path, files, context)} == {
        "batch-size-differs",
        "input-name-mismatch",
        "output-name-differs",
        "output-rank-mismatch",
        "output-dtype-mismatch",
    }
    assert found(tmp_path, {"m/1/dali.py": source + "\n"}, context) == []


def test_the_source_counts_whatever_lies_beside_it(tmp_path: Path) -> None:
    """The build serializes it anew."""
    text = (
        'backend: "dali"\nmax_batch_size: 16\ninput { name: "WAVE" data_type: TYPE_FP32 dims: -1 }\n'
        'input { name: "IMAGE" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }\n'
        'output { name: "LOUD" data_type: TYPE_FP32 dims: -1 }\n'
        'output { name: "FLIPPED" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }\n'
    )
    files = {"m/config.pbtxt": text, "m/1/model.dali": SERIALIZED}
    assert brief(found(tmp_path, files)) == []
    (tmp_path / "with").mkdir()
    wrong = found(tmp_path / "with", {**files, "m/1/dali.py": "not Python at all("})
    assert [each.code for each in wrong] == ["pipeline-syntax"]


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (
            replace(NVIDIA, has_gpu=False),
            ["gpu-operator-on-cpu-target m/1/dali.py:11", "kind-gpu-on-cpu-target m/config.pbtxt:4:18"],
        ),
        (replace(EMBEDDED, has_gpu=True, backends=frozenset({"python"})), ["backend-unknown m/config.pbtxt:1:1"]),
    ],
)
def test_what_a_target_lacks_is_found_for_that_target(tmp_path: Path, context: Context, expected: list[str]) -> None:
    config = (
        'backend: "dali"\nmax_batch_size: 4\ninput { name: "ENCODED" data_type: TYPE_UINT8 dims: -1 }\n'
        'instance_group { kind: KIND_GPU }\noutput { name: "IMAGE" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }\n'
        'output { name: "SAME" data_type: TYPE_UINT8 dims: -1 }\n'
    )
    findings = found(
        tmp_path, {"m/config.pbtxt": config, "m/1/dali.py": (PIPELINES / "gpu/dali.py").read_bytes()}, context
    )
    assert brief(findings) == expected
    assert {each.target for each in findings} == {context.target}


def test_a_library_that_the_server_does_not_load_is_told_apart_from_one_that_is_not_there(tmp_path: Path) -> None:
    context = replace(NVIDIA, libraries=(), available=(LIBRARY,))
    named = {**GOOD, "m/config.pbtxt": CONFIG + parameter("plugin_libs", LIBRARY)}
    assert brief(found(tmp_path, named, context)) == [
        "plugin-unlisted m/1/dali.py:9",
        "plugin-unlisted m/config.pbtxt:12:33",
    ]
    assert brief(found(tmp_path, GOOD, replace(context, operators={LIBRARY: None}))) == [
        "operator-unregistered m/1/dali.py:9"
    ]


@pytest.mark.parametrize("context", [replace(NVIDIA, operators={}), replace(NVIDIA, libraries=None, operators={})])
def test_an_operator_is_not_missed_where_a_library_is_unknown(tmp_path: Path, context: Context) -> None:
    assert found(tmp_path, GOOD, context) == []


@pytest.mark.parametrize(
    ("dali", "call", "says"),
    [
        ("1.53.0", "brand_new(a", "DALI has none of that name"),
        ("1.54", "brand_new(a", "DALI has none of that name"),
        ("2.1.1", "custom_cpoy(a", "did you mean CustomCopy"),
        (None, "custom_cpoy(a", "did you mean CustomCopy"),
        ("2.2.0", "custom_cpoy(a", "did you mean CustomCopy"),
        (None, "brand_new(a", ""),
        ("1.52.0", "brand_new(a", ""),
        ("2.1.2", "brand_new(a", ""),
        ("nightly", "brand_new(a", ""),
    ],
)
def test_an_operator_is_missed_where_that_dali_s_own_are_known(
    tmp_path: Path, dali: str | None, call: str, says: str
) -> None:
    """Or where it looks like one of the project's."""
    files = {**GOOD, "m/1/dali.py": COPY.replace("custom_copy(a", call)}
    findings = found(tmp_path, files, replace(NVIDIA, dali=dali))
    assert [each.code for each in findings] == (["operator-unregistered"] if says else [])
    assert all(says in each.what for each in findings)
    assert all("DALI has none" not in each.what for each in findings) or dali in ("1.53.0", "1.54", "2.1.1")


@pytest.mark.parametrize(
    ("folder", "context", "expected"),
    [
        ("m", NVIDIA, []),
        ("my-model", NVIDIA, ["model-path-refused my-model/config.pbtxt:2:1"]),
        ("my-model", EMBEDDED, []),
    ],
)
def test_a_source_as_the_model_file_is_for_nvidia_s_backend(
    tmp_path: Path, folder: str, context: Context, expected: list[str]
) -> None:
    config = CONFIG.replace('name: "m"\n', "").replace("max_", 'default_model_filename: "p.py"\nmax_', 1)
    assert brief(found(tmp_path, {f"{folder}/config.pbtxt": config, f"{folder}/1/p.py": COPY}, context)) == expected


def test_an_output_that_is_split_has_a_dimension_less(tmp_path: Path) -> None:
    pipeline = COPY.replace("output_ndim=2", "output_ndim=[3, 2]")
    files = {"m/1/dali.py": pipeline, "m/config.pbtxt": CONFIG + parameter("split_along_outer_axis", "X")}
    assert brief(found(tmp_path, files)) == brief(found(tmp_path, files, EMBEDDED)) == []


# Ensembles.

ENSEMBLE = """platform: "ensemble"
max_batch_size: 8
input { name: "IN" data_type: TYPE_FP32 dims: [ -1, 3 ] }
input { name: "BYTES" data_type: TYPE_UINT8 dims: [ -1 ] }
output { name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] }
ensemble_scheduling {
  step [
    { model_name: "m" model_version: -1
      input_map { key: "A" value: "IN" }
      input_map { key: "B" value: "BYTES" }
      output_map { key: "X" value: "between" } },
    { model_name: "p" model_version: -1
      input_map { key: "P" value: "between" }
      output_map { key: "Q" value: "OUT" } }
  ]
}
"""
PYTHON = """backend: "python"
max_batch_size: 8
input { name: "P" data_type: TYPE_FP32 dims: [ -1, 3 ] }
input { name: "O" data_type: TYPE_FP32 dims: [ 1 ] optional: true }
output { name: "Q" data_type: TYPE_FP32 dims: [ 1 ] }
"""
TOGETHER: Files = {**GOOD, "e/config.pbtxt": ENSEMBLE, "e/1/.gitkeep": "", "p/config.pbtxt": PYTHON, "p/1/model.py": ""}

ENSEMBLE_MISTAKES = [
    ('"m"', '"n"', "ensemble-step-missing e/config.pbtxt:8:7"),
    ('"p" model_version: -1', '"p" model_version: 2', "ensemble-step-missing e/config.pbtxt:12:23"),
    ('key: "A"', 'key: "a"', "ensemble-tensor-unknown e/config.pbtxt:9:7", "ensemble-input-unmapped"),
    ('key: "Q"', 'key: "R"', "ensemble-tensor-unknown e/config.pbtxt:14:7"),
    (
        'key: "P" value: "between"',
        'key: "P" value: "betwen"',
        "ensemble-tensor-unknown e/config.pbtxt:13:7",
        "ensemble-tensor-unused",
    ),
    (
        'output { name: "OUT"',
        'output { name: "OUTPUT"',
        "ensemble-tensor-unknown e/config.pbtxt:5:10",
        "ensemble-tensor-unused",
    ),
    (
        '      input_map { key: "B" value: "BYTES" }\n',
        "",
        "ensemble-input-unmapped e/config.pbtxt:8:5",
        "ensemble-tensor-unused",
    ),
    (
        'key: "X" value: "between" }',
        'key: "X" value: "between" } output_map { key: "Y" value: "no" }',
        "ensemble-tensor-unused e/config.pbtxt:11:48",
    ),
    (
        'key: "Q" value: "OUT"',
        'key: "Q" value: "between"',
        "ensemble-tensor-repeated e/config.pbtxt:14:7",
        "ensemble-tensor-unknown",
        "ensemble-shape-mismatch",
    ),
    (
        'key: "B" value: "BYTES"',
        'key: "B" value: "OUT"',
        "ensemble-loop e/config.pbtxt:8:5",
        "ensemble-tensor-unused",
        "ensemble-dtype-mismatch",
    ),
    ("TYPE_UINT8", "TYPE_INT8", "ensemble-dtype-mismatch e/config.pbtxt:10:7"),
    ("dims: [ -1, 3 ]", "dims: [ -1, 4 ]", "ensemble-shape-mismatch e/config.pbtxt:9:7"),
    ("dims: [ 1 ]", "dims: [ 2 ]", "ensemble-shape-mismatch e/config.pbtxt:14:7"),
    ("size: 8", "size: 16", "ensemble-batch-size e/config.pbtxt:2:1"),
    ("size: 8\n", "size: 8\ninstance_group { count: 1 }\n", "ensemble-field-refused e/config.pbtxt:3:1"),
    (
        '"p" model_version: -1',
        '"e" model_version: -1',
        "ensemble-loop e/config.pbtxt:6:1",
        "ensemble-tensor-unknown",
        "ensemble-input-unmapped",
    ),
    ('      output_map { key: "Q" value: "OUT" } }', "}", "ensemble-incomplete e/config.pbtxt:12:5"),
    ('{ model_name: "p"', "{", "ensemble-incomplete e/config.pbtxt:12:5"),
    (ENSEMBLE[ENSEMBLE.index("  step") :], "}", "ensemble-incomplete e/config.pbtxt:6:1"),
]


def test_an_ensemble_that_is_right_is_left_alone(tmp_path: Path) -> None:
    assert brief(found(tmp_path, TOGETHER)) == []
    assert brief(found(tmp_path, TOGETHER, EMBEDDED)) == []


@pytest.mark.parametrize("mistake", ENSEMBLE_MISTAKES, ids=lambda mistake: mistake[2])
def test_a_mistake_in_an_ensemble_has_its_place(tmp_path: Path, mistake: tuple[str, ...]) -> None:
    old, new, expected, *also = mistake
    assert old in ENSEMBLE
    findings = found(tmp_path, {**TOGETHER, "e/config.pbtxt": ENSEMBLE.replace(old, new, 1)})
    assert expected in brief(findings)
    assert {each.code for each in findings} - set(also) == {expected.split(" ")[0]}


def test_a_model_without_batches_may_take_an_ensemble_s_batch_for_a_dimension(tmp_path: Path) -> None:
    python = PYTHON.replace("max_batch_size: 8", "max_batch_size: 0").replace("[ -1, 3 ]", "[ -1, -1, 3 ]")
    files = {**TOGETHER, "p/config.pbtxt": python.replace("TYPE_FP32 dims: [ 1 ] }", "TYPE_FP32 dims: [ -1, 1 ] }")}
    assert brief(found(tmp_path, files)) == []


def test_a_python_model_may_name_its_tensors_later(tmp_path: Path) -> None:
    files = {
        **TOGETHER,
        "p/config.pbtxt": 'backend: "python"\n',
        "p/1/model.py": "def auto_complete_config(config): ...",
    }
    assert brief(found(tmp_path, files)) == []


# All together.


def test_all_models_problems_come_at_once(tmp_path: Path) -> None:
    files = {
        "a/config.pbtxt": "x",
        "b/config.pbtxt": "inptu {}",
        "c/config.pbtxt": 'name: "d"',
        "m/config.pbtxt": CONFIG,
    }
    assert {each.model for each in found(tmp_path, files)} == {"a", "b", "c", "m"}


def test_findings_that_no_target_is_to_blame_for_are_the_same_for_all(tmp_path: Path) -> None:
    for number, (old, new, *_) in enumerate(CONFIG_MISTAKES):
        root = tmp_path / str(number)
        files = {**GOOD, "m/config.pbtxt": CONFIG.replace(old, new, 1)}
        ours, theirs = found(root, files, NVIDIA), found(root, files, replace(NVIDIA, target="other"))
        assert [each for each in ours if not each.target] == [each for each in theirs if not each.target]


def test_what_works_all_the_same_is_a_warning(tmp_path: Path) -> None:
    for old in ("size: 8", '"X"'):
        [finding] = found(
            tmp_path, {**GOOD, "m/config.pbtxt": CONFIG.replace(old, {"size: 8": "size: 9"}.get(old, '"O"'))}
        )
        assert finding.severity is Severity.WARNING


def test_a_model_without_batches_has_a_pipeline_for_one(tmp_path: Path) -> None:
    pipeline = COPY.replace("batch_size=8", "batch_size=1")
    files = {"m/config.pbtxt": CONFIG.replace("size: 8", "size: 0"), "m/1/dali.py": pipeline}
    assert found(tmp_path, files) == found(tmp_path, files, EMBEDDED) == []


@pytest.mark.parametrize(
    ("size", "context", "dims", "expected"),
    [
        ("0", NVIDIA, "[ -1, -1 ]", []),  # the samples in front, as NVIDIA's backend has it
        ("0", NVIDIA, "[ -1, -1, -1 ]", ["input-rank-mismatch m/config.pbtxt:6:45"]),
        ("0", EMBEDDED, "[ -1, -1 ]", ["input-rank-mismatch m/config.pbtxt:6:45"]),
        ("1", NVIDIA, "[ -1, -1 ]", ["input-rank-mismatch m/config.pbtxt:6:45"]),
    ],
)
def test_dims_may_count_the_samples_where_there_are_no_batches(
    tmp_path: Path, size: str, context: Context, dims: str, expected: list[str]
) -> None:
    config = CONFIG.replace("size: 8", f"size: {size}").replace("UINT8 dims: [ -1 ]", f"UINT8 dims: {dims}")
    files = {"m/config.pbtxt": config, "m/1/dali.py": COPY.replace("batch_size=8", "batch_size=1")}
    findings = found(tmp_path, files, context)
    assert brief(findings) == expected
    if size == "0" and dims == "[ -1, -1 ]":
        assert {each.target for each in findings} <= {"embedded"}


@pytest.mark.parametrize(
    ("old", "new", "code", "remedy"),
    [
        ("UINT8, ndim=1", "UINT8, ndim=0", "input-rank-mismatch", "ndim=1"),
        ("output_ndim=2", "output_ndim=[2, 0]", "output-rank-mismatch", "fn.expand_dims"),
        ("UINT8, ndim=1", "UINT8, ndim=2", "input-rank-mismatch", "give 2 numbers in dims"),
    ],
)
def test_a_sample_without_dimensions_gets_one_in_the_pipeline(
    tmp_path: Path, old: str, new: str, code: str, remedy: str
) -> None:
    [finding] = found(tmp_path, {**GOOD, "m/1/dali.py": COPY.replace(old, new)})
    assert finding.code == code
    assert remedy in finding.remedy
    assert "give 0" not in finding.remedy


def test_a_pipeline_of_a_newer_python_is_told_so(tmp_path: Path) -> None:
    [finding] = found(tmp_path, {**GOOD, "m/1/dali.py": COPY + "x = f'{'a'}' if\n"})
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert finding.what.startswith(f"dali.py is not Python {version}: ")
    assert "the Python that the base has" in finding.remedy


def test_fifty_models_take_a_moment(tmp_path: Path) -> None:
    files = {
        f"{name.replace('m/', f'm{number}/', 1)}": str(content).replace('name: "m"\n', "\n")
        for number in range(50)
        for name, content in GOOD.items()
    }
    repository = written(tmp_path, files)
    list(check_models(tmp_path, repository, NVIDIA))  # loads protobuf
    start = time.monotonic()
    assert list(check_models(tmp_path, repository, NVIDIA)) == []
    assert time.monotonic() - start < 2
