"""Projects with one mistake each (tests/broken), as far as no engine is needed to find it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from builder import catalogue, cli
from tests.broken import BUILT, FOLDER, ROOT, Case, judge, load, names

Run = Callable[[Case, Path], tuple[int, dict[str, Any]]]
ALL = [load(name) for name in names()]
HERE = [case for case in ALL if not case.needs_engine]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a project's command: exit status and JSON document. No engine answers, and bugs are reported in tmp_path."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.delenv("DEBIAN_IMAGE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def command(case: Case, root: Path) -> tuple[int, dict[str, Any]]:
        arguments = [case.command, "-C", str(root), *case.arguments, "--json"]
        for name, value in case.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["builder", *arguments])
        status = cli._run(arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert out.count("\n") == 1
        document: dict[str, Any] = json.loads(out)
        # People read the same as programs.
        for each in [*document.get("findings", []), *([document["error"]] if "error" in document else [])]:
            assert each["what"].removesuffix(f" (and {len(document.get('findings', [])) - 1} more)") in err
        if case.command == "check" and "error" not in document:
            assert document["passed"] is (status == 0)
        return status, document

    return command


def snapshot(root: Path) -> dict[str, bytes | str]:
    """Everything below a folder."""
    return {
        path.relative_to(root).as_posix(): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else "folder"
        for path in sorted(root.rglob("*"))
    }


@pytest.mark.parametrize("case", HERE, ids=lambda case: case.name)
def test_a_mistake_is_named_and_harms_nothing(case: Case, run: Run, tmp_path: Path) -> None:
    root = case.make(tmp_path / "project")
    before = snapshot(root)
    status, document = run(case, root)
    judge(case, root, status, document)
    assert snapshot(root) == before


@pytest.mark.parametrize("name", ["input-name", "key-misspelt", "good-example"])
def test_a_program_of_its_own_says_the_same(name: str, tmp_path: Path) -> None:
    """As users start it: from the project's folder, with nothing prepared."""
    case = load(name)
    root = case.make(tmp_path / "project")
    before = snapshot(root)
    done = subprocess.run(
        [sys.executable, "-m", "builder", case.command, "--json"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DOCKER_HOST": f"unix://{tmp_path}/none.sock"},
        capture_output=True,
        text=True,
        check=False,
    )
    judge(case, root, done.returncode, json.loads(done.stdout))
    assert "Traceback" not in done.stderr
    assert snapshot(root) == before


def test_all_mistakes_at_once_are_all_told(run: Run, tmp_path: Path) -> None:
    """None of them hides another."""
    together = ["dali-that-there-is-not", "oracle-of-a-renamed-model", "input-name", "operator-misspelt", "model-empty"]
    cases = [load(name) for name in together]
    changes: dict[str, Any] = {
        field.name: tuple(change for case in cases for change in getattr(case, field.name))
        for field in fields(Case)
        if field.name in ("remove", "folders", "copy", "link", "write", "edit", "patch")
    }
    case = Case("together", "five mistakes", **changes)
    root = case.make(tmp_path / "project")
    status, document = run(case, root)
    assert status == 2
    assert {each.code for each in cases} <= {each["code"] for each in document["findings"]}
    assert all(each["severity"] == "error" for each in document["findings"][: len(cases)])


def test_an_example_is_checked_in_a_moment(run: Run, tmp_path: Path) -> None:
    case = load("good-example")
    root = case.make(tmp_path / "project")
    run(case, root)  # modules are loaded once
    began = time.monotonic()
    assert run(case, root)[0] == 0
    assert time.monotonic() - began < 2


def test_every_project_here_can_be_read() -> None:
    assert len([case for case in ALL if case.code]) >= 60
    for case in ALL:
        assert case.title
        assert case.base != BUILT or case.needs_engine
        assert case.name.startswith("good-") == (not case.code)
        assert case.code in (*catalogue.codes(), "")
    assert len({case.title for case in ALL}) == len(ALL)


def test_nothing_else_lies_there() -> None:
    assert {path.suffix for path in FOLDER.iterdir() if path.name != "__pycache__"} == {".toml", ".py"}
