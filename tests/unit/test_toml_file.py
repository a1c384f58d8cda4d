"""A document is written with the line of each of its keys, and read again."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from builder.toml_file import Key, lines

KEYS = some.one_of(some.from_regex(r"[A-Za-z0-9_-]{1,5}", fullmatch=True), some.text(max_size=5))
SCALARS = some.one_of(some.booleans(), some.integers(-9, 9), some.text(max_size=5))
TABLES = some.recursive(
    some.dictionaries(KEYS, SCALARS, max_size=3),
    lambda inner: some.dictionaries(KEYS, some.one_of(SCALARS, inner, some.lists(inner, max_size=2)), max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("# a\n\nb = 1\n", {("b",): 3}),
        ("a.b.c = 1\n", {("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 1}),
        ("a . b = 1\n", {("a",): 1, ("a", "b"): 1}),
        ("[a]\n[a.b]\nc = 1\n", {("a",): 1, ("a", "b"): 2, ("a", "b", "c"): 3}),
        ("[a.b]\n[c]\n[a.d]\n", {("a",): 1, ("a", "b"): 1, ("c",): 2, ("a", "d"): 3}),
        ("[a.b]\n[a]\nc = 1\n", {("a",): 1, ("a", "b"): 1, ("a", "c"): 3}),
        ("a = { b = 1, c.d = 2 }\n", {("a",): 1, ("a", "b"): 1, ("a", "c"): 1, ("a", "c", "d"): 1}),
        ("a = [\n  1,\n  # no\n  2,\n]\n", {("a",): 1, ("a", "0"): 2, ("a", "1"): 4}),
        ("a = [\n  { b = 1 },\n]\n", {("a",): 1, ("a", "0"): 2, ("a", "0", "b"): 2}),
        ('"a.b" = 1\n', {("a.b",): 1}),
        ("'a\"' = 1\n", {('a"',): 1}),
        ('"a\\"\\u00e4" = 1\n', {('a"ä',): 1}),
        ('"" = 1\n', {("",): 1}),
        ('[a."b c"]\n', {("a",): 1, ("a", "b c"): 1}),
        ("[[a]]\n[[a]]\nb = 2\n", {("a",): 1, ("a", "0"): 1, ("a", "1"): 2, ("a", "1", "b"): 3}),
        ("[[a]]\n[a.b]\nc = 1\n", {("a",): 1, ("a", "0"): 1, ("a", "0", "b"): 2, ("a", "0", "b", "c"): 3}),
        ("[[a]]\n[[a.b]]\n", {("a",): 1, ("a", "0"): 1, ("a", "0", "b"): 2, ("a", "0", "b", "0"): 2}),
        ('a = """\nb = 1\n"""\nc = 1\n', {("a",): 1, ("c",): 4}),
        ("a = 1\r\nb = 2\r\n", {("a",): 1, ("b",): 2}),
        ("a = 1979-05-27T07:32:00Z # b = 1\nc = 1", {("a",): 1, ("c",): 2}),
    ],
)  # fmt: skip
def test_each_key_has_its_line(text: str, found: dict[Key, int]) -> None:
    tomllib.loads(text)
    assert lines(text) == found


def paths(value: Any, key: Key = ()) -> set[Key]:
    """Every key of nested tables and arrays, `key` included."""
    inner: dict[str, Any] = {}
    if isinstance(value, dict):
        inner = value
    elif isinstance(value, list):
        inner = {str(index): each for index, each in enumerate(value)}
    return {key, *(path for name, each in inner.items() for path in paths(each, (*key, name)))}


class Writer:
    """Writes nested tables in ways that `style` chooses, and notes the line of each plain value."""

    def __init__(self, style: some.DataObject) -> None:
        self._style = style
        self.rows: list[str] = []
        self.expected: dict[Key, int] = {}

    def table(self, table: dict[str, Any], header: Key, path: Key) -> None:
        """Plain values must come first: after a header they would be in its table.

        Args:
            header: as it is written, without the numbers of array elements.
        """
        later: list[tuple[str, Any]] = []
        for name, value in table.items():
            nested = isinstance(value, (dict, list))
            if nested and self._style.draw(some.booleans()):
                later.append((name, value))
            else:
                self.rows.append(f"{self._key(name)} = {self._inline(value)}")
                self.expected[*path, name] = len(self.rows)
        for name, value in later:
            written = ".".join(map(self._key, (*header, name)))
            if isinstance(value, dict):
                self.rows += ["", f"[{written}]"]
                self.expected.setdefault((*path, name), len(self.rows))
                self.table(value, (*header, name), (*path, name))
            elif not value:  # an array of tables has at least one
                continue
            for index, element in enumerate(value if isinstance(value, list) else ()):
                self.rows += ["# [no]", f"[[{written}]]"]
                self.expected[*path, name, str(index)] = len(self.rows)
                self.table(element, (*header, name), (*path, name, str(index)))

    def _key(self, name: str) -> str:
        bare = name and all(char.isascii() and (char.isalnum() or char in "-_") for char in name)
        return name if bare and self._style.draw(some.booleans()) else quoted(name)

    def _inline(self, value: Any) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{self._key(name)} = {self._inline(each)}" for name, each in value.items()) + " }"
        if isinstance(value, list):
            return "[" + ", ".join(map(self._inline, value)) + "]"
        return quoted(value) if isinstance(value, str) else str(value).lower()


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@given(TABLES, some.data())
def test_every_key_of_any_document_is_found_on_its_line(table: dict[str, Any], style: some.DataObject) -> None:
    writer = Writer(style)
    writer.table(table, (), ())
    text = "\n".join(writer.rows)
    found = lines(text)
    assert set(found) | {()} == paths(tomllib.loads(text))
    assert {key: found[key] for key in writer.expected} == writer.expected


@given(some.text())
def test_what_is_no_toml_is_no_reason_to_raise(text: str) -> None:
    lines(text)
