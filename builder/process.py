"""The only door to other programs: resolve, echo, run, redact, raise."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from builder.errors import MachineError, NoProgram

log = logging.getLogger(__name__)

_CREDENTIALS = re.compile(
    r"(?<=ssh://)[^/\s]*:[^/\s]*(?=@)|(?<=https://)[^/\s]+(?=@)|(?<=http://)[^/\s]+(?=@)"  # a token may be the user
)
LAST_LINES = 20
_GRACE_SECONDS = 15.0


def redact(text: str) -> str:
    """`text` without user:password in its URLs."""
    return _CREDENTIALS.sub("***", text)


@dataclass(frozen=True)
class Completed:
    """What a program left: its exit status, its stdout whole, the last lines of its stderr."""

    command: str
    returncode: int
    stdout: str
    stderr: tuple[str, ...]

    def check(self, failure: type[MachineError] = MachineError, remedy: str = "") -> Completed:
        """Itself, if the program succeeded.

        Raises:
            failure: it did not; its last lines are the detail.
        """
        if self.returncode:
            raise failure(
                f"{self.command.split()[0]} failed with exit status {self.returncode}",
                where=self.command,
                remedy=remedy,
                detail=self.stderr,
            )
        return self


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_stderr: Callable[[str], None] | None = None,
) -> Completed:
    """Runs a program to its end; `env` is added to the environment, `on_stderr` gets each line of stderr.

    Raises:
        NoProgram: it is not on PATH.
    """
    shown = redact(shlex.join(command))
    program = shutil.which(command[0])
    if program is None:
        raise NoProgram(f"{command[0]} is not on PATH", where=shown, remedy=f"install {command[0]}")
    log.info("$ %s", shown)
    last: deque[str] = deque(maxlen=LAST_LINES)
    # A session of its own: Ctrl-C comes to this process alone, which then stops the program in an orderly way.
    with subprocess.Popen(
        [program, *command[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **(env or {})},
        cwd=cwd,
        start_new_session=True,
    ) as process:
        try:
            stdout = _drain(process, last, on_stderr)
        except BaseException:
            _stop(process)
            raise
    return Completed(shown, process.returncode, stdout, tuple(last))


def _drain(process: subprocess.Popen[str], last: deque[str], on_stderr: Callable[[str], None] | None) -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    stdout: list[str] = []
    reader = threading.Thread(
        target=lambda: stdout.append(process.stdout.read() if process.stdout else ""), daemon=True
    )
    reader.start()
    for line in process.stderr:
        line = redact(line.rstrip("\n"))
        last.append(line)
        if on_stderr:
            on_stderr(line)
    process.wait()
    reader.join()
    return "".join(stdout)


def _stop(process: subprocess.Popen[str]) -> None:
    """Asks the program and its children to stop, and makes those that do not."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def is_running(pid: int) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def ending_signals() -> tuple[signal.Signals, ...]:
    """Those that ask to end: Ctrl-C, SIGTERM, and a terminal that is closed, unless that is ignored (nohup)."""
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGINT, signal.SIGTERM, *hangup)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Puts Ctrl-C and other signals that ask to end off until something is put away; for the main thread."""
    held: list[tuple[int, FrameType | None]] = []
    before = {
        each: signal.signal(each, lambda number, frame: held.append((number, frame))) for each in ending_signals()
    }
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    for number, frame in held[:1]:
        if callable(handler := before[signal.Signals(number)]):
            handler(number, frame)
