"""What came of a save."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from builder.dev.answers import Answered
from builder.errors import BuilderError


@dataclass(frozen=True)
class Done:
    """Something that had to be done, and how long it took."""

    what: str
    seconds: float


@dataclass(frozen=True)
class Verdict:
    """Right, or what is wrong."""

    when: datetime
    """With zone; when it was known."""
    changed: tuple[str, ...]
    """Files of the project; none for the first verdict."""
    done: tuple[Done, ...]
    models: tuple[Answered, ...]
    not_run: tuple[tuple[str, str], ...]
    """Models that were left out, each with the reason."""
    seconds: float
    """Since the last of these files was saved."""
    http: str
    """Where the server listens; empty where there is none yet."""
    grpc: str
    error: BuilderError | None = None

    @property
    def passed(self) -> bool:
        """Nothing is wrong, and somebody was asked."""
        return self.error is None and bool(self.models)
