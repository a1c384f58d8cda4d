from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builder import bases
from builder.docker.engine import Engine
from builder.errors import NoBase, NoRegistry
from builder.oci import BaseImage
from builder.reference import Digest, Reference
from builder.registry.content import OCI_INDEX, OCI_MANIFEST, as_content

from .registry_in_memory import RegistryInMemory

NAME = "registry.example.com/team/base:1"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> RegistryInMemory:
    """The one that every base is in."""
    made = RegistryInMemory("registry.example.com/team/base")

    def connect(repository: Reference) -> RegistryInMemory:
        assert repository.repository == "registry.example.com/team/base"
        return made

    monkeypatch.setattr(bases, "Registry", SimpleNamespace(connect=connect))
    return made


def pushed(registry: RegistryInMemory, tag: str = "", architecture: str = "amd64") -> Digest:
    config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    manifest = {"config": registry.put(as_content(config), "application/vnd.oci.image.config.v1+json"), "layers": []}
    return registry.put_manifest(as_content(manifest), OCI_MANIFEST, tag)


def index(registry: RegistryInMemory, *architectures: str, media_type: str = OCI_INDEX, told: bool = True) -> Digest:
    entries = [
        {"digest": str(pushed(registry, architecture=each)), "platform": {"os": "linux", "architecture": each}}
        for each in architectures
    ]
    document = {"schemaVersion": 2, **({"mediaType": media_type} if told else {}), "manifests": entries}
    return registry.put_manifest(as_content(document), media_type, "1")


def architecture(found: BaseImage) -> str:
    return str(json.loads(found.config)["architecture"])


def engine(base: Digest | None = None) -> Engine:
    """With `base` under the name of the base, or without any image."""
    made: Any = SimpleNamespace(find=lambda name: {"Id": str(base)} if name == NAME and base else None)
    return made  # type: ignore[no-any-return]


def test_a_base_is_described_out_of_its_registry(registry: RegistryInMemory) -> None:
    digest = pushed(registry, "1")
    found = bases.in_registry(NAME, digest, "linux/amd64")
    assert (found.name, found.digest, architecture(found)) == (NAME, digest, "amd64")
    assert found.manifest == registry.manifests[str(digest)].content


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_INDEX])
@pytest.mark.parametrize("told", [True, False], ids=["told", "by its header alone"])
@pytest.mark.parametrize("platform", ["amd64", "arm64"])
def test_of_several_platforms_the_one_that_is_built_for_is_described(
    registry: RegistryInMemory, media_type: str, told: bool, platform: str
) -> None:
    digest = index(registry, "amd64", "arm64", media_type=media_type, told=told)
    found = bases.in_registry(NAME, digest, f"linux/{platform}")
    # The name stands for the index; what layers lie on is the image in it.
    assert (found.digest, architecture(found)) == (digest, platform)


def test_a_base_that_is_not_for_the_platform_is_told(registry: RegistryInMemory) -> None:
    digest = index(registry, "amd64")
    with pytest.raises(NoBase, match="for linux/arm64"):
        bases.in_registry(NAME, digest, "linux/arm64")


def test_a_base_that_the_registry_does_not_have_is_told(registry: RegistryInMemory) -> None:
    digest = Digest("sha256:" + "9" * 64)
    with pytest.raises(NoBase, match="no image") as failure:
        bases.in_registry(NAME, digest, "linux/amd64")
    assert failure.value.where == f"{NAME}@{digest}"


@pytest.mark.parametrize(
    ("name", "tag"), [(NAME, "1"), ("registry.example.com/team/base", "latest"), (NAME.replace(":1", ":2"), "2")]
)
def test_a_name_stands_for_what_its_registry_says(registry: RegistryInMemory, name: str, tag: str) -> None:
    assert bases.digest_in_registry(name) is None
    digest = pushed(registry, tag)
    assert bases.digest_in_registry(name) == digest
    assert registry.journal[0] == ("log in", "registry.example.com")


def test_a_name_with_a_digest_stands_for_that(registry: RegistryInMemory) -> None:
    digest = pushed(registry, "1")
    pushed(registry, "1", "arm64")
    assert bases.digest_in_registry(f"{NAME}@{digest}") == digest


def test_what_was_read_of_a_base_is_remembered(
    registry: RegistryInMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = pushed(registry, "1")
    first = bases.described(tmp_path, engine(), NAME, digest, "linux/amd64")
    assert architecture(first) == "amd64"

    def gone(*_: object) -> None:
        raise NoRegistry("nobody answers")

    monkeypatch.setattr(bases, "Registry", SimpleNamespace(connect=gone))
    assert bases.described(tmp_path, engine(), NAME, digest, "linux/amd64") == first
    other = bases.described(tmp_path, engine(), "mirror.example.com/base:1", digest, "linux/amd64")
    assert (other.name, other.config) == ("mirror.example.com/base:1", first.config)
    with pytest.raises(NoRegistry):
        bases.described(tmp_path, engine(), NAME, digest, "linux/arm64")
    with pytest.raises(NoRegistry):
        bases.described(tmp_path, engine(), NAME, Digest("sha256:" + "9" * 64), "linux/amd64")


def test_the_engine_is_asked_first(registry: RegistryInMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = Digest("sha256:" + "5" * 64)
    saved = BaseImage(NAME, digest, b'{"layers": []}', b"{}")
    asked = []

    def base_image(_: Engine, *of: str) -> BaseImage:
        asked.append(of)
        return saved

    monkeypatch.setattr(bases, "base_image", base_image)
    assert bases.described(tmp_path, engine(base=digest), NAME, digest, "linux/amd64") == saved
    assert (asked, registry.journal) == ([(NAME, "linux/amd64")], [])


def test_another_image_of_that_name_in_the_engine_is_not_taken(registry: RegistryInMemory, tmp_path: Path) -> None:
    digest = pushed(registry, "1")
    found = bases.described(tmp_path, engine(base=Digest("sha256:" + "5" * 64)), NAME, digest, "linux/amd64")
    assert (found.digest, architecture(found)) == (digest, "amd64")
