from __future__ import annotations

from typing import Any

import pytest

from builder import dali_proto
from builder.views import pipeline


@pytest.fixture
def made() -> Any:
    made = dali_proto._message_class()(num_threads=4, batch_size=256)
    source = made.op.add(name="ExternalSource", inst_name="IN")
    source.output.add(name="IN", device="cpu")
    operator = made.op.add(name="Resize", inst_name="__Resize_1")
    operator.input.add(name="IN", device="cpu")
    operator.output.add(name="OUT", device="cpu")
    operator.args.add(name="device", type="string", strings=["cpu"])
    operator.args.add(name="antialias", type="bool", bools=[False])
    operator.args.add(name="axes", type="int", ints=[0, 1], is_vector=True)
    operator.args.add(name="_origin_stack_lineno", ints=[12], is_vector=True)
    made.pipe_outputs.add(name="OUT", device="cpu", dtype=0, ndim=3)
    return made


def test_operators_are_told_in_their_order_with_what_they_were_given(made: Any) -> None:
    assert pipeline.lines(made.SerializeToString()) == [
        "batch_size = 256",
        "num_threads = 4",
        "IN = ExternalSource()",
        "OUT = Resize(IN, antialias=False, axes=[0, 1], device='cpu')",
        "return OUT (cpu TYPE_UINT8 3D)",
    ]


@pytest.mark.parametrize(
    ("field", "told"),
    [
        (b"\x1d\x00\x00\x60\x43", "224.0"),  # field 3, of 4 bytes
        (b"\x1a\x08\x00\x00\x60\x43\x00\x00\x80\x3f", "[224.0, 1.0]"),  # packed
        (b"\x1d\x00\x00\x60\x43\x1d\x00\x00\x80\x3f", "[224.0, 1.0]"),
    ],
)
def test_numbers_with_a_point_are_told_as_dali_writes_them(made: Any, field: bytes, told: str) -> None:
    argument = made.op[1].args.add(name="size")
    argument.MergeFromString(field)
    assert f"size={told}" in pipeline.lines(made.SerializeToString())[3]


def test_a_list_of_lists_is_told(made: Any) -> None:
    argument = made.op[1].args.add(name="shape", is_vector=True)
    argument.elements.add(ints=[1])
    argument.elements.add(ints=[2])
    assert "shape=[1, 2]" in pipeline.lines(made.SerializeToString())[3]


def test_anything_else_is_refused() -> None:
    with pytest.raises(ValueError, match="not a serialized DALI pipeline"):
        pipeline.lines(b"garbage")
