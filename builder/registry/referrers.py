"""What refers to an image: signatures, statements, bills of materials.

By https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers, and in a registry without
that interface (docker-registry 2.8 is one) by an index under the tag `sha256-...`, the "referrers tag schema" there.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

import requests.utils

from builder.errors import PushError
from builder.reference import Digest
from builder.registry import manifests, uploads
from builder.registry.connection import Connection
from builder.registry.content import (
    EMPTY,
    EMPTY_TYPE,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    as_content,
    descriptors,
)

_ROUNDS = 10
"""How often an index is written that others write at the same time."""
_PAGES = 100


def find(connection: Connection, subject: Digest, artifact_type: str = "") -> list[Descriptor]:
    """What refers to the manifest `subject`: all of it, or that of one type."""
    found = _listed(connection, subject)
    if found is None:
        index = manifests.get(connection, _tag(subject))
        found = list(descriptors(index.document, "manifests")) if index else []
    # A registry need not filter.
    return [each for each in found if artifact_type in ("", each.artifact_type)]


def attach(
    connection: Connection,
    subject: Descriptor,
    artifact_type: str,
    content: bytes,
    media_type: str,
    annotations: Mapping[str, str],
) -> Digest:
    """Stores `content` as a referrer of `subject`; gives the digest of its manifest. The same twice is one.

    Raises:
        PushError: others write referrers of the same image all the time.
    """
    layer, config = Descriptor.of(content, media_type), Descriptor.of(EMPTY, EMPTY_TYPE)
    uploads.content(connection, EMPTY)
    uploads.content(connection, content)
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": config.as_json(),
        "layers": [layer.as_json()],
        "subject": Descriptor(subject.media_type, subject.digest, subject.size).as_json(),
    }
    if annotations:
        document["annotations"] = dict(annotations)
    manifest = as_content(document)
    digest = Descriptor.of(manifest, OCI_MANIFEST).digest
    answer = manifests.sent(connection, manifest, OCI_MANIFEST, str(digest))
    if "OCI-Subject" not in answer.headers:  # it does not keep the list itself
        _list(connection, subject.digest, Descriptor(OCI_MANIFEST, digest, len(manifest), annotations, artifact_type))
    return digest


def _listed(connection: Connection, subject: Digest) -> list[Descriptor] | None:
    """By the registry's own list; None: it keeps none."""
    where = f"/v2/{connection.repository.path}/referrers/{subject}"
    found: list[Descriptor] = []
    for _ in range(_PAGES):
        # Some registries of before 2023 do not even route such a path.
        answer = connection.ask("GET", where, headers={"Accept": OCI_INDEX}, ok=(200, 400, 404, 405))
        if answer.status_code != 200:
            return None
        page = Manifest(subject, OCI_INDEX, answer.content).document
        if page.get("mediaType", OCI_INDEX) != OCI_INDEX or not isinstance(page.get("manifests"), list):
            return None  # a page for people, of what stands before the registry
        found += descriptors(page, "manifests")
        links = requests.utils.parse_header_links(answer.headers.get("Link", ""))
        following = [link["url"] for link in links if link.get("rel") == "next"]
        if not following:
            return found
        where = following[0]
    raise PushError(
        "the registry's list of referrers has no end", where=str(connection.repository), remedy="tell who runs it"
    )


def _list(connection: Connection, subject: Digest, referrer: Descriptor) -> None:
    """Adds a referrer to the index under the tag, which others may be doing too: so what was written is read back."""
    tag = _tag(subject)
    for _ in range(_ROUNDS):
        index = manifests.get(connection, tag)
        known = list(index.document.get("manifests") or []) if index else []
        if any(isinstance(each, dict) and each.get("digest") == str(referrer.digest) for each in known):
            return
        content = as_content({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*known, referrer.as_json()]})
        manifests.put(connection, content, OCI_INDEX, tag)
        time.sleep(random.uniform(0.02, 0.2))  # whoever read before this was written has written by now, most likely
    raise PushError(
        "others write the list of referrers of the same image all the time",
        where=f"{connection.repository.repository}:{tag}",
        remedy="push again when they are done",
    )


def _tag(subject: Digest) -> str:
    return subject.value.replace(":", "-")
