"""Compiles plugin/ in a folder that outlives the build, so that only what changed is compiled again.

    python3 compile.py SOURCE KEPT PREFIX [CMAKE OPTION...]

Runs inside the build stage `plugins`; it uses nothing but the standard library, CMake and Ninja.

What Ninja goes by are times, and a source that is taken back from version control is older than what was compiled of
its successor. So every source gets the time at which its content came here. For everything else that could make a
difference (the options, the toolchain, DALI, CMake's files, the names of the sources) there is a build folder of its
own, made from nothing. The variable FRESH asks for one in any case.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SOURCES = frozenset({".c", ".cc", ".cpp", ".cxx", ".cu", ".h", ".hh", ".hpp", ".hxx", ".cuh", ".inl", ".inc"})
"""What Ninja knows the users of. A change of any other file could mean anything."""
TOOLCHAIN = tuple(map(Path, ("/var/lib/dpkg/status", "/opt/toolchain", os.environ.get("DALI_HOME", "/nonexistent"))))
_VARIABLES = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CUDACXX", "CUDAFLAGS", "PATH", "PYTHONPATH")
_SLOTS = 8


def main(arguments: Sequence[str]) -> int:
    """The exit status of CMake's first step that failed."""
    source, kept, prefix = (Path(each) for each in arguments[:3])
    options = arguments[3:]
    build = folder(kept, key(source, options))
    set_times(source, build / "sources.json")
    steps = [["cmake", "--build", str(build)], ["cmake", "--install", str(build), "--strip", "--prefix", str(prefix)]]
    configured = build / "configured"
    if not configured.exists():
        steps.insert(0, ["cmake", "-S", str(source), "-B", str(build), "-G", "Ninja", *options])
    for step in steps:
        if status := subprocess.run(step, check=False).returncode:
            return status
        configured.touch()
    return 0


def key(source: Path, options: Sequence[str]) -> str:
    """What a build folder is good for."""
    total = hashlib.sha256(repr([options, [os.environ.get(name) for name in _VARIABLES]]).encode())
    for name in names(source):
        path = source / name
        content = b"" if path.suffix in SOURCES else path.read_bytes()
        total.update(repr((name, path.suffix in SOURCES, hashlib.sha256(content).hexdigest())).encode())
    modules = [Path(option.partition("=")[2]) for option in options if option.startswith("-DCMAKE_MODULE_PATH=")]
    for folder in modules:
        for name in names(folder):
            total.update(repr((name, (folder / name).read_bytes())).encode())
    for path in TOOLCHAIN:
        for name, size, changed in described(path):
            total.update(f"{name} {size} {changed}\n".encode())
    return total.hexdigest()[:16]


def described(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, bytes and time of change (ns) of each file below; contents would take seconds."""
    if path.is_file():
        yield str(path), path.stat().st_size, path.stat().st_mtime_ns
    for top, folders, files in os.walk(path):
        folders.sort()
        for file in sorted(files):
            status = os.lstat(os.path.join(top, file))  # noqa: PTH118  there are thousands
            yield f"{top}/{file}", status.st_size, status.st_mtime_ns


def names(folder: Path) -> list[str]:
    """The files below, by name, in order."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def folder(kept: Path, key: str) -> Path:
    """The build folder for `key`, under a name that is always the same, as it may get into what is compiled."""
    now, others, fresh = kept / "build", kept / "others", bool(os.environ.get("FRESH"))
    others.mkdir(exist_ok=True)
    named = now / "key"
    if now.exists():
        # One without a name was cut off while it was made.
        before = named.read_text() if named.exists() else ""
        if before != key or fresh:
            shutil.rmtree(others / (before or "unnamed"), ignore_errors=True)
            now.rename(others / (before or "unnamed"))
    if not now.exists():
        if (others / key).exists() and not fresh:
            (others / key).rename(now)
        else:
            now.mkdir()
            named.write_text(key)
    os.utime(now)
    for old in sorted(others.iterdir(), key=lambda each: each.stat().st_mtime, reverse=True)[_SLOTS:]:
        shutil.rmtree(old)
    return now


def set_times(source: Path, record: Path) -> None:
    """Gives each source the time at which its content came here, and remembers it in `record`."""
    known: dict[str, tuple[str, int]] = json.loads(record.read_text()) if record.exists() else {}
    now = time.time_ns()
    times = {}
    for name in names(source):
        digest = hashlib.sha256((source / name).read_bytes()).hexdigest()
        before, when = known.get(name, ("", 0))
        times[name] = (digest, when if before == digest else now)
        os.utime(source / name, ns=(now, times[name][1]))
    # First: should this be cut off, what was not compiled yet is newer than what was.
    record.write_text(json.dumps(times))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
