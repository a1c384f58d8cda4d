"""The .env beside a project's docker-compose.yml, which `docker compose` reads by itself."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from dotenv.parser import parse_stream

from builder.errors import MachineError

FILE_NAME = ".env"
_NEWLINES = "\r\n"
_PLAIN = re.compile(r"[A-Za-z0-9_./:@+-]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def write(root: Path, values: Mapping[str, str]) -> Path:
    """Sets each of `values` in the project's .env, and leaves every other line, comment and blank line as it is.

    Not by python-dotenv's `set_key`, which drops the blank lines above a key and rewrites CRLF; by its parser alone.
    A reader sees the old file or the new one. A file that is there keeps its mode, as it may hold secrets.

    Args:
        values: such as {"IMAGE": "host/path@sha256:..."}; texts that need no quotes.

    Returns:
        the file.

    Raises:
        MachineError: it cannot be read or written.
    """
    for key, value in values.items():
        if not _KEY.fullmatch(key) or not _PLAIN.fullmatch(value):
            raise ValueError(f"{key}={value} needs quotes")
    path = root / FILE_NAME
    try:
        _replace(path, _with(_read(path), values))
    except OSError as error:
        raise MachineError(
            f"{FILE_NAME} cannot be written: {error.strerror}",
            where=str(path),
            remedy="make it a file that you may write",
        ) from None
    return path


def _read(path: Path) -> str:
    """Its text, byte for byte: bytes that are not UTF-8 and every line's end come back as they were."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""


def _with(before: str, values: Mapping[str, str]) -> str:
    end = "\r\n" if "\r\n" in before else "\n"
    mark = "\ufeff" if before.startswith("\ufeff") else ""
    lines = []
    missing = dict(values)
    for each in parse_stream(io.StringIO(before, newline="")):
        line = each.original.string
        if each.key and each.key in values:
            # Blank lines above it, an indent and `export` are part of what was parsed.
            head, tail = line[: line.index(each.key)], line[len(line.rstrip(_NEWLINES)) :]
            line = f"{head}{each.key}={values[each.key]}{tail}"
            missing.pop(each.key, None)
        lines.append(line)
    text = "".join(lines)
    if missing and text and not text.endswith(tuple(_NEWLINES)):
        text += end
    return mark + text + "".join(f"{key}={value}{end}" for key, value in missing.items())


def _replace(path: Path, text: str) -> None:
    try:
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        mode = 0o644
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{FILE_NAME}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(text.encode("utf-8", "surrogateescape"))
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
