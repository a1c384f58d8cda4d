from __future__ import annotations

from typing import Any

import pytest

from builder import dali_proto


@pytest.fixture
def pipeline() -> Any:
    made = dali_proto._message_class()(num_threads=1, batch_size=256)
    made.op.add(name="ExternalSource", inst_name="FIRST")
    made.op.add(name="CustomCopy", inst_name="__CustomCopy_1").input.add(name="FIRST", device="cpu")
    made.op.add(name="_ExternalSource", inst_name="SECOND")
    made.op.add(name="inputs__Video", inst_name="THIRD")
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
