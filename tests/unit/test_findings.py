"""Findings, and the stories behind their codes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import catalogue
from builder.catalogue import Severity, story
from builder.errors import CheckFailed, family
from builder.findings import Finding, Place, errors, ordered

PACKAGE = Path(catalogue.__file__).parent
ERROR = Finding("key-missing", "repository is missing", Place("builder.toml"), "add it")
WARNING = Finding("plugin-unused", "no model uses it", Place("plugin/CMakeLists.txt", 3), "remove it")


def codes_used() -> Iterator[tuple[str, str]]:
    """Every code that a Finding is made with, where it is a plain word there, and the module that does."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                given = [*node.args[:1], *(each.value for each in node.keywords if each.arg == "code")]
                yield from ((each.value, path.name) for each in given if isinstance(each, ast.Constant))


def words() -> set[str]:
    """Every string in the program's code."""
    return {
        node.value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


@pytest.mark.parametrize("code", catalogue.codes())
def test_a_story_tells_what_happens_why_and_what_to_do(code: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)
    told = story(code)
    assert told.code == code
    assert told.title
    assert not told.title.startswith("#")
    assert re.findall(r"^## (.*)$", told.text, re.MULTILINE) == ["What happens", "Why", "What to do"]
    assert len(told.text.splitlines()) >= 6


@pytest.mark.parametrize(("code", "module"), sorted(set(codes_used())))
def test_a_code_that_a_finding_has_is_told(code: str, module: str) -> None:
    assert code in catalogue.codes()


def test_codes_are_seen_at_all() -> None:
    assert {("toml-invalid", "settings.py"), ("key-unknown", "project.py")} <= set(codes_used())


def test_a_story_is_of_something_that_can_happen() -> None:
    assert set(catalogue.codes()) - words() - {error.code for error in family()} == set()


def test_a_code_without_a_story_is_a_mistake() -> None:
    for code in ("no-such-code", "../stories/config-invalid", ""):
        with pytest.raises(KeyError):
            story(code)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (Place("builder.toml"), "builder.toml"),
        (Place("builder.toml", 3), "builder.toml:3"),
        (Place("builder.toml", 3, 7), "builder.toml:3:7"),
        (Place.within(Path("/p"), Path("/p/a/b.txt"), 3), "a/b.txt:3"),
        (Place.within(Path("/p"), Path("/q/b.txt")), "/q/b.txt"),
        (Place.within(Path("/p"), Path("/p")), "."),
    ],
)
def test_a_place_reads_as_compilers_write_it(place: Place, text: str) -> None:
    assert str(place) == text


def test_errors_come_first_then_by_place_and_each_once() -> None:
    later = Finding("key-missing", "a", Place("builder.toml", 10), "x")
    earlier = Finding("key-missing", "b", Place("builder.toml", 9), "x")
    other = Finding("key-missing", "b", Place("builder.toml", 9), "x", target="ngc")
    assert ordered([WARNING, later, earlier, later, other]) == [earlier, other, later, WARNING]


def test_what_is_no_error_is_left_out_of_the_errors() -> None:
    assert (WARNING.severity, ERROR.severity) == (Severity.WARNING, Severity.ERROR)
    assert errors([WARNING, ERROR]) == [ERROR]


def test_a_failed_check_is_told_by_its_first_error() -> None:
    second = Finding("value-invalid", "x", Place("builder.toml", 1), "y")
    failure = CheckFailed([WARNING, ERROR, second])
    assert (failure.code, failure.what, failure.where) == ("key-missing", f"{ERROR.what} (and 1 more)", "builder.toml")
    assert (failure.remedy, failure.exit_code) == (ERROR.remedy, 2)
    assert failure.partial == {"findings": [each.as_json() for each in (WARNING, ERROR, second)]}
    # The class's own code stays what it was.
    assert CheckFailed.code == "check-failed"
    assert CheckFailed([ERROR]).what == ERROR.what


def test_a_finding_as_json_has_all_that_a_user_is_told() -> None:
    found = Finding("plugin-unused", "w", Place("a", 1, 2), "r", ("line",), model="m", target="t")
    assert found.as_json() == {
        "code": "plugin-unused",
        "severity": "warning",
        "what": "w",
        "place": {"file": "a", "line": 1, "column": 2},
        "remedy": "r",
        "detail": ["line"],
        "model": "m",
        "target": "t",
    }
