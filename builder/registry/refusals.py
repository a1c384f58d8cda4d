"""What a registry's refusal stands for.

Statuses and codes are those of https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes; how a
registry says that it is full is not in there, so that is known by its words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import requests

from builder.errors import (
    BuilderError,
    DigestMismatch,
    NoRegistry,
    PushError,
    RegistryFull,
    RegistryReadOnly,
    Unauthorized,
)
from builder.process import redact
from builder.reference import Reference
from builder.registry.credentials import Credentials

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same question may have another answer."""
_WRITES = frozenset({"POST", "PATCH", "PUT", "DELETE"})
_FULL = re.compile(
    r"no space left|disk quota|quota exceeded|exceed\w* the configured upper limit|insufficient storage"
    r'|storage limit|"Err":28\b',  # ENOSPC, as docker-registry 2.8 writes it
    re.IGNORECASE,
)
_READ_ONLY = re.compile(r'read[- ]?only|maintenance|"UNSUPPORTED"|"Err":30\b', re.IGNORECASE)


def is_full(answer: requests.Response) -> bool:
    """Whether it has no room, which waiting does not mend."""
    if answer.status_code in (413, 507):
        return True
    return (answer.status_code in (400, 403) or answer.status_code >= 500) and bool(_FULL.search(said(answer)))


def is_other_content(answer: requests.Response) -> bool:
    """Whether what came is not what its digest says."""
    return answer.status_code in (400, 422) and "DIGEST_INVALID" in said(answer) and not is_half_written(answer)


def is_half_written(answer: requests.Response) -> bool:
    """Whether the registry found what a manifest names while another push was writing that very thing.

    docker-registry 2.8 empties the file that says which blob a repository has before it fills it; later ones write to
    a temporary file (https://github.com/distribution/distribution, registry/storage/driver/filesystem). Read in
    between, the digest in it is none, and the blob unknown: a refusal of the manifest has both codes. To all other
    questions it then answers 500.
    """
    if answer.request.method != "PUT" or answer.status_code != 400:
        return False
    return all(code in said(answer) for code in ("DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN"))


def said(answer: requests.Response) -> str:
    """The beginning of its body."""
    return answer.text[:4000] if answer.request.method != "HEAD" else ""


def refusal(
    answer: requests.Response, repository: Reference, known: Credentials, tried: Sequence[str] = ()
) -> BuilderError:
    """The error that an answer is told as; `tried` says what was answered before it."""
    method, status = str(answer.request.method), answer.status_code
    words = [redact(line)[:300] for line in said(answer).splitlines() if line.strip()][:3]
    detail = [*words, *tried]
    where = str(repository)
    in_a_row = f", {len(tried) + 1} times in a row" if tried else ""
    if is_half_written(answer):
        return PushError(
            f"the registry cannot read what it has of this image{in_a_row}",
            where=where,
            remedy="push again when nobody else pushes it; if it stays like this, the registry's storage is damaged",
            detail=detail,
        )
    if is_other_content(answer):
        return DigestMismatch(
            "the registry received other bytes than were sent, or the image on this machine is damaged",
            where=where,
            remedy="build again, then push; a proxy that changes what passes through it does this too",
            detail=detail,
        )
    if method in _WRITES and is_full(answer):
        return RegistryFull(
            f"the registry has no room for this image, or takes nothing so large (HTTP {status})",
            where=where,
            remedy="free space there, or raise its quota and its limit on the size of a request; then push again",
            detail=detail,
        )
    if status in (401, 403):
        verb = "write to" if method in _WRITES else "read"
        return Unauthorized(
            f"nobody may {verb} {repository.repository} without credentials"
            if known.is_anonymous
            else f"the credentials of {known.user or 'the token'} may not {verb} {repository.repository}",
            where=repository.host,
            remedy=f"docker login {repository.host}",
            detail=detail,
        )
    starts = method == "POST"
    if method in _WRITES and (
        status == 405 or (status == 503 and starts) or (status >= 500 and _READ_ONLY.search(said(answer)))
    ):
        return RegistryReadOnly(
            "the registry takes no writes",
            where=where,
            remedy="switch its read-only mode off, or push elsewhere",
            detail=detail,
        )
    if starts and status not in TRANSIENT:
        return NoRegistry(
            f"the registry refuses an upload (HTTP {status})",
            where=where,
            remedy="create the repository there first: not every registry makes one for a push",
            detail=detail,
        )
    return PushError(
        f"the registry answers {method} with HTTP {status}{in_a_row}",
        where=where,
        remedy="push again when the registry works: what it has already is not sent again"
        if status in TRANSIENT
        else "see what the registry says",
        detail=detail,
    )
