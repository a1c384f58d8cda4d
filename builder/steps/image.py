"""Puts the parts into an image, with labels that tell where it comes from."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console

from builder import recipe
from builder.artifacts import Image, Layer, Parts
from builder.docker.bake import bake
from builder.docker.engine import Engine
from builder.process import redact
from builder.project import Project
from builder.recipe import Base
from builder.revision import Revision

OCI = "org.opencontainers.image."
OURS = "triton-dali-builder."


def run(
    project: Project,
    engine: Engine,
    parts: Mapping[str, Parts],
    bases: Mapping[str, Base],
    revision: Revision,
    console: Console,
    *,
    builder: str = "",
    began: float,
) -> list[Image]:
    """The images of all targets, in the engine.

    Raises:
        BuildError: a stage failed.
    """
    bake(
        {
            name: recipe.image(project, name, bases[name], labels(project, each, bases[name], revision), revision.epoch)
            for name, each in parts.items()
        },
        context=project.root,
        definition=project.state / "image.bake.json",
        console=console,
        builder=builder,
    )
    return [_describe(engine, project.local_name(name), name, time.monotonic() - began).save(project) for name in parts]


def labels(project: Project, parts: Parts, base: Base, revision: Revision) -> dict[str, str]:
    """OCI's annotations, and what only this project knows: versions and plugin digests."""
    values = {
        OCI + "title": project.home.path,
        OCI + "source": project.source or redact(revision.remote),
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


def _describe(engine: Engine, reference: str, target: str, seconds: float) -> Image:
    found = engine.image(reference)
    # The history is newest first and has an entry without bytes for every instruction that made no layer.
    sizes = [entry["Size"] for entry in reversed(engine.client.api.history(reference))]
    digests = found["RootFS"]["Layers"]
    made = [size for size in sizes if size] if len(digests) != len(sizes) else sizes
    layers = tuple(
        Layer(digest=digest, bytes=made[index] if index < len(made) else 0) for index, digest in enumerate(digests)
    )
    return Image(
        target=target,
        reference=reference,
        digest=found["Id"],
        bytes=found["Size"],
        layers=layers,
        seconds=round(seconds, 2),
    )
