from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import builder
from builder import catalogue
from builder.errors import family

PACKAGE = Path(builder.__file__).parent
SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "stages"]
MAKERS = {"Finding", "Diagnosis", "_symptom"}
"""What makes something that has a code, which is the first argument."""

for module in pkgutil.walk_packages(builder.__path__, "builder."):
    if module.name != "builder.__main__" and not module.name.startswith("builder.stages"):
        importlib.import_module(module.name)


def made(path: Path) -> set[str]:
    """The codes that a file gives to findings and diagnoses, as far as they are written out there."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS:
            given = node.args[:1] + [each.value for each in node.keywords if each.arg == "code"]
            found |= {each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    return found


def words() -> set[str]:
    """Every string in the sources."""
    return {
        node.value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_codes_are_found_in_the_sources_at_all() -> None:
    assert "operator-duplicate" in made(PACKAGE / "symptoms.py")
    assert "value-invalid" in made(PACKAGE / "project.py")


@pytest.mark.parametrize("error", family(), ids=lambda error: error.__name__)
def test_every_error_has_a_story(error: type[builder.errors.BuilderError]) -> None:
    assert error.code in catalogue.codes()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_code_in_the_sources_has_a_story(path: Path) -> None:
    assert made(path) - set(catalogue.codes()) == set()


def test_every_story_is_told_of_something() -> None:
    used = words() | {error.code for error in family()}
    assert [code for code in catalogue.codes() if code not in used] == []


@pytest.mark.parametrize("code", catalogue.codes())
def test_a_story_says_what_happens_why_and_what_to_do(code: str) -> None:
    story = catalogue.story(code)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
    assert 5 < len(story.title) <= 80
    assert not story.title.endswith(".")
    headings = re.findall(r"^## (.+)$", story.text, re.MULTILINE)
    assert headings == ["What happens", "Why", "What to do"]
    assert all(part.strip() for part in re.split(r"^## .+$", story.text, flags=re.MULTILINE)[1:])
    assert len(story.text.splitlines()) <= 40


def test_a_code_that_nobody_knows_has_no_story() -> None:
    with pytest.raises(KeyError):
        catalogue.story("no-such-code")
    with pytest.raises(KeyError):
        catalogue.story("../findings")
