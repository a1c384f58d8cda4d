#!/usr/bin/env python3
"""`make demo`: the whole way of the shipped example, each command as a user would type it.

Build, verify, push to a registry of its own, remove the local image, serve the pushed digest, ask it, stop.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
BUILDER = [sys.executable, "-m", "builder"]
REGISTRY = ["docker", "compose", "--progress", "quiet", "--profile", "registry"]


class Failed(Exception):
    """A command's exit status; it has said itself what was wrong."""


def main() -> None:
    began = time.monotonic()
    port = os.environ.setdefault("REGISTRY_PORT", "5000")
    os.environ.setdefault("COMPOSE_PROJECT_NAME", "triton-dali-builder-demo")
    try:
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
    finally:
        step("Stop")
        run([*REGISTRY, "down", "--volumes", "--remove-orphans"], check=False)


def builder(*arguments: str) -> Any:
    """Runs `python -m builder` and gives its JSON document."""
    return json.loads(run([*BUILDER, *arguments, "--json"], shown=["python", "-m", "builder", *arguments]))


def run(command: list[str], *, shown: list[str] | None = None, check: bool = True, quiet: bool = False) -> str:
    """Echoes and runs a command, progress on stderr; its stdout.

    Raises:
        Failed: it did not succeed.
    """
    say(f"$ {shlex.join(shown or ['python' if part == sys.executable else part for part in command])}")
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL if quiet else None, text=True
    ) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            # A terminal's Ctrl-C has reached the child as well; a signal to this process alone has not.
            process.send_signal(signal.SIGINT)
            process.wait()
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


def _stop(_number: int, _frame: object) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _stop)
    try:
        main()
    except Failed as failure:
        sys.exit(failure.args[0])
    except KeyboardInterrupt:
        sys.exit(130)
