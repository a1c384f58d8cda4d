"""A project's values and where each comes from: builder.toml, then the environment, then --set; the last one counts."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder import toml_file
from builder.errors import BadUsage, CheckFailed, ProjectMissing
from builder.findings import Finding, Place
from builder.toml_file import Key

FILE_NAME = "builder.toml"
PREFIX = "TRITON_DALI_BUILDER_"
"""Of environment variables: TRITON_DALI_BUILDER_TARGETS__EMBEDDED__DALI is targets.embedded.dali."""
_NOT_SETTINGS = {"TRITON_DALI_BUILDER_HOME", "TRITON_DALI_BUILDER_PIP_CONF"}
_ALIASES = {"DEBIAN_IMAGE": ("debian_image",)}
"""docker-compose.yml and plain `docker build` take it by this name."""


@dataclass
class Settings:
    """Raw values, and the place of each that was given."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Key, Place] = field(default_factory=dict)

    def place(self, key: Key) -> Place:
        """Where `key` was given, or else the table that it would be in."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.places:
                return self.places[key[:length]]
        return Place(FILE_NAME)

    def put(self, key: Key, value: Any, place: Place) -> None:
        """Sets one value, over what was there."""
        table = self.values
        for part in key[:-1]:
            inner = table.get(part)
            if not isinstance(inner, dict):
                inner = table[part] = {}
            table = inner
        table[key[-1]] = value
        for length in range(1, len(key)):
            self.places.setdefault(key[:length], place)
        # What was there before, an array's elements included, is no longer true.
        for known in [known for known in self.places if known[: len(key)] == key]:
            del self.places[known]
        self.places[key] = place


def read(root: Path, given: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Settings:
    """All that is said about the project in `root`.

    Args:
        given: `--set` options, each KEY=VALUE.

    Raises:
        ProjectMissing: there is no builder.toml.
        CheckFailed: it is not TOML.
        BadUsage: an option is not KEY=VALUE.
    """
    settings = _from_file(root)
    for name, value in sorted((environment or {}).items()):
        if value and name in _ALIASES:
            settings.put(_ALIASES[name], value, Place(f"the environment variable {name}"))
        elif name.startswith(PREFIX) and name not in _NOT_SETTINGS:
            key = _spelled(name.removeprefix(PREFIX).split("__"), settings.values)
            settings.put(key, _value(value), Place(f"the environment variable {name}"))
    for option in given:
        name, equals, value = option.partition("=")
        key = tuple(part.strip("\"'") for part in re.findall(r'"[^"]*"|\'[^\']*\'|[^.]+', name.strip()))
        if not equals or not key:
            raise BadUsage(
                f"{option!r} is not KEY=VALUE",
                where="--set",
                remedy="write for example --set targets.embedded.dali=2.1.1",
            )
        settings.put(key, _value(value), Place(f"--set {name.strip()}"))
    return settings


def _from_file(root: Path) -> Settings:
    path = root / FILE_NAME
    try:
        text = path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError):
        raise ProjectMissing(
            f"there is no {FILE_NAME} here",
            where=str(root.resolve()),
            remedy="go to the project, name it with -C DIR, or make one with `builder init`",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        what = f"{FILE_NAME} cannot be read: {error.strerror if isinstance(error, OSError) else error}"
        raise CheckFailed([Finding("toml-invalid", what, Place(FILE_NAME), "make it a UTF-8 text file")]) from None
    if text.startswith("\ufeff"):
        what = f"{FILE_NAME} is not TOML: it begins with a byte order mark"
        raise CheckFailed([Finding("toml-invalid", what, Place(FILE_NAME, 1, 1), "save it as UTF-8 without one")])
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        message = str(error)
        found = re.search(r" \(at line (\d+), column (\d+)\)", message)
        place = Place(FILE_NAME, int(found[1]), int(found[2])) if found else Place(FILE_NAME)
        what = message.removesuffix(found[0]) if found else message.removesuffix(" (at end of document)")
        raise CheckFailed(
            [Finding("toml-invalid", f"{FILE_NAME} is not TOML: {what}", place, "mend that line")]
        ) from None
    return Settings(values, {key: Place(FILE_NAME, line) for key, line in toml_file.lines(text).items()})


def _spelled(parts: Sequence[str], values: Mapping[str, Any]) -> Key:
    """The key that a variable means: names in a file may have small letters and hyphens, which variables cannot."""
    key: list[str] = []
    table: Any = values
    for part in parts:
        known = {_plain(name): name for name in table} if isinstance(table, dict) else {}
        # A model's name has whatever letters its folder has.
        key.append(known.get(_plain(part), part if key == ["models"] else part.lower()))
        table = table.get(key[-1]) if isinstance(table, dict) else None
    return tuple(key)


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", name).lower()


def _value(text: str) -> Any:
    """A list, table, quoted text or truth value as in TOML; anything else is text, of which the schema makes what it
    wants."""
    if text.strip().startswith(("[", "{", '"', "'")) or text in ("true", "false"):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            return text
    return text
