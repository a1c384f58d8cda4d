from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder import pbtxt
from builder.errors import CheckFailed
from builder.findings import Place

GOOD = 'name: "mydali"\nbackend: "dali"\ninput [ { name: "IN" data_type: TYPE_UINT8 dims: [ -1 ] } ]\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "mydali" / "config.pbtxt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def read(folder: Path, text: str) -> pbtxt.Config:
    return pbtxt.read(write(folder, text), folder)


def test_a_config_is_read_as_triton_reads_it(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD)
    message = config.message
    assert (message.name, message.input[0].name, list(message.input[0].dims)) == ("mydali", "IN", [-1])
    assert config.is_dali


@pytest.mark.parametrize(
    ("text", "line", "column", "what"),
    [
        (GOOD + "  inptu []\n", 4, 3, 'no field named "inptu"; did you mean input?'),
        (GOOD.replace("dims", "dim"), 3, 44, 'no field named "dim"; did you mean dims?'),
        (GOOD.replace("TYPE_UINT8", "UINT8"), 3, 33, "no value named UINT8; did you mean TYPE_UINT8?"),
        (GOOD.replace("TYPE_UINT8", "uint8"), 3, 33, "did you mean TYPE_UINT8?"),
        (GOOD.replace("TYPE_UINT8", "TYPE_UNIT8"), 3, 33, "did you mean TYPE_UINT8?"),
        (GOOD + "max_batch_size = 4\n", 4, 16, 'Expected ":"'),
        (GOOD + 'max_batch_size: "4"\n', 4, 17, "Couldn't parse integer"),
        (GOOD + 'name: "again"\n', 4, 7, 'multiple "name" fields'),
        (GOOD + "output [\n", 5, 1, 'Expected "{"'),
        (GOOD + 'parameters { key: "\\xff" }', 4, 26, "Couldn't parse string"),
    ],
)
def test_a_mistake_has_its_line_and_column(tmp_path: Path, text: str, line: int, column: int, what: str) -> None:
    with pytest.raises(CheckFailed) as failure:
        read(tmp_path, text)
    [finding] = failure.value.findings
    assert (finding.code, finding.model) == ("config-invalid", "mydali")
    assert finding.place == Place("mydali/config.pbtxt", line, column)
    assert what in finding.what
    assert text.splitlines()[0] not in finding.what  # the line itself is not repeated


@pytest.mark.parametrize("content", [b"\xff\xfe", b'name: "\xff"'])
def test_a_config_that_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, "")
    path.write_bytes(content)
    with pytest.raises(CheckFailed, match="cannot be read"):
        pbtxt.read(path, tmp_path)


def test_every_field_has_its_place(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        """# a comment
name: "m",  backend: 'da' "li"
input [
  { name: "A" dims: [ 1,
      -1 ] dims: 3 },
  < name: "B"; >
]
input { name: "C" }
parameters: [ { value { string_value: "x" } key: "num_threads" }, { key: "plugin_libs" } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] }
ensemble_scheduling { step [ { model_name: "s" input_map { key: "K" value: "V" } } ] }
""".replace("dynamic_batching { preferred_batch_size: [ 4, 8 ] }\n", "\n"),
    )
    places = {
        ("name",): (2, 1),
        ("backend",): (2, 13),
        ("input", 0): (4, 3),
        ("input", 0, "dims", 1): (5, 7),
        ("input", 0, "dims", 2): (5, 12),
        ("input", 1): (6, 3),
        ("input", 1, "name"): (6, 5),
        ("input", 2): (8, 1),
        ("parameters", "num_threads", "value", "string_value"): (9, 25),
        ("parameters", "plugin_libs"): (9, 67),
        ("ensemble_scheduling", "step", 0, "input_map", "K"): (11, 48),
    }
    assert {steps: (span.line, span.column) for steps, span in config.spans.items() if steps in places} == places
    assert (config.spans["input", 0].end_line, config.spans["input", 0].end_column) == (5, 20)
    assert config.backend == "dali"


def test_what_is_missing_has_the_place_of_what_it_would_be_part_of(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD)
    assert config.place(tmp_path, "input", 0, "label_filename") == Place("mydali/config.pbtxt", 3, 9)
    assert config.place(tmp_path, "output", 0) == Place("mydali/config.pbtxt")
    assert (config.has("input", 0, "dims", 0), config.has("output")) == (True, False)


@pytest.mark.parametrize(
    ("value", "libraries"),
    [
        ("/models/a.so", ("/models/a.so",)),
        ("/models/b.so:/models/a.so", ("/models/b.so", "/models/a.so")),
        (":/models/a.so::", ("/models/a.so",)),
        ("/a.so;/b.so", ("/a.so;/b.so",)),
        ("", ()),
    ],
)
def test_plugin_libs_is_split_at_colons(tmp_path: Path, value: str, libraries: tuple[str, ...]) -> None:
    parameter = f'parameters [ {{ key: "plugin_libs" value: {{ string_value: "{value}" }} }} ]'
    assert read(tmp_path, GOOD + parameter).libraries == libraries


def test_a_model_without_the_parameter_names_no_plugin(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD).libraries is None


_WORDS = st.sampled_from(
    ["name", "input", "dims", "parameters", "key", "value", "string_value", "version_policy", "latest", "optimization",
     "ensemble_scheduling", "step", "input_map", "data_type", "TYPE_UINT8", ":", "{", "}", "<", ">", "[", "]", ",", ";",
     '"x"', "'y'", '"', "-1", "0", "1e9", "9" * 30, "#", "\n", " ", "\x0c", "true", "inf", "\\", "é", "\x00"]
)  # fmt: skip


@given(st.one_of(st.lists(_WORDS).map("".join), st.lists(_WORDS).map(" ".join), st.text()))
def test_any_text_is_read_or_refused(text: str) -> None:
    check_any_text(text)


def check_any_text(text: str) -> None:
    """A config or a finding, and nothing else; each field that is there has a place within the text."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.pbtxt"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            config = pbtxt.read(path)
        except CheckFailed:
            return
    lines = config.text.split("\n")
    for span in config.spans.values():
        assert 1 <= span.column <= len(lines[span.line - 1]) + 1
    for field, value in config.message.ListFields():
        count = len(value) if field.is_repeated else 1
        assert len({steps[:2] for steps in config.spans if steps[0] == field.name}) >= min(count, 1)


def test_triton_s_message_types_come_without_its_clients() -> None:
    script = """
import sys
from builder.pbtxt import message_types
first = message_types()
assert not {"grpc", "numpy", "tritonclient"} & set(sys.modules)
import tritonclient.grpc
import tritonclient.grpc.model_config_pb2 as by_its_whole_name
assert by_its_whole_name is tritonclient.grpc.model_config_pb2 is first is message_types()
assert tritonclient.grpc.service_pb2.ModelConfigResponse(config=first.ModelConfig(name="m")).config.name == "m"
"""
    subprocess.run([sys.executable, "-c", script], check=True)
