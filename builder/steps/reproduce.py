"""Makes an image again from its own record, and holds the two against each other."""

from __future__ import annotations

import contextlib
import json
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, cast

from builder import __version__, bases, layers, lock, package
from builder.artifacts import Image, Parts
from builder.docker.engine import Engine
from builder.docker.saved import SavedBlobs
from builder.errors import NoImage, NotReproducible, SourcesDiffer
from builder.oci import BaseImage, Blocks, Layout
from builder.process import run
from builder.project import Project
from builder.record import Record, digests
from builder.reference import Digest, Reference
from builder.registry import Registry
from builder.registry.content import digest_of

_SHOWN = 300
"""Characters of a setting."""


@dataclass(frozen=True)
class Original:
    """The image that is made again."""

    image: BaseImage
    record: Record
    in_engine: bool

    @property
    def digest(self) -> Digest:
        """Of its manifest, also where its name stands for an index."""
        return digest_of(self.image.manifest)


def original(engine: Engine, state: Path, reference: str, platform: str) -> Original:
    """Reads what an image tells of itself, from the engine if it is there, otherwise from its registry.

    Raises:
        NoImage: it is in neither.
        NoRecord: it does not tell what it was made from.
    """
    if found := engine.find(reference):
        digest, in_engine = Digest(found["Id"]), True
    else:
        told, in_engine = bases.digest_in_registry(reference), False
        if told is None:
            raise NoImage("there is no such image", where=reference, remedy="give the reference that `push` printed")
        digest = told
    image = bases.described(state, engine, reference, digest, platform)
    labels = json.loads(image.config)["config"].get("Labels") or {}
    return Original(image, Record.read(labels, reference), in_engine)


def project_of(record: Record, here: Path, folder: Path) -> Project:
    """The project that the record is of, in `folder`: the sources in `here`, or those of the commit that it names.

    Raises:
        SourcesDiffer: neither are what the image was made from.
    """
    project = _project(record, folder)
    _take(here, folder, record)
    if digests(project) == record.sources:
        return project
    present = digests(project)
    commit, dirty, _ = record.commit.partition("-dirty")
    checked_out = bool(commit and not dirty) and _check_out(commit, here, folder, tuple(record.sources))
    if checked_out and digests(project) == record.sources:
        return project
    raise SourcesDiffer(
        "the sources here are not those that the image was made from",
        where=str(here),
        remedy=f"check out {commit} of {record.remote or 'its sources'}"
        + (", with the changes that were not committed then" if dirty else "")
        if commit
        else "go to the sources that it was made from; the image does not name a commit",
        detail=[
            f"{name}: sha256 {was} then, {present.get(name) or 'none'} here"
            for name, was in record.sources.items()
            if present.get(name) != was
        ],
    )


def compare(engine: Engine, found: Original, project: Project, parts: Parts) -> None:
    """Raises NotReproducible unless `Image.layout` has the very image."""
    rebuilt = Layout(Image.layout(project, parts.target))
    if is_same(found, rebuilt):
        return
    where, what = _first_difference(engine, found, parts, rebuilt)
    raise NotReproducible(
        f"the rebuilt image is {rebuilt.digest}; the first that differs is {where}",
        where=found.image.name,
        remedy="give the build again what the lines below name; where they name nothing, the build itself varies there",
        detail=[f"{where}: {what}", *_why(found.record, project, parts)],
    )


def is_same(found: Original, rebuilt: Layout) -> bool:
    """Whether an image is the very one; of one that was moved to another base, whether its own layers are."""
    if not found.record.compiled:
        return rebuilt.content == found.image.manifest
    own = [each["digest"] for each in rebuilt.manifest["layers"] if rebuilt.holds(each["digest"])]
    its = [each["digest"] for each in json.loads(found.image.manifest)["layers"]]
    return its[-len(own) :] == own


def _project(record: Record, folder: Path) -> Project:
    values = {
        "root": folder.resolve(),
        "repository": record.repository,
        "plugins": record.plugins,
        "server_args": record.server_args,
        "source": record.source,
        "targets": {record.target: record.made_on.built_as},
    }
    return Project.model_validate(values)


def _take(here: Path, folder: Path, record: Record) -> None:
    """Copies the sources that the record names, and no others."""
    for name in record.sources:
        source = here / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy2(source, folder / name)


def _check_out(commit: str, here: Path, folder: Path, names: Iterable[str]) -> bool:
    """Puts the sources as they were at `commit` into the folder; whether there is such a commit."""
    archive = folder / "sources.tar"
    # From a folder of the work tree it takes what is below, by names relative to it.
    made = run(["git", "-C", str(here), "archive", f"--output={archive}", commit, "--", *names])
    if made.returncode:
        return False
    for name in names:
        shutil.rmtree(folder / name, ignore_errors=True)
    with tarfile.open(archive) as content:
        # Debian 12's Python has no filters; git itself writes no path that leads out of the folder.
        content.extraction_filter = getattr(tarfile, "data_filter", None)
        content.extractall(folder)
    archive.unlink()
    return True


def _first_difference(engine: Engine, found: Original, parts: Parts, rebuilt: Layout) -> tuple[str, str]:
    """The first file of the lowest layer that is another one, or else the first setting; and what of it."""
    original = json.loads(found.image.manifest)
    pairs = zip_longest(original["layers"], rebuilt.manifest["layers"], fillvalue=None)
    for number, (its, ours) in enumerate(pairs, start=1):
        if its is None or ours is None:
            return f"layer {number}", "it is only in the " + ("rebuilt image" if its is None else "image")
        if its["digest"] == ours["digest"]:
            continue
        with _of_original(engine, found, its) as one, _of_rebuilt(engine, parts, rebuilt, ours) as other:
            path, what = layers.first_difference(
                layers.files(one, its["mediaType"]), layers.files(other, ours["mediaType"])
            )
        return (path, what) if path else (f"layer {number}", "the same files, in another order or compressed otherwise")
    return _first_setting(json.loads(found.image.config), rebuilt.config)


def _first_setting(one: Mapping[str, Any], other: Mapping[str, Any], path: str = "") -> tuple[str, str]:
    for key in sorted({*one, *other}):
        its, ours = one.get(key), other.get(key)
        if isinstance(its, dict) and isinstance(ours, dict):
            if (inner := _first_setting(its, ours, f"{path}{key}."))[0]:
                return inner
        elif its != ours:
            return f"{path}{key} of the configuration", f"{_short(its)}, rebuilt {_short(ours)}"
    return "", ""


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@contextlib.contextmanager
def _of_original(engine: Engine, found: Original, layer: Mapping[str, Any]) -> Iterator[BinaryIO]:
    digest = Digest(layer["digest"])
    if found.in_engine:
        with SavedBlobs(engine, found.image.name) as saved, saved.blob(digest) as blob:
            yield blob
    else:
        registry = Registry.connect(Reference.parse(found.image.name))
        registry.log_in()
        yield cast(BinaryIO, Blocks(registry.blob(digest)))


@contextlib.contextmanager
def _of_rebuilt(engine: Engine, parts: Parts, rebuilt: Layout, layer: Mapping[str, Any]) -> Iterator[BinaryIO]:
    digest = Digest(layer["digest"])
    if rebuilt.holds(digest):
        with rebuilt.open(digest) as blob:
            yield blob
    else:
        with SavedBlobs(engine, parts.base) as saved, saved.blob(digest) as blob:
            yield blob


def _why(record: Record, project: Project, parts: Parts) -> list[str]:
    """What went into the rebuilt image that did not go into the other."""
    target, held = project.targets[record.target], record.made_on.lock
    now = held.model_copy(update={"wheels": lock.wheels(target), "debian": parts.packages})
    lines = lock.differences(held, now)
    if (record.builder, record.program) != (__version__, package.digest()):
        lines.insert(
            0, f"it was built by version {record.builder} of this program, by other files than {__version__} has"
        )
    return lines
