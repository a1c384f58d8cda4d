from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builder import pbtxt
from builder.checks.context import Context
from builder.checks.models import check_models
from builder.configure import complete
from builder.errors import BadUsage, ProjectError
from builder.findings import errors
from builder.pipeline_source import read
from builder.signature import Signature, Tensor, from_serialized

PIPELINES = Path(__file__).parent / "data" / "pipelines"
STRICT = Context("embedded", completes=False)


def signature(name: str = "declared") -> Signature:
    path = PIPELINES / name / "model.dali"
    return from_serialized(path.read_bytes(), path)


def config(folder: Path, text: str, pipeline: str = "declared") -> pbtxt.Config:
    """A model whose pipeline is one of the examples."""
    model = folder / "m"
    (model / "1").mkdir(parents=True, exist_ok=True)
    (model / "1" / "model.dali").write_bytes((PIPELINES / pipeline / "model.dali").read_bytes())
    (model / "config.pbtxt").write_text(text)
    return pbtxt.read(model / "config.pbtxt")


def check(folder: Path, text: str) -> pbtxt.Config:
    """The configuration in `text`, which must be right for a backend that fills nothing in."""
    read_again = config(folder, text)
    assert errors(check_models(folder, folder, STRICT)) == []
    return read_again


def test_a_config_is_written_from_the_pipeline_alone(tmp_path: Path) -> None:
    text = complete(signature(), None, "m")
    assert (
        text
        == """name: "m"
backend: "dali"
max_batch_size: 16
input [
  {
    name: "WAVE"
    data_type: TYPE_FP32
    dims: [ -1 ]
  },
  {
    name: "IMAGE"
    data_type: TYPE_UINT8
    dims: [ -1, -1, -1 ]
  }
]
output [
  {
    name: "LOUD"
    data_type: TYPE_FP32
    dims: [ -1 ]
  },
  {
    name: "OUTPUT_1"
    data_type: TYPE_UINT8
    dims: [ -1, -1, -1 ]
  }
]
"""
    )
    check(tmp_path, text)


def test_the_source_gives_the_same_as_what_is_made_of_it() -> None:
    source = read(PIPELINES / "declared" / "dali.py", PIPELINES, "m").signature
    assert source is not None
    assert complete(source, None, "m") == complete(signature(), None, "m")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# mine",
        'name: "m"  # mine',
        'backend: "dali"\nmax_batch_size: 16\n',
        'input { name: "IMAGE" }  # mine\n',
        'input [ { name: "WAVE" }, { name: "IMAGE" dims: [ -1, -1, 3 ] # mine\n } ]',
        'input [\n  {\n    name: "IMAGE"\n    # mine\n  }\n]\noutput [ { name: "A", data_type: TYPE_FP32 }, <> ]',
        'input < name: "WAVE"; data_type: TYPE_INVALID >\noutput: { name: "FIRST" dims: [ ] }',
        'output {\n  name: "FIRST"\n}\noutput {\n  name: "SECOND" }\n# mine\n',
    ],
)
def test_what_the_user_wrote_stays_and_what_is_missing_is_added(tmp_path: Path, text: str) -> None:
    text = text.replace("<>", '{ name: "SECOND" }')
    before = config(tmp_path, text)
    after = complete(signature(), before, "m")
    completed = check(tmp_path, after)
    assert ("# mine" in after) == ("# mine" in text)
    assert [each.name for each in completed.message.output][: len(before.message.output)] == [
        each.name for each in before.message.output
    ]
    assert {each.name for each in completed.message.input} == {"WAVE", "IMAGE"}
    assert [len(each.dims) for each in completed.message.output] == [1, 3]
    for given in before.message.input:
        kept = next(each for each in completed.message.input if each.name == given.name)
        assert list(kept.dims) == (list(given.dims) or list(kept.dims))
    # Nothing is left to add.
    assert complete(signature(), completed, "m") == after


def test_a_complete_config_stays_as_it_is(tmp_path: Path) -> None:
    text = complete(signature(), None, "m").replace("\n", "  \n").rstrip("\n")
    assert complete(signature(), config(tmp_path, text), "m") == text


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "copy",
            [
                "input 'DALI_INPUT_0': fn.external_source(dtype=..., ndim=...)",
                "output 'DALI_OUTPUT_0': @pipeline_def(output_dtype=[...], output_ndim=[...]), "
                "with one entry for each output",
            ],
        ),
        (
            "gpu",
            [
                f"output {who}: @pipeline_def(output_dtype=[...], output_ndim=[...]), with one entry for each output"
                for who in ("0", "'ENCODED'")
            ],
        ),
    ],
)
def test_what_the_pipeline_does_not_declare_is_named(name: str, lines: list[str]) -> None:
    with pytest.raises(ProjectError) as failure:
        complete(signature(name), None, "m")
    assert failure.value.code == "signature-unknown"
    assert failure.value.exit_code == 2
    assert list(failure.value.detail) == lines


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"batch_size": None}, "batch size: @pipeline_def(batch_size=...)"),
        ({"complete": False}, "inputs: not all are known"),
        ({"outputs": None}, "outputs: their number is not known"),
        ({"inputs": (Tensor(None, "TYPE_UINT8", 1),)}, "input 0: fn.external_source(name=...)"),
        ({"inputs": (Tensor("A", "TYPE_UINT8", 0),)}, "input 'A': it has no dimension"),
        ({"outputs": (Tensor("A", "TYPE_UINT8", 0),)}, "output 'A': it has no dimension"),
    ],
)
def test_each_gap_has_its_line(changed: dict[str, object], line: str) -> None:
    with pytest.raises(ProjectError) as failure:
        complete(replace(signature(), **changed), None, "m")
    [detail] = failure.value.detail
    assert detail.startswith(line)


@pytest.mark.parametrize("text", ['backend: "dali"\nplatform: "dali"\n', 'platform: "x"\nbackend: "dali"\n'])
def test_a_model_is_one_of_dali_s_where_check_takes_it_for_one(tmp_path: Path, text: str) -> None:
    assert complete(signature(), config(tmp_path, text), "m").startswith(text)


def test_a_platform_alone_is_none_of_dali_s(tmp_path: Path) -> None:
    with pytest.raises(BadUsage, match="not one of DALI's"):
        complete(signature(), config(tmp_path, 'platform: "dali"'), "m")


@pytest.mark.parametrize("name", ['Y"q', "a\\b", "a\nb", "größe"])
def test_names_are_escaped(tmp_path: Path, name: str) -> None:
    odd = replace(signature(), inputs=(Tensor(name, "TYPE_UINT8", 1),), outputs=(Tensor(name + "2", "TYPE_UINT8", 1),))
    written = config(tmp_path, complete(odd, None, 'm"'))
    assert written.message.name == 'm"'
    assert [each.name for each in written.message.input] == [name]
    assert [each.name for each in written.message.output] == [name + "2"]
    assert "\\303" not in written.text


def test_what_config_pbtxt_says_need_not_be_declared(tmp_path: Path) -> None:
    text = (
        'backend: "dali"\ninput { name: "DALI_INPUT_0" data_type: TYPE_UINT8 dims: -1 }\n'
        'output { name: "OUT" data_type: TYPE_UINT8 dims: -1 }\n'
    )
    assert complete(signature("copy"), config(tmp_path, text, "copy"), "m") == text + "max_batch_size: 256\n"


def test_an_input_that_the_pipeline_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as failure:
        complete(signature(), config(tmp_path, 'input { name: "WAVES" }'), "m")
    assert failure.value.detail == ("input 'WAVES': not an external_source of the pipeline; did you mean WAVE?",)


@pytest.mark.parametrize("text", ['backend: "python"', 'platform: "ensemble"'])
def test_only_models_of_dali_s_are_completed(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadUsage, match="not one of DALI's"):
        complete(signature(), config(tmp_path, text), "m")
