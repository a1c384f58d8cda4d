"""`history`: the builds on this machine, and what became of each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from builder.artifacts import Pushed, Verification
from builder.journal import Entry
from builder.project import Project


class Ending(StrEnum):
    """How far an image came."""

    FAILED = "failed"
    BUILT = "built"
    VERIFIED = "verified"
    PUSHED = "pushed"


@dataclass(frozen=True)
class Build:
    """A build, and what is known of its image by now."""

    entry: Entry
    ending: Ending
    in_engine: bool | None
    """None where no engine answers."""

    @property
    def code(self) -> str:
        """Of what it failed by; empty where it did not."""
        return str((self.entry.error or {}).get("code", ""))

    @property
    def document(self) -> dict[str, Any]:
        """For `history --json`."""
        fields = (
            "id",
            "when",
            "project",
            "repository",
            "target",
            "reference",
            "digest",
            "seconds",
            "bytes",
            "versions",
        )
        return {
            **self.entry.model_dump(include=set(fields)),
            "ended": str(self.ending),
            "code": self.code or None,
            "in_engine": self.in_engine,
        }


def chosen(entries: Iterable[Entry], *, here: Path | None, target: str, failed: bool) -> Iterator[Entry]:
    """Those that are asked for, in their order.

    Args:
        here: the project's folder; None for every project.
        target: its name; empty for every one.
        failed: whether those alone are wanted that failed.
    """
    for each in entries:
        elsewhere = here is not None and Path(each.project) != here
        if not (elsewhere or (target and each.target != target) or (failed and each.error is None)):
            yield each


def build(entry: Entry, images: Collection[str] | None) -> Build:
    """What became of it, as its project's folder and the engine tell.

    Args:
        images: the IDs of those that the engine has; None where no engine answers.
    """
    return Build(entry, _ending(entry), None if images is None else bool(entry.digest) and entry.digest in images)


def _ending(entry: Entry) -> Ending:
    if entry.error is not None:
        return Ending.FAILED
    # Not as it is in builder.toml, which may have changed, be wrong, or gone: its folder is all that counts here.
    values = {"root": entry.project, "repository": entry.repository, "targets": {entry.target: {}}}
    try:
        project = Project.model_validate(values)
    except ValidationError:
        return Ending.BUILT
    pushed = Pushed.find(project, entry.target)
    if pushed and pushed.digest == entry.digest:
        return Ending.PUSHED
    verification = Verification.of_digest(project, entry.digest)
    return Ending.VERIFIED if verification and verification.passed else Ending.BUILT
