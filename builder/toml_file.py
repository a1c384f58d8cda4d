"""Where in a TOML file each key is: `tomllib` reads the values, but does not say on which line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

import tree_sitter
import tree_sitter_toml

Key = tuple[str, ...]
_QUOTED = ("quoted_key", "bare_key")


def lines(text: str) -> dict[Key, int]:
    """The line, from 1, of each table and key of a valid document; elements of arrays by their number, from 0."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_toml.language()))
    found: dict[Key, int] = {}
    counts: dict[Key, int] = {}
    for node in parser.parse(text.encode()).root_node.children:
        if node.type == "pair":
            _pair(node, (), found)
        elif node.type in ("table", "table_array_element"):
            key = _numbered(next((_key(child) for child in node.children if child.type.endswith("key")), ()), counts)
            if node.type == "table_array_element":
                counts[key] = counts.get(key, -1) + 1
                key = (*key, str(counts[key]))
            _note(key, node, found)
            for child in node.children:
                if child.type == "pair":
                    _pair(child, key, found)
    return found


def _pair(node: tree_sitter.Node, table: Key, found: dict[Key, int]) -> None:
    key = (*table, *_key(node.children[0]))
    _note(key, node, found)
    _value(node.named_children[1], key, found)  # a comment may follow on the line


def _value(node: tree_sitter.Node, key: Key, found: dict[Key, int]) -> None:
    if node.type == "inline_table":
        for child in node.children:
            if child.type == "pair":
                _pair(child, key, found)
    elif node.type == "array":
        for index, child in enumerate(child for child in node.named_children if child.type != "comment"):
            _note((*key, str(index)), child, found)
            _value(child, (*key, str(index)), found)


def _numbered(key: Key, counts: Mapping[Key, int]) -> Key:
    """[a.b] below [[a]] is in the last element of `a`."""
    whole: Key = ()
    for part in key[:-1]:
        whole = (*whole, part)
        if whole in counts:
            whole = (*whole, str(counts[whole]))
    return (*whole, *key[-1:])


def _note(key: Key, node: tree_sitter.Node, found: dict[Key, int]) -> None:
    for length in range(1, len(key) + 1):  # `a.b = 1` and [a.b] make `a` as well
        found.setdefault(key[:length], node.start_point.row + 1)


def _key(node: tree_sitter.Node) -> Key:
    if node.type == "dotted_key":
        return tuple(part for child in node.children for part in _key(child))
    if node.type not in _QUOTED or node.text is None:
        return ()
    # Of a quoted one, TOML's own reader knows the escapes.
    return tuple(tomllib.loads(f"{node.text.decode()} = 0"))
