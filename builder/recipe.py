"""The project's Dockerfile as bake targets: what differs from target to target is build arguments and the command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from builder import package, sources
from builder.artifacts import Parts
from builder.errors import ProjectError
from builder.project import DEFAULT_DALI, MODELS, Project, Target
from builder.reference import Digest
from builder.revision import Revision

OCI = "org.opencontainers.image."
OURS = "triton-dali-builder."
EMBEDDED_BASE = "_base"
"""Added to a target's name, in which there is no underscore, for the embedded base that it needs."""
_LAST_STAGE = "served"
_HUSK = "husk"
DEBIAN = "debian"
"""The name of the context that stands for Debian, wherever a builder has it from."""
_RUNTIME = "runtime"
"""The stage that puts the image together out of what others made."""
OWN_LAYERS = "_layers"
"""Added to a target's name, in which there is no underscore, for the image's own layers."""
# zstd: a gigabyte of base in a fifth of gzip's time, and smaller.
_COMPRESSED = "compression=zstd,oci-mediatypes=true"


@dataclass(frozen=True)
class Base:
    """An image that a build starts from, by name and, where it is known, by digest."""

    name: str
    digest: Digest | None


@dataclass(frozen=True)
class Bases:
    """What a target starts from."""

    triton: Base | None = None
    """None for the embedded base, which the Dockerfile makes."""
    debian: Base | None = None
    """What the embedded base and the toolchain `wheel` start from; None where neither is built."""

    @property
    def outermost(self) -> Base:
        """The one that somebody else made."""
        base = self.triton or self.debian
        assert base is not None
        return base


def build_arguments(project: Project, target: Target, bases: Bases) -> dict[str, str]:
    """The Dockerfile's ARGs for a target."""
    arguments = {
        "TRITON_IMAGE": bases.triton.name if bases.triton else target.triton_image,
        "DALI_PLUGIN_CUDA": target.cuda,
    }
    if bases.debian:
        arguments |= {"DEBIAN_IMAGE": bases.debian.name, "DALI_VERSION": target.dali_version or DEFAULT_DALI}
    if target.toolchain == "wheel":
        arguments["COMPILED_ON"] = "wheel"
    if project.listed:
        arguments["PLUGIN_LIBS"] = ":".join(project.listed)
    if target.cuda_architectures:
        arguments["CUDA_ARCHITECTURES"] = ";".join(target.cuda_architectures)
    return arguments


def trial(project: Project, target: str) -> Path:
    """Where the parts of a target are until they are found to be right."""
    return project.state / target / "parts.trial"


def trial_layout(project: Project, target: str) -> Path:
    """Where the image's own layers are until then."""
    return project.state / target / "oci.trial"


def kept(project: Project, target: str) -> Path:
    """Where they are from then on."""
    return project.state / target / "parts"


def lock_folder(project: Project, target: str) -> Path:
    """What the builder.lock has for the stage `lock`."""
    return project.state / target / "lock"


def parts(project: Project, name: str, bases: Bases) -> dict[str, Any]:
    """The target that leaves the image's files in `trial()`."""
    return _common(project, name, bases, "artifacts", [f"type=local,dest={trial(project, name)}"])


def inventory(project: Project, name: str, bases: Bases, folder: Path) -> dict[str, Any]:
    """The target that leaves in `folder` what the newest packages are, whatever an earlier build kept."""
    return {
        **_common(project, name, bases, "inventory-alone", [f"type=local,dest={folder}"]),
        "no-cache-filter": ["pip", "embedded-packages", "toolchain"],
    }


def embedded(project: Project, name: str, bases: Bases, image: str) -> dict[str, Any]:
    """The target that leaves the embedded base in the engine, as `image`."""
    output = f"type=image,name={image},{_COMPRESSED}"
    whole = _common(project, name, bases, "embedded", [output])
    # The base is the same whatever the project's revision is.
    return {**whole, "args": {**whole["args"], "SOURCE_DATE_EPOCH": "0"}}


def embedded_name(project: Project, name: str, bases: Bases) -> str:
    """The embedded base's name in the engine, another one for each that differs: an image lives as long as its name."""
    debian, dali = bases.debian, project.targets[name].dali_version
    made_of = [str(debian), sources.digest(package.ROOT / "embedded"), _dockerfile(project)]
    made_of.append(sources.of_file(package.ROOT / package.PARSER))
    if (locked := lock_folder(project, name) / "debian").is_file():
        made_of.append(locked.read_text(encoding="utf-8"))
    return f"triton-dali-builder/embedded:{dali}-{sha256(repr(made_of).encode()).hexdigest()[:12]}"


def layers(
    project: Project,
    name: str,
    bases: Bases,
    husk: str,
    revision: Revision,
    folder: Path,
    *,
    no_cache: bool = False,
) -> dict[str, Any]:
    """The target that leaves the image's own layers in `folder`, an OCI image layout, on an image without any.

    Args:
        husk: the context of that image.
        no_cache: whether they are made anew from what the earlier stages left.
    """
    whole = _common(project, name, bases, _RUNTIME, [f"type=oci,tar=false,dest={folder},{_COMPRESSED}"])
    return {
        **whole,
        "args": {**whole["args"], "SOURCE_DATE_EPOCH": str(revision.epoch), "SERVED_ON": _HUSK},
        "contexts": {**whole["contexts"], _HUSK: husk},
        **({"no-cache-filter": [_RUNTIME]} if no_cache else {}),
    }


def image(project: Project, made: Parts, bases: Bases, revision: Revision, labels: Mapping[str, str]) -> dict[str, Any]:
    """The target that leaves the image in the engine, without a name until it is found to be right."""
    last = f"FROM {_RUNTIME} AS {_LAST_STAGE}\nCMD {json.dumps(command(project, plugins(project, made)))}\n"
    whole = _common(project, made.target, bases, _LAST_STAGE, [f"type=image,{_COMPRESSED}"])
    return {
        **whole,
        "dockerfile-inline": f"{whole['dockerfile-inline']}\n{last}",
        "args": {**whole["args"], "SOURCE_DATE_EPOCH": str(revision.epoch)},
        "labels": dict(labels),
    }


def labels(project: Project, parts: Parts, bases: Bases, revision: Revision) -> dict[str, str]:
    """OCI's annotations, and what only this project knows: versions and plugin digests."""
    values = {
        OCI + "title": project.home.path,
        OCI + "source": project.source or revision.public_remote,
        OCI + "revision": revision.commit,
        OCI + "created": revision.created,
        OCI + "base.name": bases.outermost.name,
        OCI + "base.digest": str(bases.outermost.digest or ""),
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


def _common(project: Project, name: str, bases: Bases, stage: str, output: list[str]) -> dict[str, Any]:
    return {
        "dockerfile-inline": _dockerfile(project),
        "contexts": {
            "package": str(package.ROOT),
            "lock": str(lock_folder(project, name)),
            # BuildKit writes the history of a context by SOURCE_DATE_EPOCH, that of other images as it is. So it is one
            # for all builders, also where it is an image of the engine: the embedded base has one digest only.
            **({DEBIAN: f"docker-image://{bases.debian.name}"} if bases.debian else {}),
        },
        "platforms": [project.targets[name].platform],
        "target": stage,
        "args": build_arguments(project, project.targets[name], bases)
        | ({"DEBIAN_IMAGE": DEBIAN} if bases.debian else {}),
        "output": output,
    }


def _dockerfile(project: Project) -> str:
    """Its text, as a Dockerfile beside the project is not what bake has to find."""
    path = package.dockerfile(project.root)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(
            f"the Dockerfile cannot be read: {error}", where=str(path), remedy="make it a UTF-8 text file"
        ) from None
