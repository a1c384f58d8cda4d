"""The builds on this machine, one JSON file each, for `history`, `report` and `clean`.

They are outlived by neither a project's folder nor an image: both may be gone when a build is looked up.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from builder.artifacts import Layer, write_atomically

VARIABLE = "XDG_STATE_HOME"
"""https://specifications.freedesktop.org/basedir-spec: where what outlives a run is kept, but no configuration is."""
_FORMAT: Literal[1] = 1
KEPT = 500
"""Of older entries nothing is left."""


class Step(BaseModel):
    """A step of the build, as BuildKit or this program went through it."""

    model_config = ConfigDict(frozen=True)

    title: str
    """For people, such as `plugins 2/2  compile the plugins`."""
    stage: str
    """Of the Dockerfile; empty for what is none of its steps."""
    targets: tuple[str, ...] = ()
    """Those that it was for, as far as it is known; several may share it."""
    began: float
    """Seconds since the build's beginning."""
    seconds: float
    cached: bool = False
    bytes: int = 0
    """Downloaded, transferred or written, as far as BuildKit tells."""
    error: str = ""


class Entry(BaseModel):
    """One build of one target."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = _FORMAT
    id: str
    """Sorts by time."""
    when: str
    """ISO 8601 with zone, when the build began."""
    project: str
    """The folder with builder.toml."""
    repository: str
    target: str
    reference: str = ""
    digest: str = ""
    """Empty where the build failed."""
    base: str = ""
    base_digest: str = ""
    base_layers: int = 0
    """How many of `layers`, from the first on, are the base's."""
    layers: tuple[Layer, ...] = ()
    bytes: int = 0
    """As in `Image.bytes`."""
    versions: dict[str, str] = {}
    """Of `triton`, `dali`, `builder` and `engine`."""
    plugins: dict[str, str] = {}
    """SHA-256 of the libraries by their path in the image."""
    sources: dict[str, str] = {}
    """Digests of `plugin` and `model_repository`; SHA-256 of `plugin/FILE` and `model_repository/FILE`."""
    seconds: float
    steps: tuple[Step, ...] = ()
    findings: tuple[dict[str, Any], ...] = ()
    """As `check --json` gives them."""
    error: dict[str, Any] | None = None
    """As --json gives it; None where the build went through."""

    def save(self) -> Self:
        """Writes it, and forgets the oldest; a home that cannot be written to is no reason for a build to fail."""
        try:
            write_atomically(folder() / f"{self.id}.json", self.model_dump_json() + "\n")
            for path in sorted(folder().glob("*.json"))[:-KEPT]:
                path.unlink(missing_ok=True)
        except OSError:
            pass
        return self


def new_id(when: datetime) -> str:
    """Such as 20261122T204501-3fa2c1."""
    return f"{when.astimezone(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def folder() -> Path:
    """Where the entries are: one for all projects of a user."""
    home = os.environ.get(VARIABLE, "")
    return (Path(home) if home.startswith("/") else Path.home() / ".local" / "state") / "triton-dali-builder" / "builds"


def entries() -> Iterator[Entry]:
    """All that can be read, the newest first."""
    for path in sorted(folder().glob("*.json"), reverse=True):
        try:
            yield Entry.model_validate(json.loads(path.read_bytes()))
        except (OSError, ValueError, ValidationError):
            continue  # of another version, or half gone
