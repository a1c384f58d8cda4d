"""Blobs: whether they are there, their bytes, and mounting those of another repository."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import requests.exceptions

from builder.errors import DigestMismatch
from builder.reference import Digest
from builder.registry.connection import Again, Connection, reason

_BLOCK = 1 << 17
"""Bytes: what is read again where a connection breaks."""


def size(connection: Connection, digest: Digest) -> int | None:
    """Bytes of a blob; None: not there."""
    answer = connection.ask("HEAD", _path(connection, digest), ok=(200, 404))
    return int(answer.headers.get("Content-Length", 0)) if answer.status_code == 200 else None


def read(connection: Connection, digest: Digest) -> Iterator[bytes]:
    """The bytes of a blob, block by block; goes on where a connection broke.

    Raises:
        DigestMismatch: at the end: they are others than the digest says. None of them may be used.
        PushError: there is no such blob, or the registry does not give it.
    """
    known, got = hashlib.sha256(), 0
    blocks: Iterator[bytes] | None = None

    def following() -> bytes:
        nonlocal blocks
        current, blocks = blocks or _from(connection, digest, got), None  # one that failed has no more to give
        try:
            block = next(current, b"")
        except requests.exceptions.RequestException as error:
            raise Again(f"GET: {reason(error)}") from None
        blocks = current
        return block

    while block := connection.persist(following):
        known.update(block)
        got += len(block)
        yield block
    if known.hexdigest() != digest.value.removeprefix("sha256:"):
        raise DigestMismatch(
            f"the registry gives other bytes than those of {digest}",
            where=str(connection.repository),
            remedy="push again; if it stays like this, the registry's storage is damaged",
        )


def mount(connection: Connection, digest: Digest, source: str) -> bool:
    """Has the registry take a blob over from its repository `source`; False: it does not, so it must be uploaded."""
    answer = connection.ask(
        "POST",
        f"/v2/{connection.repository.path}/blobs/uploads/",
        params={"mount": str(digest), "from": source},
        # Who may not read the other repository may still upload.
        ok=(201, 202, 401, 403),
        mounting=source,
    )
    if answer.status_code == 202:
        cancel(connection, answer.headers.get("Location", ""))
    return answer.status_code == 201


def cancel(connection: Connection, location: str) -> None:
    """Takes an upload back, as far as that goes: a registry also forgets it by itself."""
    if location:
        try:
            connection.once("DELETE", location)
        except Again:
            return


def _from(connection: Connection, digest: Digest, offset: int) -> Iterator[bytes]:
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    answer = connection.once("GET", _path(connection, digest), headers=headers, stream=True)
    if answer.status_code == 416 and offset:
        return  # it broke after the last byte
    if answer.status_code not in (200, 206):
        raise connection.refused(answer)
    skip = offset if answer.status_code == 200 else 0  # not every registry gives a part
    for block in answer.iter_content(_BLOCK):
        kept = block[skip:]
        skip -= len(block) - len(kept)
        if kept:
            yield kept


def _path(connection: Connection, digest: Digest) -> str:
    return f"/v2/{connection.repository.path}/blobs/{digest}"
