#!/usr/bin/env python3
"""Run a command with a Docker engine: the machine's own, or a private one that lives as long as it is used.

engine.py run -- COMMAND...   run COMMAND with an engine that it can use
engine.py stop                stop an engine that an interrupted run left behind
engine.py clean               stop it and remove all that was put on the machine
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

import engine_daemon as daemon
from apt_sources import os_release
from engine_common import (
    EXIT_SETUP,
    Interrupted,
    Places,
    SetupError,
    hold_signals,
    last_lines,
    mutex,
    raise_on_signals,
    release_signals,
    say,
    tool,
    watched_signals,
)
from engine_install import check_machine, command_environment, forget_note, install, make_config

OLDEST_BUILDX = (0, 13)
OLDEST_API = (1, 44)  # Docker 25
Runner = Callable[[Sequence[str]], "tuple[int, str]"]


class UnfitEngine(SetupError):
    """An engine answers, but builds need a newer one, or a client that has more; its first line says what."""


# --- is there an engine already


def probe(run: Runner) -> str | None:
    """Why no engine answers, or None if one does.

    Raises:
        UnfitEngine: one answers, but it or its client cannot do what is needed.
    """
    code, output = run(["docker", "version", "--format", "{{.Server.APIVersion}}"])
    found = re.search(r"^(\d+)\.(\d+)\s*$", output, re.MULTILINE)
    if code != 0 or found is None:
        return (output.strip().splitlines() or ["`docker version` prints nothing"])[-1]
    if (int(found[1]), int(found[2])) < OLDEST_API:
        raise UnfitEngine(
            f"a Docker engine answers here, but its API is {found[0].strip()}, and 1.44 or later is needed.\n"
            "  Upgrade it to Docker 25 or later, or point DOCKER_HOST to another engine."
        )
    check_plugins(run)
    return None


def check_plugins(run: Runner) -> None:
    where = "a Docker engine answers here, but"
    code, output = run(["docker", "buildx", "version"])
    found = buildx_version(output) if code == 0 else None
    if found is None or found < OLDEST_BUILDX:
        state = "is missing" if found is None else f"is {found[0]}.{found[1]}, and 0.13 or later is needed"
        raise UnfitEngine(
            f"{where} `docker buildx` {state}:\n{last_lines(output, 2)}\n  Install the package "
            "docker-buildx-plugin (Docker's own packages) or docker-buildx (Debian 13) for the client "
            f"{shutil.which('docker')}."
        )
    code, output = run(["docker", "compose", "version"])
    if code != 0:
        raise UnfitEngine(
            f"{where} `docker compose` does not work:\n{last_lines(output, 2)}\n  Install the package "
            "docker-compose-plugin (Docker's own packages) or docker-compose (Debian 13) for the client "
            f"{shutil.which('docker')}."
        )


def buildx_version(output: str) -> tuple[int, int] | None:
    match = re.search(r"buildx\S*\s+v?(\d+)\.(\d+)", output)
    return (int(match.group(1)), int(match.group(2))) if match else None


def needs_private(
    run: Runner, environ: Mapping[str, str], places: Places, uid: int, release: Mapping[str, str]
) -> bool:
    """Whether the private engine has to serve, as none that is fit answers.

    Raises:
        SetupError: it has to and cannot, or the user chose an engine that does not answer.
    """
    try:
        complaint = probe(run)
    except UnfitEngine as unfit:
        what = str(unfit).splitlines()[0].rstrip(".:")
        try:
            check_machine(uid, release, what)
        except SetupError:
            raise unfit from None  # says how to mend the engine that there is
        say(f"{what}; using a private engine instead")
        return True
    if complaint is None:
        return False
    host = environ.get("DOCKER_HOST")
    # Inside `make shell` it is no choice of the user's: our engine has died there, and is started again.
    if host and host != f"unix://{places.socket}":
        raise SetupError(
            f"no Docker engine answers at DOCKER_HOST={host}: {complaint}\n"
            "  Start it, so that `docker version` works here, or unset DOCKER_HOST."
        )
    check_machine(uid, release, complaint)
    return True


# --- our own engine, shared by all runs on this machine


@contextlib.contextmanager
def private_engine(places: Places) -> Iterator[dict[str, str]]:
    """The environment in which the private engine answers; the last one to leave stops it."""
    users: IO[str] | None = None
    try:
        with mutex(places):
            users = (places.run / "users").open("a")
            fcntl.flock(users, fcntl.LOCK_SH)
            install(places)
            make_config(places, os.environ)
            daemon.start(places)
        environment = command_environment(places, os.environ)
        check_plugins(lambda argv: tool(argv, timeout=60, env=environment))
        yield environment
    finally:
        hold_signals()
        if users is not None:
            leave(places, users)


def leave(places: Places, users: IO[str]) -> None:
    with mutex(places):
        if is_last(users):
            daemon.stop(places)
        users.close()


def is_last(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# --- the command


def run_command(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the command and hand it the signals; its exit code as a shell would give it.

    Signals are blocked from here to the end of this process: whatever comes, the engine is stopped after the command.
    """
    hold_signals()
    try:
        process = subprocess.Popen(list(argv), env=dict(environment), preexec_fn=release_signals)
    except OSError as error:
        say(f"cannot run {argv[0]}: {error.strerror}")
        return 127 if isinstance(error, FileNotFoundError) else 126
    received: int | None = None
    while process.poll() is None:
        info = signal.sigtimedwait({*watched_signals(), signal.SIGCHLD}, 1.0)
        if info is None or info.si_signo == signal.SIGCHLD:
            continue
        received = received or info.si_signo
        # A positive si_code means that the terminal sent it, to the command as well: twice would read as impatience.
        if info.si_code <= 0 and process.poll() is None:
            process.send_signal(info.si_signo)
    if received is not None:
        return 128 + received
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def run(argv: Sequence[str], places: Places) -> int:
    if not needs_private(lambda words: tool(words, timeout=15), os.environ, places, os.geteuid(), os_release()):
        return replace_by(argv)
    raise_on_signals()
    try:
        with private_engine(places) as environment:
            return run_command(argv, environment)
    except Interrupted as interrupted:
        say("interrupted")
        return 128 + interrupted.signum


def replace_by(argv: Sequence[str]) -> int:
    try:
        os.execvp(argv[0], list(argv))
    except OSError as error:
        say(f"cannot run {argv[0]}: {error.strerror}")
        return 127 if isinstance(error, FileNotFoundError) else 126


# --- stop, clean


def stop(places: Places, remove: bool) -> int:
    if not places.run.exists() and not places.home.exists():
        say(f"nothing to do: {places.home} does not exist")
        return 0
    if os.geteuid() != 0:
        raise SetupError(f"stopping the engine of {places.home} needs root.\n  Run this as root.")
    with mutex(places), (places.run / "users").open("a") as users:
        if not is_last(users):
            raise SetupError(
                f"another run still uses the engine of {places.home}.\n"
                "  End that run first; the engine then stops by itself."
            )
        say("engine stopped" if daemon.stop(places) else "no engine was running")
        if remove:
            note = forget_note(places)
            shutil.rmtree(places.home)
            shutil.rmtree(places.run, ignore_errors=True)
            say(f"removed {places.home} and {places.run}")
            if note:
                say(note)
    return 0


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="engine.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    runner = actions.add_parser("run", help="run a command with a Docker engine")
    runner.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND...")
    actions.add_parser("stop", help="stop an engine that an interrupted run left behind")
    actions.add_parser("clean", help="stop it and remove all that was put on the machine")
    arguments = parser.parse_args(argv)
    if arguments.action == "run":
        if arguments.command[:1] == ["--"]:
            arguments.command = arguments.command[1:]
        if not arguments.command:
            parser.error("run needs a command: engine.py run -- COMMAND...")
    return arguments


def main(argv: Sequence[str]) -> int:
    arguments = parse_arguments(argv)
    places = Places.of(os.environ)
    try:
        if arguments.action == "run":
            return run(arguments.command, places)
        return stop(places, remove=arguments.action == "clean")
    except SetupError as error:
        say(str(error))
    except OSError as error:
        say(
            f"{error.strerror or error} ({error.filename or f'while writing below {places.home} or {places.run}'})\n"
            "  Check that disk's free room and its rights, then try again."
        )
    except KeyboardInterrupt:
        return 130
    return EXIT_SETUP


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
