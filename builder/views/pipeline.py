"""A serialized DALI pipeline as text, one operator a line, so that two of them can be held against each other."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from builder import dali_proto

_FLOATS = 3
"""The number of Argument's field `floats` in DALI's dali.proto, which `dali_proto` leaves out."""
_OF_DALI = "_"
"""What the arguments begin with that DALI adds: where in dali.py an operator was made, and by which function."""


def lines(data: bytes) -> list[str]:
    """Its operators in their order, with the arguments that dali.py, or its defaults, gave them.

    Raises:
        ValueError: `data` is no serialized pipeline.
    """
    pipeline = dali_proto.parse(data)
    head = [f"{name} = {getattr(pipeline, name)}" for name in ("batch_size", "num_threads") if pipeline.HasField(name)]
    return [*head, *map(_operator, pipeline.op), "return " + ", ".join(map(_output, pipeline.pipe_outputs))]


def _operator(operator: Any) -> str:
    given = ", ".join(
        [
            *(each.name for each in operator.input),
            *sorted(f"{each.name}={_value(each)}" for each in operator.args if not each.name.startswith(_OF_DALI)),
        ]
    )
    return f"{', '.join(each.name for each in operator.output)} = {operator.name}({given})"


def _output(output: Any) -> str:
    """With what was declared of it."""
    told = [output.device, dali_proto.triton_type(output.dtype) or "", f"{output.ndim}D" if output.ndim >= 0 else ""]
    return f"{output.name} ({' '.join(each for each in told if each)})"


def _value(argument: Any) -> str:
    values = [
        *map(str, argument.ints),
        *map(repr, argument.strings),
        *map(str, argument.bools),
        *map(str, _floats(argument)),
        *map(_value, argument.elements),
    ]
    return f"[{', '.join(values)}]" if argument.is_vector or len(values) != 1 else values[0]


def _floats(argument: Any) -> Iterator[float]:
    """Of single precision, written one by one or packed."""
    from google.protobuf import unknown_fields

    fields: Any = unknown_fields.UnknownFieldSet(argument)  # whose stubs know no iteration
    for each in fields:
        if each.field_number == _FLOATS:
            packed = each.data if isinstance(each.data, bytes) else struct.pack("<I", each.data)
            yield from (round(value, 7) for (value,) in struct.iter_unpack("<f", packed))
