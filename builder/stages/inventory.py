"""Runs in the stages `models` and `toolchain`: prints which packages the image under them has, as JSON.

    python3 inventory.py [FOLDER...]

The folders are looked into for installed wheels, beside DALI's own and those where this Python finds packages. It uses
nothing but the standard library and dpkg-query, and changes nothing.

stdout gets one document: {"debian": [{"name", "version", "architecture", "source", "source_version"}], "python":
[{"name", "version", "folder"}], "os": {...}}, in an order that depends on nothing else. What cannot be read goes to
stderr, `inventory: error: MESSAGE`, and makes it exit with 1.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution
from pathlib import Path

DALI_HOME = "/opt/tritonserver/backends/dali/wheel/dali"
_OF_DPKG = "/usr/lib/python3/dist-packages"
"""By Debian's Python policy only packages of dpkg put anything there, and dpkg tells of them."""
_FIELDS = ("name", "version", "architecture", "source", "source_version")
_FORMAT = "${db:Status-Status}\\t${Package}\\t${Version}\\t${Architecture}\\t${source:Package}\\t${source:Version}\\n"


def main(arguments: Sequence[str]) -> int:
    """Prints the inventory; 1 if dpkg cannot tell, or a folder is not there."""
    for folder in arguments:
        if not Path(folder).is_dir():
            return _complain(f"{folder}: no such folder")
    try:
        packages = debian()
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        words = getattr(error, "stderr", "") or str(error)
        return _complain(f"dpkg-query: {words.strip()}")
    found = python([os.environ.get("DALI_HOME", DALI_HOME), *interpreters_folders(), *arguments])
    print(json.dumps({"debian": packages, "python": found, "os": system()}))
    return 0


def debian() -> list[dict[str, str]]:
    """The installed packages of dpkg, removed ones with configuration left over not among them.

    Raises:
        CalledProcessError, ValueError: dpkg-query fails, or says what it never says.
    """
    if not shutil.which("dpkg-query"):
        return []
    done = subprocess.run(["dpkg-query", "-W", "-f", _FORMAT], capture_output=True, text=True, check=True)
    packages = []
    for line in done.stdout.splitlines():
        status, *values = line.split("\t")
        if len(values) != len(_FIELDS):
            raise ValueError(f"not a package: {line!r}")
        if status == "installed":
            packages.append(dict(zip(_FIELDS, values, strict=True)))
    return sorted(packages, key=lambda each: (each["name"], each["architecture"]))


def interpreters_folders() -> list[str]:
    """Where this Python finds packages that dpkg does not know."""
    return [path for path in sys.path if path.endswith("-packages") and path != _OF_DPKG]


def python(folders: Iterable[str]) -> list[dict[str, str]]:
    """The wheels installed in `folders`."""
    found = {}
    for folder in dict.fromkeys(os.path.realpath(each) for each in folders):
        for path in sorted(Path(folder).glob("*.dist-info")):
            told = Distribution.at(path).metadata
            name, version = told["Name"], told["Version"]
            if name and version:  # pip leaves folders without them when it is interrupted
                found[name.lower(), version, folder] = {"name": name, "version": version, "folder": folder}
    return [found[key] for key in sorted(found)]


def system() -> dict[str, str]:
    """os-release as it is written; empty where there is none."""
    try:
        return dict(sorted(platform.freedesktop_os_release().items()))
    except OSError:
        return {}


def _complain(message: str) -> int:
    print(f"inventory: error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
