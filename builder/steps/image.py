"""Puts the parts into an image, with labels that tell where it comes from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from builder import recipe
from builder.artifacts import Image, Layer, Parts
from builder.docker.bake import bake
from builder.docker.engine import Engine, translated
from builder.errors import MachineError
from builder.project import Project
from builder.recipe import Base
from builder.revision import Revision

_EMPTY_LAYER = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"


def run(
    project: Project,
    engine: Engine,
    parts: Mapping[str, Parts],
    bases: Mapping[str, Base],
    revision: Revision,
    console: Console,
    *,
    began: float,
) -> list[Image]:
    """The images of all targets, in the engine.

    Args:
        began: `time.monotonic()` when the build did.

    Raises:
        BuildError: a stage failed.
    """
    metadata = bake(
        {name: recipe.image(project, each, bases[name], revision) for name, each in parts.items()},
        context=project.root,
        definition=project.state / "image.bake.json",
        console=console,
    )
    digests = {name: _digest(engine, metadata[name]) for name in parts}
    return [
        _name(engine, digest, project.local_name(name), name, time.monotonic() - began).save(project)
        for name, digest in digests.items()
    ]


def _digest(engine: Engine, metadata: Mapping[str, str]) -> str:
    """The engine's ID of what was built: the manifest's digest, or in Docker's older image store the config's."""
    found = [metadata[key] for key in ("containerimage.digest", "containerimage.config.digest") if key in metadata]
    for digest in found:
        if described := engine.find(digest):
            return str(described["Id"])
    raise MachineError(
        "the engine does not have the image that was built",
        where=" ".join(found),
        remedy="see that the builder of Docker's current context is the engine itself: `docker buildx ls`",
    )


def _name(engine: Engine, digest: str, reference: str, target: str, seconds: float) -> Image:
    """Gives the image its name, and describes it."""
    with translated(reference):
        repository, _, tag = reference.rpartition(":")
        engine.client.api.tag(digest, repository, tag, force=True)
        found = engine.image(digest)
        history = engine.client.api.history(digest)
    digests = found["RootFS"]["Layers"]
    return Image(
        target=target,
        reference=reference,
        digest=digest,
        bytes=found["Size"],
        layers=tuple(
            Layer(digest=digest, bytes=size) for digest, size in zip(digests, _sizes(digests, history), strict=True)
        ),
        seconds=round(seconds, 2),
    )


def _sizes(digests: Sequence[str], history: Sequence[Mapping[str, Any]]) -> list[int]:
    """The bytes of each layer. The history, newest first, has an entry without any for what made no layer."""
    sizes = [entry["Size"] for entry in reversed(history) if entry["Size"]]
    if len(sizes) < len(digests):  # an empty layer has no bytes in some image stores, and some in others
        left = iter(sizes)
        return [0 if digest == _EMPTY_LAYER else next(left, 0) for digest in digests]
    return sizes[: len(digests)]
