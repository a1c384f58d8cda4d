from __future__ import annotations

import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import docker.errors
import pytest
import requests.exceptions

from builder.docker.engine import Engine
from builder.docker.saved import SavedBlobs, base_image, of_platform
from builder.errors import MachineError, NoEngine, NoImage
from builder.reference import Digest

INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
NAME = "debian:12"


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def as_json(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


def image(architecture: str) -> list[bytes]:
    """Manifest and configuration."""
    config = as_json({"architecture": architecture, "rootfs": {"diff_ids": []}})
    return [as_json({"config": {"digest": sha256(config)}, "layers": []}), config]


AMD, ARM = image("amd64"), image("arm64")
PLATFORMS = {
    "manifests": [
        {"digest": sha256(AMD[0]), "platform": {"os": "linux", "architecture": "amd64"}},
        {"digest": sha256(ARM[0]), "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
        {"digest": sha256(b"{}"), "platform": {"os": "unknown", "architecture": "unknown"}},
    ]
}


class FakeClient:
    """The SDK's client of an engine that has one image: `docker save` gives its blobs in the order of their digests."""

    def __init__(self, head: bytes, *blobs: bytes, chunk: int = 700) -> None:
        self.api = self
        self.head = head
        self.chunk = chunk
        self.streams = 0
        self.sent = 0
        names = {f"blobs/sha256/{hashlib.sha256(each).hexdigest()}": each for each in blobs}
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w") as archive:
            folder = tarfile.TarInfo("blobs/sha256")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            for name in [*sorted(names), "index.json", "oci-layout"]:
                content = names.get(name, b"{}")
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        self.archive = written.getvalue()

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name != NAME:
            raise docker.errors.ImageNotFound(name)
        return {"Id": sha256(self.head)}

    def get_image(self, _name: str) -> Iterator[bytes]:
        self.streams += 1
        for start in range(0, len(self.archive), self.chunk):
            self.sent += self.chunk
            yield self.archive[start : start + self.chunk]


def engine(client: Any) -> Engine:
    return Engine(client)


def test_a_base_of_one_platform_is_its_manifest_and_its_configuration() -> None:
    found = base_image(engine(FakeClient(AMD[0], *AMD, b"layer")), NAME, "linux/amd64")
    assert (found.name, str(found.digest)) == (NAME, sha256(AMD[0]))
    assert [found.manifest, found.config] == AMD


@pytest.mark.parametrize("media_type", [INDEX, DOCKER_INDEX])
@pytest.mark.parametrize(("platform", "wanted"), [("linux/amd64", AMD), ("linux/arm64", ARM)])
def test_of_several_platforms_the_one_is_taken_that_is_asked_for(
    media_type: str, platform: str, wanted: list[bytes]
) -> None:
    index = as_json({"mediaType": media_type, **PLATFORMS})
    found = base_image(engine(FakeClient(index, index, *AMD, *ARM)), NAME, platform)
    assert [found.manifest, found.config] == wanted
    # The name stands for the index, whichever of its images is taken.
    assert str(found.digest) == sha256(index)


@pytest.mark.parametrize("platform", ["linux/arm64", "windows/amd64"])
def test_a_platform_that_was_not_pulled_is_told_with_the_command_that_pulls_it(platform: str) -> None:
    index = as_json({"mediaType": INDEX, **PLATFORMS})
    with pytest.raises(MachineError, match=f"does not have debian:12 for {platform}") as failure:
        base_image(engine(FakeClient(index, index, *AMD)), NAME, platform)
    assert failure.value.remedy == f"docker pull --platform={platform} debian:12"


def test_an_image_that_the_engine_does_not_have_is_told() -> None:
    with pytest.raises(NoImage):
        base_image(engine(FakeClient(AMD[0], *AMD)), "other:1", "linux/amd64")


def test_large_blobs_are_not_kept_while_documents_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.docker.saved._DOCUMENT_BYTES", 200)
    read: list[int] = []
    extract = tarfile.TarFile.extractfile

    def noted(archive: tarfile.TarFile, member: Any) -> Any:
        read.append(member.size)
        return extract(archive, member)

    monkeypatch.setattr(tarfile.TarFile, "extractfile", noted)
    base_image(engine(FakeClient(AMD[0], *AMD, b"x" * 5000)), NAME, "linux/amd64")
    assert read
    assert max(read) <= 200


@pytest.mark.parametrize("several", [False, True])
def test_no_more_of_an_image_is_read_than_its_manifest_and_configuration(several: bool) -> None:
    index = as_json({"mediaType": INDEX, **PLATFORMS})
    head = [index, *AMD] if several else AMD
    layers = (bytes([number]) * 100_000 for number in range(256))
    behind = [each for each in layers if sha256(each) > max(map(sha256, head))]
    client = FakeClient(head[0], *head, *behind)
    assert behind
    found = base_image(engine(client), NAME, "linux/amd64")
    assert [found.manifest, found.config] == AMD
    # tarfile reads ahead, by blocks of 10 kB.
    assert client.sent < 50_000


def test_an_index_without_the_platform_has_no_manifest_for_it() -> None:
    assert of_platform(PLATFORMS, "linux/amd64") == sha256(AMD[0])
    assert of_platform(PLATFORMS, "linux/riscv64") == ""
    assert of_platform({"manifests": [{"digest": "x"}]}, "linux/amd64") == ""


BLOBS = sorted((bytes([number]) * (500 + 400 * number) for number in range(8)), key=sha256)


def read(saved: SavedBlobs, content: bytes, offset: int = 0, size: int = -1) -> bytes:
    with saved.blob(Digest(sha256(content)), offset) as stream:
        return stream.read(size)


def test_blobs_in_the_order_of_their_digests_take_one_stream() -> None:
    client = FakeClient(b"", *BLOBS)
    with SavedBlobs(engine(client), NAME) as saved:
        assert [read(saved, each) for each in BLOBS[::2]] == BLOBS[::2]
    assert client.streams == 1


def test_blobs_in_another_order_are_right_too() -> None:
    client = FakeClient(b"", *BLOBS)
    with SavedBlobs(engine(client), NAME) as saved:
        assert [read(saved, each) for each in reversed(BLOBS)] == BLOBS[::-1]
    assert client.streams == len(BLOBS)


def test_a_blob_is_read_from_where_an_upload_was_cut() -> None:
    client = FakeClient(b"", *BLOBS)
    with SavedBlobs(engine(client), NAME) as saved:
        # Half of it is read; then, as after a cut, it is wanted again from a byte on; and then the next one.
        for content, following in itertools.pairwise(BLOBS):
            assert read(saved, content, size=300) == content[:300]
            assert read(saved, content, offset=200) == content[200:]
            assert read(saved, following, offset=len(following)) == b""


def test_a_blob_that_is_not_there_is_told_and_the_others_can_still_be_read() -> None:
    client = FakeClient(b"", *BLOBS)
    with SavedBlobs(engine(client), NAME) as saved:
        with pytest.raises(MachineError, match=f"no blob {sha256(b'none')}"):
            read(saved, b"none")
        assert read(saved, BLOBS[3]) == BLOBS[3]
    assert client.streams == 2


def test_nothing_is_asked_for_before_a_blob_is() -> None:
    client = FakeClient(b"", *BLOBS)
    with SavedBlobs(engine(client), NAME):
        pass
    assert client.streams == 0


def test_no_more_is_taken_from_the_engine_than_is_needed() -> None:
    client = FakeClient(b"", *BLOBS, b"z" * 1_000_000, chunk=1000)
    smallest = min((*BLOBS, b"z" * 1_000_000), key=sha256)
    assert smallest in BLOBS
    with SavedBlobs(engine(client), NAME) as saved:
        assert read(saved, smallest) == smallest
    assert client.sent < 100_000


def test_an_engine_that_cannot_save_the_image_is_told() -> None:
    class Broken(FakeClient):
        def get_image(self, _name: str) -> Iterator[bytes]:
            raise docker.errors.APIError("500", explanation="content digest sha256:...: not found")
            yield b""

    with SavedBlobs(engine(Broken(b"")), NAME) as saved, pytest.raises(MachineError, match="refused"):
        read(saved, BLOBS[0])


@pytest.mark.parametrize("length", [0, 700, 2000])
def test_a_stream_that_ends_early_is_told(length: int) -> None:
    client = FakeClient(b"", *BLOBS)
    client.archive = client.archive[:length]
    with SavedBlobs(engine(client), NAME) as saved, pytest.raises(MachineError):
        read(saved, BLOBS[-1])


def test_an_engine_that_dies_while_it_sends_is_told() -> None:
    class Dying(FakeClient):
        def get_image(self, name: str) -> Iterator[bytes]:
            yield from itertools.islice(super().get_image(name), 3)
            raise requests.exceptions.ChunkedEncodingError("Response ended prematurely")

    with SavedBlobs(engine(Dying(b"", *BLOBS)), NAME) as saved, pytest.raises(NoEngine, match="stopped answering"):
        read(saved, max(BLOBS, key=sha256))
