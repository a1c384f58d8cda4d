#!/usr/bin/python3 -IS
"""Stands where NVIDIA's images have their entrypoint: starts the command, and closes what a server leaves open to all.

Whoever reaches a port of Triton 24.10 can have it map any shared memory of the container by its name, also that through
which the Python backend talks to the models' processes, and an error message tells that name: CVE-2025-23319,
CVE-2025-23320 and CVE-2025-23334, mended in 25.07. Anybody can switch its log off, too. These APIs get a key that
nobody has; who needs one gives it another, with the same options of the server.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable

CLOSED = ("shared-memory", "logging", "trace")
OPTIONS = ("--http-restricted-api", "--grpc-restricted-protocol")
"""Their values are API[,API...]:KEY=VALUE, and no two may name the same API."""


def keyed(command: list[str], option: str) -> set[str]:
    """The APIs to which the command gives a key itself."""
    given = [after for before, after in itertools.pairwise(command) if before == option]
    given += [word.partition("=")[2] for word in command if word.startswith(f"{option}=")]
    return {api.strip() for value in given for api in value.partition(":")[0].split(",")}


def closing(command: list[str], key: str) -> Iterable[str]:
    """The options that close the rest of `CLOSED`."""
    for option in OPTIONS:
        rest = [api for api in CLOSED if api not in keyed(command, option)]
        if rest:
            yield f"{option}={','.join(rest)}:closed={key}"


def main(command: list[str]) -> int:
    if not command:
        print("exec: no command", file=sys.stderr)
        return 127
    program = command[0]
    if program.rpartition("/")[2] == "tritonserver":
        command = [*command, *closing(command, os.urandom(16).hex())]
    try:
        os.execvp(program, command)
    except FileNotFoundError:
        print(f"exec: {program}: not found", file=sys.stderr)
        return 127
    except OSError as error:
        print(f"exec: {program}: {error.strerror}", file=sys.stderr)
        return 126


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
