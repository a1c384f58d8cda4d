"""The model repository that the server sees: the project's, with its pipelines serialized and its libraries in it."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import IO

from builder.dev.snapshot import Moved


class ModelFolder:
    """A folder that is made what it must be, a file at a time; what has not changed is not touched."""

    def __init__(self, path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        path.chmod(0o755)  # the server is another user
        self.path = path
        self._has: dict[str, str] = {}

    def fill(self, repository: Path, files: Mapping[str, str], made: Mapping[str, bytes]) -> dict[str, str]:
        """Makes it hold `files` and `made`, and nothing else.

        Args:
            files: of the project's `repository`, by their names in it, with their digests; folders end in a slash.
            made: contents of more files, which come before those of the project.

        Returns:
            the digest of each model, as it lies here now; hidden folders are none.

        Raises:
            Moved: a file of the project is another by now, or gone. The others are what they must be.
        """
        wanted = dict(files) | {name: sha256(content).hexdigest() for name, content in made.items()}
        for name in sorted(self._has.keys() - wanted.keys(), reverse=True):  # what is in a folder before the folder
            self._remove(name)
            del self._has[name]
        moved = []
        for name, digest in wanted.items():
            if self._has.get(name) == digest:
                continue
            path = self.path / name
            if name.endswith("/"):
                self._make(path)
                self._has[name] = digest
            elif name in made:
                self._has[name] = self._write(path, made[name])
            else:
                try:
                    source = (repository / name).open("rb")
                except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    moved.append(name)  # gone: what may lie here is still what it was
                    continue
                with source:
                    self._has[name] = self._write(path, source)
                if self._has[name] != digest:
                    moved.append(name)
        if moved:
            raise Moved(*moved)
        models: dict[str, list[str]] = {}
        for name, digest in sorted(wanted.items()):
            model, slash, rest = name.partition("/")
            if slash and not model.startswith("."):
                models.setdefault(model, []).append(f"{rest}\0{digest}")
        return {model: sha256("\n".join(lines).encode()).hexdigest() for model, lines in models.items()}

    def close(self) -> None:
        """Leaves nothing."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _write(self, path: Path, content: bytes | IO[bytes]) -> str:
        """Another file takes the place of the former one, which a server may have open; its time is now.

        Returns:
            the digest of what was written.
        """
        self._make(path.parent)
        return write_whole(path, content, self.path.parent)

    def _make(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make(folder.parent)
            folder.mkdir()
            folder.chmod(0o755)

    def _remove(self, name: str) -> None:
        path = self.path / name
        if name.endswith("/"):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


class Hashed:
    """A stream, and the digest of what was read from it, which need not be what is in its file before or after."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._total = sha256()

    def read(self, size: int = -1) -> bytes:
        part = self._read(size)
        self._total.update(part)
        return part

    @property
    def digest(self) -> str:
        """SHA-256 in hexadecimal."""
        return self._total.hexdigest()


def write_whole(path: Path, content: bytes | IO[bytes], temporaries: Path | None = None) -> str:
    """A reader sees the old file or the new one, never half of it.

    Args:
        content: or a stream of it.
        temporaries: where the new file is until it is whole; beside the old one by default.

    Returns:
        SHA-256 of what was written, in hexadecimal.
    """
    source = Hashed((io.BytesIO(content) if isinstance(content, bytes) else content).read)
    descriptor, temporary = tempfile.mkstemp(dir=temporaries or path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            shutil.copyfileobj(source, stream)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return source.digest
