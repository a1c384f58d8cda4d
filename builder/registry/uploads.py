"""Uploads of blobs: in chunks, going on where a connection broke, also after this process was killed.

By https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-a-blob-in-chunks. How much of an upload
is kept is up to the registry. docker-registry before 3.0 (https://github.com/distribution/distribution/pull/3755) and
Azure's (https://github.com/Azure/azure-sdk-for-python/issues/29738) throw it away when a connection breaks inside a
chunk, and keep it when it breaks between two; a proxy that takes requests in whole before it passes them on, as nginx
does, makes the latter the rule.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin

import requests

from builder.errors import DigestMismatch, MachineError, PushError
from builder.reference import Digest
from builder.registry import blobs
from builder.registry.connection import COMMIT_SECONDS, Again, Connection
from builder.registry.content import digest_of
from builder.registry.refusals import is_other_content
from builder.registry.sessions import Unsaved, claimed

CHUNK = 16 << 20
"""Bytes: what a cut connection costs at most, where the registry keeps what it has."""
_BLOCK = 1 << 18
_STARTS = 10
"""How often an upload starts over before it got any farther than ever before."""
_RANGE = re.compile(r"(?:bytes[= ])?0-(\d+)")

Source = Callable[[int], AbstractContextManager[BinaryIO]]
"""Opens a blob from a byte on."""


def blob(
    connection: Connection,
    digest: Digest,
    size: int,
    source: Source,
    sessions: Path | None,
    progress: Callable[[int], None],
    chunk: int = CHUNK,
) -> int:
    """Uploads a blob of `size` bytes unless it is there; gives the bytes sent, those of cut connections too.

    Args:
        sessions: the folder that remembers unfinished uploads for the next process.
        progress: gets the bytes that the upload got farther by; they add up to `size`.

    Raises:
        DigestMismatch: the bytes are not those of the digest.
        RegistryFull, RegistryReadOnly, Unauthorized, NoRegistry, PushError: the registry does not take it.
        MachineError: the source cannot be read.
    """
    if blobs.size(connection, digest) is not None:
        progress(size)
        return 0
    with contextlib.ExitStack() as resources:
        session = resources.enter_context(claimed(sessions, connection.repository, digest)) if sessions else Unsaved()
        upload = _Upload(connection, digest, size, source, session, progress, chunk)
        resources.callback(upload.close)
        upload.run()
        return upload.sent


def content(connection: Connection, of: bytes) -> int:
    """As `blob`, of bytes in memory."""

    def source(offset: int) -> BinaryIO:
        return io.BytesIO(of[offset:])

    return blob(connection, digest_of(of), len(of), source, None, lambda _: None)


class _Upload:
    """One blob on its way."""

    def __init__(
        self,
        connection: Connection,
        digest: Digest,
        size: int,
        source: Source,
        session: Unsaved,
        progress: Callable[[int], None],
        chunk: int,
    ) -> None:
        self.sent = 0
        self._connection = connection
        self._digest = digest
        self._size = size
        self._source = source
        self._session = session
        self._progress = progress
        self._chunk = chunk
        self._offset = 0  # what the registry has, as far as we know
        self._farthest = 0
        self._starts = 0
        self._is_lost = bool(session.location)  # what the registry has must be asked for
        self._is_done = False
        self._stream: BinaryIO | None = None
        self._stream_at = 0
        self._open = contextlib.ExitStack()

    def run(self) -> None:
        # Each chunk has a patience of its own: an upload may take hours, as long as it gets on.
        while not self._is_done:
            self._connection.persist(self._advance)
        self._session.forget()
        self._reached(self._size)

    def close(self) -> None:
        """Closes the source; the registry's side stays, for the next time."""
        self._open.close()
        self._stream = None

    def _advance(self) -> None:
        """One step: to find out where we are, to send a chunk, or to commit."""
        if self._is_lost:
            before = self._offset
            self._locate()
            if self._offset > before or self._is_done:
                return
        if not self._session.location:
            self._start()
        if self._offset < self._size:
            self._send()
        else:
            self._commit()

    def _start(self) -> None:
        self._starts += 1
        if self._starts > _STARTS:
            raise PushError(
                f"the registry loses the upload again and again, {self._starts - 1} times now",
                where=f"{self._connection.repository.repository} {self._digest}",
                remedy="push again over a better line, or have a proxy before it take requests in whole",
            )
        path = f"/v2/{self._connection.repository.path}/blobs/uploads/"
        # What a socket waits for an answer it then waits for room in its buffers too, while the first chunk is sent.
        answer = self._connection.ask("POST", path, ok=(202,), seconds=COMMIT_SECONDS)
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        self._chunk = max(self._chunk, int(least) if least.isdecimal() else 0)
        self._offset, self._is_lost = 0, False
        self._moved(answer)

    def _locate(self) -> None:
        """Asks the registry what it has; starts over where it has nothing any more."""
        if self._offset == self._size and blobs.size(self._connection, self._digest) is not None:
            self._is_done = True  # the commit came through, its answer did not
            return
        answer = self._connection.once("GET", self._session.location, seconds=COMMIT_SECONDS)
        if answer.status_code == 401 or answer.status_code >= 500 or answer.status_code == 429:
            raise self._connection.refused(answer)
        has = _received(answer)
        if not 200 <= answer.status_code < 300 or has is None or has > self._size:
            blobs.cancel(self._connection, self._session.location)
            self._session.forget()
            self._start()
            return
        self._is_lost = False
        self._moved(answer)
        # "0-0" is one byte by the specification, and none by docker-registry.
        self._arrived(0 if has == 1 < self._size else has)

    def _send(self) -> None:
        first = self._offset
        length = min(self._chunk, self._size - first)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{first}-{first + length - 1}",
        }
        answer = self._try("PATCH", headers, {}, lambda: _Body(self._blocks(length), length))
        if not 200 <= answer.status_code < 300:
            raise self._failed(answer)
        has, sent = _received(answer), first + length
        self._moved(answer)
        self._arrived(sent if has is None else min(has, sent))  # some count the last byte twice

    def _commit(self) -> None:
        answer = self._try("PUT", {}, {"digest": str(self._digest)}, None)
        if not 200 <= answer.status_code < 300:
            raise self._failed(answer)
        stored = answer.headers.get("Docker-Content-Digest", "")
        if stored.startswith("sha256:") and stored != str(self._digest):
            self._session.forget()
            raise DigestMismatch(
                f"the registry stored {stored} in the place of {self._digest}",
                where=str(self._connection.repository),
                remedy="the registry, or a proxy before it, changes what it receives: push to one that does not",
            )
        self._is_done = True

    def _try(
        self, method: str, headers: dict[str, str], params: dict[str, str], body: Callable[[], _Body] | None
    ) -> requests.Response:
        try:
            return self._connection.once(
                method, self._session.location, headers=headers, params=params, body=body, seconds=COMMIT_SECONDS
            )
        except BaseException:
            self._is_lost = True
            self.close()
            raise

    def _failed(self, answer: requests.Response) -> Exception:
        self._is_lost = True
        self.close()
        if is_other_content(answer):
            # Not to be mended by sending it again: either side has other bytes than it says.
            blobs.cancel(self._connection, self._session.location)
            self._session.forget()
        elif answer.status_code in (404, 416):
            return Again(f"{answer.request.method}: HTTP {answer.status_code}", answer)
        return self._connection.refused(answer)

    def _moved(self, answer: requests.Response) -> None:
        """The registry may give an upload another address with each answer."""
        # A relative one is relative to whoever answered, which may be a store elsewhere.
        given = answer.headers.get("Location", "")
        location = urljoin(answer.url, given) if given else self._session.location
        if not location:
            raise PushError(
                "the registry does not say where to upload to",
                where=str(self._connection.repository),
                remedy="see that `repository` in builder.toml names a registry, and no proxy breaks its answers",
            )
        self._session.save(location)

    def _arrived(self, offset: int) -> None:
        self._offset = offset
        self._reached(offset)

    def _reached(self, offset: int) -> None:
        if offset > self._farthest:
            self._starts = min(self._starts, 1)
            self._progress(offset - self._farthest)
            self._farthest = offset

    def _blocks(self, length: int) -> Iterator[bytes]:
        """The next bytes of the source; read on from the last chunk where that is where they are."""
        try:
            if self._stream is None or self._stream_at != self._offset:
                self.close()
                self._stream = self._open.enter_context(self._source(self._offset))
                self._stream_at = self._offset
            while length:
                block = self._stream.read(min(_BLOCK, length))
                if not block:
                    break
                length -= len(block)
                self._stream_at += len(block)
                self.sent += len(block)
                yield block
        except OSError as error:
            raise MachineError(
                f"a layer cannot be read: {error.strerror or error}",
                where=str(self._digest),
                remedy="build again, then push",
            ) from None
        if length:
            raise MachineError(
                f"a layer ends after {self._stream_at} bytes of {self._size}",
                where=str(self._digest),
                remedy="build again, then push",
            )


class _Body:
    """A request's body whose length is known: HTTP's own chunks are not taken by every registry."""

    def __init__(self, blocks: Iterator[bytes], length: int) -> None:
        self._blocks = blocks
        self._length = length

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def __len__(self) -> int:
        return self._length


def _received(answer: requests.Response) -> int | None:
    """Bytes that the registry has; None: it does not say."""
    match = _RANGE.fullmatch(answer.headers.get("Range", "").strip())
    return int(match[1]) + 1 if match else None
