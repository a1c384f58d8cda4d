"""The project's Dockerfile as bake targets: what differs from target to target is build arguments alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.project import Project, Target
from builder.reference import Digest


@dataclass(frozen=True)
class Base:
    """The image that everything starts from, by name and, where the engine knows it, by digest."""

    name: str
    digest: Digest | None


def build_arguments(target: Target, base: Base) -> dict[str, str]:
    """The Dockerfile's ARGs for a target."""
    arguments = {"TRITON_IMAGE": target.triton_image, "DALI_PLUGIN_CUDA": target.cuda}
    if target.is_embedded:
        arguments["DEBIAN_IMAGE"] = base.name
        if target.dali:
            arguments["DALI_VERSION"] = target.dali
    if target.cuda_architectures:
        arguments["CUDA_ARCHITECTURES"] = ";".join(target.cuda_architectures)
    return arguments


def parts(project: Project, name: str, base: Base, folder: Path) -> dict[str, Any]:
    """The target that leaves the image's files in `folder`."""
    return {
        "target": "artifacts",
        "args": build_arguments(project.targets[name], base),
        "output": [f"type=local,dest={folder}"],
    }


def image(project: Project, name: str, base: Base, labels: dict[str, str], epoch: int) -> dict[str, Any]:
    """The target that leaves the image in the engine, without a name until it is found to be right."""
    return {
        "target": "runtime",
        "args": {**build_arguments(project.targets[name], base), "SOURCE_DATE_EPOCH": str(epoch)},
        "labels": labels,
        # zstd: a gigabyte of base in a fifth of gzip's time, and smaller.
        "output": ["type=image,compression=zstd,oci-mediatypes=true"],
    }
