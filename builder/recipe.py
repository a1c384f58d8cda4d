"""The project's Dockerfile as bake targets: what differs from target to target is build arguments and the command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import package
from builder.artifacts import Parts
from builder.errors import ProjectError
from builder.process import redact
from builder.project import DEFAULT_DALI, MODELS, Project, Target
from builder.reference import Digest
from builder.revision import Revision

OCI = "org.opencontainers.image."
OURS = "triton-dali-builder."
_LAST_STAGE = "served"


@dataclass(frozen=True)
class Base:
    """The image that everything starts from, by name and, where the engine knows it, by digest."""

    name: str
    digest: Digest | None


def build_arguments(project: Project, target: Target, base: Base) -> dict[str, str]:
    """The Dockerfile's ARGs for a target."""
    arguments = {"TRITON_IMAGE": target.triton_image, "DALI_PLUGIN_CUDA": target.cuda}
    if target.is_embedded:
        arguments |= {"DEBIAN_IMAGE": base.name, "DALI_VERSION": target.dali or DEFAULT_DALI}
    if project.listed:
        arguments["PLUGIN_LIBS"] = ":".join(project.listed)
    if target.cuda_architectures:
        arguments["CUDA_ARCHITECTURES"] = ";".join(target.cuda_architectures)
    return arguments


def trial(project: Project, target: str) -> Path:
    """Where the parts of a target are until they are found to be right."""
    return project.state / target / "parts.trial"


def parts(project: Project, name: str, base: Base) -> dict[str, Any]:
    """The target that leaves the image's files in `trial()`."""
    return {
        **_common(project, name),
        "dockerfile-inline": _dockerfile(project),
        "target": "artifacts",
        "args": build_arguments(project, project.targets[name], base),
        "output": [f"type=local,dest={trial(project, name)}"],
    }


def image(project: Project, made: Parts, base: Base, revision: Revision) -> dict[str, Any]:
    """The target that leaves the image in the engine, without a name until it is found to be right."""
    last = f"FROM runtime AS {_LAST_STAGE}\nCMD {json.dumps(command(project, plugins(project, made)))}\n"
    return {
        **_common(project, made.target),
        "dockerfile-inline": f"{_dockerfile(project)}\n{last}",
        "target": _LAST_STAGE,
        "args": {
            **build_arguments(project, project.targets[made.target], base),
            "SOURCE_DATE_EPOCH": str(revision.epoch),
        },
        "labels": labels(project, made, base, revision),
        # zstd: a gigabyte of base in a fifth of gzip's time, and smaller.
        "output": ["type=image,compression=zstd,oci-mediatypes=true"],
    }


def labels(project: Project, parts: Parts, base: Base, revision: Revision) -> dict[str, str]:
    """OCI's annotations, and what only this project knows: versions and plugin digests."""
    values = {
        OCI + "title": project.home.path,
        OCI + "source": project.source or redact(revision.remote).replace("***@", ""),
        OCI + "revision": revision.commit,
        OCI + "created": revision.created,
        OCI + "base.name": base.name,
        OCI + "base.digest": str(base.digest or ""),
        OURS + "target": parts.target,
        OURS + "triton.version": parts.triton_version,
        OURS + "dali.version": parts.dali_version,
        OURS + "plugins": " ".join(f"{plugin.path}@sha256:{plugin.sha256}" for plugin in parts.plugins),
    }
    return {name: value for name, value in values.items() if value}


def command(project: Project, plugins: Sequence[str]) -> list[str]:
    """How the image starts its server."""
    listed = [f"--backend-config=dali,plugin_libs={':'.join(plugins)}"] if plugins else []
    return ["tritonserver", f"--model-repository={MODELS}", *listed, *project.server_args]


def plugins(project: Project, made: Parts) -> tuple[str, ...]:
    """The libraries that the server loads, in order: those that builder.toml names, or all that there are, by name."""
    return project.listed or tuple(sorted(plugin.path for plugin in made.plugins))


def _common(project: Project, name: str) -> dict[str, Any]:
    return {"contexts": {"package": str(package.ROOT)}, "platforms": [project.targets[name].platform]}


def _dockerfile(project: Project) -> str:
    """Its text, as a Dockerfile beside the project is not what bake has to find."""
    path = package.dockerfile(project.root)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(
            f"the Dockerfile cannot be read: {error}", where=str(path), remedy="make it a UTF-8 text file"
        ) from None
