"""Images in the form in which registries hold them: blobs by digest, and how an image is put together out of them.

The formats are those of the OCI image specification, https://github.com/opencontainers/image-spec (manifest.md,
config.md, image-layout.md), and Docker's image manifest v2 schema 2, whose layers differ by their media types alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from builder.artifacts import write_atomically
from builder.reference import Digest
from builder.registry.content import OCI_INDEX, OCI_MANIFEST, as_content, digest_of

CONFIG = "application/vnd.oci.image.config.v1+json"
INDEXES = (OCI_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_LAYERS = {
    "application/vnd.docker.image.rootfs.diff.tar": _LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{_LAYER}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{_LAYER}+zstd",
}
_BLOCK = 1 << 20
_LAYOUT_VERSION = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass(frozen=True)
class BaseImage:
    """What the layers of another image lie on; its own layers stay where they are."""

    name: str
    digest: Digest
    """What the name stands for: of the manifest, or of the index that lists it for several platforms."""
    manifest: bytes
    config: bytes

    @property
    def layers(self) -> list[dict[str, Any]]:
        """Descriptors with OCI's media types, and nothing that tells where they were found."""
        return [
            {
                "mediaType": _DOCKER_LAYERS.get(layer["mediaType"], layer["mediaType"]),
                "digest": layer["digest"],
                "size": layer["size"],
            }
            for layer in json.loads(self.manifest)["layers"]
        ]

    @property
    def husk(self) -> dict[str, Any]:
        """Its configuration for an image without a layer."""
        config: dict[str, Any] = json.loads(self.config)
        return {**config, "rootfs": {"type": "layers", "diff_ids": []}, "history": []}


class Layout:
    """An OCI image layout with one image in it; layers of the base may be elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: Digest | str) -> Path:
        """Where a blob is, or would be."""
        return self.folder / "blobs" / "sha256" / str(digest).removeprefix("sha256:")

    @property
    def digest(self) -> Digest:
        """Of the image's manifest."""
        index = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
        return Digest(index["manifests"][0]["digest"])

    @property
    def content(self) -> bytes:
        """The manifest as it is."""
        return self.path(self.digest).read_bytes()

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(json.loads(self.content))

    @property
    def config(self) -> dict[str, Any]:
        return dict(json.loads(self.path(self.manifest["config"]["digest"]).read_bytes()))

    @property
    def media_type(self) -> str:
        return str(self.manifest["mediaType"])

    @property
    def exists(self) -> bool:
        return (self.folder / "index.json").is_file()

    @contextlib.contextmanager
    def open(self, digest: Digest, offset: int = 0) -> Iterator[BinaryIO]:
        """A blob from its byte `offset` on."""
        with self.path(digest).open("rb") as stream:
            stream.seek(offset)
            yield stream

    def holds(self, digest: Digest | str) -> bool:
        return self.path(digest).is_file()

    def put_on(
        self, base: BaseImage, *, command: Sequence[str] = (), labels: Mapping[str, str] | None = None
    ) -> Digest:
        """Puts the image's own layers on those of `base`, whose configuration it has already.

        Args:
            command: takes the place of the one that it has, if there is any here.
            labels: are added to those that it has.

        Returns:
            the digest of the whole image's manifest, of which there is one for equal layers and equal bases.
        """
        manifest, config, under = self.manifest, self.config, json.loads(base.config)
        config["rootfs"]["diff_ids"] = [*under["rootfs"]["diff_ids"], *config["rootfs"]["diff_ids"]]
        config["history"] = [*under.get("history", ()), *config.get("history", ())]
        if command:
            config["config"]["Cmd"] = list(command)
            told = {"created_by": f"CMD {json.dumps(command)}", "empty_layer": True}
            config["history"].append({**told, **({"created": config["created"]} if "created" in config else {})})
        if labels:
            config["config"]["Labels"] = {**(config["config"].get("Labels") or {}), **labels}
        written = self._add(as_content(config))
        manifest["config"] = {"mediaType": CONFIG, "digest": str(written), "size": self.path(written).stat().st_size}
        manifest["layers"] = [*base.layers, *manifest["layers"]]
        whole = self._add(as_content(manifest))
        size = self.path(whole).stat().st_size
        index = {"schemaVersion": 2, "manifests": [{"mediaType": OCI_MANIFEST, "digest": str(whole), "size": size}]}
        write_atomically(self.folder / "index.json", json.dumps(index))
        return whole

    def _add(self, content: bytes) -> Digest:
        digest = digest_of(content)
        self.path(digest).write_bytes(content)
        return digest

    def archive(self, name: str) -> Iterator[bytes]:
        """A tar file of manifest, configuration and own layers, for `docker load` where the base's layers are."""
        manifest = self.manifest
        entry = {
            "mediaType": OCI_MANIFEST,
            "digest": str(self.digest),
            "size": len(self.content),
            "annotations": {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.rpartition(":")[2],
            },
        }
        yield from _member("oci-layout", _LAYOUT_VERSION)
        yield from _member("index.json", as_content({"schemaVersion": 2, "manifests": [entry]}))
        for digest in (
            str(self.digest),
            manifest["config"]["digest"],
            *(layer["digest"] for layer in manifest["layers"]),
        ):
            if self.holds(digest):
                yield from _member(f"blobs/sha256/{digest.removeprefix('sha256:')}", self.path(digest))
        yield bytes(2 * tarfile.BLOCKSIZE)


class Blocks:
    """Bytes that come in blocks, as a file that can only be read on."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

    def read(self, size: int) -> bytes:
        parts, length = [self._rest], len(self._rest)
        while length < size and (block := next(self._blocks, b"")):
            parts.append(block)
            length += len(block)
        whole = b"".join(parts)
        self._rest = whole[size:]
        return whole[:size]


def skip(stream: Any, count: int) -> None:
    """Reads `count` bytes for nothing."""
    while count > 0 and (block := stream.read(min(count, _BLOCK))):
        count -= len(block)


def _member(name: str, content: bytes | Path) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content) if isinstance(content, bytes) else content.stat().st_size
    yield info.tobuf()
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block
    yield bytes(-info.size % tarfile.BLOCKSIZE)
