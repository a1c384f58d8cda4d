"""What a folder of sources holds, as one digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

_IGNORED = {"__pycache__"}


def digest(folder: Path) -> str:
    """SHA-256 over the names and contents of the files below `folder`; times and owners do not count."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not _IGNORED & set(name.parts):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{name.as_posix()}\0{content}\n".encode())
    return total.hexdigest()
