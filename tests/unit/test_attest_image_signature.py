from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from builder.attest import image_signature
from builder.attest.keys import PrivateKey
from builder.reference import Digest
from builder.registry import Registry
from builder.registry.content import OCI_MANIFEST, as_content

from .registry_in_memory import RegistryInMemory

DIGEST, OTHER = Digest("sha256:" + "a" * 64), Digest("sha256:" + "9" * 64)
KEY, STRANGER = (PrivateKey(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
TAG = f"sha256-{'a' * 64}.sig"


@pytest.fixture
def memory() -> RegistryInMemory:
    return RegistryInMemory()


@pytest.fixture
def registry(memory: RegistryInMemory) -> Registry:
    return memory  # type: ignore[return-value]


def sign(registry: Registry, key: PrivateKey, tmp_path: Path, digest: Digest = DIGEST) -> Digest:
    return image_signature.sign(registry, digest, key, tmp_path)


def test_a_signature_has_the_form_that_cosign_gives_it(
    memory: RegistryInMemory, registry: Registry, tmp_path: Path
) -> None:
    sign(registry, KEY, tmp_path)
    manifest = memory.manifests[TAG].document
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.dev.cosign.simplesigning.v1+json"
    assert list(layer["annotations"]) == ["dev.cosignproject.cosign/signature"]
    assert json.loads(memory.blobs[layer["digest"]]) == {
        "critical": {
            "identity": {"docker-reference": "registry.example.com/team/mydali"},
            "image": {"docker-manifest-digest": str(DIGEST)},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    config = json.loads(memory.blobs[manifest["config"]["digest"]])
    assert config["rootfs"] == {"type": "layers", "diff_ids": [layer["digest"]]}


def test_a_signature_is_of_its_image_and_by_its_key(registry: Registry, tmp_path: Path) -> None:
    sign(registry, KEY, tmp_path)
    (found,) = image_signature.signatures(registry, DIGEST)
    assert found.is_of(DIGEST)
    assert not found.is_of(OTHER)
    assert found.is_by(KEY.public)
    assert not found.is_by(STRANGER.public)
    assert list(image_signature.signatures(registry, OTHER)) == []


def test_signing_again_changes_nothing(memory: RegistryInMemory, registry: Registry, tmp_path: Path) -> None:
    first = sign(registry, KEY, tmp_path)
    written = memory.written
    assert sign(registry, KEY, tmp_path) == first
    assert memory.written == written


def test_the_signatures_of_others_stay(memory: RegistryInMemory, registry: Registry, tmp_path: Path) -> None:
    sign(registry, STRANGER, tmp_path)
    # As cosign leaves more in its annotations than a signature.
    document = memory.manifests[TAG].document
    document["layers"][0]["annotations"]["dev.sigstore.cosign/bundle"] = "{}"
    memory.put_manifest(as_content(document), OCI_MANIFEST, TAG)
    sign(registry, KEY, tmp_path)
    assert memory.manifests[TAG].document["layers"][0] == document["layers"][0]
    found = list(image_signature.signatures(registry, DIGEST))
    assert [(each.is_by(STRANGER.public), each.is_by(KEY.public)) for each in found] == [(True, False), (False, True)]
    assert sign(registry, STRANGER, tmp_path) == memory.manifests[TAG].digest


def test_a_signature_moved_from_another_image_is_not_this_one_s(
    memory: RegistryInMemory, registry: Registry, tmp_path: Path
) -> None:
    sign(registry, KEY, tmp_path, OTHER)
    memory.manifests[TAG] = memory.manifests[image_signature.tag(OTHER)]
    (moved,) = image_signature.signatures(registry, DIGEST)
    assert moved.is_by(KEY.public)
    assert not moved.is_of(DIGEST)
    sign(registry, KEY, tmp_path)
    assert [each.is_of(DIGEST) for each in image_signature.signatures(registry, DIGEST)] == [False, True]


@pytest.mark.parametrize(
    "layer",
    [
        {},
        {"mediaType": "text/plain"},
        {"mediaType": image_signature.MEDIA_TYPE},
        {"mediaType": image_signature.MEDIA_TYPE, "annotations": {image_signature.SIGNATURE: "?"}},
        {"mediaType": image_signature.MEDIA_TYPE, "annotations": {image_signature.SIGNATURE: 1}},
        {"mediaType": image_signature.MEDIA_TYPE, "annotations": {image_signature.SIGNATURE: "AA=="}, "digest": "x"},
        1,
    ],
)
def test_what_is_no_signature_is_none(
    memory: RegistryInMemory, registry: Registry, layer: object, tmp_path: Path
) -> None:
    memory.put_manifest(as_content({"layers": [layer]}), OCI_MANIFEST, TAG)
    assert list(image_signature.signatures(registry, DIGEST)) == []


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"{}", b'{"critical": 1}', b'{"critical": {"type": "x", "image": {}}}']
)
def test_a_payload_of_something_else_is_of_no_image(payload: bytes) -> None:
    assert not image_signature.ImageSignature(payload, b"").is_of(DIGEST)
