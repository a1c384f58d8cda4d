"""Compiles plugin/ in a folder that outlives the build, so that only what changed is compiled again.

    python3 compile.py SOURCE KEPT PREFIX [CMAKE OPTION...]

Runs inside the build stage `plugins`; it uses nothing but the standard library, CMake and Ninja.

What Ninja goes by are times, and a source that is taken back from version control is older than what was compiled of
its successor. So every source gets the time at which its content came here. For everything else that could make a
difference (options, environment, toolchain, DALI, links, CMake's files, the names of the sources; the sources
themselves where CMake may read them) there is a build folder of its own, made from nothing. A value of the variable
FRESH that the folder does not know asks for another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

SOURCES = frozenset({".c", ".cc", ".cpp", ".cxx", ".cu", ".h", ".hh", ".hpp", ".hxx", ".cuh", ".inl", ".inc"})
"""What Ninja knows the users of. A change of any other file could mean anything."""
READS = re.compile(
    r"\b(?:file\s*\(\s*(?:READ|STRINGS|COPY|MD5|SHA\w+)|execute_process|add_custom_command|add_custom_target|try_run"
    r"|ExternalProject_Add|FetchContent_\w+)\b",
    re.IGNORECASE,
)
"""CMake's commands that may read a source unseen by Ninja; where there is one, every source could mean anything."""
TOOLCHAIN = tuple(map(Path, ("/var/lib/dpkg/status", "/usr/local", "/opt")))
"""What the compiler comes from, and DALI, and what an image may have besides Debian's packages."""
_OF_THE_RUN = frozenset({"FRESH", "HOSTNAME", "HOME", "SOURCE_DATE_EPOCH"})
"""Variables that no compiler goes by. Nor by proxies."""
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
    variables = sorted(
        each for each in os.environ.items() if each[0] not in _OF_THE_RUN and "proxy" not in each[0].lower()
    )
    total = hashlib.sha256(repr([options, variables, links(source)]).encode())
    found = names(source)
    cmake = (source / name for name in found if name.endswith((".cmake", "CMakeLists.txt")))
    known = frozenset() if any(READS.search(path.read_text(errors="replace")) for path in cmake) else SOURCES
    for name in found:
        path = source / name
        content = b"" if path.suffix in known else path.read_bytes()
        total.update(repr((name, path.suffix in known, hashlib.sha256(content).hexdigest())).encode())
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


def links(folder: Path) -> list[tuple[str, str]]:
    """The symbolic links below, and where they point: what is behind one may be older than what was compiled before."""
    inner = (os.path.join(top, name) for top, folders, files in os.walk(folder) for name in (*folders, *files))  # noqa: PTH118
    return sorted((each, os.readlink(each)) for each in inner if os.path.islink(each))  # noqa: PTH114, PTH115


def names(folder: Path) -> list[str]:
    """The files below, by name, in order."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def folder(kept: Path, key: str) -> Path:
    """The build folder for `key`, under a name that is always the same, as it may get into what is compiled."""
    now, others, token = kept / "build", kept / "others", os.environ.get("FRESH", "")
    others.mkdir(exist_ok=True)
    named = now / "key"
    remove(others.glob("removed*"))  # of a build that was cut off
    # One without a name was cut off while it was made.
    before = named.read_text() if named.exists() else ""
    fresh = bool(token) and not known_to(now if before == key else others / key, token)
    if now.exists() and (before != key or fresh):
        remove([others / (before or "unnamed")])
        now.rename(others / (before or "unnamed"))
    if not now.exists():
        if (others / key).exists() and not fresh:
            (others / key).rename(now)
        else:
            now.mkdir()
            named.write_text(key)
            (now / "fresh").write_text(token)
    os.utime(now)
    for old in sorted(others.iterdir(), key=lambda each: each.stat().st_mtime, reverse=True)[_SLOTS:]:
        remove([old])
    return now


def known_to(folder: Path, token: str) -> bool:
    """Whether a build folder was begun because of `token`."""
    told = folder / "fresh"
    return told.exists() and told.read_text() == token


def remove(folders: Iterable[Path]) -> None:
    """Under another name first: half a folder must not pass for a whole one."""
    for each in folders:
        if each.exists():
            gone = each.with_name(f"removed-{time.time_ns()}")
            each.rename(gone)
            shutil.rmtree(gone)


def set_times(source: Path, record: Path) -> None:
    """Gives each source the time at which its content came here, and remembers it in `record`."""
    try:
        known: dict[str, tuple[str, int]] = json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        known = {}
    # A clock may have been set back since.
    log = record.with_name(".ninja_log")
    earlier = [when for _, when in known.values()] + ([log.stat().st_mtime_ns] if log.exists() else [])
    now = max([time.time_ns(), *(when + 1 for when in earlier)])
    times = {}
    for name in names(source):
        digest = hashlib.sha256((source / name).read_bytes()).hexdigest()
        before, when = known.get(name, ("", 0))
        times[name] = (digest, when if before == digest else now)
        os.utime(source / name, ns=(now, times[name][1]))
    # First: should this be cut off, what was not compiled yet is newer than what was.
    written = record.with_suffix(".new")
    written.write_text(json.dumps(times))
    written.replace(record)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
