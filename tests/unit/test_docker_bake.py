from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from builder.docker import bake as module
from builder.docker.bake import bake, compiler_messages, document, failure
from builder.docker.builders import Builder
from builder.docker.progress import BuildProgress
from builder.docker.secrets import PIP_VARIABLE, PROXIES, NetworkSecrets
from builder.errors import (
    BuilderError,
    BuildError,
    CompileError,
    DiskFull,
    DownloadError,
    LockOutdated,
    NoBase,
    NoEngine,
    SerializeError,
)
from builder.process import Completed
from builder.views.live import Lines

EXIT_1 = 'process "/bin/sh -c set -e" did not complete successfully: exit code: 1'
COMPILE, SERIALIZE, WHEELS = "[plugins 3/3] RUN <<EOF", "[embedded models 5/6] RUN <<EOF", "[toolchain 4/4] RUN pip"
FROM = "[embedded 1/5] FROM docker.io/library/debian:12-slim@sha256:" + "a" * 64
PULL = "failed to copy: httpReadSeeker: failed open: unexpected status code 403 Forbidden"

GCC = """\
[1/4] Building CXX object CMakeFiles/customcopy.dir/other.cc.o
/src/plugin/other.cc:2:7: warning: unused variable 'x' [-Wunused-variable]
    2 |   int x;
      |       ^
[2/4] Building CXX object CMakeFiles/customcopy.dir/custom_copy.cc.o
FAILED: CMakeFiles/customcopy.dir/custom_copy.cc.o
/usr/bin/c++ -Dcustomcopy_EXPORTS -Werror -fPIC -o custom_copy.cc.o -c /src/plugin/custom_copy.cc
/src/plugin/custom_copy.cc: In function 'int g()':
/src/plugin/custom_copy.cc:7:5: error: 'class std::vector<int>' has no member named 'push_bak'
    7 |   v.push_bak(3);
      |     ^~~~~~~~
      |     push_back
/src/plugin/custom_copy.h:1:10: fatal error: nope.h: No such file or directory
    1 | #include "nope.h"
      |          ^~~~~~~~
compilation terminated.
ninja: build stopped: subcommand failed.
"""
GCC_MESSAGES = """\
plugin/custom_copy.cc:7:5: error: 'class std::vector<int>' has no member named 'push_bak'
    7 |   v.push_bak(3);
      |     ^~~~~~~~
      |     push_back
plugin/custom_copy.h:1:10: fatal error: nope.h: No such file or directory
    1 | #include "nope.h"
      |          ^~~~~~~~
compilation terminated.
"""
NVCC = """\
[3/4] Building CUDA object CMakeFiles/customcopy.dir/custom_copy.cu.o
FAILED: CMakeFiles/customcopy.dir/custom_copy.cu.o
/opt/toolchain/nvidia/cu13/bin/nvcc -forward-unknown-to-host-compiler -x cu -c /src/plugin/custom_copy.cu
/src/plugin/custom_copy.cu(1): error: identifier "q" is undefined
  template<class T> __global__ void k(T* p) { p[0] = q; }
                                                     ^
ninja: build stopped: subcommand failed.
"""
NVCC_MESSAGES = """\
plugin/custom_copy.cu(1): error: identifier "q" is undefined
  template<class T> __global__ void k(T* p) { p[0] = q; }
                                                     ^
"""
LINKER = """\
[4/4] Linking CXX shared library libcustomcopy.so
FAILED: libcustomcopy.so
: && /usr/bin/c++ -fPIC -shared -o libcustomcopy.so custom_copy.cc.o && :
/usr/bin/ld: custom_copy.cc.o: in function `g()':
custom_copy.cc:(.text+0x5): undefined reference to `k()'
collect2: error: ld returned 1 exit status
ninja: build stopped: subcommand failed.
"""
LINKER_MESSAGES = """\
custom_copy.cc:(.text+0x5): undefined reference to `k()'
collect2: error: ld returned 1 exit status
"""
CMAKE = """\
-- The CXX compiler identification is GNU 12.2.0
CMake Error at CMakeLists.txt:48 (message):
  /usr/bin/python3 cannot import nvidia.dali:
  Traceback (most recent call last):
    File "<string>", line 1, in <module>
  ModuleNotFoundError: No module named 'nvidia'
  Set Python3_EXECUTABLE to a Python that can, or PYTHONPATH to the folder that holds nvidia/dali.
-- Configuring incomplete, errors occurred!
"""
CMAKE_MESSAGES = "".join(CMAKE.splitlines(keepends=True)[1:-1])


@pytest.mark.parametrize(
    ("log", "messages"),
    [(GCC, GCC_MESSAGES), (NVCC, NVCC_MESSAGES), (LINKER, LINKER_MESSAGES), (CMAKE, CMAKE_MESSAGES)],
    ids=["g++", "nvcc", "ld", "cmake"],
)
def test_a_compiler_s_errors_are_picked_out_of_the_log_with_their_places(log: str, messages: str) -> None:
    assert compiler_messages(log.splitlines()) == messages.splitlines()


def test_a_log_without_a_known_message_is_shown_as_it_is() -> None:
    assert compiler_messages(["Killed"]) == ["Killed"]


def test_a_flood_of_errors_is_cut() -> None:
    assert len(compiler_messages([f"a.cc:{line}:1: error: x" for line in range(500)])) == 40


def broken(console: Console, name: str, error: str, log: str = "") -> BuildProgress:
    progress = BuildProgress(Lines(console))
    vertex = {"digest": "sha256:1", "name": name, "started": "2026-01-02T03:04:05.1Z", "error": error}
    data = base64.b64encode(log.encode()).decode()
    progress.feed(json.dumps({"vertexes": [vertex], "logs": [{"vertex": "sha256:1", "data": data}]}))
    progress.feed(f"ERROR: failed to solve: {error}")
    return progress


@pytest.mark.parametrize(
    ("name", "error", "log", "expected", "detail"),
    [
        (COMPILE, EXIT_1, GCC, CompileError, "plugin/custom_copy.cc:7:5: error:"),
        (COMPILE, EXIT_1, CMAKE, CompileError, "CMake Error at CMakeLists.txt:48"),
        (
            SERIALIZE,
            EXIT_1,
            "serialize: error: /models/m/1/dali.py:7: NameError: x\n",
            SerializeError,
            "model_repository/m/1/",
        ),
        (SERIALIZE, EXIT_1, "facts: error: /models/liba.so: undefined symbol: x\n", BuildError, "undefined symbol"),
        (WHEELS, EXIT_1, "ERROR: No matching distribution found for cmake==3.25\n", DownloadError, "cmake==3.25"),
        (WHEELS, EXIT_1, "Could not fetch URL https://i.example/: SSLError\n", DownloadError, "SSLError"),
        (WHEELS, EXIT_1, "E: Failed to fetch http://d.example/x.deb\n", DownloadError, "x.deb"),
        (
            WHEELS,
            EXIT_1,
            "lock: error: libc6=2.36-9+deb12u11\n",
            LockOutdated,
            "libc6=2.36-9+deb12u11",
        ),
        (WHEELS, EXIT_1, "Temporary failure resolving 'd.example'\n", DownloadError, "d.example"),
        (
            WHEELS,
            EXIT_1,
            "ERROR: Could not install packages due to an OSError: HTTPSConnectionPool(host='i.example', port=443): "
            "Max retries exceeded with url: /x.whl\n",
            DownloadError,
            "Max retries",
        ),
        (COMPILE, EXIT_1, "fatal error: error writing to /tmp/x.s: No space left on device\n", DiskFull, ""),
        (WHEELS, "write /var/lib/docker/x: no space left on device", "", DiskFull, "no space left"),
        ("exporting to image", "failed to write: no space left on device", "", DiskFull, "no space left"),
        ("[internal] load metadata for nvcr.io/nvidia/tritonserver:1", "403 Forbidden", "", NoBase, "403 Forbidden"),
        ("[ngc internal] load metadata for nvcr.io/x/y:1", "no such host", "", NoBase, "no such host"),
        (FROM, PULL, "", NoBase, "403 Forbidden"),
        ("exporting to image", "failed to push: unexpected status", "", BuildError, "unexpected status"),
        ("[toolchain 2/4] RUN true", EXIT_1, "something\nhappened", BuildError, "happened"),
        ("[toolchain 2/4] COPY nothing /", '"/nothing": not found', "", BuildError, '"/nothing": not found'),
    ],
)
def test_a_broken_step_is_told_by_what_went_wrong(
    console: Console, name: str, error: str, log: str, expected: type[BuilderError], detail: str
) -> None:
    raised = failure(broken(console, name, error, log))
    assert type(raised) is expected
    assert raised.remedy
    assert any(detail in line for line in raised.detail)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("ERROR: Cannot connect to the Docker daemon at unix:///x.sock. Is the docker daemon running?", NoEngine),
        (
            "ERROR: failed to receive status: rpc error: code = Unavailable desc = error reading from server: EOF",
            NoEngine,
        ),
        ("ERROR: failed to solve: Unavailable: error reading from server: EOF", NoEngine),
        ("ERROR: failed to prepare x: no space left on device", DiskFull),
        ("ERROR: failed to parse image.bake.json", BuildError),
    ],
)
def test_a_build_without_a_broken_step_is_told_by_buildx_s_message(
    console: Console, message: str, expected: type[BuilderError]
) -> None:
    progress = BuildProgress(Lines(console))
    progress.feed(message)
    raised = failure(progress)
    assert isinstance(raised, expected)
    assert raised.detail


class Buildx:
    """In place of `builder.process.run`: notes what it is asked, and leaves metadata."""

    def __init__(self, returncode: int = 0) -> None:
        self.returncode = returncode
        self.environment: Mapping[str, str] = {}
        self.command: Sequence[str] = ()

    def __call__(self, command: Sequence[str], *, env: Mapping[str, str], **_: object) -> Completed:
        self.command, self.environment = command, env
        if not self.returncode:
            Path(command[command.index("--metadata-file") + 1]).write_text('{"embedded": {"x": 1}}')
        return Completed("docker", self.returncode, "", ())


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, console: Console) -> dict[str, Any]:
    """Of a build on a machine without proxies."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    return {"context": tmp_path, "definition": tmp_path / "parts.bake.json", "view": Lines(console)}


def test_a_build_returns_buildx_s_metadata(monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]) -> None:
    monkeypatch.setattr(module, "run", Buildx())
    assert bake({"embedded": {"target": "runtime"}}, **arguments) == {"embedded": {"x": 1}}


def test_a_failed_build_raises(monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]) -> None:
    monkeypatch.setattr(module, "run", Buildx(returncode=1))
    with pytest.raises(BuildError):
        bake({"embedded": {}}, **arguments)


def test_the_definition_names_proxies_and_holds_no_password(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
) -> None:
    monkeypatch.setattr(module, "run", Buildx())
    monkeypatch.setenv("HTTPS_PROXY", "http://user:hunter2@proxy.example.com")
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:hunter2@index.example.com/simple")
    bake({"embedded": {"args": {"A": "1"}}}, **arguments)
    text = arguments["definition"].read_text()
    definition = json.loads(text)
    assert "hunter2" not in text
    assert definition["variable"] == {"HTTPS_PROXY": {"default": ""}}
    assert definition["target"]["embedded"]["args"] == {"A": "1", "HTTPS_PROXY": "${HTTPS_PROXY}"}


def test_without_proxies_a_definition_has_no_variables(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
) -> None:
    monkeypatch.setattr(module, "run", Buildx())
    bake({"embedded": {}}, **arguments)
    definition = json.loads(arguments["definition"].read_text())
    assert ("variable" in definition, definition["target"]["embedded"]["args"]) == (False, {})


def test_options_of_a_build_reach_buildx(monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]) -> None:
    monkeypatch.setattr(module, "run", buildx := Buildx())
    monkeypatch.setattr(module, "engine_builder", lambda: "the-engine-s")
    bake({"embedded": {}}, **arguments, no_cache=True)
    assert {"--builder=the-engine-s", "--no-cache", "--progress=rawjson"} <= set(buildx.command)


def test_what_was_made_anew_is_what_later_builds_of_the_project_take(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
) -> None:
    def told(**more: Any) -> str | None:
        bake({"embedded": {"args": {"A": "b"}}}, **arguments, **more)
        found = json.loads(arguments["definition"].read_text())["target"]["embedded"]["args"]
        assert found["A"] == "b"
        token: str | None = found.get("FRESH")
        return token

    monkeypatch.setattr(module, "run", Buildx())
    assert told() is None
    first = told(no_cache=True)
    assert first
    assert told() == first
    second = told(no_cache=True)
    assert second not in (None, first)
    assert told() == second


def test_an_index_has_no_attestations(monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]) -> None:
    monkeypatch.setattr(module, "run", Buildx())
    bake({"embedded": {}}, **arguments)
    target = json.loads(arguments["definition"].read_text())["target"]["embedded"]
    assert sorted(target["attest"]) == ["type=provenance,disabled=true", "type=sbom,disabled=true"]


def test_a_package_index_reaches_buildx_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
) -> None:
    monkeypatch.setattr(module, "run", buildx := Buildx())
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example.com/simple")
    bake({"embedded": {}}, **arguments)
    assert "https://index.example.com/simple" in buildx.environment[PIP_VARIABLE]


NOTHING = NetworkSecrets()


@pytest.mark.parametrize("text", ["echo ${A} $B", "%{if} 100%", "$${C}", 'CMD ["a"]\n', "${a}%{b}${c}"])
def test_a_dockerfile_and_labels_are_no_templates(text: str) -> None:
    """`$${` and `%%{` are how bake's language writes `${` and `%{` themselves."""
    target = {"dockerfile-inline": text, "labels": {"x": text}, "args": {"A": "1"}, "target": "runtime"}
    made = document({"embedded": target}, NOTHING)["target"]["embedded"]
    for written in (made["dockerfile-inline"], made["labels"]["x"]):
        assert re.sub(r"\$\$\{", "${", re.sub(r"%%\{", "%{", written)) == text
        assert not re.search(r"(?<!\$)\$\{|(?<!%)%\{", written)
    assert (made["args"], made["target"]) == ({"A": "1"}, "runtime")


def test_a_target_without_a_dockerfile_of_its_own_gets_none() -> None:
    made = document({"embedded": {"target": "runtime"}}, NOTHING)["target"]["embedded"]
    assert not {"dockerfile-inline", "labels"} & set(made)


def test_all_targets_are_the_default_group() -> None:
    assert document({"a": {}, "b": {}}, NOTHING)["group"] == {"default": {"targets": ["a", "b"]}}


def test_another_builder_is_named_and_told_what_it_cannot_see(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
) -> None:
    monkeypatch.setattr(module, "run", buildx := Buildx())
    builder = Builder("ci", "remote").given({"embedded": {"debian": "oci-layout://x"}})
    bake({"embedded": {"contexts": {"debian": "docker-image://debian", "lock": "/l"}}}, **arguments, builder=builder)
    target = json.loads(arguments["definition"].read_text())["target"]["embedded"]
    assert target["contexts"] == {"debian": "oci-layout://x", "lock": "/l"}
    assert "--builder=ci" in buildx.command
