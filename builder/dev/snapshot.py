"""What a project's folder holds at a moment, and in what two moments differ.

What changed is told by contents: a file that was written without a change is none, and one that was taken back is as it
was before. Events of the file system only say when to look.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from builder import lock, oracles, sources
from builder.project import FILE_NAME, Project

DOCKERFILE = "Dockerfile"
_SETTINGS = (FILE_NAME, lock.FILE_NAME, DOCKERFILE)
PLUGIN, MODELS = FOLDERS = "plugin", "model_repository"
# What editors and file managers write for a moment, or for themselves: Vim (4913, .swp, ~), Emacs (.#, #...#,
# flycheck), JetBrains, Kate, GNOME, macOS.
_OF_EDITORS = re.compile(
    r"4913|.*~|\.#.*|#.*#|flycheck_.*|.*\.sw[a-z]|.*\.tmp|.*\.part|.*\.kate-swp|\.goutputstream-.*|.*___jb_\w+___"
    r"|\.DS_Store|__pycache__|.*\.py[co]|\.git|\.hg|\.svn|\.idea|\.vscode"
)


def is_ignored(name: str) -> bool:
    """Whether a path below the project, with slashes, is no part of it."""
    return any(_OF_EDITORS.fullmatch(part) for part in name.split("/"))


class Moved(Exception):
    """Files, by name, were no longer as in the snapshot when they were copied: the round is to be repeated."""


@dataclass(frozen=True)
class Snapshot:
    """SHA-256 of each file by its name in the project; a folder of model_repository ends in a slash and has none."""

    files: Mapping[str, str] = field(default_factory=dict)

    def differences(self, other: Snapshot) -> tuple[str, ...]:
        """The files that are not in both alike."""
        names = self.files.keys() | other.files.keys()
        return tuple(
            sorted(each for each in names if self.files.get(each) != other.files.get(each) and not each.endswith("/"))
        )

    def below(self, folder: str) -> dict[str, str]:
        """What is in a folder, by the names in it."""
        start = f"{folder}/"
        return {name.removeprefix(start): each for name, each in self.files.items() if name.startswith(start)}

    def models(self) -> dict[str, str]:
        """The models, each with the digest of all that is in it; hidden folders are none."""
        found: dict[str, list[str]] = {}
        for name, each in sorted(self.below(MODELS).items()):
            model, slash, rest = name.partition("/")
            if slash and not model.startswith("."):
                found.setdefault(model, []).append(f"{rest}\0{each}")
        return {model: _digest(lines) for model, lines in found.items()}

    def digest_of(self, folder: str) -> str:
        """Of all that is in a folder."""
        return _digest(f"{name}\0{each}" for name, each in sorted(self.below(folder).items()))

    def settings(self) -> str:
        """The digest of what an image is begun with, besides builder.toml."""
        return _digest(f"{name}\0{self.files.get(name, '')}" for name in (lock.FILE_NAME, DOCKERFILE))


class Camera:
    """Takes snapshots, and reads what it has read before only where its size or its time is another."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def take(self, project: Project) -> Snapshot:
        """The files that `dev` goes by: settings, sources, models, and what the oracles are in."""
        found = {}
        for name, path in self._paths(project):
            if is_ignored(name):
                continue
            try:
                if path.is_dir():
                    found[f"{name}/"] = ""
                elif path.is_file():
                    found[name] = self._digest(path)
            except OSError:
                continue  # gone since it was listed, or not ours to read: the next step that needs it says so
        return Snapshot(found)

    def _paths(self, project: Project) -> Iterator[tuple[str, Path]]:
        for name in {*_SETTINGS, *oracle_files(project)}:
            if (self._root / name).is_file():
                yield name, self._root / name
        for folder in FOLDERS:
            for path in (self._root / folder).rglob("*"):
                if folder == MODELS or path.is_file():
                    yield path.relative_to(self._root).as_posix(), path

    def _digest(self, path: Path) -> str:
        status = path.stat()
        seen = (status.st_size, status.st_mtime_ns, status.st_ino)
        before = self._known.get(path)
        if before is None or before[0] != seen:
            before = self._known[path] = (seen, sources.of_file(path))
        return before[1]


def oracle_files(project: Project) -> tuple[str, ...]:
    """The files of the project that say what is right."""
    return tuple(sorted({name for each in project.models.values() if (name := oracles.file_of(each))}))


def newest(root: Path, names: Iterable[str], since: float, until: float) -> float:
    """When the last of these files was saved (seconds since the epoch).

    Files that are gone, or whose times are not between `since` and `until`, as of an archive that was unpacked, count
    as saved at `until`.
    """
    times = []
    for name in names:
        with contextlib.suppress(OSError):
            times.append((root / name).stat().st_mtime)
    return max((each for each in times if since <= each <= until), default=until)


def _digest(lines: Iterable[str]) -> str:
    return sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
