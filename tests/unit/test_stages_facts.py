"""The stage, with a DALI whose plugins are text files: {"cpu": [NAME], "gpu": [NAME], "say": TEXT, "fail": TEXT}."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.stages import facts

BACKEND = """
import ctypes, json, os, sys

ctypes.CDLL("libstdc++.so.6")  # as DALI's own libraries would
real = {device: {"Resize"} for device in ("cpu", "gpu", "mixed")}
RegisteredCPUOps = lambda: sorted(real["cpu"])
RegisteredGPUOps = lambda: sorted(real["gpu"])
RegisteredMixedOps = lambda: sorted(real["mixed"])
loaded = set()

def load(path, mode):
    assert mode == os.RTLD_NOW | os.RTLD_LOCAL
    try:
        plugin = json.load(open(path))
    except FileNotFoundError:
        raise OSError(f"{path}: cannot open shared object file: No such file or directory") from None
    if "fail" in plugin:
        raise OSError(plugin["fail"])
    os.write(1, plugin.get("say", "").encode())
    if path in loaded:
        return
    loaded.add(path)
    for device in real:
        for name in plugin.get(device, []):
            if name in real[device]:
                print("terminate called after throwing an instance of 'dali::DALIException'", file=sys.stderr)
                print(f'  what():  Operator "{name}" already registered for ::dali::{device.upper()}', file=sys.stderr)
                sys.stderr.flush()
                os.abort()
            real[device].add(name)

ctypes.CDLL = load
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    package = tmp_path / "site" / "nvidia" / "dali"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '1.53.0'")
    (package / "backend.py").write_text(BACKEND)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "NVIDIA_TRITON_SERVER_VERSION": "24.10"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, facts.__file__, *arguments], env=environment, capture_output=True, text=True
        )

    return run


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., str]:
    def plugin(name: str, **content: Any) -> str:
        (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path / name)

    return plugin


def test_what_an_image_is_made_of(tmp_path: Path, run: Run, plugin: Callable[..., str]) -> None:
    first = plugin("libb.so", cpu=["B", "A"], gpu=["A"], say="loading B, with no end of line")
    second = plugin("liba.so", mixed=["Decode"])
    done = run(str(tmp_path), f"{first}:{second}")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["triton"], told["dali"]) == ("24.10", "1.53.0")
    assert told["glibc"] == os.confstr("CS_GNU_LIBC_VERSION").removeprefix("glibc ")  # type: ignore[union-attr]
    assert [int(part) for part in told["glibcxx"].split(".")] >= [3, 4, 22]
    assert [plugin["path"] for plugin in told["plugins"]] == [first, second]
    assert told["plugins"][0]["operators"] == [
        {"name": "A", "devices": ["cpu", "gpu"]},
        {"name": "B", "devices": ["cpu"]},
    ]
    assert told["plugins"][1]["operators"] == [{"name": "Decode", "devices": ["mixed"]}]
    content = Path(first).read_bytes()
    assert told["plugins"][0]["bytes"] == len(content)
    assert told["plugins"][0]["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_folder_without_libraries_has_no_plugins(tmp_path: Path, run: Run) -> None:
    done = run(str(tmp_path))
    assert json.loads(done.stdout)["plugins"] == []


def test_libraries_are_loaded_where_the_server_has_them(tmp_path: Path, run: Run, plugin: Callable[..., str]) -> None:
    plugin("libnot-in-models.so")
    done = run(str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("facts: error: /models/libnot-in-models.so: /models/libnot-in-models.so: cannot open")


def test_the_same_path_twice_is_one_plugin(tmp_path: Path, run: Run, plugin: Callable[..., str]) -> None:
    path = plugin("liba.so", cpu=["A"])
    done = run(str(tmp_path), f"{path}:{path}")
    assert [each["operators"] for each in json.loads(done.stdout)["plugins"]] == [
        [{"name": "A", "devices": ["cpu"]}],
        [{"name": "A", "devices": ["cpu"]}],
    ]


def test_every_plugin_that_does_not_load_has_a_line(tmp_path: Path, run: Run, plugin: Callable[..., str]) -> None:
    bad = plugin("liba.so", fail="libdali.so: version `DALI_2.1.1' not found")
    good, worse = plugin("libb.so", cpu=["B"]), plugin("libc.so", fail="file too short")
    done = run(str(tmp_path), f"{bad}:{good}:{worse}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"facts: error: {bad}: libdali.so: version `DALI_2.1.1' not found",
        f"facts: error: {worse}: file too short",
    ]


def test_two_that_register_one_operator_are_named(tmp_path: Path, run: Run, plugin: Callable[..., str]) -> None:
    one, other = plugin("liba.so", cpu=["X", "Y"]), plugin("libc.so", cpu=["X"])
    between = plugin("libb.so", cpu=["Z"])
    done = run(str(tmp_path), f"{one}:{between}:{other}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [f"facts: error: {one} and {other} both register the operator X"]


def test_a_plugin_that_aborts_alone_is_named(tmp_path: Path, run: Run, plugin: Callable[..., str]) -> None:
    good, bad = plugin("liba.so", cpu=["A"]), plugin("libb.so", cpu=["Resize"])
    done = run(str(tmp_path), f"{good}:{bad}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"facts: error: {bad}: the process that loaded it ended with SIGABRT: what():  "
        'Operator "Resize" already registered for ::dali::CPU'
    ]


def test_each_problem_is_told_once(tmp_path: Path, run: Run, plugin: Callable[..., str]) -> None:
    bad, one, other = plugin("liba.so", fail="too short"), plugin("libb.so", cpu=["X"]), plugin("libc.so", cpu=["X"])
    done = run(str(tmp_path), f"{bad}:{one}:{other}")
    assert done.stderr.splitlines() == [
        f"facts: error: {bad}: too short",
        f"facts: error: {one} and {other} both register the operator X",
    ]


def test_a_dali_that_cannot_be_imported_is_told(tmp_path: Path, run: Run) -> None:
    (tmp_path / "site" / "nvidia" / "dali" / "backend.py").write_text("raise ImportError('libcuda is not there')")
    done = run(str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "facts: error: nvidia.dali: the process that loaded it ended with exit status 1: "
        "ImportError: libcuda is not there"
    ]


@pytest.mark.parametrize("arguments", [(), ("/nowhere",), (".", "a", "b")])
def test_wrong_arguments_are_explained(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert "facts: error: usage:" in done.stderr
