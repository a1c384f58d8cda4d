"""config.pbtxt, read with Triton's own message type: what Triton would read, and where each field of it stands."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import CheckFailed, did_you_mean
from builder.findings import Finding, Place

FILE_NAME = "config.pbtxt"
PLUGIN_LIBS = "plugin_libs"
DALI = "dali"
_SCHEMA = "the fields of ModelConfig are in Triton's documentation; `builder config MODEL` prints a complete one"

Steps = tuple[str | int, ...]
"""The way to a field, such as ("input", 0, "data_type") or ("parameters", "plugin_libs")."""


@dataclass(frozen=True)
class Span:
    """Where a field stands: its name's first character, and, of a message, its closing bracket. From 1 on; 0: none."""

    line: int
    column: int
    end_line: int = 0
    end_column: int = 0


@dataclass(frozen=True)
class Config:
    """A model's config.pbtxt."""

    path: Path
    message: Any
    """The ModelConfig."""
    text: str
    spans: Mapping[Steps, Span]

    @property
    def backend(self) -> str:
        return str(self.message.backend)

    @property
    def is_dali(self) -> bool:
        """Whether NVIDIA's DALI backend, or ours, will serve the model."""
        return self.backend == DALI

    @property
    def libraries(self) -> tuple[str, ...] | None:
        """What parameter plugin_libs names, in its order; None without the parameter."""
        value = self.parameter(PLUGIN_LIBS)
        return None if value is None else tuple(path for path in value.split(":") if path)

    def parameter(self, key: str) -> str | None:
        """The value of an entry of `parameters`."""
        return str(self.message.parameters[key].string_value) if key in self.message.parameters else None

    def has(self, *steps: str | int) -> bool:
        """Whether the text has this field, be it with its default value."""
        return steps in self.spans

    def place(self, root: Path, *steps: str | int) -> Place:
        """Where a field is; where there is none, what it would be a part of."""
        for length in range(len(steps), 0, -1):
            if span := self.spans.get(steps[:length]):
                return Place.within(root, self.path, span.line, span.column)
        return Place.within(root, self.path)


def message_types() -> Any:
    """The module with Triton's message types, without the clients in whose package it is.

    These bring gRPC and numpy, which take longer to load than most commands take to run.
    """
    name = "tritonclient.grpc.model_config_pb2"
    if name not in sys.modules:
        package = importlib.util.find_spec(name.partition(".")[0])
        assert package is not None  # it is installed with this program, and is a folder
        assert package.submodule_search_locations is not None
        [folder] = package.submodule_search_locations
        spec = importlib.util.spec_from_file_location(name, Path(folder, "grpc", "model_config_pb2.py"))
        assert spec is not None  # a path that ends in .py has one, and a loader
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        # Under its own name, so that the clients take it too where they are loaded later; `import` by this whole name
        # works only after their package was imported.
        sys.modules.setdefault(name, module)
    return sys.modules[name]


def read(path: Path, root: Path | None = None) -> Config:
    """The configuration in a file; places are as seen from `root`.

    Raises:
        CheckFailed: it is none; the place has the line and column.
    """
    # Imported here: commands that read no configuration need no protobuf.
    from google.protobuf import text_format

    root = root or path.parent
    try:
        # Triton reads bytes, and does not mind what a comment is made of.
        text = path.read_bytes().decode(errors="replace")
    except OSError as error:
        raise _invalid(path, root, str(error.strerror), "make it a text file that can be read") from None
    if text.startswith("\ufeff"):
        raise _invalid(path, root, "it begins with a byte order mark", "save it as UTF-8 without one", 1, 1)
    # Triton reads bytes: a form feed or a line separator of Unicode is no end of a line to it.
    lines = text.split("\n")
    try:
        message = text_format.Parse(text, message_types().ModelConfig())
    except text_format.ParseError as error:
        line, column = error.GetLine() or 0, error.GetColumn() or 0
        what = str(error).removeprefix(f"{line}:{column} : ")
        what = what.removeprefix(f"'{lines[line - 1]}': " if 0 < line <= len(lines) else "").rstrip(".")
        hint, remedy = _meant(what)
        raise _invalid(path, root, what + hint, remedy, line, column) from None
    except (ValueError, TypeError, RecursionError) as error:  # a string that is no UTF-8, above all
        raise _invalid(path, root, str(error), "mend the value") from None
    if "\ufffd" in text and "\ufffd" in text_format.MessageToString(message, as_utf8=True):
        raise _invalid(path, root, "a string in it is not UTF-8", "save it as UTF-8")
    config = Config(path, message, text, dict(_Walk(lines, message.DESCRIPTOR)))
    for steps, what in _unknown_numbers(message):
        place = config.place(root, *steps)
        raise _invalid(path, root, what, "write the value by its name", place.line, place.column)
    return config


def _unknown_numbers(message: Any, steps: Steps = ()) -> Iterator[tuple[Steps, str]]:
    """Enumerations whose value is a number without a name: the parser takes them, and nothing else does."""
    for field, value in message.ListFields():
        here = (*steps, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            continue  # of which none has an enumeration
        repeated = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        for index, each in enumerate(value if repeated else [value]):
            at = (*here, index) if repeated else here
            if field.enum_type and each not in field.enum_type.values_by_number:
                yield at, f"{field.name} is {each}, which no value of {field.enum_type.name} has"
            elif field.message_type:
                yield from _unknown_numbers(each, at)


def _invalid(path: Path, root: Path, what: str, remedy: str, line: int = 0, column: int = 0) -> CheckFailed:
    finding = Finding(
        "config-invalid",
        f"{path.name} cannot be read: {what.encode(errors='backslashreplace').decode()}",
        Place.within(root, path, line, column),
        remedy,
        model=path.parent.name,
    )
    return CheckFailed([finding])


def _meant(what: str) -> tuple[str, str]:
    """A hint for the message of a ParseError, and a remedy."""
    pool = message_types().DESCRIPTOR.pool
    if found := re.search(r'Message type "([\w.]+)" has no field named "([^"]*)"', what):
        return did_you_mean(found[2], pool.FindMessageTypeByName(found[1]).fields_by_name), f"mend that line; {_SCHEMA}"
    if found := re.search(r'Enum type "([\w.]+)" has no value named (\S+)$', what):
        known = list(pool.FindEnumTypeByName(found[1]).values_by_name)
        prefixed = [name for name in known if name.endswith(f"_{found[2].upper()}")]
        hint = f"; did you mean {prefixed[0]}?" if prefixed else did_you_mean(found[2], known)
        return hint, f"choose among {', '.join(known)}"
    return "", f"mend that line; {_SCHEMA}"


class _Walk:
    """The spans of all fields of a text that is known to be right, by their steps."""

    def __init__(self, lines: list[str], descriptor: Any) -> None:
        from google.protobuf import text_format

        self._tokens: Any = text_format.Tokenizer(lines)
        self._descriptor = descriptor

    def __iter__(self) -> Iterator[tuple[Steps, Span]]:
        counts: dict[str, int] = {}
        while not self._tokens.AtEnd():
            yield from self._field(self._descriptor, (), counts)

    def _field(self, descriptor: Any, steps: Steps, counts: dict[str, int]) -> Iterator[tuple[Steps, Span]]:
        line, column = self._here()
        name = self._tokens.token
        self._tokens.NextToken()
        self._tokens.TryConsume(":")
        field = descriptor.fields_by_name[name]
        many = field.is_repeated and self._tokens.TryConsume("[")
        first = True
        while not (many and self._tokens.TryConsume("]")):
            if not first:
                self._tokens.TryConsume(",")
            if many:
                line, column = self._here()
            place: Steps = (*steps, name)
            if field.is_repeated:
                place = (*place, counts.get(name, 0))
                counts[name] = counts.get(name, 0) + 1
            if field.message_type:
                yield from self._message(field, place, line, column)
            else:
                yield place, Span(line, column)
                self._value()
            first = False
            if not many:
                break
        if not self._tokens.TryConsume(","):
            self._tokens.TryConsume(";")

    def _message(self, field: Any, steps: Steps, line: int, column: int) -> Iterator[tuple[Steps, Span]]:
        is_map = field.message_type.GetOptions().map_entry
        end = ">" if self._tokens.TryConsume("<") else "}"
        self._tokens.TryConsume("{")
        inner: dict[Steps, Span] = {}
        counts: dict[str, int] = {}
        key = ""
        while self._tokens.token != end:
            if is_map and self._tokens.token == "key":
                key = self._key()
                continue
            inner.update(self._field(field.message_type, steps, counts))
        end_line, end_column = self._here()
        self._tokens.NextToken()
        place: Steps = (*steps[:-1], key) if is_map else steps
        yield place, Span(line, column, end_line, end_column)
        yield from (((*place, *deeper[len(steps) :]), span) for deeper, span in inner.items())

    def _key(self) -> str:
        """The key of a map's entry: a string, or a number as it is written."""
        self._tokens.NextToken()
        self._tokens.TryConsume(":")
        if self._tokens.token[:1] in ("'", '"'):
            key = str(self._tokens.ConsumeString())
        else:
            key = str(self._tokens.token)
            self._tokens.NextToken()
        if not self._tokens.TryConsume(","):
            self._tokens.TryConsume(";")
        return key

    def _value(self) -> None:
        """Steps over a scalar; strings may follow each other, and are one."""
        if self._tokens.token[:1] not in ("'", '"'):
            self._tokens.NextToken()
            return
        while self._tokens.token[:1] in ("'", '"'):
            self._tokens.NextToken()

    def _here(self) -> tuple[int, int]:
        error = self._tokens.ParseError("")  # the only public way to ask
        return error.GetLine() or 0, error.GetColumn() or 0
