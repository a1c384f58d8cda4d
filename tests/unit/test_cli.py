from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder import __version__, cli, project
from builder.artifacts import Image, NegativeControl, Verification
from builder.docker.engine import Engine
from builder.errors import ServerDied
from builder.steps import smoke

EXAMPLE = Path(__file__).resolve().parents[2]
COMMANDS = ["build", "smoke", "push", "up", "down", "base"]
DIGEST = "sha256:" + "a" * 64
Run = Callable[..., tuple[int, str, str]]


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


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the shipped example's sources."""
    copy = tmp_path / "example"
    copy.mkdir()
    for name in ("builder.toml", "Dockerfile"):
        shutil.copy(EXAMPLE / name, copy)
    for name in ("plugin", "model_repository"):
        shutil.copytree(EXAMPLE / name, copy / name)
    return copy


def document(out: str) -> dict[str, Any]:
    """The only JSON document of stdout."""
    assert out.count("\n") == 1
    parsed: dict[str, Any] = json.loads(out)
    return parsed


def test_the_program_s_help_has_every_command(run: Run) -> None:
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    assert all(f"\n  {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help(run: Run, command: str, option: str) -> None:
    status, out, err = run(command, option)
    assert (status, err) == (0, "")
    assert f"Usage: python -m builder {command}" in out


def test_without_a_command_there_is_help_and_no_complaint(run: Run) -> None:
    _, out, err = run()
    assert "Usage: python -m builder" in out + err
    assert not err.startswith("error")


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


@pytest.mark.parametrize("command", COMMANDS)
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
    monkeypatch.setattr(project, "load", lambda _: signal.raise_signal(number))
    got, out, err = run("build", "--json")
    assert got == status
    assert document(out)["error"]["code"] == "interrupted"
    assert err.startswith("error interrupted")


def test_a_signal_interrupts_and_its_handlers_are_put_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def load(_: Path) -> None:
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("it went on")

    monkeypatch.setattr(project, "load", load)
    assert run("build")[0] == 143
    assert signal.getsignal(signal.SIGTERM) is before


def saved_image(example: Path) -> Image:
    image = Image(target="embedded", reference="mydali:embedded", digest=DIGEST, bytes=1, layers=(), seconds=1)
    return image.save(project.load(example))


def test_a_failed_verification_says_so_in_its_document_and_vouches_for_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, example: Path
) -> None:
    control = NegativeControl(applicable=True, passed=True, evidence="x")
    saved_image(example)
    passed = Verification(
        target="embedded",
        reference="mydali:embedded",
        digest=DIGEST,
        passed=True,
        when="2026-01-02T03:04:05+00:00",
        seed=1,
        gpus="",
        models=(),
        negative_control=control,
        ready_seconds=1,
    ).save(project.load(example))

    class NoContainers:
        def list(self, **_: object) -> list[object]:
            return []

    client: Any = type("Client", (), {"containers": NoContainers()})()
    monkeypatch.setattr(Engine, "connect", lambda: Engine(client))
    monkeypatch.setattr(smoke, "run", raising(ServerDied("the server stopped", detail=["why"])))
    status, out, _ = run("smoke", "-C", str(example), "--json")
    result = document(out)
    assert (status, result["passed"], result["images"]) == (5, False, [])
    assert result["error"]["code"] == "server-died"
    assert Verification.find(project.load(example), passed.target) is None
