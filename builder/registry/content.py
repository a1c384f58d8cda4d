"""What a registry holds: manifests, and the descriptors that point to content.

The forms are those of https://github.com/opencontainers/image-spec (descriptor.md, manifest.md, image-index.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from builder.errors import BadReference
from builder.reference import Digest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
"""A configuration that says nothing, of a manifest that is no image."""
MANIFEST_TYPES = (
    OCI_MANIFEST,
    OCI_INDEX,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


def digest_of(content: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(content).hexdigest())


def as_content(document: Mapping[str, Any]) -> bytes:
    """A document as JSON, the same bytes each time."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


@dataclass(frozen=True)
class Descriptor:
    """Where content is found, and what it is."""

    media_type: str
    digest: Digest
    size: int
    """Bytes."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""

    @classmethod
    def of(cls, content: bytes, media_type: str) -> Descriptor:
        return cls(media_type, digest_of(content), len(content))

    @classmethod
    def parse(cls, document: Any) -> Descriptor | None:
        """From its JSON; None where it is no descriptor, or one whose digest is not SHA-256."""
        try:
            return cls(
                media_type=str(document["mediaType"]),
                digest=Digest(str(document["digest"])),
                size=int(document["size"]),
                annotations=dict(document.get("annotations") or {}),
                artifact_type=str(document.get("artifactType") or ""),
            )
        except (BadReference, LookupError, TypeError, ValueError, AttributeError):
            return None

    def as_json(self) -> dict[str, Any]:
        optional = {"artifactType": self.artifact_type, "annotations": dict(self.annotations)}
        return {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
            **{name: value for name, value in optional.items() if value},
        }


@dataclass(frozen=True)
class Manifest:
    """A manifest, or an index, as the registry gave it."""

    digest: Digest
    """Of the very bytes that came."""
    media_type: str
    content: bytes = field(repr=False)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The JSON of it; empty where it is no JSON object."""
        try:
            found = json.loads(self.content)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def config(self) -> Descriptor | None:
        """None in an index."""
        return Descriptor.parse(self.document.get("config"))

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """From the base upwards."""
        return descriptors(self.document, "layers")


def descriptors(document: Mapping[str, Any], key: str) -> tuple[Descriptor, ...]:
    """Those in a list of a manifest or an index."""
    found = document.get(key)
    parsed = [Descriptor.parse(each) for each in found] if isinstance(found, list) else []
    return tuple(each for each in parsed if each)
