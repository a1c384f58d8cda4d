"""Requests to one DALI batch, and DALI's outputs back to requests, with as few copies as can be.

An *extent* is the samples `begin` to `end` (not included) of the batch that belong to one request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import ExecutionError

Array: TypeAlias = npt.NDArray[Any]
Extent: TypeAlias = tuple[int, int]
Batch: TypeAlias = Array | list[Array]  # one array (samples, ...), or one array for each sample

# Small arrays of several requests are copied into one: quicker than to hand over each sample by itself.
_JOIN_BYTES = 256 << 10


class OutputBatch(Protocol):
    """One output of one execution, in host memory that is valid until the next one."""

    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of each sample."""

    def dense(self) -> Array | None:
        """All samples as one array (samples, ...) without a copy; None if their shapes differ."""

    def sample(self, index: int) -> Array:
        """One sample, without a copy."""


def checked(inputs: dict[str, Array], batched: bool) -> dict[str, Array]:
    """The inputs of one request, if they make a batch.

    Raises:
        ExecutionError: no sample at all, or not as many in each input.
    """
    if not batched or not inputs:
        return inputs
    sizes = {name: array.shape[0] for name, array in inputs.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"'{name}' {size}" for name, size in sizes.items())
        raise ExecutionError(f"the inputs of a request must have one batch size, got: {listed}")
    name, size = next(iter(sizes.items()))
    if size == 0:
        raise ExecutionError(f"input '{name}' has shape {list(inputs[name].shape)}: a batch needs at least one sample")
    return inputs


def join(requests: Sequence[Mapping[str, Array]], batched: bool) -> tuple[list[Extent], dict[str, Batch]]:
    """The extents of the requests, and for each input the samples of all requests in order.

    `requests` are what `checked` gave, at least one, with the same names in each.
    """
    extents: list[Extent] = []
    begin = 0
    for request in requests:
        size = next(iter(request.values())).shape[0] if batched and request else 1
        extents.append((begin, begin + size))
        begin += size
    return extents, {name: _join([request[name] for request in requests], batched) for name in requests[0]}


def _join(arrays: list[Array], batched: bool) -> Batch:
    if not batched:
        arrays = [array[np.newaxis] for array in arrays]
    if len(arrays) == 1:
        return arrays[0]
    alike = all(array.shape[1:] == arrays[0].shape[1:] for array in arrays)
    if alike and sum(array.nbytes for array in arrays) <= _JOIN_BYTES:
        return np.concatenate(arrays)
    return [array[index] for array in arrays for index in range(array.shape[0])]


def split(name: str, output: OutputBatch, extents: Sequence[Extent], batched: bool) -> list[Array]:
    """One array (samples, ...) for each extent; without `batched`, the one sample itself.

    Raises:
        ExecutionError: there are not as many samples as were put in, or those of one request differ in shape.
    """
    dense = output.dense()
    shapes = [tuple(dense.shape[1:])] * dense.shape[0] if dense is not None else output.shapes()
    if len(shapes) != extents[-1][1]:
        raise ExecutionError(f"output '{name}' has {len(shapes)} samples for {extents[-1][1]} in the inputs")
    if dense is not None:
        arrays = [dense[begin:end] for begin, end in extents]
    else:
        arrays = [_stack(name, output, shapes, extent) for extent in extents]
    return arrays if batched else [array[0] for array in arrays]


def _stack(name: str, output: OutputBatch, shapes: list[tuple[int, ...]], extent: Extent) -> Array:
    begin, end = extent
    different = next((shape for shape in shapes[begin + 1 : end] if shape != shapes[begin]), None)
    if different is not None:
        raise ExecutionError(
            f"output '{name}' has samples of different shapes in one request ({list(shapes[begin])}, "
            f"{list(different)}): a response can hold one shape only. Send them in requests of their own, or pad them"
        )
    if end - begin == 1:
        return output.sample(begin)[np.newaxis]
    return np.stack([output.sample(index) for index in range(begin, end)])
