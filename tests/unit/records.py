"""Records as commands leave them."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from builder.artifacts import Image, NegativeControl, Operator, Parts, Plugin, Pushed, Verification
from builder.project import Target

EMPTY = sha256().hexdigest()
"""The digest of a folder without files."""


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
        base="triton-dali-builder/embedded:1.53.0-0123456789ab",
        base_digest="sha256:" + "e" * 64,
        packages={"g++-12": "12.2.0-14+deb12u1", "libc6": "2.36-9+deb12u10"},
        triton_version="24.10",
        dali_version="1.53.0",
        glibc="2.36",
        glibcxx="3.4.30",
        plugins=plugins,
        plugin_sources=plugin_sources,
        plugin_files={},
        files=EMPTY,
        built_as=Target(),
    )


def image(digest: str, **changes: Any) -> Image:
    """Of the target `embedded`, in the engine."""
    made = Image(
        target="embedded",
        reference="mydali:embedded",
        digest=digest,
        base="triton-dali-builder/embedded:1.53.0-0123456789ab",
        base_digest="sha256:" + "e" * 64,
        parts=parts(plugin()).digest,
        labels={},
        engine="26.1.5",
        in_engine=True,
        bytes=1,
        layers=(),
        seconds=1,
    )
    return made.model_copy(update=changes)


def pushed(reference: str, **changes: Any) -> Pushed:
    """Of the target `embedded`; `reference` has a digest."""
    made = Pushed(
        target="embedded",
        reference=reference,
        tag=reference.partition("@")[0] + ":1.0",
        digest=reference.partition("@")[2],
        media_type="application/vnd.oci.image.manifest.v1+json",
        manifest_bytes=1,
        bytes_uploaded=1,
        bytes_mounted=0,
        seconds=1,
    )
    return made.model_copy(update=changes)


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
        versions={"triton": "24.10", "dali": "1.53.0", "builder": "0.1.0", "engine": "26.1.5"},
        configuration={"builder.toml": "e" * 64},
        server_log_sha256="f" * 64,
        server_log=("one", "two"),
    )
