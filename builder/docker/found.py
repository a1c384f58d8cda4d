"""Images by whatever names them, wherever they are: in what a build left, in the engine, in a registry.

No more is read of them than manifest and configuration, and layers one by one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from builder import bases, journal
from builder.artifacts import Image
from builder.docker import present
from builder.docker.engine import CONTAINERD, Engine
from builder.docker.saved import SavedBlobs
from builder.errors import BadReference, BadUsage, MachineError, NoImage, NoRecord, NothingBuilt
from builder.journal import Entry
from builder.oci import BaseImage, Blocks, Layout
from builder.project import PLATFORM, Project
from builder.record import LABEL, Record
from builder.reference import Digest, Reference
from builder.registry import Registry
from builder.registry.content import digest_of

_ID_AT_LEAST = 8
"""Characters of a build's id, or of a digest, that are taken for the whole."""

Open = Callable[[Mapping[str, Any]], contextlib.AbstractContextManager[BinaryIO]]


@dataclass(frozen=True)
class Layer:
    """A layer of an image, as its manifest and its configuration tell."""

    diff_id: str
    """The digest of its uncompressed form, which is the same however it is compressed."""
    descriptor: Mapping[str, Any]
    what: str
    """The step that made it; empty where the configuration does not tell."""
    of_base: bool

    @property
    def bytes(self) -> int:
        """Compressed."""
        return int(self.descriptor["size"])


@dataclass(frozen=True)
class FoundImage:
    """An image, and the way to its layers."""

    name: str
    """As it was asked for."""
    image: BaseImage
    own: int
    """How many of its layers, the last ones, are no base's."""
    open: Open = field(repr=False)
    entry: Entry | None = None
    """Its build, if that was on this machine."""

    @property
    def digest(self) -> str:
        """Of its manifest."""
        return str(digest_of(self.image.manifest))

    @cached_property
    def config(self) -> dict[str, Any]:
        return dict(json.loads(self.image.config))

    @property
    def labels(self) -> dict[str, str]:
        return _labels(self.config)

    @property
    def record(self) -> Record | None:
        with contextlib.suppress(NoRecord):
            return Record.read(self.labels, self.name)
        return None

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        descriptors = json.loads(self.image.manifest)["layers"]
        history = self.config.get("history") or ()  # null is legal, as for any list of Go's
        steps = [each.get("created_by", "") for each in history if not each.get("empty_layer")]
        if len(steps) != len(descriptors):
            steps = [""] * len(descriptors)
        ids = self.config["rootfs"]["diff_ids"]
        return tuple(
            Layer(diff_id, descriptor, _step(what), number < len(ids) - self.own)
            for number, (diff_id, descriptor, what) in enumerate(zip(ids, descriptors, steps, strict=True))
        )

    @property
    def bytes(self) -> int:
        """Of its layers, compressed."""
        return sum(each.bytes for each in self.layers)


class Finder:
    """Finds images by whatever names them, and reads no more of them than it must."""

    def __init__(self, project: Project | None, folder: Path, engine: Callable[[], Engine | None] = present.engine):
        """
        Args:
            project: the one that names of targets are of, if there is one.
            folder: remembers manifests and configurations that were read.
            engine: gives the engine where one answers.
        """
        self._project = project
        self._state = project.state if project else folder
        self._connect = engine
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Finder:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @cached_property
    def engine(self) -> Engine | None:
        return self._connect()

    @cached_property
    def _entries(self) -> tuple[Entry, ...]:
        return tuple(journal.entries())

    def _build_of(self, digest: str) -> Entry | None:
        return next((each for each in self._entries if each.digest == digest), None)

    def last_two(self) -> tuple[FoundImage, FoundImage]:
        """Those of the last two builds of the project's first target that gave different images, the older one first.

        Raises:
            NothingBuilt: there are no two.
        """
        assert self._project is not None
        target = next(iter(self._project.targets))
        found: dict[str, Entry] = {}
        for each in self._entries:
            if each.digest and (each.project, each.target) == (str(self._project.root), target):
                found.setdefault(each.digest, each)
            if len(found) == 2:
                after, before = found.values()
                return self._of_entry(before), self._of_entry(after)
        raise NothingBuilt(
            f"there are no two builds of target {target!r} with different images",
            where=str(journal.folder()),
            remedy="name two images: python -m builder diff A B",
        )

    def find(self, name: str) -> FoundImage:
        """The image that a target, a build's id, a digest or a reference stands for.

        Raises:
            NoImage: there is none.
            NothingBuilt: the target was not built.
            MachineError, PushError: the engine or the registry cannot be read.
        """
        if self._project and name in self._project.targets:
            image = Image.load(self._project, name)
            return self._of_digest(name, image.digest, self._project, name, image.base)
        begun = (each for each in self._entries if len(name) >= _ID_AT_LEAST and each.id.startswith(name))
        if entry := next(begun, None):
            return self._of_entry(entry, name)
        if local := self._built_here(name):
            return local
        if found := self.engine.find(name) if self.engine else None:
            if (built := self._build_of(found["Id"])) and (layout := _layout(built)):
                return self._in_layout(name, layout, built.base)
            return self._in_engine(name, self._engine_with_manifests(), found)
        try:
            reference = Reference.parse(name)
        except BadReference:
            raise _no_image(name) from None
        if reference.host == "docker.io" and reference.path.startswith("library/"):
            # A name without a host, as local images have it: not to be looked for in the world.
            raise _no_image(name)
        return self._in_registry(name, name)

    def _of_entry(self, entry: Entry, name: str = "") -> FoundImage:
        name = name or entry.id
        if not entry.digest:
            raise BadUsage(
                f"the build {entry.id} failed, and left no image",
                where=name,
                remedy="`python -m builder history` has others",
            )
        return self._of_digest(name, entry.digest, _project(entry), entry.target, entry.base)

    def _of_digest(self, name: str, digest: str, project: Project, target: str, base: str) -> FoundImage:
        """An image that was built on this machine: its layers are in its project's folder, or in the engine."""
        layout = Layout(Image.layout(project, target))
        if layout.exists and str(layout.digest) == digest:
            return self._in_layout(name, layout, base)
        if found := self.engine.find(digest) if self.engine else None:
            return self._in_engine(name, self._engine_with_manifests(), found)
        with contextlib.suppress(MachineError):
            if bases.digest_in_registry(f"{project.home.repository}@{digest}"):
                return self._in_registry(name, f"{project.home.repository}@{digest}")
        raise NoImage(
            "the image of that build is gone",
            where=f"{name} {digest}",
            remedy="build it again; the engine keeps an image until `docker image prune` or `python -m builder clean`",
        )

    def _built_here(self, name: str) -> FoundImage | None:
        """By its digest, which the engine need not know."""
        if not self._project or len(name.removeprefix("sha256:")) < _ID_AT_LEAST:
            return None
        for target in self._project.targets:
            image = Image.find(self._project, target)
            if image and image.digest.removeprefix("sha256:").startswith(name.removeprefix("sha256:")):
                return self._of_digest(name, image.digest, self._project, target, image.base)
        return None

    def _in_layout(self, name: str, layout: Layout, base: str) -> FoundImage:
        manifest = layout.manifest
        config = layout.path(manifest["config"]["digest"]).read_bytes()
        own = sum(layout.holds(each["digest"]) for each in manifest["layers"])
        under: list[Open] = []

        @contextlib.contextmanager
        def open_layer(layer: Mapping[str, Any]) -> Iterator[BinaryIO]:
            digest = Digest(layer["digest"])
            if layout.holds(digest):
                with layout.open(digest) as blob:
                    yield blob
                return
            if not under:
                under.append(self._elsewhere(str(layout.digest), base))
            with under[0](layer) as blob:
                yield blob

        image = BaseImage(name, layout.digest, layout.content, config)
        return FoundImage(name, image, own, open_layer, self._build_of(str(layout.digest)))

    def _elsewhere(self, digest: str, base: str) -> Open:
        """The layers of a base, out of the engine or out of the base's registry."""
        for each in (digest, base):
            if self.engine and self.engine.has_image(each):
                return self._saved(self.engine, each)
        if base.startswith(bases.OURS):
            raise NoImage("the image's base is not in the engine any more", where=base, remedy="build the image again")
        return _from_registry(base)

    def _in_engine(self, name: str, engine: Engine, found: Mapping[str, Any]) -> FoundImage:
        digest = Digest(found["Id"])
        platform = f"{found['Os']}/{found['Architecture']}"
        image = bases.described(self._state, engine, str(digest), digest, platform)
        return self._side(name, image, self._saved(engine, str(digest)))

    def _in_registry(self, name: str, reference: str) -> FoundImage:
        digest = bases.digest_in_registry(reference)
        if digest is None:
            raise _no_image(name)
        image = bases.in_registry(reference, digest, PLATFORM)
        return self._side(name, image, _from_registry(reference))

    def _side(self, name: str, image: BaseImage, open_layer: Open) -> FoundImage:
        entry = self._build_of(str(digest_of(image.manifest)))
        return FoundImage(name, image, _own(image, entry), open_layer, entry)

    def _saved(self, engine: Engine, image: str) -> Open:
        saved = self._open.enter_context(SavedBlobs(engine, image))
        return lambda layer: saved.blob(Digest(layer["digest"]))

    def _engine_with_manifests(self) -> Engine:
        assert self.engine is not None
        self.engine.require_manifests(
            "the engine's image store keeps no manifests, by which layers are found",
            remedy=f"switch the containerd image store on ({CONTAINERD}), or name images of a registry",
        )
        return self.engine


def _from_registry(reference: str) -> Open:
    connected: list[Registry] = []

    @contextlib.contextmanager
    def open_layer(layer: Mapping[str, Any]) -> Iterator[BinaryIO]:
        if not connected:
            connected.append(Registry.connect(Reference.parse(reference)))
            connected[0].log_in()
        yield cast(BinaryIO, Blocks(connected[0].blob(Digest(layer["digest"]))))

    return open_layer


def _no_image(name: str) -> NoImage:
    return NoImage(
        "there is no such image",
        where=name,
        remedy="name a target, an id of `python -m builder history`, an image of the engine, or "
        "HOST/REPOSITORY@sha256:... in a registry",
    )


def _project(entry: Entry) -> Project:
    """As far as it takes to find what its builds left."""
    values = {"root": entry.project, "repository": entry.repository, "targets": {entry.target: {}}}
    return Project.model_validate(values)


def _layout(entry: Entry) -> Layout | None:
    """Where its image is, unless a later build's is there by now."""
    layout = Layout(Image.layout(_project(entry), entry.target))
    return layout if layout.exists and str(layout.digest) == entry.digest else None


def _own(image: BaseImage, entry: Entry | None) -> int:
    """How many layers of an image are its project's own, where its layout does not tell."""
    if entry:
        return len(entry.layers) - entry.base_layers
    config = json.loads(image.config)
    # The shipped Dockerfile's stage `runtime` makes two; an image that is none of ours is a base, all of it.
    return min(2, len(config["rootfs"]["diff_ids"])) if LABEL in _labels(config) else 0


def _labels(config: Mapping[str, Any]) -> dict[str, str]:
    return dict((config.get("config") or {}).get("Labels") or {})


def _step(created_by: str) -> str:
    """Of a Dockerfile, as it was written."""
    return created_by.removeprefix("/bin/sh -c #(nop) ").removesuffix(" # buildkit").strip()
