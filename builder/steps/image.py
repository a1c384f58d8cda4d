"""Puts the parts into an image, with labels that tell where it comes from.

BuildKit makes the project's own layers, on an image that has the base's configuration and no layer. The base's layers
are put under them by digest: nobody reads, copies or compresses them again, and those in a registry alone stay there.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from builder import bases as base_images
from builder import oci, recipe, record
from builder.artifacts import Image, Layer, Parts
from builder.docker.bake import bake
from builder.docker.engine import Engine, translated
from builder.docker.loaded import loaded
from builder.errors import MachineError
from builder.oci import BaseImage, Layout
from builder.project import Project
from builder.recipe import Bases
from builder.reference import Digest
from builder.registry.content import as_content, digest_of
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
    console: Console,
    *,
    began: float,
) -> list[Image]:
    """The images of all targets, in the engine if it has their base.

    Args:
        began: `time.monotonic()` when the build did.

    Raises:
        BuildError: a stage failed.
    """
    if not engine.keeps_manifests:
        return _in_older_store(project, engine, parts, bases, revision, console, began)
    composed = compose(project, engine, parts, bases, revision, console)
    images = []
    for name, digest in composed.items():
        layout = Layout(Image.layout(project, name))
        reference = project.local_name(name)
        if engine.has_image(parts[name].base):
            there = engine.has_image(str(digest))
            with contextlib.nullcontext() if there else loaded(engine, layout, reference + _ON_TRIAL):
                image = named(engine, str(digest), reference, parts[name], time.monotonic() - began)
        else:
            image = _elsewhere(engine, layout, reference, parts[name], time.monotonic() - began)
        images.append(image.save(project))
    return images


def compose(
    project: Project,
    engine: Engine,
    parts: Mapping[str, Parts],
    bases: Mapping[str, Bases],
    revision: Revision,
    console: Console,
    *,
    no_cache: bool = False,
) -> dict[str, Digest]:
    """Makes `Image.layout` of every target, and tells the digests. A build that fails leaves the earlier ones.

    Args:
        no_cache: whether the layers are made anew from what the earlier stages left.

    Raises:
        BuildError: a stage failed.
    """
    trials = {name: Layout(Image.layout(project, name).with_name("oci.trial")) for name in parts}
    under: dict[str, BaseImage] = {}
    targets = {}
    for name, each in parts.items():
        platform = project.targets[name].platform
        under[name] = base_images.described(project.state, engine, each.base, Digest(each.base_digest), platform)
        labels = record.labels(project, each, bases[name], revision)
        husk, folder = load_husk(engine, under[name]), trials[name].folder
        targets[name] = recipe.layers(project, each, bases[name], husk, revision, labels, folder)
        if no_cache:
            targets[name]["no-cache-filter"] = recipe.LAYERS
        shutil.rmtree(folder, ignore_errors=True)  # BuildKit would add to what is there
    bake(targets, context=project.root, definition=project.state / _DEFINITION, console=console)
    digests = {name: trials[name].put_on(base) for name, base in under.items()}
    for name, trial in trials.items():
        shutil.rmtree(Image.layout(project, name), ignore_errors=True)
        trial.folder.replace(Image.layout(project, name))
    return digests


def load_husk(engine: Engine, base: BaseImage) -> str:
    """The name of an image with the base's configuration and without its layers."""
    config = base.husk
    name = f"triton-dali-builder/husk:{digest_of(as_content(config)).value.removeprefix('sha256:')[:12]}"
    if not engine.has_image(name):
        engine.load([oci.husk_archive(name, config)], name)
    return name


def _in_older_store(
    project: Project,
    engine: Engine,
    parts: Mapping[str, Parts],
    bases: Mapping[str, Bases],
    revision: Revision,
    console: Console,
    began: float,
) -> list[Image]:
    """Docker's older image store knows no manifests: there the engine makes the whole image."""
    if far := next(
        (name for name, each in bases.items() if each.triton and not engine.has_image(each.triton.name)), ""
    ):
        raise MachineError(
            f"the base of target {far!r} is not here, and the engine's image store puts no image on one elsewhere",
            where=parts[far].base,
            remedy='switch the containerd image store on ("features": {"containerd-snapshotter": true} in '
            "/etc/docker/daemon.json), or pull the base",
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
        console=console,
    )
    digests = {name: _digest(engine, metadata[name]) for name in parts}
    return [
        named(engine, digest, project.local_name(name), parts[name], time.monotonic() - began).save(project)
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
