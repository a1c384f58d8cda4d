"""Blobs of a registry that are read whole, as far as they are not too large for it."""

from __future__ import annotations

from builder.reference import Digest
from builder.registry import Registry


def read(registry: Registry, digest: Digest, largest: int) -> bytes:
    """A blob of at most `largest` bytes.

    Raises:
        ValueError: it is larger, which nothing that this program writes is.
        DigestMismatch: the registry gives another.
    """
    content = bytearray()
    for piece in registry.blob(digest):
        content += piece
        if len(content) > largest:
            raise ValueError(f"{digest} is larger than {largest} bytes")
    return bytes(content)
