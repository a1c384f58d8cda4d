from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from builder.errors import NoCompose, NoProgram
from builder.process import LAST_LINES, Completed, is_running, redact, run, uninterrupted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:secret@example.com/x", "https://***@example.com/x"),
        ("a http://u:p@h b https://v:q@i", "a http://***@h b https://***@i"),
        ("https://user:se@cret@example.com/", "https://***@example.com/"),
        ("https://:secret@example.com/", "https://***@example.com/"),
        ("https://token@example.com/team/x.git", "https://***@example.com/team/x.git"),
        ("ssh://git@example.com/team/x", "ssh://git@example.com/team/x"),
        ("ssh://user:secret@example.com/x", "ssh://***@example.com/x"),
        ("git@example.com:team/x", "git@example.com:team/x"),
        ("docker-image://debian:12-slim@sha256:0a", "docker-image://debian:12-slim@sha256:0a"),
        ("docker-image://localhost:5000/x:1@sha256:0a", "docker-image://localhost:5000/x:1@sha256:0a"),
        ("https://example.com:8443/a@b", "https://example.com:8443/a@b"),
    ],
)
def test_credentials_in_urls_are_not_shown(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_a_program_leaves_its_status_its_stdout_and_its_stderr() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", ("err",))


def test_only_the_last_lines_of_stderr_are_kept_and_all_are_handed_on() -> None:
    lines: list[str] = []
    done = run(["sh", "-c", f"seq {LAST_LINES + 5} >&2"], on_stderr=lines.append)
    assert done.stderr == tuple(lines[-LAST_LINES:])
    assert lines == [str(number + 1) for number in range(LAST_LINES + 5)]


def test_output_beyond_a_pipe_s_size_blocks_nothing() -> None:
    done = run(["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero | tr '\\0' y >&2"])
    assert len(done.stdout) == len("".join(done.stderr)) == 300000


def test_stderr_and_the_command_are_redacted() -> None:
    done = run(["sh", "-c", "echo https://user:secret@example.com >&2"])
    assert done.stderr == ("https://***@example.com",)
    assert "secret" not in done.command


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(NoProgram, match="no-such-program is not on PATH"):
        run(["no-such-program", "argument"])


def test_variables_are_added_to_the_environment() -> None:
    assert run(["sh", "-c", 'printf %s "$ADDED:$PATH"'], env={"ADDED": "1"}).stdout == f"1:{os.environ['PATH']}"


def test_a_program_runs_where_it_is_told_to(tmp_path: Path) -> None:
    assert run(["pwd", "-P"], cwd=tmp_path).stdout == f"{tmp_path.resolve()}\n"


def interrupt(_: str) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_program_may_tidy_up(tmp_path: Path) -> None:
    script = f"trap 'echo tidy > {tmp_path}/done; exit 0' INT; echo ready >&2; while :; do sleep 0.02; done"
    with pytest.raises(KeyboardInterrupt):
        run(["sh", "-c", script], on_stderr=interrupt)
    assert (tmp_path / "done").read_text() == "tidy\n"


def members(group: int) -> list[int]:
    """The processes of a group that still run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, _, its_group = entry.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(int(entry.parent.name))
    return found


# The inner shell speaks once it runs. A shell's background jobs do not hear SIGINT.
@pytest.mark.parametrize(
    "script",
    ["sh -c 'echo $PPID >&2; exec sleep 5'; true", "sh -c 'echo $PPID >&2; exec sleep 5' & wait"],
    ids=["foreground", "background"],
)
def test_an_interrupt_stops_the_whole_process_group(script: str) -> None:
    began = time.monotonic()
    group: list[int] = []

    def note(line: str) -> None:
        group.append(int(line))
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            run(["sh", "-c", script], on_stderr=note)
        while members(group[0]):  # a killed process needs a moment
            assert time.monotonic() - began < 3
            time.sleep(0.01)
        assert time.monotonic() - began < 3
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group[0], signal.SIGKILL)


def test_a_success_checks_as_itself() -> None:
    done = Completed("git status", 0, "", ())
    assert done.check() is done


def test_a_failure_is_raised_with_the_last_lines() -> None:
    with pytest.raises(NoCompose, match="docker failed with exit status 9") as failure:
        Completed("docker compose up", 9, "", ("why",)).check(NoCompose, "install it")
    assert (failure.value.where, failure.value.remedy) == ("docker compose up", "install it")
    assert failure.value.detail == ("why",)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_put_off_then_delivered_once(number: signal.Signals) -> None:
    heard: list[int] = []
    before = signal.signal(number, lambda number, _: heard.append(number))
    try:
        with uninterrupted():
            signal.raise_signal(number)
            signal.raise_signal(number)
            assert heard == []
        assert heard == [number]
        signal.raise_signal(number)
        assert heard == [number, number]
    finally:
        signal.signal(number, before)


def test_a_failure_while_uninterrupted_puts_the_handlers_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError), uninterrupted():
        raise RuntimeError
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_process_runs_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "5"]) as process:
        assert is_running(process.pid)
        process.kill()
    assert not is_running(process.pid)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert is_running(1)  # another user's
