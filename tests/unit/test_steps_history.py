"""`history`: what became of each build."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from builder.docker import present
from builder.project import Project
from builder.steps.history import Ending, build, chosen
from builder.views import results
from builder.views.history import local, show

from .conftest import Run, document
from .entries import digest, entry
from .records import pushed, verification


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))


def test_a_build_ended_as_far_as_its_image_came(project: Project) -> None:
    for each in "abc":
        verification(digest(each), passed=each != "c").keep(project)
    pushed("localhost:5000/mydali@" + digest("a")).save(project)
    endings = {each: build(entry(project.root, 0, each), None).ending for each in "abcd"}
    assert endings == {"a": Ending.PUSHED, "b": Ending.VERIFIED, "c": Ending.BUILT, "d": Ending.BUILT}
    failed = build(entry(project.root, 0), None)
    assert (failed.ending, failed.code) == (Ending.FAILED, "plugin-does-not-compile")


def test_a_project_that_is_gone_or_no_project_any_more_is_no_failure(tmp_path: Path) -> None:
    assert build(entry(tmp_path / "gone", 0, "a"), None).ending == Ending.BUILT
    assert build(entry(tmp_path, 0, "a", repository="NOT A REPOSITORY"), None).ending == Ending.BUILT


def test_an_image_is_in_the_engine_by_its_digest(project: Project) -> None:
    images = {digest("a"), ""}
    told = [build(entry(project.root, 0, each), images).in_engine for each in ("a", "b", "")]
    assert told == [True, False, False]
    assert build(entry(project.root, 0, "a"), None).in_engine is None


def test_builds_are_chosen_by_project_target_and_failure(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    entries = [entry(here, 1, "a"), entry(here, 2), entry(there, 3, "b"), entry(there, 4, target="ngc")]

    def found(**asked: object) -> list[int]:
        options: dict[str, object] = {"here": None, "target": "", "failed": False, **asked}
        return [entries.index(each) for each in chosen(entries, **options)]  # type: ignore[arg-type]

    assert found() == [0, 1, 2, 3]
    assert found(here=here) == [0, 1]
    assert found(target="embedded") == [0, 1, 2]
    assert found(failed=True) == [1, 3]
    assert found(here=there, target="ngc", failed=True) == [3]


def test_the_list_is_the_newest_first_and_as_long_as_asked(run: Run, project: Project) -> None:
    for days, each in enumerate("abcd"):
        entry(project.root, days, each).save()
    status, out, err = run("history", "--json", "-n", "3")
    told = document(out)["builds"]
    assert (status, err) == (0, "")
    assert [each["digest"] for each in told] == [digest(each) for each in "abc"]
    assert {each["in_engine"] for each in told} == {None}
    assert told[0]["seconds"] == 12.34


def test_a_line_tells_when_what_and_how_it_ended(run: Run, project: Project) -> None:
    made = [entry(project.root, 0, "a").save(), entry(project.root, 1).save()]
    _, out, _ = run("history")
    head, first, second = out.splitlines()
    assert "engine" not in head
    for text in (local(made[0].when), "localhost:5000/mydali", "embedded", "a" * 12, "12.3", "1.50 GB", "built"):
        assert text in first
    assert "failed (plugin-does-not-compile)" in second
    assert made[1].id in second


def test_only_builds_of_the_folder_are_told_with_here(run: Run, project: Project, tmp_path: Path) -> None:
    entry(project.root, 0, "a").save()
    entry(tmp_path / "other", 0, "b").save()
    _, out, _ = run("history", "--here", "-C", str(project.root), "--json")
    assert [each["digest"] for each in document(out)["builds"]] == [digest("a")]


def test_an_empty_list_says_how_one_gets_there(run: Run) -> None:
    status, out, err = run("history")
    assert (status, out) == (0, "")
    assert "python -m builder build" in err
    _, _, err = run("history", "--failed")
    assert "lists all" in err


def test_an_engine_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(present, "_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.getsockname()[1]}")
        began = time.monotonic()
        assert present.engine() is None
        assert time.monotonic() - began < 5


def test_the_engine_s_column_is_there_with_an_engine(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    show([build(entry(project.root, 0, "a"), {digest("a")})], results.stdout())
    head, line = capsys.readouterr().out.splitlines()
    assert "engine" in head
    assert "yes" in line
