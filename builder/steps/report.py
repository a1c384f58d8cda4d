"""Tells a build as a page: what the journal has of it, and what was left of its image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import recipe, sources
from builder.artifacts import Image, Parts, Pushed, Verification, write_atomically
from builder.attest import records
from builder.attest.statement import SBOM
from builder.errors import BadUsage, BuildUnknown, NoRecord, NothingBuilt
from builder.journal import Entry
from builder.project import Project
from builder.reference import Digest
from builder.views.report import Told, page

FILE_NAME = "report.html"


@dataclass(frozen=True)
class Report:
    """A page that was written."""

    file: Path
    build: Entry
    before: Entry | None


def choose(entries: Iterable[Entry], project: Project, target: str, named: str) -> list[Entry]:
    """The builds of the target in this folder up to the one that is meant, the newest first; the first is that one.

    Args:
        entries: the newest first.
        target: empty for that of the build which is named, and otherwise the only one that counts.
        named: the beginning of an ID or of a digest; empty for the last build.

    Raises:
        BuildUnknown: there is no such build.
        BadUsage: what is named may be one of several images.
    """
    everywhere = list(entries)
    here = [each for each in everywhere if Path(each.project) == project.root and target in ("", each.target)]
    if not named:
        if not here:
            raise BuildUnknown(
                f"no build of {target} is recorded in this folder",
                where=str(project.root),
                remedy=f"run `python -m builder build --target {target}` first",
            )
        return here
    meant = [each for each in here if _is(each, named)]
    if not meant:
        elsewhere = next((each for each in everywhere if _is(each, named)), None)
        raise BuildUnknown(
            f"no build of this folder has an ID or a digest that begins with {named!r}",
            where=str(project.root),
            remedy=f"it was one of {elsewhere.target} in another folder: give -C {elsewhere.project}"
            if elsewhere
            else "`python -m builder history` lists the builds of this machine",
        )
    if len({(each.target, each.digest or each.id) for each in meant}) > 1:
        raise BadUsage(
            f"{named!r} is the beginning of several builds",
            where="report",
            remedy="give more of the ID or of the digest",
            detail=[f"{each.id} {each.target} {each.digest}" for each in meant],
        )
    first, *_ = meant
    return [each for each in here if each.target == first.target and each.id <= first.id]


def _is(entry: Entry, named: str) -> bool:
    bare = named.removeprefix("sha256:")
    return entry.id.startswith(named) or (bool(bare) and entry.digest.removeprefix("sha256:").startswith(bare))


def run(project: Project, builds: Sequence[Entry], to: Path | None = None) -> Report:
    """Writes the page of the first of `builds`; the others are the earlier ones of the target, the newest first.

    Raises:
        BadUsage: the file cannot be written.
    """
    build, *earlier = builds
    before = next((each for each in earlier if each.digest), None)
    file = to or project.state / build.target / FILE_NAME
    text = page(
        Told(
            build=build,
            before=before,
            recent=tuple(reversed(builds)),
            verification=_verification(project, build),
            pushed=_pushed(project, build),
            sbom=_sbom(project, build),
        )
    )
    try:
        write_atomically(file, text)
    except OSError as error:
        raise BadUsage(
            f"{file} cannot be written: {error.strerror}",
            where="--out" if to else str(project.state),
            remedy="name a file that you may write with --out",
        ) from None
    return Report(file, build, before)


def _verification(project: Project, build: Entry) -> Verification | None:
    return Verification.of_digest(project, build.digest) if build.digest else None


def _pushed(project: Project, build: Entry) -> Pushed | None:
    found = Pushed.find(project, build.target)
    return found if found and found.digest == build.digest else None


def _sbom(project: Project, build: Entry) -> dict[str, Any] | None:
    """As `push` attaches it; None where the files of the last build are not those of this image."""
    image, parts = Image.find(project, build.target), Parts.find(project, build.target)
    if not image or not parts or not build.digest or image.digest != build.digest or image.parts != parts.digest:
        return None
    if sources.digest(recipe.kept(project, build.target) / "models") != parts.files:
        return None
    try:
        told = records.of_build(project, image, parts, project.home.repository, Digest(image.digest))
    except (NothingBuilt, NoRecord):
        return None
    return next((each.predicate for each in told if each.predicate_type == SBOM), None)
