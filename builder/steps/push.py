"""Pushes exactly the image that was verified, and says by which digest to deploy it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from builder import sources
from builder.artifacts import Image, Parts, Pushed, Verification
from builder.docker import pushed
from builder.docker.engine import Engine
from builder.docker.saved import SavedBlobs
from builder.errors import DigestMismatch, NotVerified, PushError
from builder.oci import Blocks, Layout, skip
from builder.project import Project
from builder.reference import Digest, Reference
from builder.registry import Descriptor, Manifest, Registry


def check_verified(image: Image, verification: Verification | None) -> Verification:
    """The verification of this very image.

    Raises:
        NotVerified: there is none, it did not pass, or it is another image's.
    """
    remedy = f"run `python -m builder smoke --target {image.target}` first"
    if verification is None or not verification.passed:
        raise NotVerified(
            "the image has no passed verification", where=f"{image.reference} {image.digest}", remedy=remedy
        )
    if verification.digest != image.digest:
        raise NotVerified(
            f"the image was built again after its verification, which is of {verification.digest}",
            where=f"{image.reference} {image.digest}",
            remedy=remedy,
        )
    return verification


def check_made_of(project: Project, image: Image, parts: Parts) -> None:
    """Whether what the last build left is what the image was made of, as the SBOM will tell it.

    Raises:
        NotVerified: it is not: a later build did not come to its end, or files were changed.
    """
    models = project.state / image.target / "parts" / "models"
    if parts.digest != image.parts or sources.digest(models) != parts.files:
        raise NotVerified(
            "what the last build left is not what this image was made of",
            where=str(models.parent),
            remedy=f"run `python -m builder build --target {image.target}`, then smoke and push",
        )


def check_promotable(verification: Verification | None, what: Reference) -> Verification:
    """The verification of an image in a registry. Raises NotVerified."""
    if verification is None or not verification.passed:
        raise NotVerified(
            "the image has no passed verification on this machine",
            where=str(what),
            remedy=f"python -m builder smoke {what}",
        )
    return verification


def connect(to: Reference) -> Registry:
    """The registry, with Docker's credentials for it. Raises NoRegistry, InsecureRegistry, MachineError."""
    registry = Registry.connect(to)
    registry.log_in()
    return registry


def run(project: Project, engine: Engine, image: Image, to: Reference, console: Console) -> Pushed:
    """Brings `image` to the repository of `to` under its digest; no tag is touched.

    Layers that the registry has, in whatever repository of it this program knows of, are not sent.

    Raises:
        NoRegistry, Unauthorized, RegistryReadOnly, RegistryFull, InsecureRegistry, PushError: the registry does not
            take it.
        DigestMismatch: the registry then holds something else.
    """
    began = time.monotonic()
    registry = connect(to)
    layout = Layout(Image.layout(project, image.target))
    if not engine.keeps_manifests:
        held, sent, mounted = pushed.by_engine(engine, image, to, registry, console)
    elif layout.exists and str(layout.digest) == image.digest:
        sent, mounted = _blobs(project, engine, image, layout, registry, console)
        registry.put_manifest(layout.content, layout.media_type)
        held = _read_back(registry, image.digest)
    else:
        raise NotVerified(
            "the layers of the image are not those of the last build",
            where=str(layout.folder),
            remedy=f"run `python -m builder build --target {image.target}`, then smoke and push",
        )
    return Pushed(
        target=image.target,
        reference=str(to.with_digest(held.digest)),
        tag="",
        digest=str(held.digest),
        media_type=held.media_type,
        manifest_bytes=len(held.content),
        bytes_uploaded=sent,
        bytes_mounted=mounted,
        seconds=round(time.monotonic() - began, 2),
    )


def tag(registry: Registry, made: Pushed, to: Reference) -> Pushed:
    """Gives the pushed image the tag of `to`: the last thing that a push does.

    Raises:
        DigestMismatch: somebody else took the tag at the same time.
    """
    held = _read_back(registry, made.digest)
    registry.put_manifest(held.content, held.media_type, str(to.tag))
    now = registry.manifest(str(to.tag))
    if now is None or now.digest != held.digest:
        raise DigestMismatch(
            f"the registry holds {now.digest if now else 'nothing'} under the tag, not the image that was verified",
            where=str(to),
            remedy="somebody else may have pushed the same tag; push again, or choose another tag",
        )
    return made.model_copy(update={"tag": str(to)})


def found(registry: Registry, what: Reference, target: str) -> Pushed:
    """An image that is in the registry already.

    Raises:
        PushError: it is not.
    """
    held = _read_back(registry, str(what.digest))
    return Pushed(
        target=target,
        reference=str(what.with_digest(held.digest)),
        tag="",
        digest=str(held.digest),
        media_type=held.media_type,
        manifest_bytes=len(held.content),
        bytes_uploaded=0,
        bytes_mounted=0,
        seconds=0,
    )


def check_attached(registry: Registry, digest: Digest, attached: Iterable[Digest]) -> None:
    """Asks once more before the tag: of a registry without the referrers API others may have rewritten the list.

    Raises:
        PushError: something that was attached is no longer listed.
    """
    listed = {each.digest for each in registry.referrers(digest)}
    if lost := [str(each) for each in attached if each not in listed]:
        raise PushError(
            "the registry no longer lists what was attached to the image",
            where=f"{registry.repository.repository}@{digest}",
            remedy="somebody else attached something at the same time; push again",
            detail=lost,
        )


def subject(made: Pushed) -> Descriptor:
    """What the referrers of the image refer to."""
    return Descriptor(made.media_type, Digest(made.digest), made.manifest_bytes)


def _read_back(registry: Registry, digest: str) -> Manifest:
    held = registry.manifest(digest)
    if held is None:
        raise PushError(
            "the registry does not give back what was pushed",
            where=f"{registry.repository.repository}@{digest}",
            remedy="push again",
        )
    return held


def _blobs(
    project: Project, engine: Engine, image: Image, layout: Layout, registry: Registry, console: Console
) -> tuple[int, int]:
    """Sees to it that the repository has every blob; gives the bytes that were sent, and those that were mounted."""
    manifest = layout.manifest
    lacking: dict[str, int] = {}
    mounted = 0
    elsewhere = _other_repositories(project, image, registry.repository)
    for blob in (*manifest["layers"], manifest["config"]):
        digest, size = Digest(blob["digest"]), int(blob["size"])
        if str(digest) in lacking or registry.blob_size(digest) is not None:
            continue
        if any(registry.mount(digest, other) for other in elsewhere):
            mounted += size
        else:
            lacking[str(digest)] = size
    sessions = project.state / "uploads"
    sent = 0
    with SavedBlobs(engine, image.digest) as saved, _bars(console) as bars:
        # In the order in which the engine's stream has them.
        for text, size in sorted(lacking.items()):
            digest = Digest(text)

            def source(offset: int, digest: Digest = digest) -> contextlib.AbstractContextManager[BinaryIO]:
                if layout.holds(digest):
                    return layout.open(digest, offset)
                return saved.blob(digest, offset) if image.in_engine else _from_base(image, digest, offset)

            bar = bars.add_task(text.removeprefix("sha256:")[:12], total=size)

            def progress(count: int, bar: object = bar) -> None:
                bars.update(bar, advance=count)  # type: ignore[arg-type]

            sent += registry.upload(digest, size, source, sessions, progress)
            if not console.is_terminal:
                console.print(f"{text.removeprefix('sha256:')[:12]}: uploaded {size} bytes")
    return sent, mounted


def _other_repositories(project: Project, image: Image, to: Reference) -> list[str]:
    """Repositories of the same registry that may have the layers: the base's, and those that were pushed to before."""
    known = [image.base]
    for name in project.targets:
        if earlier := Pushed.find(project, name):
            known.append(earlier.reference)
    found = (Reference.parse(name) for name in known if name)
    return list(dict.fromkeys(each.path for each in found if each.host == to.host and each.path != to.path))


@contextlib.contextmanager
def _from_base(image: Image, digest: Digest, offset: int) -> Iterator[BinaryIO]:
    """A layer out of the base's own registry, where that is another one than the image goes to."""
    stream: Any = Blocks(connect(Reference.parse(image.base)).blob(digest))
    skip(stream, offset)
    yield stream


def _bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)
