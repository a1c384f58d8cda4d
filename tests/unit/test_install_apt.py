"""The embedded base's `apt`: what it takes for the packages of builder.lock, and what not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "embedded" / "install" / "apt"
DPKG_QUERY = """\
#!{python}
import sys
packages = {packages}
form = next(each for each in sys.argv if each.startswith("--showformat=")).partition("=")[2]
for status, name, version in packages:
    line = form.replace("${{db:Status-Status}}", status).replace("${{Package}}", name).replace("${{Version}}", version)
    sys.stdout.write(line.replace("\\\\n", "\\n"))
"""


def install(root: Path, *packages: tuple[str, str, str], lock: str) -> subprocess.CompletedProcess[str]:
    """Runs the script with `root` as the root of its files, where dpkg then has `packages`: status, name, version."""
    for folder in ("bin", "run/lock", "run/secrets", "tmp", "etc/apt/apt.conf.d"):
        (root / folder).mkdir(parents=True)
    (root / "run/lock/debian").write_text(lock)
    (root / "bin/apt-get").write_text("#!/bin/sh\n")
    (root / "bin/dpkg-query").write_text(DPKG_QUERY.format(python=sys.executable, packages=packages))
    for program in (root / "bin").iterdir():
        program.chmod(0o755)
    script = re.sub(r"(?<=[ >])/(run|tmp|etc)/", rf"{root}/\1/", SCRIPT.read_text())
    environment = {**os.environ, "PATH": f"{root}/bin:{os.environ['PATH']}"}
    return subprocess.run(["sh", "-c", script, "apt", "curl"], capture_output=True, text=True, env=environment)


LOCK = "curl=7.88.1-10\nlibc6=2.36-9\n"


def test_what_was_removed_and_left_its_configuration_is_not_installed(tmp_path: Path) -> None:
    done = install(
        tmp_path,
        ("installed", "libc6", "2.36-9"),
        ("config-files", "exim4-base", "4.96-15"),
        ("not-installed", "vim", ""),
        ("installed", "curl", "7.88.1-10"),
        lock=LOCK,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "version"), [("curl", "7.88.1-11"), ("vim", "9.0")], ids=["another version", "another package"]
)
def test_what_the_lock_does_not_hold_is_told(tmp_path: Path, name: str, version: str) -> None:
    done = install(tmp_path, ("installed", "libc6", "2.36-9"), ("installed", name, version), lock=LOCK)
    assert done.returncode != 0
    assert done.stderr == f"lock: error: {name}={version}\n"
