"""What compilers, linkers and CMake complain of, out of a whole build log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

STAGE = "plugins"
"""Of the Dockerfile, where they run."""
_ERROR_LINE = re.compile(r"(?:\berror\b(?: #\d+)?:|^CMake Error|undefined reference|: fatal error)", re.IGNORECASE)
_NOT_AN_ERROR = re.compile(r": note:|: warning:|In file included")
_CMAKE = "CMake Error"
_LINES = 4
"""That a compiler uses to show a place."""


def is_error(line: str) -> bool:
    """Whether a message begins here."""
    return bool(_ERROR_LINE.search(line)) and not line.startswith("ninja:")


def messages(lines: Iterable[str]) -> Iterator[list[str]]:
    """Each error with the lines that show its place; sources by their names in the project."""
    message: list[str] = []
    following = 0
    in_cmake = False
    for line in lines:
        begins = False
        if line.startswith(_CMAKE):
            in_cmake = begins = True
        elif in_cmake and line.startswith(("--", "CMake ", "-- ")):
            in_cmake, following = False, 0
        if is_error(line):
            begins = begins or not in_cmake
            following = _LINES
        elif line.startswith(("[", "FAILED:", "ninja:")) or _NOT_AN_ERROR.search(line):
            following = 0
        if message and (begins or not (following or in_cmake)):
            yield message
            message = []
        if following or in_cmake:
            message.append(line.replace("/src/plugin/", "plugin/"))
            following -= following > 0
    if message:
        yield message
