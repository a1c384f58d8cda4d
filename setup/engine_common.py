"""What the parts of the engine setup share: messages, places on the disk, locks, and the one door to other programs."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

EXIT_SETUP = 3
LOCKS = ("mutex", "users")
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SetupError(Exception):
    """The machine cannot be set up; the message says what is wrong, where, and how to mend it."""


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP came while installing or starting."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def say(message: str) -> None:
    # stdout belongs to the COMMAND alone; a closed stderr must not keep an engine from being stopped.
    with contextlib.suppress(OSError):
        print(f"engine: {message}", file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Places:
    """Every path that the private engine uses."""

    home: Path
    run: Path

    @staticmethod
    def of(environ: Mapping[str, str]) -> Places:
        # The variable is for tests only: a second engine beside the one in use.
        home = environ.get("TRITON_DALI_BUILDER_HOME")
        if home:
            return Places(Path(home).resolve(), Path(home).resolve() / "run")
        return Places(Path("/var/lib/triton-dali-builder"), Path("/run/triton-dali-builder"))

    @property
    def prefix(self) -> Path:
        return self.home / "engine"

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def config(self) -> Path:
        return self.home / "config"

    @property
    def log(self) -> Path:
        return self.home / "log" / "dockerd.log"

    @property
    def socket(self) -> Path:
        return self.run / "docker.sock"

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def before(self) -> Path:
        """What the machine's network looked like before the engine started."""
        return self.run / "before.json"


def tool(
    argv: Sequence[str],
    *,
    timeout: float | None = None,
    must_finish: bool = False,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run another program quietly; its exit code and everything it printed.

    It runs in a session of its own, so that a terminal's Ctrl-C reaches only this process, which then decides: most
    programs are ended, but dpkg must come to its end (`must_finish`), or it leaves half-configured packages.
    """
    base = os.environ if env is None else env
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**base, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )
    except OSError as error:
        return 127, f"{argv[0]}: {error.strerror}"
    try:
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        end_group(process)
        return 124, f"{argv[0]}: no answer within {timeout:g} s"
    except BaseException:
        if must_finish:
            say(f"waiting for {argv[0]} to come to its end ...")
            process.communicate()
        else:
            end_group(process)
        raise


def end_group(process: subprocess.Popen[str]) -> None:
    """End a program and its children, with time to remove their temporary files and mounts."""
    for signum, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=seconds)
            return


def last_lines(text: str, count: int = 8) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(f"    {line}" for line in lines[-count:])


def raise_on_signals() -> None:
    """From now on the first of SIGINT, SIGTERM, SIGHUP raises Interrupted; later ones change nothing.

    The later ones must not raise: the first one's clean-up is then under way and has to come to its end.
    """
    seen: list[int] = []

    def handler(signum: int, _frame: FrameType | None) -> None:
        seen.append(signum)
        if len(seen) == 1:
            raise Interrupted(signum)

    for signum in watched_signals():
        signal.signal(signum, handler)


def watched_signals() -> set[signal.Signals]:
    """Without those that were ignored from the start, as nohup does with SIGHUP."""
    return {signum for signum in HANDLED if signal.getsignal(signum) != signal.SIG_IGN}


def hold_signals() -> None:
    """From now on signals wait: what runs now has to come to its end."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {*watched_signals(), signal.SIGCHLD})


def release_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*HANDLED, signal.SIGCHLD})


@contextlib.contextmanager
def mutex(places: Places) -> Iterator[None]:
    """Only one process at a time installs, starts, stops or removes."""
    with locked(places.run / "mutex"):
        yield


def locked(path: Path) -> IO[str]:
    """The file, opened and locked for this process alone."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        try:
            file = path.open("w")
        except FileNotFoundError:  # `clean` removed the folder in between
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run that is setting up or stopping the engine ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        # `clean` may have removed the file while this process waited: then the lock guards nothing.
        if is_same_file(file.fileno(), path):
            return file
        file.close()


def is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
