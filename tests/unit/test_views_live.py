from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyte
import pytest
from rich.console import Console

from builder.docker.progress import BuildProgress
from builder.views import live
from builder.views.live import Frame, Lines, Screen

ROOT = Path(__file__).resolve().parents[2]
STARTED, COMPLETED = "2026-01-02T03:04:05.0Z", "2026-01-02T03:04:07.5Z"
ERROR = "/src/plugin/a.cc:7:5: error: no such thing\n    7 |   thing;\n      |   ^~~~~\n"


def running(name: str, said: str = "") -> list[dict[str, Any]]:
    entry = {"vertex": name, "data": base64.b64encode(said.encode()).decode()}
    return [{"vertexes": [{"digest": name, "name": name, "started": STARTED}], "logs": [entry] if said else []}]


def done(name: str, error: str = "") -> list[dict[str, Any]]:
    state = {"digest": name, "name": name, "started": STARTED, "completed": COMPLETED, "error": error}
    return [{"vertexes": [state]}]


def cached(name: str) -> list[dict[str, Any]]:
    state = {"digest": name, "name": name, "started": STARTED, "completed": STARTED, "cached": True}
    return [{"vertexes": [state]}]


def moved(name: str, current: int, total: int = 0) -> list[dict[str, Any]]:
    return [{"statuses": [{"id": "sha256:1", "vertex": name, "current": current, "total": total}]}]


def shown(documents: Sequence[dict[str, Any]], width: int = 100, height: int = 30) -> list[str]:
    """The lines of a frame, without those that are of no use to compare: the spinner turns, and time goes on."""
    console = Console(file=io.StringIO(), width=width, height=height)
    build = BuildProgress(Lines(Console(quiet=True)))
    for document in documents:
        build.feed(json.dumps(document))
    console.print(Frame(build, console).render())
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(len(line) for line in lines) <= width
    assert len(lines) < height
    return [re.sub(r"[⠀-⣿]", "~", line).rstrip() for line in lines]


def test_a_stage_is_a_row_with_its_step_its_time_its_bytes_and_its_last_words() -> None:
    name = "[toolchain 2/3] RUN <<EOF (set -e  # install the compiler...)"
    rows = shown([*done("[toolchain 1/3] COPY x /"), *running(name, "one\ntwo\n\n"), *moved(name, 1_500_000)])
    assert rows[0] == "~ toolchain 2/3    2.5 s   1.5 MB install the compiler  two"
    assert rows[1].startswith("~ 0.0 s · 1 step done · 0 from the cache · 1.5 MB")


def test_a_download_tells_how_much_there_is_to_come() -> None:
    name = "[triton 1/1] FROM example.com/triton"
    assert "FROM example.com/triton  70.0 MB of 100.0 MB" in shown([*running(name), *moved(name, 70 * 10**6, 10**8)])[0]


def test_rows_tell_their_state() -> None:
    rows = shown(
        [
            *done("[a 1/2] RUN x"),
            *done("[a 2/2] RUN x"),
            *done("[b 1/2] RUN x"),
            *running("[c 1/2] RUN x"),
            *done("[d 1/2] RUN x", error="exit code: 1"),
            *cached("[f 1/2] RUN x"),
            *cached("[e 1/2] RUN x"),
        ]
    )
    assert [row[:3] for row in rows[:4]] == ["✓ a", "· b", "~ c", "✗ d"]
    assert rows[4] == "  from the cache: e, f"


def test_what_waits_and_what_buildkit_does_for_itself_are_no_rows() -> None:
    waits = {"vertexes": [{"digest": "w", "name": "[later 1/2] RUN x"}]}
    rows = shown(
        [waits, *done("[a 1/2] LINK COPY x"), *cached("[internal] load build context"), *done("[b 1/1] RUN x")]
    )
    assert [row[:3] for row in rows] == ["✓ b", "~ 0"]


def test_buildkit_s_own_work_is_a_row_once_it_takes_long() -> None:
    assert shown(done("[one] exporting to image"))[0].startswith("✓ exporting to image")


def test_a_step_that_another_output_has_is_no_row() -> None:
    called_off = done("[one a 1/3] RUN x", error="failed to calculate checksum of ref x: context canceled")
    rows = shown([*called_off, *done("[one_layers a 2/3] RUN x"), *done("[one_layers a 3/3] RUN y")])
    assert rows[0] == "✓ a 3/3    5.0 s"
    assert len(rows) == 2


def test_names_are_no_markup() -> None:
    assert "RUN echo [bold]x[/]  [red]y[/]" in shown(running("[a 1/1] RUN echo [bold]x[/]", "[red]y[/]\n"))[0]


TWO = [
    *cached("[one pip 1/1] RUN x"),
    *done("[one inventory 1/1] RUN x"),
    *running("[one plugins 1/1] RUN compile", "[1/3] Building\n"),
    *running("[two plugins 1/1] RUN compile", "[2/3] Building\n"),
    *cached("[two inventory 1/1] RUN x"),
]


def test_targets_are_side_by_side_where_there_is_room() -> None:
    head, *rows = shown(TWO)
    assert head.split() == ["one", "two"]
    assert rows[:5] == [
        "  inventory ✓    2.5 s" + " " * 15 + "from the cache",
        "  plugins   ~    0.0 s 1/1         ~    0.0 s 1/1",
        "  one plugins RUN compile  [1/3] Building",
        "  two plugins RUN compile  [2/3] Building",
        "  from the cache: pip",
    ]


def test_targets_are_below_each_other_on_a_narrow_terminal() -> None:
    rows = shown(TWO, width=60)
    assert rows[:4] == [
        "✓ inventory one    2.5 s",
        "✓ inventory two    0.0 s",
        "~ plugins   one    0.0 s [1/3] Building",
        "~ plugins   two    0.0 s [2/3] Building",
    ]


@pytest.mark.parametrize("width", [20, 60, 80, 200])
@pytest.mark.parametrize("height", [4, 8, 24])
@pytest.mark.parametrize("targets", [1, 2, 5])
def test_many_stages_fit_into_any_terminal(width: int, height: int, targets: int) -> None:
    names = [
        f"[{f't{target} ' * (targets > 1)}stage-{stage} 1/1] RUN x" for stage in range(40) for target in range(targets)
    ]
    work = running("[t0 at-work 1/2] RUN x" if targets > 1 else "[at-work 1/2] RUN x", "words " * 50 + "\n")
    rows = shown([*(each for name in names for each in done(name)), *work, *cached("[z 1/1] RUN")], width, height)
    # Whatever else has to go.
    assert any("at-w" in row for row in rows)
    assert rows[-1].startswith("~ 0.")


def test_stages_without_a_row_are_counted() -> None:
    rows = shown([each for number in range(30) for each in done(f"[stage-{number} 1/1] RUN x")], height=12)
    assert rows[-2] == "  … and 22 stages more"


def test_a_file_is_given_lines_and_colours_only_when_they_are_asked_for() -> None:
    for environment in ({}, {"FORCE_COLOR": "1"}, {"TERM": "xterm-256color"}):
        console = Console(file=io.StringIO(), _environ={"TERM": "xterm", **environment})
        assert type(live.view(console)) is Lines
        view = live.view(console)
        build = BuildProgress(view)
        for document in done("[a 1/1] RUN x"):
            build.feed(json.dumps(document))
        assert isinstance(console.file, io.StringIO)
        assert ("\x1b[32m" in console.file.getvalue()) is ("FORCE_COLOR" in environment)
        assert view.builds == [build]


PROGRAM = """
import json, os, sys
from builder.docker.progress import BuildProgress
from builder.output import Output
from builder.views import live

view = live.view(Output(quiet=bool(os.environ.get("QUIET"))).progress)
with BuildProgress(view) as build:
    for line in sys.argv[1:]:
        if line == "look":
            sys.stderr.flush()
            input()  # until the screen was read
        else:
            build.feed(line)
"""


class Terminal:
    """A program on a terminal of its own, whose screen can be read."""

    def __init__(self, documents: Sequence[dict[str, Any] | str], columns: int = 80, **environment: str) -> None:
        self._screen = pyte.Screen(columns, 24)
        self._stream = pyte.ByteStream(self._screen)
        self.written = b""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        modes = termios.tcgetattr(theirs)
        modes[3] &= ~termios.ECHO  # what is typed is not shown
        termios.tcsetattr(theirs, termios.TCSANOW, modes)
        arguments = [each if isinstance(each, str) else json.dumps(each) for each in documents]
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), *arguments],
            stdin=theirs,
            stderr=theirs,
            stdout=theirs,
            env=clean(environment),
            cwd=ROOT,
        )
        os.close(theirs)

    def until(self, text: str) -> list[str]:
        """The screen as soon as `text` is on it."""
        while not any(text in line for line in self._screen.display):
            assert self._read(), f"{text!r} was not shown:\n{self._process.wait()}\n{self._screen.display}"
        return self.lines

    def end(self) -> list[str]:
        """Lets the program go on to its end."""
        os.write(self._ours, b"\n")
        while self._read():
            pass
        os.close(self._ours)
        assert self._process.wait() == 0, self.lines
        return self.lines

    def _read(self) -> bool:
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # Linux says so when the other end is closed
            return False
        self.written += data
        self._stream.feed(data)
        return bool(data)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display if line.strip()]

    @property
    def has_cursor(self) -> bool:
        return not self._screen.cursor.hidden


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """This environment without what says how to print."""
    others = {"NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "LINES", "TTY_INTERACTIVE", "TTY_COMPATIBLE", "COLORTERM"}
    kept = {name: value for name, value in os.environ.items() if name not in others}
    return {**kept, "TERM": "xterm-256color", **environment}


COMPILE = "[plugins 2/2] RUN <<EOF (set -e  # compile the plugins...)"
BUILD: list[dict[str, Any] | str] = [
    *done("[plugins 1/2] COPY plugin /src/plugin"),
    *running(COMPILE, "[1/3] Building\n"),
    "look",
    *done(COMPILE),
]


def test_a_terminal_shows_what_runs_and_keeps_one_line_of_it() -> None:
    terminal = Terminal(BUILD)
    row = terminal.until("compile the plugins")[0]
    assert re.fullmatch(r". plugins 2/2 +\d\.\d s +compile the plugins  \[1/3\] Building", row)
    (line,) = terminal.end()
    assert re.fullmatch(r"✓ \d\.\d s · 2 steps done · 0 from the cache", line)
    assert b"\x1b[32m" in terminal.written
    assert terminal.has_cursor


def test_the_first_error_is_above_the_rows_while_others_are_compiled() -> None:
    failing: list[dict[str, Any] | str] = [
        *running(COMPILE, ERROR),
        *running(COMPILE, "[2/3] Building\n"),
        "look",
        *done(COMPILE, error="exit code: 1"),
    ]
    terminal = Terminal(failing)
    message = [
        "✗ the first error of plugins 2/2  compile the plugins",
        "       |  plugin/a.cc:7:5: error: no such thing",
        "       |      7 |   thing;",
        "       |        |   ^~~~~",
    ]
    screen = terminal.until("[2/3] Building")
    assert screen[:4] == message
    assert "[2/3] Building" in screen[4]
    assert terminal.end() == [*message, "✗    2.5 s  plugins 2/2  compile the plugins"]
    assert terminal.has_cursor


def test_no_color_takes_colours_and_nothing_else() -> None:
    terminal = Terminal(BUILD, NO_COLOR="1")
    terminal.until("compile the plugins")
    terminal.end()
    assert not re.search(rb"\x1b\[[0-9;]*3\dm", terminal.written)


def test_a_terminal_that_cannot_go_back_is_given_lines() -> None:
    terminal = Terminal(BUILD, TERM="dumb")
    terminal.until("COPY plugin")
    assert terminal.end() == [
        "✓    2.5 s  plugins 1/2  COPY plugin /src/plugin",
        "✓    2.5 s  plugins 2/2  compile the plugins",
    ]
    assert b"\x1b" not in terminal.written


def test_quiet_means_that_nothing_is_shown() -> None:
    terminal = Terminal(BUILD, QUIET="1")
    assert terminal.end() == []
    assert terminal.written.strip() == b""


@pytest.mark.parametrize(
    ("environment", "has_colours"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_a_pipe_is_given_whole_lines_and_no_movements_of_the_cursor(
    environment: Mapping[str, str], has_colours: bool
) -> None:
    long = "[a 1/1] RUN " + "x" * 300
    lines = [json.dumps(each) for each in done(long)]
    command = [sys.executable, "-c", PROGRAM, *lines]
    ended = subprocess.run(
        command, env=clean(environment), cwd=ROOT, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    plain = re.sub(r"\x1b\[[0-9;]*m", "", ended.stderr)
    assert plain == f"✓    2.5 s  a 1/1  RUN {'x' * 300}\n"
    assert ("\x1b[32m" in ended.stderr) is has_colours


def test_a_screen_that_is_interrupted_gives_the_cursor_back() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, _environ={"TERM": "xterm"})
    build = BuildProgress(Screen(console))
    build.feed(json.dumps(running(COMPILE)[0]))
    with pytest.raises(KeyboardInterrupt), build:
        raise KeyboardInterrupt
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().rfind("\x1b[?25h") > console.file.getvalue().rfind("\x1b[?25l") >= 0
    assert "steps done" not in console.file.getvalue().rpartition("\x1b[?25h")[2]
