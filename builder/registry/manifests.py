"""Manifests and indexes, by tag or digest."""

from __future__ import annotations

import requests

from builder.errors import DigestMismatch
from builder.reference import Digest
from builder.registry.connection import COMMIT_SECONDS, Connection
from builder.registry.content import MANIFEST_TYPES, Manifest, digest_of


def get(connection: Connection, reference: str) -> Manifest | None:
    """What a tag or a digest (`sha256:...`) stands for; None: not there.

    Raises:
        DigestMismatch: what comes is not what the digest says.
    """
    answer = connection.ask(
        "GET", _path(connection, reference), headers={"Accept": ", ".join(MANIFEST_TYPES)}, ok=(200, 404)
    )
    if answer.status_code == 404:
        return None
    content = answer.content
    digest = digest_of(content)
    if reference.startswith("sha256:") and reference != str(digest):
        raise _other(connection, reference, str(digest))
    media_type = answer.headers.get("Content-Type", "").partition(";")[0]
    found = Manifest(digest, media_type, content)
    named = found.document.get("mediaType")
    return Manifest(digest, named, content) if isinstance(named, str) and named else found


def put(connection: Connection, content: bytes, media_type: str, tag: str = "") -> Digest:
    """Stores a manifest under `tag`, or under its digest alone.

    Raises:
        DigestMismatch: the registry says that it stored another one.
    """
    digest = digest_of(content)
    sent(connection, content, media_type, tag or str(digest))
    return digest


def sent(connection: Connection, content: bytes, media_type: str, reference: str) -> requests.Response:
    """As `put`; gives the registry's answer."""
    answer = connection.ask(
        "PUT",
        _path(connection, reference),
        headers={"Content-Type": media_type},
        content=content,
        ok=(200, 201, 202, 204),
        seconds=COMMIT_SECONDS,
    )
    stored, digest = answer.headers.get("Docker-Content-Digest", ""), str(digest_of(content))
    if stored.startswith("sha256:") and stored != digest:
        raise _other(connection, digest, stored)
    return answer


def _path(connection: Connection, reference: str) -> str:
    return f"/v2/{connection.repository.path}/manifests/{reference}"


def _other(connection: Connection, wanted: str, found: str) -> DigestMismatch:
    return DigestMismatch(
        f"the registry has {found} in the place of {wanted}",
        where=str(connection.repository),
        remedy="the registry, or a proxy before it, changes manifests: push to one that keeps them as they are",
    )
