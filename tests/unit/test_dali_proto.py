from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder import dali_proto


@pytest.fixture
def pipeline() -> Any:
    made = dali_proto._message_class()(num_threads=1, batch_size=256)
    made.op.add(name="ExternalSource", inst_name="FIRST")
    made.op.add(name="CustomCopy", inst_name="__CustomCopy_1").input.add(name="FIRST", device="cpu")
    made.op.add(name="_ExternalSource", inst_name="SECOND")
    made.op.add(name="experimental__inputs__Video", inst_name="THIRD")
    made.pipe_outputs.add(name="__CustomCopy_1", device="cpu")
    return made


def test_a_pipeline_survives_the_wire(pipeline: Any) -> None:
    parsed = dali_proto.parse(pipeline.SerializeToString())
    assert (parsed.batch_size, [op.name for op in parsed.op]) == (256, [op.name for op in pipeline.op])
    assert parsed.pipe_outputs[0].name == "__CustomCopy_1"


def test_field_numbers_are_those_of_dali_s_own_messages() -> None:
    # batch_size 2, op 5 {name 1, inst_name 5}, pipe_outputs 7 {name 1}, written by hand
    data = b"\x10\x20" + b"\x2a\x0c" + b"\x0a\x06Custom" + b"\x2a\x02in" + b"\x3a\x05" + b"\x0a\x03out"
    parsed = dali_proto.parse(data)
    assert (parsed.batch_size, parsed.op[0].name, parsed.op[0].inst_name) == (32, "Custom", "in")
    assert parsed.pipe_outputs[0].name == "out"


def test_the_operators_that_a_request_feeds_are_found_in_order(pipeline: Any) -> None:
    assert [op.inst_name for op in dali_proto.external_sources(pipeline)] == ["FIRST", "SECOND", "THIRD"]


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x00" * 64, b"\x10\x20", b"\x2a\xff\xff"])
def test_anything_else_is_no_pipeline(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a serialized DALI pipeline"):
        dali_proto.parse(data)


def test_a_truncated_pipeline_is_none(pipeline: Any) -> None:
    with pytest.raises(ValueError, match="not a serialized DALI pipeline"):
        dali_proto.parse(pipeline.SerializeToString()[:-3])


PIPELINES = Path(__file__).parent / "data" / "pipelines"
DECLARED = (PIPELINES / "declared" / "model.dali").read_bytes()


def test_arguments_of_a_real_pipeline_are_read() -> None:
    wave, cast, image, _ = dali_proto.parse(DECLARED).op
    assert (dali_proto.argument(wave, "dtype"), dali_proto.argument(wave, "ndim")) == (9, 1)
    assert (dali_proto.argument(image, "layout"), dali_proto.argument(image, "device")) == ("HWC", "cpu")
    assert dali_proto.argument(cast, "_origin_stack_lineno") == [12]
    assert dali_proto.argument(cast, "no_such_argument") is None


@pytest.mark.parametrize(
    ("number", "name"), [(0, "TYPE_UINT8"), (9, "TYPE_FP32"), (11, "TYPE_BOOL"), (12, None), (-1, None)]
)
def test_types_have_triton_s_names(number: int, name: str | None) -> None:
    assert dali_proto.triton_type(number) == name


def test_an_argument_that_is_no_text_is_none(pipeline: Any) -> None:
    data = pipeline.SerializeToString() + b"\x2a\x10\x0a\x01X" + b"\x22\x0b\x0a\x06device\x2a\x01\xff"
    assert dali_proto.argument(dali_proto.parse(data).op[-1], "device") is None


def test_names_that_are_no_text_are_no_pipeline(pipeline: Any) -> None:
    with pytest.raises(ValueError, match="not a serialized DALI pipeline"):
        dali_proto.parse(pipeline.SerializeToString() + b"\x2a\x03\x0a\x01\xff")


@given(st.one_of(st.binary(max_size=200), st.tuples(st.integers(0, len(DECLARED) - 1), st.binary(max_size=4))))
def test_any_bytes_are_read_or_refused(data: bytes | tuple[int, bytes]) -> None:
    if isinstance(data, tuple):
        at, other = data
        data = DECLARED[:at] + other + DECLARED[at + len(other) :]
    try:
        parsed = dali_proto.parse(data)
    except ValueError:
        return
    for operator in parsed.op:
        for name in ("device", "dtype", "layout", "_origin_stack_lineno"):
            dali_proto.argument(operator, name)
