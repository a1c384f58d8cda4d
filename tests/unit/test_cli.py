from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests.exceptions

from builder import __version__, cli, project
from builder.artifacts import Image, Verification
from builder.docker.engine import Engine
from builder.errors import BuilderError, NoImage, ServerDied
from builder.steps import smoke

from .conftest import Run, document
from .records import image, parts, verification

EXAMPLE = Path(__file__).resolve().parents[2]
COMMANDS = [command.callback.__name__ for command in cli.app.registered_commands if command.callback]
PROJECTS = ["build", "smoke", "push", "up", "down", "base", "check", "plan", "eject"]
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the shipped example's sources."""
    copy = tmp_path / "example"
    copy.mkdir()
    for name in ("builder.toml", "Dockerfile"):
        shutil.copy(EXAMPLE / name, copy)
    for name in ("plugin", "model_repository", "embedded/requirements"):
        shutil.copytree(EXAMPLE / name, copy / name)
    return copy


def test_the_program_s_help_has_every_command(run: Run) -> None:
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    assert {"init", "check", "build", "smoke", "push", "up", "down", "plan", "explain", "schema", "eject"} <= set(
        COMMANDS
    )
    assert all(f"\n  {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help(run: Run, command: str, option: str) -> None:
    status, out, err = run(command, option)
    assert (status, err) == (0, "")
    assert f"Usage: builder {command}" in out


def test_without_a_command_there_is_help_and_no_complaint(run: Run) -> None:
    _, out, err = run()
    assert "Usage: builder" in out + err
    assert not err.startswith("error")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/x/builder/__main__.py", "python -m builder"),
        ("/usr/local/bin/builder", "builder"),
        ("/x/not__main__.py", "not__main__.py"),
    ],
)
def test_the_usage_is_of_what_was_typed(monkeypatch: pytest.MonkeyPatch, path: str, name: str) -> None:
    monkeypatch.setattr(sys, "argv", [path, "--help"])
    assert cli._program() == name


def typed(path: str, *arguments: str, **environment: str) -> str:
    """The stdout of a fresh program that was started as `path`."""
    script = f"import sys; sys.argv = {[path, *arguments]}; from builder.__main__ import main; main()"
    shell = {**os.environ, "PYTHONPATH": str(EXAMPLE), **environment}
    return subprocess.run([sys.executable, "-c", script], env=shell, capture_output=True, text=True, check=True).stdout


def test_a_shell_completes_the_installed_command() -> None:
    words = {"_BUILDER_COMPLETE": "complete_bash", "COMP_WORDS": "builder bu", "COMP_CWORD": "1"}
    assert typed("/usr/local/bin/builder", **words) == "build\n"


@pytest.mark.parametrize(("path", "offered"), [("/usr/local/bin/builder", True), ("/x/builder/__main__.py", False)])
def test_completion_is_offered_to_the_installed_command_alone(path: str, offered: bool) -> None:
    assert ("--install-completion" in typed(path, "--help")) is offered


def test_the_version_is_printed(run: Run) -> None:
    assert run("--version") == (0, f"builder {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments", [("build", "--nope"), ("nope",), ("push", "a", "b"), ("smoke", "--seed", "x"), ("build", "--target")]
)
def test_a_wrong_command_line_is_one_document_with_json(run: Run, arguments: tuple[str, ...]) -> None:
    status, out, err = run(*arguments, "--json")
    assert status == 2
    assert document(out)["error"]["code"] == "usage"
    assert err.startswith("error usage")


def test_without_json_an_error_leaves_stdout_empty(run: Run) -> None:
    status, out, err = run("build", "--nope")
    assert (status, out) == (2, "")
    assert "--nope" in err


@pytest.mark.parametrize("command", PROJECTS)
def test_a_folder_without_a_project_is_told(run: Run, tmp_path: Path, command: str) -> None:
    status, out, err = run(command, "-C", str(tmp_path), "--json")
    assert status == 2
    assert document(out)["error"]["code"] == "project-missing"
    assert str(tmp_path) in err


@pytest.mark.parametrize("command", ["build", "base", "down"])
def test_an_engine_that_does_not_answer_is_told(run: Run, example: Path, command: str) -> None:
    status, out, err = run(command, "-C", str(example))
    assert (status, out) == (3, "")
    assert err.startswith("error no-engine")
    assert "none.sock" in err


@pytest.mark.parametrize("command", ["smoke", "push", "up"])
def test_a_command_before_its_time_names_the_one_to_run_first(run: Run, example: Path, command: str) -> None:
    status, out, _ = run(command, "-C", str(example), "--json")
    error = document(out)["error"]
    assert (status, error["code"]) == (2, "nothing-built")
    assert "python -m builder" in error["remedy"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("smoke", "some:image", "--target", "embedded"),
        ("push", f"localhost:5000/x@{DIGEST}"),
        ("push", "localhost:5000/x:1", "--target", "all"),
        ("up", "--target", "all"),
        ("build", "--target", "nope"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(run: Run, example: Path, arguments: tuple[str, ...]) -> None:
    status, out, _ = run(*arguments, "-C", str(example), "--json")
    assert (status, document(out)["error"]["code"]) == (2, "usage")


def test_an_image_that_was_not_verified_is_not_pushed(run: Run, example: Path) -> None:
    saved_image(example)
    parts().save(project.load(example))
    status, out, _ = run("push", "-C", str(example), "--json")
    assert (status, document(out)["error"]["code"]) == (6, "not-verified")


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*_: object, **__: object) -> Any:
        raise error

    return function


def test_a_bug_of_ours_is_a_report_and_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(project, "load", raising(RuntimeError("planted [/red]")))
    status, out, err = run("build", "--json")
    assert status == 1
    [report] = tmp_path.glob("builder-*.traceback")
    assert "RuntimeError: planted" in report.read_text()
    assert document(out)["error"]["where"] == str(report)
    assert "RuntimeError: planted [/red]" in err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_an_interrupt_is_told_by_its_signal(
    run: Run, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: int
) -> None:
    monkeypatch.setattr(project, "load", lambda *_: signal.raise_signal(number))
    got, out, err = run("build", "--json")
    assert got == status
    assert document(out)["error"]["code"] == "interrupted"
    assert err.startswith("error interrupted")


def test_a_signal_interrupts_and_its_handlers_are_put_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def load(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("it went on")

    monkeypatch.setattr(project, "load", load)
    assert run("build")[0] == 143
    assert signal.getsignal(signal.SIGTERM) is before


def saved_image(example: Path) -> Image:
    return image(DIGEST).save(project.load(example))


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch, example: Path) -> Path:
    """A project whose image passed, and an engine that has no container."""
    saved_image(example)
    verification(DIGEST).save(project.load(example)).keep(project.load(example))

    class NoContainers:
        def list(self, **_: object) -> list[object]:
            return []

    client: Any = type("Client", (), {"containers": NoContainers()})()
    monkeypatch.setattr(Engine, "connect", lambda: Engine(client))
    return example


def test_a_failed_verification_says_so_in_its_document_and_vouches_for_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, verified: Path
) -> None:
    monkeypatch.setattr(smoke, "run", raising(ServerDied("the server stopped", detail=["why"])))
    status, out, _ = run("smoke", "-C", str(verified), "--json")
    result = document(out)
    assert (status, result["passed"], result["images"]) == (5, False, [])
    assert result["error"]["code"] == "server-died"
    assert Verification.find(project.load(verified), "embedded") is None
    assert Verification.of_digest(project.load(verified), DIGEST) is None


@pytest.mark.parametrize(
    ("error", "status"), [(NoImage("gone"), 3), (BuilderError("x"), 1), (RuntimeError("a bug"), 1)]
)
def test_a_verification_that_could_not_be_made_takes_nothing_back(
    run: Run, monkeypatch: pytest.MonkeyPatch, verified: Path, error: Exception, status: int
) -> None:
    monkeypatch.setattr(smoke, "run", raising(error))
    assert run("smoke", "-C", str(verified))[0] == status
    assert Verification.find(project.load(verified), "embedded") is not None
    assert Verification.of_digest(project.load(verified), DIGEST) is not None


def test_an_engine_that_stops_in_the_middle_is_no_bug_of_ours(
    run: Run, monkeypatch: pytest.MonkeyPatch, verified: Path
) -> None:
    monkeypatch.setattr(smoke, "run", raising(requests.exceptions.ConnectionError("gone")))
    status, out, _ = run("smoke", "-C", str(verified), "--json")
    assert (status, document(out)["error"]["code"]) == (3, "no-engine")


class FakeEngine:
    """With one image, or one that it can pull."""

    def __init__(self, there: bool) -> None:
        self.there = there
        self.pulled: list[str] = []

    def sweep(self) -> None:
        pass

    def has_image(self, _: str) -> bool:
        return self.there

    def pull(self, reference: str) -> None:
        self.pulled.append(reference)
        self.there = True

    def image(self, _: str) -> dict[str, str]:
        assert self.there
        return {"Id": DIGEST}


@pytest.mark.parametrize(
    ("image", "there", "pulled"),
    [
        (f"localhost:5000/mydali@{DIGEST}", False, True),
        (f"localhost:5000/mydali@{DIGEST}", True, False),
        ("mydali:embedded", True, False),
    ],
)
def test_an_image_of_a_registry_is_pulled_and_its_verification_kept_by_its_digest(
    run: Run, example: Path, monkeypatch: pytest.MonkeyPatch, image: str, there: bool, pulled: bool
) -> None:
    engine = FakeEngine(there)
    monkeypatch.setattr(Engine, "connect", lambda: engine)
    monkeypatch.setattr(smoke, "run", lambda _, digest, *__, **___: verification(digest))
    here = project.load(example)
    assert run("smoke", image, "-C", str(example))[:2] == (0, f"{DIGEST}\n")
    assert engine.pulled == ([image] if pulled else [])
    assert Verification.of_digest(here, DIGEST) == verification(DIGEST)
    # No target of the project's is proven by it.
    assert Verification.find(here, "embedded") is None


def test_a_tag_is_never_pulled_to_be_proven(run: Run, example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(there=False)
    monkeypatch.setattr(Engine, "connect", lambda: engine)
    monkeypatch.setattr(engine, "image", raising(NoImage("gone")))
    assert run("smoke", "localhost:5000/mydali:1", "-C", str(example))[0] == 3
    assert engine.pulled == []


def test_an_image_that_fails_is_vouched_for_no_more(run: Run, example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = project.load(example)
    verification(DIGEST).keep(here)
    monkeypatch.setattr(Engine, "connect", lambda: FakeEngine(there=True))
    monkeypatch.setattr(smoke, "run", raising(ServerDied("the server stopped")))
    assert run("smoke", f"localhost:5000/mydali@{DIGEST}", "-C", str(example))[0] == 5
    assert Verification.of_digest(here, DIGEST) is None
