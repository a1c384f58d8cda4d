"""Signatures of an image as cosign keeps them: a manifest under the tag `sha256-HEX.sig`, with a layer for each.

https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from builder.attest.keys import PrivateKey, PublicKey
from builder.attest.reading import read
from builder.errors import PushError, Unauthorized
from builder.reference import Digest
from builder.registry import Descriptor, Manifest, Registry
from builder.registry.content import OCI_MANIFEST, as_content

MEDIA_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_TYPE = "cosign container image signature"
_LARGEST = 1 << 20
"""Bytes of a payload, which has 250."""


@dataclass(frozen=True)
class ImageSignature:
    """A signature as the registry has it."""

    payload: bytes
    signature: bytes

    def is_of(self, digest: Digest) -> bool:
        """Whether it is about this image."""
        try:
            critical = json.loads(self.payload)["critical"]
            return bool(critical["type"] == _TYPE and critical["image"]["docker-manifest-digest"] == str(digest))
        except (ValueError, KeyError, TypeError):
            return False

    def is_by(self, key: PublicKey) -> bool:
        return key.has_signed(self.payload, self.signature)


def tag(digest: Digest) -> str:
    """Where the signatures of an image are."""
    return f"{str(digest).replace(':', '-')}.sig"


def payload(repository: str, digest: Digest) -> bytes:
    """What is signed. cosign reads over the repository; others hold it against the name that they were asked for."""
    return as_content(
        {
            "critical": {
                "identity": {"docker-reference": repository},
                "image": {"docker-manifest-digest": str(digest)},
                "type": _TYPE,
            },
            "optional": None,
        }
    )


def signatures(registry: Registry, digest: Digest) -> Iterator[ImageSignature]:
    """Those that are there, whoever made them; what is no signature is left out."""
    return _signatures(registry, _layers(registry.manifest(tag(digest))))


def sign(registry: Registry, digest: Digest, key: PrivateKey, sessions: Path) -> Digest:
    """Adds a signature to those of others; nothing changes where the key has signed already.

    Two that sign at the same moment write the same tag, and the last one's manifest is what stays: sign again.

    Args:
        sessions: a folder for what an upload needs to go on after it was cut.

    Returns:
        The digest of the manifest with the signatures.
    """
    held = registry.manifest(tag(digest))
    layers = _layers(held)
    if held and any(each.is_of(digest) and each.is_by(key.public) for each in _signatures(registry, layers)):
        return held.digest
    content = payload(registry.repository.repository, digest)
    described = _put(registry, content, MEDIA_TYPE, sessions)
    layers.append({**described, "annotations": {SIGNATURE: base64.b64encode(key.sign(content)).decode()}})
    config = {
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _put(registry, as_content(config), _CONFIG, sessions),
        "layers": layers,
    }
    return registry.put_manifest(as_content(manifest), OCI_MANIFEST, tag(digest))


def _signatures(registry: Registry, layers: Iterable[dict[str, Any]]) -> Iterator[ImageSignature]:
    for layer in layers:
        if found := _signature(registry, layer):
            yield found


def _layers(held: Manifest | None) -> list[dict[str, Any]]:
    """As they are written, so that those of others stay as they are."""
    layers = held.document.get("layers") if held else None
    return [layer for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []


def _signature(registry: Registry, layer: dict[str, Any]) -> ImageSignature | None:
    described = Descriptor.parse(layer)
    if described is None or described.media_type != MEDIA_TYPE:
        return None
    try:
        signature = base64.b64decode(described.annotations.get(SIGNATURE, ""), validate=True)
        return ImageSignature(read(registry, described.digest, _LARGEST), signature)
    except Unauthorized:
        raise
    except (TypeError, ValueError, PushError):  # of others, or damaged: it says nothing
        return None


def _put(registry: Registry, content: bytes, media_type: str, sessions: Path) -> dict[str, Any]:
    """Uploads a blob that may be there; its descriptor."""
    described = Descriptor.of(content, media_type)

    def source(offset: int) -> AbstractContextManager[BinaryIO]:
        return io.BytesIO(content[offset:])

    registry.upload(described.digest, described.size, source, sessions, lambda _: None)
    return described.as_json()
