"""Records as commands leave them."""

from __future__ import annotations

from builder.artifacts import NegativeControl, Operator, Parts, Plugin, Verification
from builder.project import Target


def plugin(path: str = "/models/libcustomcopy.so") -> Plugin:
    """A library with one operator, compiled against DALI 1.53.0."""
    return Plugin(
        path=path,
        sha256="d" * 64,
        bytes=1,
        operators=(Operator(name="CustomCopy", devices=("cpu", "gpu")),),
        demands={"DALI": "1.53.0", "GLIBC": "2.34"},
        architectures=("sm_90", "compute_120"),
    )


def parts(*plugins: Plugin, plugin_sources: str = "") -> Parts:
    """Of the target `embedded`."""
    return Parts(
        target="embedded",
        triton_version="24.10",
        dali_version="1.53.0",
        glibc="2.36",
        glibcxx="3.4.30",
        plugins=plugins,
        plugin_sources=plugin_sources,
        built_as=Target(),
    )


def verification(digest: str, passed: bool = True) -> Verification:
    """Of the image `mydali:embedded`."""
    return Verification(
        target="embedded",
        reference="mydali:embedded",
        digest=digest,
        passed=passed,
        when="2026-01-02T03:04:05+00:00",
        seed=1,
        gpus="",
        models=(),
        negative_control=NegativeControl(applicable=True, passed=True, evidence="x"),
        ready_seconds=1,
    )
