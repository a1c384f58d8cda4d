"""One repository of a registry, and all that can be done there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from builder.reference import Digest, Reference
from builder.registry import blobs, manifests, referrers, uploads
from builder.registry.connection import Connection
from builder.registry.content import Descriptor, Manifest
from builder.registry.credentials import Credentials


class Registry:
    """A registry that answers, seen from one repository of it. Threads may share it.

    What can be mended by waiting is tried again, within the patience given to `connect`. Everything here raises,
    besides what its docstring names:

        Unauthorized: this may not be read, or written.
        NoRegistry: the registry stopped answering.
        RegistryReadOnly, RegistryFull: it takes no writes, or has no room.
        PushError: it refuses for another reason; the detail is what was tried.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    def connect(cls, repository: Reference, timeout: float = 30.0, patience: float = 120.0) -> Registry:
        """Asks whether a registry is there, over TLS unless it is on this machine.

        Args:
            timeout: seconds that an answer may take; what a registry must put away first may take longer.
            patience: seconds to wait between tries, all together, until one question is given up; 0 is one try.

        Raises:
            NoRegistry: nothing answers, or what answers is no registry.
            InsecureRegistry: it has no TLS, or a certificate that this machine does not trust.
        """
        return cls(Connection.open(repository, timeout, patience))

    @property
    def repository(self) -> Reference:
        return self._connection.repository

    @property
    def url(self) -> str:
        return self._connection.url

    @property
    def credentials(self) -> Credentials:
        return self._connection.credentials

    def log_in(self) -> Credentials:
        """Takes what Docker has for it from now on.

        Raises:
            MachineError: Docker's configuration, or a credential helper, does not work.
        """
        return self._connection.log_in()

    def read(self) -> bool:
        """Whether the repository exists; one that does not is often made by the first push."""
        path = f"/v2/{self.repository.path}/tags/list?n=1"
        return self._connection.ask("GET", path, ok=(200, 404)).status_code == 200

    def write(self) -> None:
        """Begins an upload and takes it back: what a push does first."""
        answer = self._connection.ask("POST", f"/v2/{self.repository.path}/blobs/uploads/", ok=(202,))
        blobs.cancel(self._connection, answer.headers.get("Location", ""))

    def manifest(self, reference: str) -> Manifest | None:
        """What a tag or a digest (`sha256:...`) stands for; None: not there.

        Raises:
            DigestMismatch: what comes is not what the digest says.
        """
        return manifests.get(self._connection, reference)

    def put_manifest(self, content: bytes, media_type: str, tag: str = "") -> Digest:
        """Stores a manifest under `tag`, or under its digest alone.

        Raises:
            DigestMismatch: the registry says that it stored another one.
        """
        return manifests.put(self._connection, content, media_type, tag)

    def blob_size(self, digest: Digest) -> int | None:
        """Bytes of a blob; None: not there."""
        return blobs.size(self._connection, digest)

    def blob(self, digest: Digest) -> Iterator[bytes]:
        """The bytes of a blob, block by block.

        Raises:
            DigestMismatch: at the end: they are others than the digest says. None of them may be used.
        """
        return blobs.read(self._connection, digest)

    def mount(self, digest: Digest, source: str) -> bool:
        """Has the registry take a blob over from its repository `source`; False: it does not, so upload it."""
        return blobs.mount(self._connection, digest, source)

    def upload(
        self,
        digest: Digest,
        size: int,
        source: Callable[[int], AbstractContextManager[BinaryIO]],
        sessions: Path,
        progress: Callable[[int], None],
        chunk: int = uploads.CHUNK,
    ) -> int:
        """Uploads a blob of `size` bytes unless it is there; gives the bytes that were sent.

        Args:
            source: opens the blob from a byte on.
            sessions: the folder that remembers unfinished uploads for the next process.
            progress: gets the bytes that the upload got farther by; they add up to `size`.
            chunk: bytes of one request; a registry may want more.

        Raises:
            DigestMismatch: the bytes are not those of the digest; it is not tried again.
            MachineError: the source cannot be read.
        """
        return uploads.blob(self._connection, digest, size, source, sessions, progress, chunk)

    def referrers(self, subject: Digest, artifact_type: str = "") -> list[Descriptor]:
        """What refers to the manifest `subject`: all of it, or that of one type."""
        return referrers.find(self._connection, subject, artifact_type)

    def attach(
        self,
        subject: Descriptor,
        artifact_type: str,
        content: bytes,
        media_type: str,
        annotations: Mapping[str, str],
    ) -> Digest:
        """Stores `content` as a referrer of `subject`; gives the digest of its manifest. The same twice is one."""
        return referrers.attach(self._connection, subject, artifact_type, content, media_type, annotations)
