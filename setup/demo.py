#!/usr/bin/env python3
"""`make demo`: the whole way of the shipped example, each command as a user would type it.

Build, verify, push to a registry of its own, remove the local image, serve the pushed digest, ask it, stop.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from engine_common import Interrupted, hold_signals, raise_on_signals, release_signals, watched_signals

ROOT = Path(__file__).resolve().parent.parent
BUILDER = [sys.executable, "-m", "builder"]
REGISTRY = ["docker", "compose", "--progress", "quiet", "--profile", "registry"]
PORTS = {"REGISTRY_PORT": 5000, "HTTP_PORT": 8000, "GRPC_PORT": 8001, "METRICS_PORT": 8002}


class Failed(Exception):
    """A command's exit status; it has said itself what was wrong."""


def main() -> None:
    choose_ports(os.environ)
    os.environ.setdefault("COMPOSE_PROJECT_NAME", "triton-dali-builder-demo")
    # Signals raise once at most. Should that be between the two blocks, the outer one still stops everything.
    try:
        try:
            demonstrate(os.environ["REGISTRY_PORT"])
        finally:
            hold_signals()
    finally:
        hold_signals()
        step("Stop")
        run([*REGISTRY, "down", "--volumes", "--remove-orphans"], check=False)
        if held := signal.sigpending() & watched_signals():
            raise Interrupted(min(held))


def choose_ports(environ: MutableMapping[str, str]) -> None:
    """Where the user has chosen none, the usual ones; free ones where others listen there."""
    chosen = {environ[name] for name in PORTS if environ.get(name)}
    for name, usual in PORTS.items():
        if environ.get(name):
            continue
        port = usual
        while str(port) in chosen or not is_free(port):
            port = free_port()
        if port != usual:
            say(f"port {usual} is taken: {name}={port} is used instead")
        environ[name] = str(port)
        chosen.add(str(port))


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def demonstrate(port: str) -> None:
    began = time.monotonic()
    step("Build the image: compile the plugin, serialize the pipeline")
    image = builder("build")["images"][0]
    step("Verify it: inference over HTTP and gRPC, and a control without the plugin")
    builder("smoke")
    step("Start a registry, and push what was verified")
    os.environ["DEBIAN_IMAGE"] = builder("base")["debian_image"]
    run([*REGISTRY, "build", "--quiet", "registry"])
    run([*REGISTRY, "up", "--detach", "--wait", "registry"])
    pushed = builder("push", f"localhost:{port}/mydali:demo")["pushed"][0]
    step("Remove the local image, and serve the pushed one by its digest")
    run(["docker", "image", "rm", "--force", image["reference"], pushed["tag"], image["digest"]], quiet=True)
    check_is_gone(image["digest"])
    served = builder("up")
    step("Ask it")
    run([sys.executable, "examples/infer.py", served["http"]])
    say(
        f"\nDone in {time.monotonic() - began:.0f} s: {pushed['reference']} was built, verified, pushed "
        f"({pushed['bytes_uploaded'] / 1e6:.1f} MB sent), pulled and served."
    )


def builder(*arguments: str) -> Any:
    """Runs `python -m builder` and gives its JSON document."""
    return json.loads(run([*BUILDER, *arguments, "--json"], shown=["python", "-m", "builder", *arguments]))


def run(command: list[str], *, shown: list[str] | None = None, check: bool = True, quiet: bool = False) -> str:
    """Echoes and runs a command, progress on stderr; its stdout.

    Raises:
        Failed: it did not succeed.
    """
    say(f"$ {shlex.join(shown or ['python' if part == sys.executable else part for part in command])}")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched_signals())  # or a child may start that nobody ends
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C reaches this process alone, which passes on one, and not to Stop
        preexec_fn=release_signals,
    ) as process:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            output, _ = process.communicate()
        except BaseException:
            process.terminate()
            process.communicate()
            raise
    if check and not quiet and process.returncode:
        raise Failed(process.returncode)
    if not shown and not quiet and output.strip():
        say(output.rstrip())
    return output


def check_is_gone(digest: str) -> None:
    """Otherwise what is served next would prove nothing about the registry."""
    listed = run(["docker", "image", "ls", "--quiet", "--no-trunc", "--all"], shown=["docker", "image", "ls", "--all"])
    if digest in listed:
        say(f"the local image {digest} could not be removed: a container may use it (docker ps --all)")
        raise Failed(3)


def step(text: str) -> None:
    say(f"\n\033[1m{text}\033[0m" if sys.stderr.isatty() else f"\n{text}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        raise_on_signals()
        main()
    except Failed as failure:
        sys.exit(failure.args[0])
    except Interrupted as interrupted:
        sys.exit(128 + interrupted.signum)
