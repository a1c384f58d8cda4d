"""The GPU example, where nothing has to be compiled to tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.gpu import kernel_parts
from builder.project import load
from builder.steps import check

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "gpu"


@pytest.mark.parametrize("name", ["custom_copy.h", "custom_copy.cc", "custom_copy.cu"])
def test_it_has_the_shipped_operator(name: str) -> None:
    """In a copy, so that its folder is a whole project."""
    assert (EXAMPLE / "plugin" / name).read_bytes() == (ROOT / "plugin" / name).read_bytes()


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


@pytest.mark.parametrize("name", kernel_parts.FILES)
def test_the_kernels_need_nothing_of_dali(name: str) -> None:
    source = (EXAMPLE / "plugin" / f"{name}.cu").read_text()
    kernel = kernel_parts.kernel(source)
    assert "__global__" in kernel
    assert "dali" not in kernel
    assert "#include" not in kernel
    assert kernel in source


def test_a_source_without_the_comments_is_told() -> None:
    with pytest.raises(ValueError, match="substring not found"):
        kernel_parts.kernel("// --- The kernel: alone. ---\n")


def test_launches_are_counted_by_the_operator_s_own_joining() -> None:
    """What the benchmark calls is in the part that it takes from the plugin, and the operator calls the same."""
    source = (EXAMPLE / "plugin" / "custom_copy.cu").read_text()
    kernel = kernel_parts.kernel(source)
    operator = source[source.index(kernel) + len(kernel) :]
    assert "class Batch" in kernel
    for user in (operator, (ROOT / "bench" / "gpu" / "kernels.cu").read_text()):
        assert "batch.Add(" in user
        assert "batch.Finish()" in user
        assert "LaunchCopy(" not in user
