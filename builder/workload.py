"""Random requests for a model, made from its own signature."""

from __future__ import annotations

import math

import numpy as np

from builder.triton import Array, ModelSpec, Tensors, TensorSpec

KIB, MIB = 1 << 10, 1 << 20
SAMPLE_BYTES = (1, 2, 3, 255, KIB, 64 * KIB + 1, MIB, 8 * MIB)
BATCHES = (1, 2, 7, 32)
REQUEST_BYTES_AT_MOST = 64 * MIB
Size = tuple[int, int]
"""About how many bytes a sample has, and how many samples a request has."""
_FREE_INNER_DIM = 3
_STRING_BYTES = 64


class Workload:
    """Requests for one model; the same seed gives the same requests, if they are asked for in the same order."""

    def __init__(self, model: ModelSpec, seed: int) -> None:
        self._model = model
        self._random = np.random.default_rng(seed)

    def sweep(self) -> tuple[list[Size], list[Size]]:
        """Every sample size with every batch size that the model takes and 64 MiB a request allow, small ones first.

        The first list is what no sweep may go without: every batch size, and the largest sample.
        """
        sample_bytes = {size: self._sample_bytes(size) for size in self._sizes()}
        smallest, largest = min(sample_bytes), max(sample_bytes)
        wanted = [
            (size, batch)
            for size in sample_bytes
            for batch in batch_sizes(self._model.max_batch_size)
            # A model of large fixed dims still gets one request.
            if batch * sample_bytes[size] <= REQUEST_BYTES_AT_MOST or (size, batch) == (smallest, 1)
        ]
        needed = [each for each in wanted if each[0] == smallest or each == (largest, 1)]
        others = [each for each in wanted if each not in needed]
        return needed, sorted(others, key=lambda each: sample_bytes[each[0]] * each[1])

    def mixed(self, count: int) -> list[Tensors]:
        """`count` requests to be in flight at once: mostly small ones, each eighth up to 8 MiB a sample."""
        sizes = [int(2 ** self._random.uniform(0, 23 if index % 8 == 0 else 17)) for index in range(count)]
        top = min(4, max(1, self._model.max_batch_size))
        return [self.request(size, int(self._random.integers(1, top + 1))) for size in sizes]

    def request(self, sample_bytes: int, batch: int) -> Tensors:
        """Random tensors, every sample of about `sample_bytes` bytes where the model's dims leave that open."""
        return {spec.name: self._tensor(spec, sample_bytes, batch) for spec in self._model.inputs}

    def _sizes(self) -> list[int]:
        """The smallest size for each shape that the model's dims make of them: fixed ones come once."""
        return sorted({self._shapes(size): size for size in reversed(SAMPLE_BYTES)}.values())

    def _shapes(self, sample_bytes: int) -> tuple[tuple[int, ...], ...]:
        return tuple(sample_shape(spec, sample_bytes) for spec in self._model.inputs)

    def _sample_bytes(self, sample_bytes: int) -> int:
        """Of all inputs, as they come out."""
        shapes = zip(self._model.inputs, self._shapes(sample_bytes), strict=True)
        return sum(itemsize(spec) * math.prod(shape) for spec, shape in shapes)

    def _tensor(self, spec: TensorSpec, sample_bytes: int, batch: int) -> Array:
        shape = ((batch,) if self._model.max_batch_size else ()) + sample_shape(spec, sample_bytes)
        kind = spec.dtype.kind
        if kind == "b":
            return self._random.integers(0, 2, shape).astype(bool)
        if kind in "iu":
            # Random bytes: every value of the type, and much faster than drawing numbers one by one.
            count = math.prod(shape) * spec.dtype.itemsize
            return np.frombuffer(self._random.bytes(count), spec.dtype).reshape(shape)
        if kind == "f":
            return self._random.standard_normal(shape, np.float32).astype(spec.dtype)
        letters = self._random.integers(97, 123, (math.prod(shape), _STRING_BYTES), np.uint8)
        strings = np.empty(len(letters), object)
        strings[:] = [row.tobytes() for row in letters]
        return strings.reshape(shape)


def batch_sizes(max_batch_size: int) -> list[int]:
    """Those to try, ascending; 1 alone for a model that takes no batches."""
    return sorted({min(batch, max_batch_size) for batch in (*BATCHES, max_batch_size)}) if max_batch_size else [1]


def itemsize(spec: TensorSpec) -> int:
    """Bytes of an element; of a string's, as many as its letters."""
    return _STRING_BYTES if spec.dtype.kind == "O" else spec.dtype.itemsize


def sample_shape(spec: TensorSpec, sample_bytes: int) -> tuple[int, ...]:
    """A sample's shape: fixed dims as they are, the first free one takes what makes up `sample_bytes`."""
    free = [index for index, dim in enumerate(spec.dims) if dim < 0]
    shape = [dim if dim >= 0 else _FREE_INNER_DIM for dim in spec.dims]
    if free:
        shape[free[0]] = 1
        shape[free[0]] = max(1, sample_bytes // max(1, itemsize(spec) * math.prod(shape)))
    return tuple(shape)
