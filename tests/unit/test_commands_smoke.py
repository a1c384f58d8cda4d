"""`smoke --local` as it is typed, of a folder that was unpacked before: no engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builder import project as projects
from builder.artifacts import Verification
from builder.errors import WrongAnswer
from builder.project import Project
from builder.steps import smoke as step

from .conftest import Run, document
from .records import verification

PROJECT = 'repository = "localhost:5000/mydali"\n[targets.first]\n[targets.second]\n'
UNPACKED, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.fixture
def here(tmp_path: Path) -> Project:
    root = tmp_path / "project"
    root.mkdir()
    (root / "builder.toml").write_text(PROJECT)
    return projects.load(root)


def unpacked(folder: Path, label: str) -> Path:
    (folder / "rootfs").mkdir(parents=True)
    labels = {"triton-dali-builder.target": label} if label else None
    described = {"Config": {"Cmd": ["tritonserver"], "Labels": labels}}
    (folder / "image.json").write_text(json.dumps({"reference": "x:y", "digest": UNPACKED, "described": described}))
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The targets as which images were to be proven; all of them fail."""
    targets: list[str] = []

    def fails(host: Any, digest: str, reference: str, target: str, *_: Any, **__: Any) -> Verification:
        targets.append(target)
        raise WrongAnswer("an answer is wrong", where="x", remedy="none")

    monkeypatch.setattr(step, "run", fails)
    return targets


def recorded(project: Project, target: str, digest: str) -> None:
    verification(digest).model_copy(update={"target": target}).save(project)


def smoke(run: Run, project: Project, folder: Path, *more: str) -> tuple[int, dict[str, Any]]:
    status, out, _ = run("smoke", "-C", str(project.root), "--local", "--folder", str(folder), "--json", *more)
    return status, document(out)


@pytest.mark.parametrize(
    ("label", "given", "proven"),
    [
        ("second", (), "second"),
        ("second", ("--target=second",), "second"),
        ("second", ("--target=all",), "second"),
        ("", (), "first"),
        ("", ("--target=second",), "second"),
    ],
)
def test_the_image_tells_its_target(
    run: Run, here: Project, tmp_path: Path, asked: list[str], label: str, given: tuple[str, ...], proven: str
) -> None:
    status, _ = smoke(run, here, unpacked(tmp_path / "x", label), *given)
    assert (status, asked) == (5, [proven])


@pytest.mark.parametrize(("label", "given"), [("second", ("--target=first",)), ("gone", ())])
def test_an_image_of_another_target_is_told(
    run: Run, here: Project, tmp_path: Path, asked: list[str], label: str, given: tuple[str, ...]
) -> None:
    status, told = smoke(run, here, unpacked(tmp_path / "x", label), *given)
    assert (status, told["error"]["code"], asked) == (2, "usage", [])
    assert label in told["error"]["what"]


def test_an_image_that_fails_takes_its_own_verification_back_and_no_other_s(
    run: Run, here: Project, tmp_path: Path, asked: list[str]
) -> None:
    folder = unpacked(tmp_path / "x", "second")
    recorded(here, "first", UNPACKED)
    recorded(here, "second", OTHER)
    assert smoke(run, here, folder)[0] == 5
    assert Verification.find(here, "first") is None  # the very image, whatever target it was built for
    assert Verification.load(here, "second").digest == OTHER
    recorded(here, "second", UNPACKED)
    assert smoke(run, here, folder)[0] == 5
    assert Verification.find(here, "second") is None
