"""What a folder of sources holds, by digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

_IGNORED = {"__pycache__"}


def files(folder: Path) -> dict[str, str]:
    """SHA-256 in hexadecimal of each file below `folder`, by its name in it; none where there is no such folder."""
    return {
        name.as_posix(): of_file(folder / name)
        for name in sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        if not _IGNORED & set(name.parts)
    }


def digest(folder: Path) -> str:
    """SHA-256 over the names and contents of the files below `folder`; times and owners do not count."""
    total = hashlib.sha256()
    for name, content in files(folder).items():
        total.update(f"{name}\0{content}\n".encode())
    return total.hexdigest()


def exactly(folder: Path) -> str:
    """SHA-256 over all below `folder` that a build could see: links, empty folders and execute bits as well."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if _IGNORED & set(name.parts):
            continue
        if path.is_symlink():
            what = f"link {path.readlink()}"
        elif path.is_dir():
            what = "folder"
        elif not path.is_file():  # a socket, which no build gets
            continue
        else:
            what = f"{path.stat().st_mode & 0o777:o} {of_file(path)}"
        total.update(f"{name}\0{what}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def of_file(path: Path) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
