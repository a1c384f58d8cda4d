"""Blobs of an image in the engine, out of the stream that `docker save` gives: nothing of it is kept on disk.

With the containerd image store that stream is an OCI image layout: manifests, configurations and layers as a registry
has them.
"""

from __future__ import annotations

import contextlib
import json
import tarfile
from collections.abc import Generator, Iterator, Mapping
from typing import Any, BinaryIO

from builder.docker.engine import Engine, translated
from builder.errors import MachineError
from builder.oci import INDEXES, BaseImage, Blocks, skip
from builder.reference import Digest

_DOCUMENT_BYTES = 4 << 20
"""What registries take at least for a manifest: https://github.com/opencontainers/distribution-spec."""


def base_image(engine: Engine, name: str, platform: str) -> BaseImage:
    """The manifest and the configuration of an image that the engine has.

    Raises:
        NoImage, MachineError: it has none, or not for that platform.
    """
    digest = Digest(engine.image(name)["Id"])
    documents: dict[str, bytes] = {}
    with _whole(name), _stream(engine, name) as archive:
        for member in archive:
            if member.isfile() and member.size <= _DOCUMENT_BYTES and (content := archive.extractfile(member)):
                documents["sha256:" + member.name.rpartition("/")[2]] = content.read()
                # The stream has all layers, and its own index at its very end; no more is read than must be.
                if found := _manifest_and_config(documents, digest, platform):
                    return BaseImage(name, digest, *found)
    raise MachineError(
        f"the engine does not have {name} for {platform}",
        where=name,
        remedy=f"docker pull --platform={platform} {name}",
    )


def _manifest_and_config(documents: Mapping[str, bytes], digest: Digest, platform: str) -> tuple[bytes, bytes] | None:
    """Those that `digest` stands for, out of blobs by their digests; None while one is not among them."""
    manifest = documents.get(str(digest), b"{}")
    if json.loads(manifest).get("mediaType") in INDEXES:
        manifest = documents.get(of_platform(json.loads(manifest), platform), b"{}")
    config = documents.get(json.loads(manifest).get("config", {}).get("digest", ""))
    return None if config is None else (manifest, config)


def of_platform(index: dict[str, Any], platform: str) -> str:
    """The digest of the manifest for a platform; empty where the index has none."""
    system, _, architecture = platform.partition("/")
    for entry in index["manifests"]:
        its = entry.get("platform", {})
        if (its.get("os"), its.get("architecture")) == (system, architecture):
            return str(entry["digest"])
    return ""


class SavedBlobs:
    """The blobs of an image, to be read one after the other.

    The engine sends them in the order of their digests, so reading them in that order takes one stream only.
    """

    def __init__(self, engine: Engine, image: str) -> None:
        self._engine = engine
        self._image = image
        self._open = contextlib.ExitStack()
        self._archive: tarfile.TarFile | None = None

    def __enter__(self) -> SavedBlobs:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @contextlib.contextmanager
    def blob(self, digest: Digest, offset: int = 0) -> Iterator[BinaryIO]:
        """A blob from its byte `offset` on.

        Raises:
            MachineError: the engine does not have it.
        """
        name = f"blobs/sha256/{digest.value.removeprefix('sha256:')}"
        content = self._next(name) or self._again(name)
        if content is None:
            raise MachineError(
                f"the engine has no blob {digest}", where=self._image, remedy="build the image again, or pull its base"
            )
        skip(content, offset)
        yield content

    def _next(self, name: str) -> Any:
        """The blob in the rest of the open stream."""
        if self._archive:
            with _whole(self._image):
                # Not by iteration, which begins with what was read before and cannot be read again.
                while member := self._archive.next():
                    if member.name == name:
                        return self._archive.extractfile(member)
            self._archive = None
        return None

    def _again(self, name: str) -> Any:
        self._open.close()
        with _whole(self._image):
            self._archive = self._open.enter_context(_stream(self._engine, self._image))
        return self._next(name)


@contextlib.contextmanager
def _whole(image: str) -> Iterator[None]:
    """Raises MachineError where the stream ends before its time."""
    try:
        yield
    except tarfile.ReadError as error:
        raise MachineError(
            f"the engine sends no whole image: {error}",
            where=image,
            remedy="`docker save` may say why; build the image again, or pull its base",
        ) from None


@contextlib.contextmanager
def _stream(engine: Engine, image: str) -> Iterator[tarfile.TarFile]:
    chunks = _chunks(engine, image)
    stream: Any = Blocks(chunks)  # tarfile wants no more of a stream than that it can be read
    with contextlib.closing(chunks), tarfile.open(fileobj=stream, mode="r|") as archive:
        yield archive


def _chunks(engine: Engine, image: str) -> Generator[bytes]:
    """What the engine sends; whoever reads it is told when the engine is gone, and not that a file is broken."""
    with translated(image):
        yield from engine.client.api.get_image(image)
