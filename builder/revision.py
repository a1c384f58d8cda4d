"""Where the project's sources stand, as git tells it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from builder.errors import NoProgram
from builder.process import redact, run


@dataclass(frozen=True)
class Revision:
    """A commit, or none."""

    commit: str
    """With `-dirty` where the work tree differs from it; empty outside a repository."""
    epoch: int
    """Seconds since 1970 of the commit; 0 outside a repository, so that equal sources give equal images."""
    remote: str

    @property
    def public_remote(self) -> str:
        """The remote's address without a user or a password."""
        return redact(self.remote).replace("***@", "")

    @property
    def created(self) -> str:
        """RFC 3339, as OCI's annotation wants it."""
        return datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def of(root: Path) -> Revision:
    """The revision of the project in `root`."""
    try:
        head = _git(root, "log", "-1", "--format=%H %ct")
    except NoProgram:
        head = ""
    if not head:
        return Revision("", 0, "")
    commit, epoch = head.split()
    dirty = "-dirty" if _git(root, "status", "--porcelain", "--", ".") else ""
    return Revision(commit + dirty, int(epoch), _git(root, "config", "--get", "remote.origin.url"))


def _git(root: Path, *arguments: str) -> str:
    done = run(["git", "-C", str(root), *arguments])
    return "" if done.returncode else done.stdout.strip()
