"""The least that the kernels have to reach on a GPU, held against what `kernels.cu` measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Figures = Mapping[str, Any]

OF_CUDA_MEMCPY = 0.95
"""custom_copy of 512 MiB, of the time that cudaMemcpy takes, device to device."""
OF_THE_COPY = 0.85
"""normalize_permute, of the bytes a second that custom_copy reads and writes, in the same run."""
TIMES_A_COPY_PER_SAMPLE = 10.0
"""custom_copy of 4,096 samples of 1 KiB, by the host's clock."""


def copy_of_large_samples(kernels: Figures) -> str:
    """Raises AssertionError below the floor, as the others here do."""
    reached = kernels["copy_512MiB"]["of_cudaMemcpy"]
    assert reached >= OF_CUDA_MEMCPY, f"{reached:.4f} of cudaMemcpy, {OF_CUDA_MEMCPY} is the least"
    return f"{reached:.4f}"


def copy_of_small_samples(kernels: Figures) -> str:
    joined, scattered = kernels["copy_4096_of_1KiB"]["faster_than_copy_per_sample"]
    least = min(joined, scattered)
    assert least >= TIMES_A_COPY_PER_SAMPLE, f"{least} times as fast, {TIMES_A_COPY_PER_SAMPLE} is the least"
    return f"{joined} times, scattered over memory {scattered}"


def one_launch(kernels: Figures) -> str:
    """Of samples one after another, as DALI gives them."""
    launches, scattered = kernels["copy_4096_of_1KiB"]["launches"]
    assert launches == 1, f"{launches} launches for samples one after another"
    return f"1, scattered over memory {scattered}"


def normalize(kernels: Figures) -> str:
    reached = {name: each["of_copy"] for name, each in kernels.items() if isinstance(each, dict) and "of_copy" in each}
    assert reached, "no figure of normalize_permute"
    worst = min(reached, key=reached.__getitem__)
    assert reached[worst] >= OF_THE_COPY, f"{worst}: {reached[worst]:.4f} of the copy, {OF_THE_COPY} is the least"
    return f"{reached[worst]:.4f} at least, of {len(reached)} ({worst})"


FLOORS: Mapping[str, Callable[[Figures], str]] = {
    f"floor: custom_copy, 512 MiB, {OF_CUDA_MEMCPY:.0%} of cudaMemcpy, gpu": copy_of_large_samples,
    f"floor: custom_copy, 4,096 samples of 1 KiB, {TIMES_A_COPY_PER_SAMPLE:g} times a copy per sample, gpu": (
        copy_of_small_samples
    ),
    "floor: custom_copy, 4,096 samples of 1 KiB, one launch, gpu": one_launch,
    f"floor: normalize_permute, {OF_THE_COPY:.0%} of the bandwidth of the copy, gpu": normalize,
}
"""The tests of the report, by their names there."""
