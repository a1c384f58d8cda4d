"""Inputs and outputs of a serialized pipeline: DALI's Python has no call for them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import dali_proto

from .errors import BackendError


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
    serialized: bytes = field(default=b"", compare=False, repr=False)

    @classmethod
    def parse(cls, data: bytes) -> Graph:
        """Raises BackendError if `data` is no serialized pipeline."""
        try:
            pipeline = dali_proto.parse(data)
        except ValueError as error:
            raise BackendError(f"Failed to load model file: it is {error}") from None
        inputs = tuple(_input(operator) for operator in dali_proto.external_sources(pipeline))
        outputs = tuple(_edge(output.name, output.dtype, output.ndim) for output in pipeline.pipe_outputs)
        return cls(pipeline.batch_size, inputs, outputs, data)

    def split(self, names: Collection[str]) -> Graph:
        """As it looks from outside where the outer dimension of these outputs goes to the batch."""
        outputs = tuple(
            replace(edge, ndim=edge.ndim - 1) if edge.name in names and edge.ndim else edge for edge in self.outputs
        )
        return replace(self, outputs=outputs)

    def without_copies(self) -> bytes:
        """The pipeline, with sources that use the memory that they are fed with, where they have no other will."""
        pipeline = dali_proto.parse(self.serialized)
        for operator in dali_proto.external_sources(pipeline):
            arguments = {argument.name for argument in operator.args}
            if operator.name.endswith("ExternalSource") and "no_copy" not in arguments:
                operator.args.add(name="no_copy", type="bool", bools=[True], is_vector=False)
        data: bytes = pipeline.SerializeToString()
        return data


def _input(operator: Any) -> Edge:
    declared = {argument.name: argument.ints[0] for argument in operator.args if len(argument.ints) == 1}
    return _edge(operator.inst_name, declared.get("dtype", -1), declared.get("ndim", -1))


def _edge(name: str, dtype: int, ndim: int) -> Edge:
    return Edge(name, dali_proto.triton_type(dtype), ndim if ndim >= 0 else None)
