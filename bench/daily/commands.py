"""Commands as a user gives them, and how long they take."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LIMIT_SECONDS = 1800.0
_LAST_LINES = 30


class CommandFailed(Exception):
    """A command that is measured has to succeed."""


@dataclass(frozen=True)
class Ran:
    """A command that succeeded."""

    seconds: float
    stdout: str
    said: tuple[tuple[float, str], ...]
    """The lines of stderr, each with the seconds after which it came."""


def run(command: Sequence[str | Path], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> Ran:
    """Runs a program to its end.

    Raises:
        CommandFailed: it did not succeed.
    """
    words = [str(each) for each in command]
    said: list[tuple[float, str]] = []
    began = time.perf_counter()
    with subprocess.Popen(
        words,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        stderr = process.stderr

        def listen() -> None:
            said.extend((round(time.perf_counter() - began, 3), line.rstrip()) for line in stderr)

        listener = threading.Thread(target=listen)
        listener.start()
        limit = threading.Timer(_LIMIT_SECONDS, process.kill)
        limit.start()
        try:
            stdout = process.stdout.read()
            status = process.wait()
            seconds = time.perf_counter() - began
        except BaseException:
            process.terminate()  # it has containers to take away
            raise
        finally:
            limit.cancel()
            listener.join()
    if status:
        last = "\n".join(line for _, line in said[-_LAST_LINES:])
        raise CommandFailed(f"exit status {status}: {shlex.join(words)}\n{last}")
    return Ran(seconds, stdout, tuple(said))
