#!/usr/bin/env python3
"""Makes the virtual environment of a lock file, unless it is there: `venv.py FOLDER LOCK`.

FOLDER/ready tells what it was made of. Nothing but the standard library: it runs before there is anything else.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from engine_common import EXIT_SETUP, Interrupted, SetupError, last_lines, raise_on_signals, tool

OLDEST_PYTHON = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
# Where a virtual environment's own python runs this (`make test` inside `make shell`), the one that it was made with:
# it must not remove itself, nor count as another.
PYTHON: str = getattr(sys, "_base_executable", sys.executable)
CA_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def ensure(folder: Path, lock: Path) -> None:
    """Makes `folder` anew where it is missing, broken, or made of something else.

    Raises:
        SetupError: the machine lacks something for it.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(f"python3 is {sys.version.split()[0]}.\n  Put 3.11 or later on PATH.")
    folder = folder.resolve()
    wanted = fingerprint(folder, lock)
    if is_whole(folder, wanted):
        return
    with locked(folder.parent):
        if not is_whole(folder, wanted):  # another run may have made it meanwhile
            print(f"making {folder} from {lock}", file=sys.stderr)
            make(folder, lock)
            (folder / "ready").write_text(wanted)


def fingerprint(folder: Path, lock: Path, root: Path = ROOT) -> str:
    """What the environment depends on: its contents, how they are put in, the interpreter, and its place."""
    parts = [lock.read_bytes(), (root / "pyproject.toml").read_bytes(), Path(__file__).read_bytes()]
    parts += [os.fsencode(os.path.realpath(PYTHON)), sys.version.encode(), os.fsencode(folder.resolve())]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def is_whole(folder: Path, wanted: str) -> bool:
    try:
        if (folder / "ready").read_text() != wanted:
            return False
        # Quickly, without site packages: whether the interpreter that it leads to is still there.
        return subprocess.run([folder / "bin" / "python", "-I", "-S", "-c", ""], check=False).returncode == 0
    except OSError:
        return False


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One run at a time. The lock is on the directory itself: a file in FOLDER would go with it."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another run that makes an environment in {directory} ...", file=sys.stderr)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make(folder: Path, lock: Path) -> None:
    if importlib.util.find_spec("ensurepip") is None:
        install_venv()
    if folder.exists():
        (folder / "ready").unlink(missing_ok=True)  # first: half of what it vouches for may stay
        shutil.rmtree(folder)
    run([PYTHON, "-m", "venv", str(folder)], "See the message of venv")
    scratch = folder / "tmp"
    scratch.mkdir()
    # What an interrupted pip leaves goes with the folder.
    environment = {**pip_environment(os.environ), "TMPDIR": str(scratch)}
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(
        [*pip, "--require-hashes", "--only-binary=:all:", "--requirement", str(lock)],
        "See pip's message; behind a proxy or a TLS-inspecting network, pip needs HTTPS_PROXY or PIP_CERT",
        environment,
    )
    # The command `builder`, which shells can complete; from this checkout, with nothing fetched.
    editable = ["--no-deps", "--no-build-isolation", "--no-index", "--editable", str(ROOT)]
    run([*pip, *editable], "See pip's message", environment)
    shutil.rmtree(scratch)


def install_venv() -> None:
    """Debian keeps ensurepip in a package of its own."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetupError("python3 has no venv.\n  Install it (Debian: apt-get install python3-venv).")
    from engine_install import install_system  # here, since it is seldom needed and this script runs often

    print("installing Debian's python3-venv (apt-get install)", file=sys.stderr)
    install_system(["python3-venv"])
    importlib.invalidate_caches()
    if importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            f"{PYTHON} has no venv, and Debian's python3-venv is for another python3.\n"
            "  Put Debian's /usr/bin first on PATH, or install what this python3 lacks."
        )


def pip_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with the user's CA bundle for pip: older ones do not look at the system's."""
    changed = dict(environ)
    bundle = next((environ[name] for name in CA_BUNDLES if environ.get(name) and Path(environ[name]).exists()), None)
    if bundle and not changed.get("PIP_CERT"):
        changed["PIP_CERT"] = bundle
    return changed


def run(command: list[str], remedy: str, environment: Mapping[str, str] | None = None) -> None:
    code, output = tool(command, env=environment)
    if code != 0:
        raise SetupError(f"{shlex.join(command)} failed:\n{last_lines(output, 20)}\n  {remedy}.")


def main(folder: str, lock: str) -> int:
    try:
        raise_on_signals()
        ensure(Path(folder), Path(lock))
    except SetupError as problem:
        print(f"venv: {problem}", file=sys.stderr)
        return EXIT_SETUP
    except OSError as problem:
        print(f"venv: {problem}\n  Check that disk's free room and its rights, then try again.", file=sys.stderr)
        return EXIT_SETUP
    except Interrupted as interrupted:
        return 128 + interrupted.signum
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
