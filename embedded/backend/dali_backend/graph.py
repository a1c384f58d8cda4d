"""Inputs and outputs of a serialized pipeline: DALI's Python has no call for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dali_proto

from .errors import BackendError

# DALIDataType, in the order of its numbers.
_TRITON_TYPES = (
    "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8", "TYPE_INT16", "TYPE_INT32", "TYPE_INT64",
    "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_BOOL",
)  # fmt: skip


@dataclass(frozen=True)
class Edge:
    """An input or output of the pipeline; None: not declared."""

    name: str
    data_type: str | None  # Triton's name
    ndim: int | None  # of one sample


@dataclass(frozen=True)
class Graph:
    batch_size: int
    inputs: tuple[Edge, ...]  # what can be fed by name
    outputs: tuple[Edge, ...]

    @classmethod
    def parse(cls, data: bytes) -> Graph:
        """Raises BackendError if `data` is no serialized pipeline."""
        try:
            pipeline = dali_proto.parse(data)
        except ValueError as error:
            raise BackendError(f"Failed to load model file: it is {error}") from None
        inputs = tuple(_input(operator) for operator in dali_proto.external_sources(pipeline))
        outputs = tuple(_edge(output.name, output.dtype, output.ndim) for output in pipeline.pipe_outputs)
        return cls(pipeline.batch_size, inputs, outputs)


def _input(operator: Any) -> Edge:
    declared = {argument.name: argument.ints[0] for argument in operator.args if len(argument.ints) == 1}
    return _edge(operator.inst_name, declared.get("dtype", -1), declared.get("ndim", -1))


def _edge(name: str, dtype: int, ndim: int) -> Edge:
    return Edge(name, _TRITON_TYPES[dtype] if 0 <= dtype < len(_TRITON_TYPES) else None, ndim if ndim >= 0 else None)
