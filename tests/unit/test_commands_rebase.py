"""The command's answers that need no engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.project import Project

from .conftest import Run, document
from .test_steps_rebase import found  # noqa: F401

RELEASE = "nvcr.io/nvidia/tritonserver:26.06-py3"
TOML = 'repository = "localhost:5000/mydali"\n[targets.embedded]\n'


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "usage"),
        (["--onto", "Not/A/Reference"], "reference-invalid"),
        (["--onto", RELEASE, "--target", "other"], "usage"),
        (["--onto", RELEASE], "nothing-built"),
    ],
)
def test_what_cannot_be_rebased_is_told(run: Run, tmp_path: Path, arguments: list[str], code: str) -> None:
    (tmp_path / "builder.toml").write_text(TOML)
    status, out, _ = run("rebase", "-C", str(tmp_path), *arguments, "--json")
    assert (document(out)["error"]["code"], status) == (code, 2)


@pytest.mark.usefixtures("found")
def test_a_release_with_another_dali_is_refused_before_an_engine_is_asked(run: Run, project: Project) -> None:
    (project.root / "builder.toml").write_text(TOML)
    status, out, err = run("rebase", "-C", str(project.root), "--onto", RELEASE, "--json")
    assert (document(out)["error"]["code"], status) == ("rebase-dali-differs", 2)
    assert "DALI 1.53.0 is needed" in err


@pytest.mark.usefixtures("found")
def test_what_only_the_base_can_tell_takes_an_engine(run: Run, project: Project) -> None:
    (project.root / "builder.toml").write_text(TOML)
    status, out, _ = run("rebase", "-C", str(project.root), "--onto", "registry.example.com/triton:1", "--json")
    assert (document(out)["error"]["code"], status) == ("no-engine", 3)
