"""The messages of a serialized DALI pipeline that say what goes in and comes out.

DALI publishes their numbers in dali/pipeline/dali.proto (https://github.com/NVIDIA/DALI) and has kept them since 1.0.
Its Python package has no call that gives the inputs of a serialized pipeline. Fields that are not named are skipped.

The embedded backend has this file too, so it imports nothing of the builder.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

_PACKAGE = "triton_dali_builder"
_Field = descriptor_pb2.FieldDescriptorProto
_STRING, _INT64, _INT32, _BOOL = _Field.TYPE_STRING, _Field.TYPE_INT64, _Field.TYPE_INT32, _Field.TYPE_BOOL
# message: {field: (number, type or the name of a message, repeated)}
_MESSAGES: dict[str, dict[str, tuple[int, Any, bool]]] = {
    "Argument": {
        "name": (1, _STRING, False),
        "type": (2, _STRING, False),
        "ints": (4, _INT64, True),
        "strings": (5, _STRING, True),
        "bools": (6, _BOOL, True),
        "elements": (7, "Argument", True),  # of a list
        "is_vector": (8, _BOOL, False),
    },
    "InputOutput": {
        "name": (1, _STRING, False),
        "device": (2, _STRING, False),
        "dtype": (5, _INT32, False),
        "ndim": (6, _INT32, False),
    },
    "OpDef": {
        "name": (1, _STRING, False),
        "input": (2, "InputOutput", True),
        "output": (3, "InputOutput", True),
        "args": (4, "Argument", True),
        "inst_name": (5, _STRING, False),
    },
    "PipelineDef": {
        "num_threads": (1, _INT32, False),
        "batch_size": (2, _INT32, False),
        "op": (5, "OpDef", True),
        "pipe_outputs": (7, "InputOutput", True),
    },
}
_SOURCES = ("ExternalSource", "_ExternalSource")
# DALIDataType, in the order of its numbers, in Triton's words.
_TYPES = (
    "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8", "TYPE_INT16", "TYPE_INT32", "TYPE_INT64",
    "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_BOOL",
)  # fmt: skip


def _message_class() -> Any:
    described = descriptor_pb2.FileDescriptorProto(
        name="triton_dali_builder/dali.proto", package=_PACKAGE, syntax="proto2"
    )
    for name, fields in _MESSAGES.items():
        added = described.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            one = added.field.add(
                name=field, number=number, label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            )
            if isinstance(kind, str):
                one.type, one.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                one.type = kind
            if name == "InputOutput" and kind == _INT32:
                one.default_value = "-1"  # not declared
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.PipelineDef"))


def parse(data: bytes) -> Any:
    """The PipelineDef in `data`.

    Raises:
        ValueError: it is no serialized pipeline.
    """
    try:
        pipeline = _message_class().FromString(data)
        # Names of garbage are no text: bytes to one implementation of protobuf, an exception to another.
        names = [each.name for each in (*pipeline.op, *pipeline.pipe_outputs)]
        if not all(isinstance(name, str) for name in (*names, *(operator.inst_name for operator in pipeline.op))):
            raise ValueError("not a serialized DALI pipeline (a name in it is no text)")
    except (message.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a serialized DALI pipeline ({error})") from None
    if not pipeline.pipe_outputs:
        raise ValueError("not a serialized DALI pipeline (it has no output)")
    return pipeline


def external_sources(pipeline: Any) -> list[Any]:
    """The operators of a PipelineDef that a request feeds by name."""
    return [op for op in pipeline.op if op.name in _SOURCES or "inputs" in op.name.split("__")[:-1]]


def argument(operator: Any, name: str) -> Any:
    """The value of an OpDef's argument: a number, a string, a list of them, or None where it has none."""
    for each in operator.args:
        if each.name == name:
            elements = [value for element in each.elements for value in _values(element)]
            return elements if each.elements else next(iter(_values(each)), None)
    return None


def _values(each: Any) -> list[Any]:
    try:
        return [*each.ints, *(value for value in each.strings if isinstance(value, str))]
    except UnicodeDecodeError:  # a file name that is no text
        return []


def triton_type(number: int | None) -> str | None:
    """Triton's name of a DALIDataType; None for a type that it lacks, or that is not declared."""
    return _TYPES[number] if number is not None and 0 <= number < len(_TYPES) else None
