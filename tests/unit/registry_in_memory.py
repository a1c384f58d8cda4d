"""A registry without a server, for one repository: what it is asked to keep, it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from builder.errors import DigestMismatch, PushError
from builder.reference import Digest, Reference
from builder.registry import Descriptor, Manifest
from builder.registry.content import EMPTY, EMPTY_TYPE, OCI_MANIFEST, as_content, digest_of


class RegistryInMemory:
    """As builder.registry.Registry, as far as it goes. Its fields are what a test may tamper with."""

    def __init__(self, repository: str = "registry.example.com/team/mydali") -> None:
        self.repository = Reference.parse(repository)
        self.manifests: dict[str, Manifest] = {}
        """By digest and by tag."""
        self.blobs: dict[str, bytes] = {}
        self.attached: dict[str, list[Descriptor]] = {}
        """By the digest of their subject."""
        self.written = 0
        """Blobs and manifests that were not there before."""
        self.elsewhere: dict[str, dict[str, bytes]] = {}
        """The blobs of other repositories, by their paths; they can be mounted."""
        self.journal: list[tuple[str, str]] = []
        """What was asked that a push is made of, and of what."""

    def log_in(self) -> None:
        self.journal.append(("log in", self.repository.host))

    def manifest(self, reference: str) -> Manifest | None:
        self.journal.append(("read", reference))
        return self.manifests.get(reference)

    def put_manifest(self, content: bytes, media_type: str, tag: str = "") -> Digest:
        found = Manifest(digest_of(content), media_type, content)
        self.journal.append(("put", tag or str(found.digest)))
        for name in {str(found.digest), tag or str(found.digest)}:
            self.written += self.manifests.get(name) != found
            self.manifests[name] = found
        return found.digest

    def put(self, content: bytes, media_type: str) -> dict[str, Any]:
        described = Descriptor.of(content, media_type)
        self.written += str(described.digest) not in self.blobs
        self.blobs[str(described.digest)] = content
        return described.as_json()

    def blob_size(self, digest: Digest) -> int | None:
        content = self.blobs.get(str(digest))
        return None if content is None else len(content)

    def mount(self, digest: Digest, source: str) -> bool:
        self.journal.append(("mount", source))
        content = self.elsewhere.get(source, {}).get(str(digest))
        if content is None:
            return False
        self.blobs[str(digest)] = content
        return True

    def blob(self, digest: Digest) -> Iterator[bytes]:
        if str(digest) not in self.blobs:
            raise PushError("no such blob", where=str(digest), remedy="none")
        content = self.blobs[str(digest)]
        for start in range(0, len(content), 100):
            yield content[start : start + 100]
        if digest_of(content) != digest:
            raise DigestMismatch("other bytes", where=str(digest), remedy="none")

    def upload(
        self,
        digest: Digest,
        size: int,
        source: Callable[[int], AbstractContextManager[BinaryIO]],
        sessions: Path,
        progress: Callable[[int], None],
    ) -> int:
        self.journal.append(("upload", str(digest)))
        sessions.mkdir(parents=True, exist_ok=True)
        with source(0) as stream:
            content = stream.read(size + 1)
        assert (digest_of(content), len(content)) == (digest, size)
        self.put(content, "")
        progress(size)
        return size

    def referrers(self, subject: Digest, artifact_type: str = "") -> list[Descriptor]:
        found = self.attached.get(str(subject), [])
        return [each for each in found if artifact_type in ("", each.artifact_type)]

    def attach(
        self, subject: Descriptor, artifact_type: str, content: bytes, media_type: str, annotations: Mapping[str, str]
    ) -> Digest:
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": self.put(EMPTY, EMPTY_TYPE),
            "layers": [self.put(content, media_type)],
            "subject": subject.as_json(),
            "annotations": dict(annotations),
        }
        digest = self.put_manifest(as_content(manifest), OCI_MANIFEST)
        self.journal[-1:] = [("attach", str(subject.digest))]
        found = Descriptor(OCI_MANIFEST, digest, len(as_content(manifest)), annotations, artifact_type)
        listed = self.attached.setdefault(str(subject.digest), [])
        if found not in listed:
            listed.append(found)
        return digest
