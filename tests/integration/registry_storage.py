"""The folder of a real registry, written to directly: gigabytes are in it in seconds, and nobody sent them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.reference import Digest
from builder.registry.content import digest_of

from .conftest import DockerContainer, HttpWaitStrategy, on_ipv4

Blob = tuple[Digest, int]
"""And its bytes."""
_ZEROS = bytes(1 << 20)


class Storage:
    """The folder in which docker-registry keeps what it has. Blobs are put there without a byte over the network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._root = folder / "docker/registry/v2"

    def link_file(self, digest: Digest, repository: str) -> Path:
        """The file whose content says that `repository` has the blob."""
        name = str(digest).removeprefix("sha256:")
        return self._root / "repositories" / repository / "_layers/sha256" / name / "link"

    def link(self, digest: Digest, repository: str) -> Path:
        """Says that `repository` has the blob; gives the file that it has to be in."""
        name = str(digest).removeprefix("sha256:")
        link = self.link_file(digest, repository)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.write_text(str(digest))
        data = self._root / "blobs/sha256" / name[:2] / name / "data"
        data.parent.mkdir(parents=True, exist_ok=True)
        return data

    def put(self, content: bytes, repository: str) -> Blob:
        digest = digest_of(content)
        self.link(digest, repository).write_bytes(content)
        return digest, len(content)

    def put_zeros(self, size: int, repository: str) -> Blob:
        """A layer with one file of `size` zeros, for which the disk needs no room."""
        member = tarfile.TarInfo("zeros")
        member.size = size
        head, whole = member.tobuf(), size + 3 * tarfile.BLOCKSIZE
        known, left = hashlib.sha256(head), whole - len(head)
        while left:
            known.update(memoryview(_ZEROS)[:left])
            left -= min(left, len(_ZEROS))
        digest = Digest("sha256:" + known.hexdigest())
        with self.link(digest, repository).open("wb") as file:
            file.write(head)
            file.truncate(whole)
        return digest, whole

    def put_saved(self, image: str, repository: str) -> dict[str, bytes]:
        """All blobs of an image of the engine; gives those that are documents, by digest."""
        documents = {}
        with (
            subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving,
            tarfile.open(fileobj=saving.stdout, mode="r|") as members,
        ):
            for member in members:
                if not member.name.startswith("blobs/sha256/") or not (stream := members.extractfile(member)):
                    continue
                digest = Digest("sha256:" + member.name.rpartition("/")[2])
                path = self.link(digest, repository)
                with path.open("wb") as file:
                    shutil.copyfileobj(stream, file)
                if member.size < len(_ZEROS):
                    documents[str(digest)] = path.read_bytes()
        return documents


@contextmanager
def registry_on(storage: Storage, image: str) -> Iterator[str]:
    """A registry of `image` that keeps what it has in that folder; gives its address."""
    container = on_ipv4(DockerContainer(image), 5000)
    container.with_volume_mapping(str(storage.folder), "/var/lib/registry", "rw")
    container.waiting_for(HttpWaitStrategy(5000, "/v2/").for_status_code(200))
    with container:
        yield f"localhost:{container.get_exposed_port(5000)}"
