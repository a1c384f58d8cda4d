"""What a page is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder.artifacts import Pushed, Verification
from builder.journal import Entry


@dataclass(frozen=True)
class Told:
    """A build, and all that is known of its image."""

    build: Entry
    before: Entry | None = None
    """The last one before it, of the same target, that went through."""
    recent: tuple[Entry, ...] = ()
    """Those of the same target up to this one, the oldest first."""
    verification: Verification | None = None
    """Of this very image."""
    pushed: Pushed | None = None
    """Of this very image."""
    sbom: Mapping[str, Any] | None = None
    """A CycloneDX document; None where what it is made from is no longer at hand."""
