"""Unfinished uploads, remembered for the next process: one small JSON file each."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from builder.reference import Digest, Reference


class Unsaved:
    """An upload's address at the registry, which may hold a secret of its own: it is never logged."""

    def __init__(self) -> None:
        self.location = ""

    def save(self, location: str) -> None:
        self.location = location

    def forget(self) -> None:
        """The upload is over."""
        self.location = ""


class Saved(Unsaved):
    """The same in a file that its owner alone may read."""

    def __init__(self, path: Path, repository: Reference, digest: Digest) -> None:
        super().__init__()
        self._path = path
        self._of = {"repository": repository.repository, "digest": str(digest)}
        try:
            known = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return
        if isinstance(known, dict) and self._of.items() <= known.items():
            self.location = str(known.get("location") or "")

    def save(self, location: str) -> None:
        if location == self.location and self._path.exists():
            return
        super().save(location)
        descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".")  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump({**self._of, "location": location}, stream)
            Path(temporary).replace(self._path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def forget(self) -> None:
        super().forget()
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def claimed(folder: Path, repository: Reference, digest: Digest) -> Iterator[Unsaved]:
    """The session of one blob for one repository; while another process uploads the same, one that nobody remembers."""
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(f"{repository.repository}@{digest}".encode()).hexdigest()[:32]
    lock = folder / f"{name}.lock"
    descriptor = _locked(lock)
    if descriptor is None:
        yield Unsaved()
        return
    try:
        yield Saved(folder / f"{name}.json", repository, digest)
    finally:
        lock.unlink(missing_ok=True)  # before it is let go, so that nobody's is removed
        os.close(descriptor)


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock file; None while another one does.

    The lock is the kernel's: it ends with the process, however that ends.
    """
    while True:
        with contextlib.ExitStack() as otherwise:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            otherwise.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            # Whoever had it may have removed the file since it was opened here; another may hold a new one by now.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(descriptor)):
                    otherwise.pop_all()
                    return descriptor
