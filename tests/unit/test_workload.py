from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from builder import workload
from builder.triton import ModelSpec, Tensors, TensorSpec
from builder.workload import KIB, MIB, Workload, sample_shape


def model(*inputs: TensorSpec, max_batch_size: int = 256) -> ModelSpec:
    return ModelSpec("m", max_batch_size, inputs or (TensorSpec("IN", "UINT8", (-1,)),), ())


def swept(load: Workload) -> list[Tensors]:
    """All requests of a sweep."""
    needed, others = load.sweep()
    return [load.request(*size) for size in (*needed, *others)]


def equal(one: Sequence[Tensors], other: Sequence[Tensors]) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(
    ("datatype", "dims", "sample_bytes", "shape"),
    [
        ("UINT8", (-1,), 1000, (1000,)),
        ("UINT8", (3, 4), 1000, (3, 4)),
        ("UINT8", (-1, 4), 1000, (250, 4)),
        ("UINT8", (4, -1), 1000, (4, 250)),
        ("UINT8", (-1, -1), 999, (333, 3)),
        ("FP32", (-1,), 1000, (250,)),
        ("FP64", (-1, 2), 3, (1, 2)),
        ("BYTES", (-1,), 640, (10,)),
        ("UINT8", (), 1000, ()),
    ],
)
def test_the_first_free_dim_makes_up_a_sample_s_size(
    datatype: str, dims: tuple[int, ...], sample_bytes: int, shape: tuple[int, ...]
) -> None:
    assert sample_shape(TensorSpec("IN", datatype, dims), sample_bytes) == shape


@pytest.mark.parametrize(
    "datatype",
    ["BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64", "BYTES"],
)
def test_every_data_type_has_requests_that_vary(datatype: str) -> None:
    spec = TensorSpec("IN", datatype, (-1,))
    tensor = Workload(model(spec), 1).request(KIB, 2)["IN"]
    assert tensor.dtype == spec.dtype
    assert tensor.shape == (2, *sample_shape(spec, KIB))
    assert len(np.unique(tensor)) > 1


def test_the_same_seed_gives_the_same_requests() -> None:
    one, other = Workload(model(), 7), Workload(model(), 7)
    assert equal(one.mixed(8), other.mixed(8))
    assert equal([one.request(KIB, 3)], [other.request(KIB, 3)])


def test_another_seed_gives_other_requests() -> None:
    assert not equal([Workload(model(), 7).request(KIB, 3)], [Workload(model(), 8).request(KIB, 3)])


def test_successive_requests_differ() -> None:
    load = Workload(model(), 7)
    assert not equal([load.request(KIB, 1)], [load.request(KIB, 1)])


@pytest.mark.parametrize("max_batch_size", [1, 5, 32, 256])
def test_a_sweep_has_every_size_and_batch_that_fit(monkeypatch: pytest.MonkeyPatch, max_batch_size: int) -> None:
    monkeypatch.setattr(workload, "SAMPLE_BYTES", (1, KIB, MIB, 8 * MIB))
    shapes = [tensors["IN"].shape for tensors in swept(Workload(model(max_batch_size=max_batch_size), 1))]
    assert max(batch * size for batch, size in shapes) <= 64 * MIB
    assert max(batch for batch, _ in shapes) == max_batch_size
    assert {size for _, size in shapes} == {1, KIB, MIB, 8 * MIB}
    assert len(set(shapes)) == len(shapes)


def test_no_sweep_goes_without_the_largest_batch_and_the_largest_sample() -> None:
    needed, others = Workload(model(), 1).sweep()
    assert needed == [(1, 1), (1, 2), (1, 7), (1, 32), (1, 256), (8 * MIB, 1)]
    assert not set(needed) & set(others)
    sizes = [size * batch for size, batch in others]
    assert sizes == sorted(sizes)  # what there is no time for is what takes longest


def test_a_model_of_fixed_dims_is_swept_with_every_batch_size() -> None:
    fixed = TensorSpec("IN", "FP32", (3, 4))
    needed, others = Workload(model(fixed, max_batch_size=8), 1).sweep()
    assert [batch for _, batch in needed] == [1, 2, 7, 8]
    assert others == []


@pytest.mark.parametrize(
    "inputs",
    [
        (TensorSpec("IN", "UINT8", (64, 1024)),),
        (TensorSpec("A", "FP64", (-1, 64)), TensorSpec("B", "FP64", (4 * KIB,))),
    ],
    ids=["fixed", "two inputs"],
)
def test_a_request_stays_within_its_limit_whatever_the_dims(
    monkeypatch: pytest.MonkeyPatch, inputs: tuple[TensorSpec, ...]
) -> None:
    monkeypatch.setattr(workload, "REQUEST_BYTES_AT_MOST", MIB)
    sizes = [sum(each.nbytes for each in tensors.values()) for tensors in swept(Workload(model(*inputs), 1))]
    assert 0 < max(sizes) <= MIB


def test_requests_of_a_model_without_batches_have_no_batch_dim() -> None:
    load = Workload(model(TensorSpec("IN", "UINT8", (-1, 2)), max_batch_size=0), 1)
    shapes = [tensors["IN"].shape for tensors in (*swept(load), *load.mixed(16))]
    assert {len(shape) for shape in shapes} == {2}
    assert {last for _, last in shapes} == {2}


def test_a_mix_has_as_many_requests_as_asked_of_small_batches_that_the_model_takes() -> None:
    for top, allowed in ((256, {1, 2, 3, 4}), (2, {1, 2})):
        batches = {tensors["IN"].shape[0] for tensors in Workload(model(max_batch_size=top), 1).mixed(32)}
        assert batches == allowed
    assert len(Workload(model(), 1).mixed(32)) == 32
