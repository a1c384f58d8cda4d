#!/usr/bin/env python3
"""Makes the virtual environment of a lock file: `venv.py FOLDER LOCK`. FOLDER/ready tells that it is whole.

Nothing but the standard library: it runs before there is anything else.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

EXIT_SETUP = 3
OLDEST_PYTHON = (3, 11)


class SetupError(Exception):
    """What is wrong, and how to mend it."""


def main(folder: Path, lock: Path) -> None:
    """Replaces what is in `folder`; an interrupted run is begun anew by the next."""
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(f"python3 is {sys.version.split()[0]}: put 3.11 or later on PATH")
    if importlib.util.find_spec("ensurepip") is None:
        _install_venv()
    shutil.rmtree(folder, ignore_errors=True)
    print(f"making {folder} from {lock}", file=sys.stderr)
    _run([sys.executable, "-m", "venv", str(folder)], "see the message of venv")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run(
        [*pip, "--require-hashes", "--only-binary=:all:", "--requirement", str(lock)],
        "see pip's message; behind a proxy or a TLS-inspecting network, pip needs HTTPS_PROXY or PIP_CERT",
    )
    # The command `builder`, which shells can complete; from this checkout, with nothing fetched.
    editable = ["--no-deps", "--no-build-isolation", "--no-index", "--editable", str(Path(__file__).parents[1])]
    _run([*pip, *editable], "see pip's message")
    (folder / "ready").touch()


def _install_venv() -> None:
    """Debian keeps ensurepip in a package of its own."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetupError("python3 has no venv: install it (Debian: apt-get install python3-venv)")
    print("installing Debian's python3-venv", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    remedy = "see apt-get's message; the machine's package sources must answer"
    _run(["apt-get", "update", "-q"], remedy, environment)
    _run(["apt-get", "install", "-qy", "--no-install-recommends", "python3-venv"], remedy, environment)


def _run(command: list[str], remedy: str, environment: dict[str, str] | None = None) -> None:
    if subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode:
        raise SetupError(f"{command[0]} failed: {' '.join(command)}\n  {remedy}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except SetupError as problem:
        print(f"venv: {problem}", file=sys.stderr)
        sys.exit(EXIT_SETUP)
    except KeyboardInterrupt:
        sys.exit(130)
