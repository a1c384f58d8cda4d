"""The files that come with this program: the Dockerfile, the embedded base, and the shipped example."""

from __future__ import annotations

import hashlib
from pathlib import Path

from builder import sources

_HERE = Path(__file__).resolve().parent
# A wheel has them in a folder of its own; beside it in a checkout are the very ones that the wheel is made of.
ROOT = _HERE / "shipped" if (_HERE / "shipped").is_dir() else _HERE.parent
FOLDERS = ("embedded", "builder/stages")
"""Folders of this program that go into builds, as do its Dockerfile and `PARSER`."""
PARSER = "builder/dali_proto.py"


def digest() -> str:
    """SHA-256 over the files of this program that go into builds."""
    total = hashlib.sha256()
    for each in FOLDERS:
        total.update(sources.digest(ROOT / each).encode())
    for each in ("Dockerfile", PARSER):
        total.update(sources.of_file(ROOT / each).encode())
    return total.hexdigest()


def dockerfile(root: Path) -> Path:
    """The Dockerfile of the project in `root`: its own where it has one."""
    own = root / "Dockerfile"
    return own if own.is_file() else ROOT / "Dockerfile"


def compose_file(root: Path) -> Path:
    """The compose file of the project in `root`: its own where it has one."""
    own = root / "docker-compose.yml"
    return own if own.is_file() else ROOT / "docker-compose.yml"
