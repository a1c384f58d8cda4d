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
    on_gpu: str | None = None  # what needs a GPU first: an operator, or an output; None: nothing does
    back_to_host: bool = False  # something on the host takes what the GPU made

    @classmethod
    def parse(cls, data: bytes) -> Graph:
        """Raises BackendError if `data` is no serialized pipeline."""
        try:
            pipeline = dali_proto.parse(data)
        except ValueError as error:
            raise BackendError(f"Failed to load model file: it is {error}") from None
        inputs = tuple(_input(operator) for operator in dali_proto.external_sources(pipeline))
        outputs = tuple(_edge(output.name, output.dtype, output.ndim) for output in pipeline.pipe_outputs)
        return cls(pipeline.batch_size, inputs, outputs, data, _on_gpu(pipeline), _back_to_host(pipeline))

    def split(self, names: Collection[str]) -> Graph:
        """As it looks from outside where the outer dimension of these outputs goes to the batch."""
        outputs = tuple(
            replace(edge, ndim=edge.ndim - 1) if edge.name in names and edge.ndim else edge for edge in self.outputs
        )
        return replace(self, outputs=outputs)

    def without_copies(self) -> bytes:
        """The pipeline, with sources that use the memory that they are fed with, where they have no other will.

        Those on the GPU have to copy: what they are fed with is in host memory.
        """
        pipeline = dali_proto.parse(self.serialized)
        for operator in dali_proto.external_sources(pipeline):
            arguments = {argument.name for argument in operator.args}
            on_host = dali_proto.argument(operator, "device") == "cpu"
            if operator.name.endswith("ExternalSource") and on_host and "no_copy" not in arguments:
                operator.args.add(name="no_copy", type="bool", bools=[True], is_vector=False)
        data: bytes = pipeline.SerializeToString()
        return data


def _on_gpu(pipeline: Any) -> str | None:
    for operator in pipeline.op:
        if dali_proto.argument(operator, "device") in ("gpu", "mixed"):
            return f"operator {operator.name}"
    edges = (*pipeline.pipe_outputs, *(edge for operator in pipeline.op for edge in operator.input))
    return next((f"tensor {edge.name}" for edge in edges if edge.device == "gpu"), None)


def _back_to_host(pipeline: Any) -> bool:
    made = {edge.name for operator in pipeline.op for edge in operator.output if edge.device == "gpu"}
    on_host = [operator for operator in pipeline.op if dali_proto.argument(operator, "device") == "cpu"]
    taken = [edge for operator in on_host for edge in operator.input]  # .shape() takes what is on the GPU as it is
    edges = (*pipeline.pipe_outputs, *(edge for operator in pipeline.op for edge in operator.input))
    return any(edge.device == "cpu" and edge.name in made for edge in edges) or any(
        edge.device == "gpu" for edge in taken
    )


def _input(operator: Any) -> Edge:
    declared = {argument.name: argument.ints[0] for argument in operator.args if len(argument.ints) == 1}
    return _edge(operator.inst_name, declared.get("dtype", -1), declared.get("ndim", -1))


def _edge(name: str, dtype: int, ndim: int) -> Edge:
    return Edge(name, dali_proto.triton_type(dtype), ndim if ndim >= 0 else None)
