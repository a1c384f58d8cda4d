from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder import dali_operators, pipeline_source
from builder.signature import OperatorUse, Signature, Tensor, from_serialized

PIPELINES = Path(__file__).parent / "data" / "pipelines"
DECLARED = (PIPELINES / "declared" / "model.dali").read_bytes()


def serialized(name: str) -> Signature:
    path = PIPELINES / name / "model.dali"
    return from_serialized(path.read_bytes(), path)


def test_a_serialized_pipeline_tells_what_it_declares() -> None:
    signature = serialized("declared")
    assert signature.inputs == (
        Tensor("WAVE", "TYPE_FP32", 1, None, 10),
        Tensor("IMAGE", "TYPE_UINT8", 3, "HWC", 11),
    )
    assert signature.outputs == (Tensor("LOUD", "TYPE_FP32", 1), Tensor(None, "TYPE_UINT8", 3))
    assert (signature.batch_size, signature.num_threads, signature.complete) == (16, 3, True)
    assert signature.operators == (OperatorUse("Cast", "cpu", 12), OperatorUse("Flip", "cpu", 12))
    assert signature.gpu_line is None


def test_a_serialized_pipeline_tells_what_needs_a_gpu() -> None:
    signature = serialized("gpu")
    assert [(str(use), use.device) for use in signature.operators] == [("decoders__Image", "mixed"), ("Flip", "gpu")]
    assert signature.gpu_line == 11
    assert signature.inputs == (Tensor("ENCODED", "TYPE_UINT8", 1, None, 10),)


@pytest.mark.parametrize("name", ["copy", "declared", "gpu"])
def test_the_source_tells_what_the_serialized_pipeline_tells(name: str) -> None:
    """As far as it tells: devices follow the inputs, and an output's own name may be an input's."""
    model = serialized(name)
    source = pipeline_source.read(PIPELINES / name / "dali.py", PIPELINES, name).signature
    assert source is not None
    assert (source.inputs, source.batch_size, source.num_threads) == (model.inputs, model.batch_size, model.num_threads)
    assert source.complete
    assert [(use.key, use.line) for use in source.operators] == [(use.key, use.line) for use in model.operators]
    assert source.outputs is not None
    assert model.outputs is not None
    for ours, theirs in zip(source.outputs, model.outputs, strict=True):
        assert ours in (theirs, replace(theirs, name=None))
    assert (source.gpu_line is None) == (model.gpu_line is None)


@pytest.mark.parametrize(
    ("schema", "function"),
    [
        ("CustomCopy", "custom_copy"),
        ("readers__VideoResize", "readers.video_resize"),
        ("MXNetReader", "mxnet_reader"),
        ("BBoxPaste", "bbox_paste"),
        ("MyROICrop", "my_roi_crop"),
    ],
)
def test_a_schema_and_its_function_have_one_key(schema: str, function: str) -> None:
    assert OperatorUse(schema).key == OperatorUse(function).key


def test_dali_s_own_operators_are_known() -> None:
    for name in (
        "Cast",
        "decoders.image",
        "experimental__readers__Video",
        "ExternalSource",
        "_TensorSubscript",
    ):
        assert dali_operators.is_builtin(name), name
    assert not dali_operators.is_builtin("CustomCopy")


@pytest.mark.parametrize(
    ("name", "shown"), [("custom_copy", "CustomCopy"), ("readers.mine", "readers__Mine"), ("X", "X")]
)
def test_an_operator_is_shown_as_its_schema_is_named(name: str, shown: str) -> None:
    assert str(OperatorUse(name)) == shown


@given(st.integers(0, len(DECLARED) - 1), st.binary(max_size=6))
def test_a_broken_pipeline_is_read_or_refused(at: int, other: bytes) -> None:
    data = DECLARED[:at] + other + DECLARED[at + len(other) :]
    with suppress(ValueError):
        from_serialized(data, Path("model.dali"))
