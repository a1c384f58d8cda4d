"""What `check` and `why` find: a stable code, a place, a cause and a remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from builder.catalogue import Severity, story


@dataclass(frozen=True, order=True)
class Place:
    """A file of the project, and a line of it where one is to blame."""

    file: str
    """Relative to the project, with slashes; or the name of what is no file of it, such as `--set`."""
    line: int = 0
    column: int = 0

    @classmethod
    def within(cls, root: Path, path: Path, line: int = 0, column: int = 0) -> Place:
        """The place of `path`, as seen from the project's folder `root`."""
        return cls(path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path), line, column)

    def __str__(self) -> str:
        return ":".join([self.file, *(str(number) for number in (self.line, self.column) if number)])


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or soon will be."""

    code: str
    what: str
    """What is wrong, in one sentence without a full stop."""
    place: Place
    remedy: str
    detail: tuple[str, ...] = ()
    """Lines that show it."""
    model: str = ""
    target: str = ""
    """The target that it is true of; empty for all of them."""

    @property
    def severity(self) -> Severity:
        return story(self.code).severity

    def as_json(self) -> dict[str, object]:
        return {
            "code": self.code,
            "severity": str(self.severity),
            "what": self.what,
            "place": asdict(self.place),
            "remedy": self.remedy,
            "detail": list(self.detail),
            "model": self.model,
            "target": self.target,
        }


_RANK = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Without repetitions, errors first, then by place."""
    unique = dict.fromkeys(findings)
    return sorted(unique, key=lambda each: (_RANK[each.severity], each.place, each.code, each.what))


def errors(findings: Iterable[Finding]) -> list[Finding]:
    return [each for each in findings if each.severity is Severity.ERROR]
