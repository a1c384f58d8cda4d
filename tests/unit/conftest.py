from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from rich.console import Console

from builder import cli
from builder.project import Project

# A busy machine takes longer for an example now and then; and a run depends on no earlier one.
hypothesis.settings.register_profile("unit", deadline=None, database=None)
hypothesis.settings.load_profile("unit")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads or writes a user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    targets = {"embedded": {}, "ngc": {"triton_image": "nvcr.io/nvidia/tritonserver:26.06-py3"}}
    return Project.model_validate({"root": tmp_path, "repository": "localhost:5000/mydali", "targets": targets})


@pytest.fixture
def console() -> Console:
    """No terminal; what was printed is in `console.file.getvalue()`."""
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command: exit status, stdout, stderr. No engine answers, and reports of bugs go to tmp_path."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.delenv("DEBIAN_IMAGE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["builder", *arguments])
        status = cli._run(list(arguments))
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return command


def document(out: str) -> dict[str, Any]:
    """The only JSON document of stdout."""
    assert out.count("\n") == 1
    parsed: dict[str, Any] = json.loads(out)
    return parsed
