"""What a registry holds, read back from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from builder.errors import PushError
from builder.process import run
from builder.reference import Digest, Reference


@dataclass(frozen=True)
class Manifest:
    """A manifest as the registry gave it."""

    digest: Digest
    """Of the very bytes that came."""
    config: Digest | None
    layers: tuple[tuple[str, int], ...]
    """Each layer's digest and its compressed bytes."""


def manifest(reference: Reference) -> Manifest:
    """Reads a manifest, with the credentials of Docker's own configuration.

    Raises:
        PushError: there is none, or it cannot be read.
    """
    # buildx has the registry client, the token flow and the credential helpers.
    found = run(["docker", "buildx", "imagetools", "inspect", "--raw", str(reference)])
    if found.returncode:
        raise PushError(
            "the registry does not give back what was pushed",
            where=str(reference),
            remedy="push again",
            detail=found.stderr,
        )
    content: dict[str, Any] = json.loads(found.stdout)
    return Manifest(
        digest=Digest("sha256:" + hashlib.sha256(found.stdout.encode()).hexdigest()),
        config=Digest(content["config"]["digest"]) if "config" in content else None,
        layers=tuple((layer["digest"], layer["size"]) for layer in content.get("layers", ())),
    )
