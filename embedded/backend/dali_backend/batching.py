"""Requests to one DALI batch, and DALI's outputs back to requests, with as few copies as can be.

An *extent* is the samples `begin` to `end` (not included) of the batch that belong to one request.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
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


def samples(names: Sequence[str], arrays: Sequence[Array], batched: bool) -> int:
    """How many samples a request has.

    Raises:
        ExecutionError: none at all, or not as many in each input.
    """
    if not batched or not arrays:
        return 1
    size = arrays[0].shape[0]
    for array in arrays:
        if array.shape[0] != size:
            listed = ", ".join(f"'{name}' {each.shape[0]}" for name, each in zip(names, arrays, strict=True))
            raise ExecutionError(f"the inputs of a request must have one batch size, got: {listed}")
    if size == 0:
        shape = list(arrays[0].shape)
        raise ExecutionError(f"input '{names[0]}' has shape {shape}: a batch needs at least one sample")
    return int(size)


def extents(sizes: Sequence[int]) -> list[Extent]:
    """Those of requests of these sizes, one after the other."""
    return list(pairwise(accumulate(sizes, initial=0)))


def join(requests: Sequence[Sequence[Array]], batched: bool) -> list[Batch]:
    """For each input the samples of all requests, in order; there is at least one, with as many arrays in each."""
    if len(requests) == 1 and batched:
        return list(requests[0])
    return [_join(list(arrays), batched) for arrays in zip(*requests, strict=True)]


def _join(arrays: list[Array], batched: bool) -> Batch:
    if not batched:
        arrays = [array[np.newaxis] for array in arrays]
    if len(arrays) == 1:
        return arrays[0]
    shape = arrays[0].shape[1:]
    if all(array.shape[1:] == shape for array in arrays) and sum(array.nbytes for array in arrays) <= _JOIN_BYTES:
        return np.concatenate(arrays)
    return [array[index] for array in arrays for index in range(array.shape[0])]


def split(name: str, output: OutputBatch, extents: Sequence[Extent], batched: bool, outer: bool = False) -> list[Array]:
    """One array (samples, ...) for each extent; without `batched`, the one sample itself.

    Args:
        outer: each sample is a number of samples itself: they are put one after the other along their outer axis.

    Raises:
        ExecutionError: there are not as many samples as were put in, or those of one request differ in shape.
    """
    dense = output.dense()
    if dense is not None:
        count = dense.shape[0]
    else:
        shapes = output.shapes()
        count = len(shapes)
    if count != extents[-1][1]:
        raise ExecutionError(f"output '{name}' has {count} samples for {extents[-1][1]} in the inputs")
    if outer:
        return [_outer(name, output, extent) for extent in extents]
    if dense is not None:
        arrays = [dense] if len(extents) == 1 else [dense[begin:end] for begin, end in extents]
    else:
        arrays = [_stack(name, output, shapes, extent) for extent in extents]
    return arrays if batched else [array[0] for array in arrays]


def _outer(name: str, output: OutputBatch, extent: Extent) -> Array:
    parts = [output.sample(index) for index in range(*extent)]
    if any(part.ndim == 0 for part in parts):
        raise ExecutionError(
            f"output '{name}' has samples without dimensions: split_along_outer_axis cannot split them"
        )
    different = next((part for part in parts if part.shape[1:] != parts[0].shape[1:]), None)
    if different is not None:
        raise _ragged(name, parts[0].shape, different.shape)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _stack(name: str, output: OutputBatch, shapes: list[tuple[int, ...]], extent: Extent) -> Array:
    begin, end = extent
    different = next((shape for shape in shapes[begin + 1 : end] if shape != shapes[begin]), None)
    if different is not None:
        raise _ragged(name, shapes[begin], different)
    if end - begin == 1:
        return output.sample(begin)[np.newaxis]
    return np.stack([output.sample(index) for index in range(begin, end)])


def _ragged(name: str, one: Sequence[int], other: Sequence[int]) -> ExecutionError:
    return ExecutionError(
        f"output '{name}' has samples of different shapes in one request ({list(one)}, {list(other)}): a response can "
        "hold one shape only. Send them in requests of their own, or pad them"
    )
