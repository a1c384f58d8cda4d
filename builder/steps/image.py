"""Puts the parts into an image, with labels that tell where it comes from.

BuildKit makes the project's own layers, on an image that has the base's configuration and no layer. The base's layers
are put under them by digest: nobody reads, copies or compresses them again, and those in a registry alone stay there.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from builder import bases as base_images
from builder import recipe, record
from builder.artifacts import Image, Layer, Parts
from builder.docker import contexts
from builder.docker.bake import bake
from builder.docker.builders import Builder
from builder.docker.engine import CONTAINERD, Engine, translated
from builder.docker.loaded import loaded
from builder.docker.progress import View
from builder.errors import MachineError
from builder.oci import BaseImage, Layout
from builder.project import Project
from builder.recipe import Base, Bases
from builder.reference import Digest
from builder.revision import Revision

_EMPTY_LAYER = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
_DEFINITION = "image.bake.json"
_ON_TRIAL = "_load"
"""Added to an image's tag, in which there is no underscore."""


def run(
    project: Project,
    engine: Engine,
    parts: Mapping[str, Parts],
    bases: Mapping[str, Bases],
    revision: Revision,
    view: View,
    *,
    on: Mapping[str, BaseImage] | None = None,
    inputs: Mapping[str, str],
    began: float,
    builder: Builder | None = None,
) -> list[Image]:
    """The images of all targets, in the engine if it has their base.

    Args:
        on: as for `compose`.
        inputs: `Image.inputs` by target.
        began: `time.monotonic()` when the build did.
        builder: the engine's own by default.

    Raises:
        BuildError: a stage failed.
    """
    if engine.keeps_manifests:
        composed = compose(project, engine, parts, bases, revision, view, on=on, builder=builder)
        built = [_brought(project, engine, parts[name], digest, began) for name, digest in composed.items()]
    else:
        built = _in_older_store(project, engine, parts, bases, revision, view, began, builder)
    return [each.model_copy(update={"inputs": inputs[each.target]}).save(project) for each in built]


def discard(project: Project, targets: Iterable[str]) -> None:
    """Removes layers that were made for a build that failed."""
    for name in targets:
        shutil.rmtree(recipe.trial_layout(project, name), ignore_errors=True)


class Beforehand:
    """Gives the layers' targets for bases that are known before anything is built, so that one call builds it all."""

    def __init__(self, project: Project, engine: Engine, revision: Revision) -> None:
        self.on: dict[str, BaseImage] = {}
        """Those bases, by target."""
        self._project = project
        self._engine = engine
        self._revision = revision

    def __call__(self, name: str, bases: Bases, base: Base) -> dict[str, Any] | None:
        digest = base.digest
        if digest is None:
            if not base.name or not (there := self._engine.find(base.name)):
                return None
            digest = Digest(there["Id"])
        project = self._project
        self.on[name] = base_images.described(
            project.state, self._engine, base.name, digest, project.targets[name].platform
        )
        folder = recipe.trial_layout(project, name)
        shutil.rmtree(folder, ignore_errors=True)  # BuildKit would add to what is there
        husk = contexts.husk(project.state, self.on[name].husk)
        return recipe.layers(project, name, bases, husk, self._revision, folder)


def _brought(project: Project, engine: Engine, parts: Parts, digest: Digest, began: float) -> Image:
    """A composed image in the engine, if that has its base."""
    layout = Layout(Image.layout(project, parts.target))
    reference = project.local_name(parts.target)
    if not engine.has_image(parts.base):
        return _elsewhere(engine, layout, reference, parts, time.monotonic() - began)
    there = engine.has_image(str(digest))
    with contextlib.nullcontext() if there else loaded(engine, layout, reference + _ON_TRIAL):
        return named(engine, str(digest), reference, parts, time.monotonic() - began)


def compose(
    project: Project,
    engine: Engine,
    parts: Mapping[str, Parts],
    bases: Mapping[str, Bases],
    revision: Revision,
    view: View,
    *,
    on: Mapping[str, BaseImage] | None = None,
    no_cache: bool = False,
    builder: Builder | None = None,
) -> dict[str, Digest]:
    """Makes `Image.layout` of every target, and tells the digests. A build that fails leaves the earlier ones.

    Args:
        on: the bases that layers were made for when the parts were; they are there already.
        no_cache: whether the layers are made anew from what the earlier stages left.
        builder: the engine's own by default.

    Raises:
        BuildError: a stage failed.
    """
    trials = {name: Layout(recipe.trial_layout(project, name)) for name in parts}
    under: dict[str, BaseImage] = {}
    targets = {}
    for name, each in parts.items():
        platform = project.targets[name].platform
        under[name] = base_images.described(project.state, engine, each.base, Digest(each.base_digest), platform)
        if on and on.get(name) == under[name]:
            continue
        husk, folder = contexts.husk(project.state, under[name].husk), trials[name].folder
        targets[name] = recipe.layers(project, name, bases[name], husk, revision, folder, no_cache=no_cache)
        shutil.rmtree(folder, ignore_errors=True)  # BuildKit would add to what is there
    if targets:
        definition = project.state / _DEFINITION
        bake(targets, context=project.root, definition=definition, view=view, builder=builder)
    digests = {}
    for name, each in parts.items():
        command = recipe.command(project, recipe.plugins(project, each))
        labels = record.labels(project, each, bases[name], revision)
        digests[name] = trials[name].put_on(under[name], command=command, labels=labels)
    for name, trial in trials.items():
        shutil.rmtree(Image.layout(project, name), ignore_errors=True)
        trial.folder.replace(Image.layout(project, name))
    return digests


def _in_older_store(
    project: Project,
    engine: Engine,
    parts: Mapping[str, Parts],
    bases: Mapping[str, Bases],
    revision: Revision,
    view: View,
    began: float,
    builder: Builder | None,
) -> list[Image]:
    """Docker's older image store knows no manifests: there the engine makes the whole image."""
    if far := next(
        (name for name, each in bases.items() if each.triton and not engine.has_image(each.triton.name)), ""
    ):
        raise MachineError(
            f"the base of target {far!r} is not here, and the engine's image store puts no image on one elsewhere",
            where=parts[far].base,
            remedy=f"switch the containerd image store on ({CONTAINERD}), or pull the base",
        )
    metadata = bake(
        {
            name: recipe.image(
                project, each, bases[name], revision, record.labels(project, each, bases[name], revision)
            )
            for name, each in parts.items()
        },
        context=project.root,
        definition=project.state / _DEFINITION,
        view=view,
        builder=builder,
    )
    digests = {name: _digest(engine, metadata[name]) for name in parts}
    return [
        named(engine, digest, project.local_name(name), parts[name], time.monotonic() - began)
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


def named(engine: Engine, digest: str, reference: str, parts: Parts, seconds: float) -> Image:
    """Gives the image its name, and describes it."""
    with translated(reference):
        repository, _, tag = reference.rpartition(":")
        engine.client.api.tag(digest, repository, tag, force=True)
        found = engine.image(digest)
        history = engine.client.api.history(digest)
    digests = found["RootFS"]["Layers"]
    return Image(
        target=parts.target,
        reference=reference,
        digest=digest,
        base=parts.base,
        base_digest=parts.base_digest,
        parts=parts.digest,
        labels=found["Config"].get("Labels") or {},
        engine=engine.version,
        in_engine=True,
        bytes=found["Size"],
        layers=tuple(
            Layer(digest=digest, bytes=size) for digest, size in zip(digests, _sizes(digests, history), strict=True)
        ),
        seconds=round(seconds, 2),
    )


def _elsewhere(engine: Engine, layout: Layout, reference: str, parts: Parts, seconds: float) -> Image:
    """Describes an image whose base is not here."""
    manifest, config = layout.manifest, layout.config
    sizes = [layer["size"] for layer in manifest["layers"]]
    return Image(
        target=parts.target,
        reference=reference,
        digest=str(layout.digest),
        base=parts.base,
        base_digest=parts.base_digest,
        parts=parts.digest,
        labels=config["config"].get("Labels") or {},
        engine=engine.version,
        in_engine=False,
        bytes=sum(layer["size"] for layer in manifest["layers"] if layout.holds(layer["digest"])),
        layers=tuple(
            Layer(digest=digest, bytes=size) for digest, size in zip(config["rootfs"]["diff_ids"], sizes, strict=True)
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
