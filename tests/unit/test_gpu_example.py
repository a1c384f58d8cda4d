"""The GPU example, where nothing has to be compiled to tell."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from builder.project import load
from builder.steps import check

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "gpu"


def test_it_has_the_shipped_operator() -> None:
    """In a copy, so that its folder is a whole project."""

    def operator(project: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (project / "plugin").glob("custom_copy*")}

    assert {"custom_copy.h", "custom_copy.cc", "custom_copy.cu"} < set(operator(ROOT))
    assert operator(EXAMPLE) == operator(ROOT)


def test_nothing_is_wrong_with_it() -> None:
    project = load(EXAMPLE, environment={})
    assert check.before_build(project, project.targets) == []


def test_the_golden_images_are_what_a_network_takes() -> None:
    with np.load(EXAMPLE / "tests" / "augment.npz") as arrays:
        pairs = [(arrays[name], arrays[name.replace("JPEG", "IMAGE")]) for name in arrays.files if "JPEG" in name]
    assert len(pairs) == 6
    for jpeg, image in pairs:
        assert jpeg[0, :2].tobytes() == b"\xff\xd8"
        assert (image.shape, image.dtype) == ((1, 3, 224, 224), np.dtype(np.float16))
        assert np.isfinite(image).all()
        assert image.astype(np.float32).std() > 0.5


def included(source: Path) -> set[str]:
    """The headers that a source of the plugins includes, also by others of the plugins."""
    names = set(re.findall(r"^ *# *include *[<\"]([^>\"]+)", source.read_text(), re.MULTILINE))
    ours = [source.parent / name for name in names if (source.parent / name).is_file()]
    return names.union(*map(included, ours))


@pytest.mark.parametrize("name", ["custom_copy", "normalize_permute"])
def test_nvcc_reads_nothing_of_dali(name: str) -> None:
    """Which would take longer than all else, once for each architecture; and the benchmark has no DALI."""
    kernel = EXAMPLE / "plugin" / f"{name}.cu"
    assert "__global__" in kernel.read_text()
    assert {f"{name}_kernel.h", "cuda_runtime.h"} <= included(kernel)
    assert not any("dali" in header for header in included(kernel))
    assert any("dali" in header for header in included(kernel.with_name(f"{name}_gpu.cc")))


def test_launches_are_counted_by_the_operator_s_own_joining() -> None:
    """What the benchmark calls comes with the plugin's kernel, and the operator calls the same."""
    operator = (EXAMPLE / "plugin" / "custom_copy_gpu.cc").read_text()
    benchmark = (ROOT / "bench" / "gpu" / "kernels.cu").read_text()
    assert "class Batch" in (EXAMPLE / "plugin" / "custom_copy_kernel.h").read_text()
    assert '#include "custom_copy_kernel.h"' in operator
    assert '#include "custom_copy.cu"' in benchmark
    for user in (operator, benchmark):
        assert "batch.Add(" in user
        assert "batch.Finish()" in user
        assert "LaunchCopy(" not in user
