"""Projects with one mistake each (tests/broken) that only an engine, or what it built, can find."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.broken import Case, judge, load, names

from .conftest import Project

CASES = [case for case in map(load, names()) if case.needs_engine]


def files(root: Path) -> dict[str, str]:
    """The digests of a project's sources and records; what a failed build tried is neither."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not {"parts.trial", "__pycache__"} & set(path.parts) and ".bake." not in path.name
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_is_named_and_harms_nothing(case: Case, built_project: Project, tmp_path: Path) -> None:
    root = case.make(tmp_path / "broken", built_project.root)
    before = files(root)
    broken = Project(root, {**built_project.environment, **case.environment})
    done = broken.builder(case.command, *case.arguments, "--json")
    assert "Traceback" not in done.stdout + done.stderr
    judge(case, root, done.returncode, done.document)
    if case.command == "smoke" and case.exit == 5:  # nothing vouches for the image any more
        before.pop(".builder/embedded/verification.json")
        before = {name: digest for name, digest in before.items() if not name.startswith(".builder/verified/")}
    assert files(root) == before
