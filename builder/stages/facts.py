"""Runs in the stage `models`: loads every plugin as the server will, and prints what the image is made of, as JSON.

    python3 facts.py FOLDER [PATH:PATH...]

FOLDER is where the model repository lies in the build; the paths are those that the server will load, in its order, and
otherwise all libraries of the folder by name. It uses nothing but the standard library and DALI, and needs no GPU.

stdout gets one document: {"triton", "dali", "dali_cuda", "glibc", "glibcxx", "plugins": [{"path", "sha256", "bytes",
"operators": [{"name", "devices"}]}]}. What is wrong goes to stderr, one line each, `facts: error: PATH: MESSAGE`, and
makes it exit with 1.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

INSTALLED = "/models"
_LOAD = "--load"
_SECONDS = 120
# {name: the devices that it is registered for}
Operators = dict[str, list[str]]


def main(arguments: Sequence[str]) -> int:
    """Prints the facts; 1 if a plugin does not load, or does not go with another."""
    if arguments and arguments[0] == _LOAD:
        return load_here(arguments[1:])
    if not 1 <= len(arguments) <= 2 or not Path(arguments[0]).is_dir():
        return _complain("usage: python3 facts.py FOLDER [PATH:PATH...]")
    models = Path(arguments[0])
    if len(arguments) == 2:
        paths = [path for path in arguments[1].split(":") if path]
    else:
        paths = [f"{INSTALLED}/{library.name}" for library in sorted(models.glob("*.so"))]
    document = load_apart(paths)
    if "error" in document:
        explain(paths, document["error"])
        return 1
    if document["failed"]:
        return 1
    plugins = []
    for path in paths:
        content = Path(path).read_bytes()
        added: Operators = document["operators"][path]
        plugins.append(
            {
                "path": path,
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
                "operators": [{"name": name, "devices": devices} for name, devices in sorted(added.items())],
            }
        )
    facts = {
        "triton": os.environ.get("NVIDIA_TRITON_SERVER_VERSION", ""),
        "dali": document["dali"],
        "dali_cuda": document["dali_cuda"],
        "glibc": glibc(),
        "glibcxx": document["glibcxx"],
        "plugins": plugins,
    }
    print(json.dumps(facts))
    return 0


def load_apart(paths: Sequence[str]) -> dict[str, Any]:
    """What `load_here` says in a process of its own, which a plugin may take down: then {"error": how it ended}."""
    child = subprocess.run([sys.executable, __file__, _LOAD, *paths], capture_output=True, text=True, errors="replace")
    if child.returncode == 0:
        errors = [line for line in child.stderr.splitlines() if line.startswith("facts: error: ")]
        print("".join(f"{line}\n" for line in errors), end="", file=sys.stderr)
        document: dict[str, Any] = json.loads(child.stdout)
        return document
    how = f"exit status {child.returncode}"
    if child.returncode < 0:
        how = signal.Signals(-child.returncode).name
    words = [line.strip() for line in child.stderr.splitlines() if line.strip()]
    # A C++ exception that nobody caught says `what():`, and is the reason; otherwise the last words have to do.
    reason = next((word for word in words if "what():" in word), words[-1] if words else "it said nothing")
    return {"error": f"the process that loaded it ended with {how}: {reason}"}


def load_here(paths: Sequence[str]) -> int:
    """Loads plugins one after the other into this process, and prints what each of them adds to DALI.

    {"dali", "dali_cuda", "glibcxx", "operators": {PATH: {NAME: [DEVICE]}}, "failed": whether any did not load}
    """
    # What plugins print goes to stderr, also what they leave in a buffer of C's.
    stdout = os.dup(1)
    os.dup2(2, 1)
    signal.alarm(_SECONDS)  # a plugin that hangs as it is loaded is told like one that aborts

    # DALI's libraries must be there before a plugin's undefined symbols are looked up.
    import nvidia.dali.backend as backend
    from nvidia.dali import __version__ as version

    added: dict[str, Operators] = {}
    failed = False
    before = registered(backend)
    for path in paths:
        try:
            ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)
        except OSError as error:
            _complain(f"{path}: {error}")
            failed = True
            continue
        after = registered(backend)
        # The same path may be listed twice, and adds nothing then.
        added.setdefault(path, {}).update(_more(before, after))
        before = after
    document = {"dali": version, "dali_cuda": cuda(), "glibcxx": glibcxx(), "operators": added, "failed": failed}
    with os.fdopen(stdout, "w") as stream:
        json.dump(document, stream)
    return 0


def registered(backend: Any) -> dict[str, set[str]]:
    """The names of DALI's operators, by device."""
    return {
        "cpu": set(backend.RegisteredCPUOps()),
        "gpu": set(backend.RegisteredGPUOps()),
        "mixed": set(backend.RegisteredMixedOps()),
    }


def _more(before: dict[str, set[str]], after: dict[str, set[str]]) -> Operators:
    names = sorted(set().union(*(after[device] - before[device] for device in after)))
    return {name: [device for device in after if name in after[device] - before[device]] for name in names}


def explain(paths: Sequence[str], together: str) -> None:
    """Says which plugin, or which two of them, took down the process that loaded them all."""
    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        alone = dict(zip(unique, pool.map(lambda path: load_apart([path]), unique), strict=True))
    explained = False
    for path, document in alone.items():
        if "error" in document:
            _complain(f"{path}: {document['error']}")
        explained = explained or "error" in document or document["failed"]
    operators = {path: document.get("operators", {}).get(path, {}) for path, document in alone.items()}
    for one, other in combinations(operators, 2):
        for name in sorted(set(operators[one]) & set(operators[other])):
            _complain(f"{one} and {other} both register the operator {name}")
            explained = True
    if not unique:
        _complain(f"nvidia.dali: {together}")
    elif not explained:
        _complain(f"{' and '.join(unique)}: each loads alone, but not all in one process: {together}")


def cuda() -> str:
    """The major version of the CUDA that DALI was compiled with, such as 12; empty where DALI does not say."""
    import nvidia.dali as dali

    # int("12.9.86".replace(".", ""))
    return str(getattr(dali, "__cuda_version__", ""))[:2]


def glibc() -> str:
    """The C library's version, such as 2.36."""
    return (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ")


def glibcxx() -> str:
    """The newest GLIBCXX of the libstdc++ that this process has loaded for DALI, such as 3.4.30."""
    mapped = re.search(r"/\S*/libstdc\+\+\.so\S*", Path("/proc/self/maps").read_text())
    if mapped is None:
        return ""
    found = re.findall(rb"\0GLIBCXX_(\d+(?:\.\d+)+)(?=\0)", Path(mapped[0]).read_bytes())
    newest = max([int(part) for part in version.split(b".")] for version in found)
    return ".".join(str(part) for part in newest)


def _complain(message: str) -> int:
    print(f"facts: error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
