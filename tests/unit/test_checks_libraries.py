from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from builder import sources
from builder.artifacts import Operator
from builder.catalogue import story
from builder.checks import libraries
from builder.checks.libraries import Runtime
from builder.elf import Demand, Library, Symbol
from builder.findings import Finding, Place
from builder.project import Project, Target

from .records import parts

REAL = min(Path(numpy.__file__).parent.rglob("*.so"), key=lambda path: path.stat().st_size)
PLACE = Place(".builder/t/parts/models/liba.so")
RUNTIME = Runtime("1.53.0", "2.36", "3.4.30")


def library(
    *versions: str,
    machine: str = "x86_64",
    gpu: tuple[tuple[str, ...], ...] = (),
    needed: tuple[str, ...] = (),
    defined: tuple[Symbol, ...] = (),
    undefined: tuple[Symbol, ...] = (),
    name: str = "liba.so",
) -> Library:
    demands = tuple(Demand("libx.so", version, False) for version in versions)
    return Library(name, machine, 64, "", needed, demands, defined, undefined, gpu)


def codes(found: Any) -> list[str]:
    found = list(found)
    for each in found:
        assert each.what
        assert each.remedy
        assert str(each.place)
        assert story(each.code).text
    return [each.code for each in found]


def check(read: Library, runtime: Runtime = RUNTIME, architectures: tuple[str, ...] = ()) -> list[Finding]:
    return list(libraries.check_library(read, PLACE, runtime, architectures, "t"))


@pytest.mark.parametrize(
    ("versions", "found"),
    [
        ([], []),
        (["DALI_1.53.0", "DALI_CORE_1.53.0", "GLIBC_2.36", "GLIBCXX_3.4.30", "CXXABI_1.3.13"], []),
        (["DALI_LIBAVUTIL_60", "GLIBC_PRIVATE", "GCC_3.0"], []),
        (["DALI_1.53.1"], ["library-abi-dali"]),
        (["DALI_1.52.0"], ["library-abi-dali"]),
        (["DALI_CORE_2.1.1"], ["library-abi-dali"]),
        (["GLIBC_2.37"], ["library-abi-glibc"]),
        (["GLIBC_2.4"], []),
        (["GLIBCXX_3.4.32"], ["library-abi-glibcxx"]),
        (["GLIBCXX_3.4.9"], []),
        (
            ["DALI_2.1.1", "GLIBC_2.38", "GLIBCXX_3.4.32"],
            ["library-abi-dali", "library-abi-glibc", "library-abi-glibcxx"],
        ),
    ],
)
def test_the_versions_that_the_image_has(versions: list[str], found: list[str]) -> None:
    assert codes(check(library(*versions))) == found


def test_what_is_not_known_is_not_judged() -> None:
    assert check(library("DALI_2.1.1", "GLIBC_9.9", "GLIBCXX_9.9"), Runtime(None)) == []


def test_a_finding_names_the_target_the_versions_and_who_needs_them() -> None:
    (found,) = check(library("GLIBC_2.38", "GLIBC_2.37", "GLIBC_2.4"))
    assert found.what == "liba.so needs GLIBC_2.38, and the image's C library ends at GLIBC_2.36"
    assert found.detail == ("needs GLIBC_2.37 of libx.so", "needs GLIBC_2.38 of libx.so")
    assert (found.target, found.place) == ("t", PLACE)


def test_another_processor_is_all_that_is_said() -> None:
    assert codes(check(library("DALI_2.1.1", machine="aarch64"))) == ["library-wrong-machine"]
    assert check(library(machine="aarch64"), Runtime("1.53.0", machine="aarch64")) == []


@pytest.mark.parametrize(
    ("gpu", "architectures", "found"),
    [
        ((), ("90",), []),
        ((("sm_80", "sm_90"),), ("80-real", "90-real"), []),
        ((("sm_80",),), (), []),
        ((("sm_80",),), ("native",), []),
        ((("sm_80",),), ("80", "86", "90"), ["library-gpu-architecture-missing"]),
        ((("sm_80", "compute_80"),), ("90",), ["library-gpu-jit"]),
        ((("compute_80",),), ("90-virtual",), []),
        ((("sm_90a",),), ("90a-real",), []),
        ((("sm_80", "sm_90"), ("sm_80",)), ("90",), ["library-gpu-architecture-partial"]),
        ((("sm_80", "sm_90"), ("sm_80",)), ("100",), ["library-gpu-architecture-missing"]),
        ((("sm_80", "compute_80"),), ("75", "90"), ["library-gpu-architecture-missing", "library-gpu-jit"]),
    ],
)
def test_code_for_the_target_s_gpus(
    gpu: tuple[tuple[str, ...], ...], architectures: tuple[str, ...], found: list[str]
) -> None:
    assert codes(check(library(gpu=gpu), architectures=architectures)) == found


def test_the_gpus_are_listed_with_what_there_is() -> None:
    (found,) = check(library(gpu=(("sm_80",), ("sm_75", "sm_80"))), architectures=("70", "90", "100", "120"))
    assert found.what == "liba.so has no code for GPUs of compute capability 7.0, 9.0, 10.0 and 12.0"
    assert found.detail == ("it has sm_75 sm_80", "a source has only sm_75 sm_80", "a source has only sm_80")


DALI = library(name="libdali.so", defined=(Symbol("_ZN4dali3RunEv", "DALI_1.53.0", "", False),))


@pytest.mark.parametrize(
    ("symbol", "needed", "found"),
    [
        (Symbol("_ZN4dali3RunEv", "DALI_1.53.0", "libdali.so", False), (), []),
        (Symbol("_ZN4dali4GoneEv", "DALI_1.53.0", "libdali.so", False), (), ["library-undefined-symbol"]),
        (Symbol("_ZN4dali4GoneEv", "DALI_1.53.0", "libdali.so", True), (), []),
        (Symbol("_ZN4dali3RunEv", "DALI_2.1.1", "libdali.so", False), (), []),  # library-abi-dali says it better
        (Symbol("memcpy", "GLIBC_2.14", "libc.so.6", False), (), []),
        (Symbol("_ZN4dali3RunEv", "", "", False), ("libdali.so", "libc.so.6"), []),
        (Symbol("_ZN4dali4GoneEv", "", "", False), ("libdali.so", "libc.so.6"), ["library-undefined-symbol"]),
        (Symbol("_ZN4dali4GoneEv", "", "", False), ("libdali.so", "libmine.so"), []),
        (Symbol("elsewhere", "", "", False), ("libdali.so",), []),
    ],
)
def test_symbols_that_nothing_has(symbol: Symbol, needed: tuple[str, ...], found: list[str]) -> None:
    read = library(undefined=(symbol,), needed=needed)
    assert codes(libraries.check_undefined(read, [DALI], PLACE, "t")) == found
    for others in ([], [library(name="libother.so")]):  # where DALI itself is not known
        assert codes(libraries.check_undefined(read, others, PLACE, "t")) == []


def operator(name: str, *devices: str) -> Operator:
    return Operator(name=name, devices=devices)


def test_operators_of_two_libraries() -> None:
    known = {
        "/models/liba.so": (operator("X", "cpu", "gpu"), operator("Y", "cpu")),
        "/models/libb.so": (operator("X", "cpu", "gpu"),),
        "/models/libc.so": (operator("Y", "gpu"),),
        "/models/libd.so": (),
        "/models/libe.so": None,
    }
    places = {path: Place("plugin/CMakeLists.txt", line) for line, path in enumerate(known, 1)}
    found = list(libraries.check_operators(known, places, "t"))
    assert codes(found) == ["library-no-operators", "operator-duplicate"]
    assert found[0].what == "libd.so registers no operator"
    assert found[1].what == "liba.so and libb.so both register the operator X for CPU and GPU"
    assert (found[1].place.line, "plugin/CMakeLists.txt:1" in found[1].remedy) == (2, True)


def test_the_version_of_this_python_s_dali_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "nvidia" / "dali"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '1.53.0'\nraise ImportError('was imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    assert libraries.dali_folder("1.53.0") == package
    assert "nvidia" not in sys.modules
    assert libraries.dali_folder("2.1.1") is None
    assert libraries.dali_folder(None) is None


Stage = Callable[[str], None]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Puts a program in the place of the one that loads a library."""

    def put(program: str) -> None:
        (tmp_path / "stage.py").write_text("import os, sys\n" + program)
        monkeypatch.setattr(libraries, "_STAGE", tmp_path / "stage.py")

    return put


def test_a_library_that_loads_tells_its_operators(tmp_path: Path, stage: Stage) -> None:
    file = tmp_path / "liba.so"
    stage(f"print({json.dumps({'operators': {str(file): {'X': ['cpu']}}, 'failed': 0})!r})")
    assert libraries.check_loading(file, PLACE, "t") == ((operator("X", "cpu"),), [])


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("liba.so: undefined symbol: _Z3foov", ["library-undefined-symbol"]),
        ("file too short", ["library-unloadable"]),
        ("cannot allocate memory in static TLS block", ["library-unloadable"]),
        ("libcudart.so.12: cannot open shared object file: No such file or directory", []),
        ("libc.so.6: version `GLIBC_2.38' not found (required by liba.so)", []),
    ],
)
def test_a_library_that_does_not_load(tmp_path: Path, stage: Stage, message: str, found: list[str]) -> None:
    document = json.dumps({"operators": {}, "failed": True})
    stage(f"print('facts: error: ' + sys.argv[-1] + {': ' + message!r}, file=sys.stderr)\nprint({document!r})")
    operators, findings = libraries.check_loading(tmp_path / "liba.so", PLACE, "t")
    assert (operators, codes(findings)) == (None, found)
    if found == ["library-unloadable"]:
        assert findings[0].detail == (message,)


def test_a_dali_that_does_not_work_here_is_no_fault_of_the_library(tmp_path: Path, stage: Stage) -> None:
    stage("import nvidia_dali_that_is_not_there")
    assert libraries.check_loading(tmp_path / "liba.so", PLACE, "t") == (None, [])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("bad day", "library-unloadable", "the process that loaded it ended with SIGABRT: what():  bad day"),
        ('Operator "Resize" already registered for ::dali::CPU', "operator-duplicate", "Resize"),
    ],
)
def test_a_library_that_ends_the_process(tmp_path: Path, stage: Stage, words: str, code: str, said: str) -> None:
    stage(
        f"print('terminate called\\n  what():  ' + {words!r}, 'x', sep='\\n', file=sys.stderr, flush=True)\nos.abort()"
    )
    operators, findings = libraries.check_loading(tmp_path / "liba.so", PLACE, "t")
    assert (operators, codes(findings)) == (None, [code])
    assert said in findings[0].what + findings[0].detail[0]


def test_the_runtime_is_that_of_the_last_build_or_what_is_known_of_the_base(project: Project) -> None:
    target = Target(triton_image="embedded")
    assert libraries.runtime_of(target, None) == Runtime("1.53.0", "2.36", "3.4.30")
    assert libraries.runtime_of(Target(triton_image="a/tritonserver:26.06-py3"), None) == Runtime("2.1.1")
    assert libraries.runtime_of(target, parts()) == Runtime("1.53.0", "2.36", "3.4.30")
    newer = Target(triton_image="a/b:c", dali="2.1.1", platform="linux/arm64")
    assert libraries.runtime_of(newer, None) == Runtime("2.1.1", machine="aarch64")


def test_files_are_those_of_the_models_and_of_a_build_that_still_counts(project: Project) -> None:
    built = project.state / "embedded" / "parts" / "models"
    for folder in (built, project.repository_folder, project.plugin_folder):
        folder.mkdir(parents=True)
    (built / "libbuilt.so").touch()
    (built / "libgiven.so").touch()
    (project.repository_folder / "libgiven.so").touch()
    record = parts(plugin_sources=sources.digest(project.plugin_folder))
    assert libraries.files(project, "embedded", record) == {
        "/models/libbuilt.so": built / "libbuilt.so",
        "/models/libgiven.so": project.repository_folder / "libgiven.so",
    }
    assert list(libraries.files(project, "embedded", None)) == ["/models/libgiven.so"]


def test_a_whole_project(project: Project) -> None:
    project.repository_folder.mkdir()
    project.plugin_folder.mkdir()
    (project.plugin_folder / "CMakeLists.txt").write_text(
        "add_dali_plugin(a SOURCES a.cc)\nadd_dali_plugin(b SOURCES a.cc)\n"
    )
    (project.plugin_folder / "a.cc").write_text("DALI_REGISTER_OPERATOR(A, A, dali::CPU);")
    (project.repository_folder / "libtext.so").write_text("not a library")
    shutil.copy(REAL, project.repository_folder / "libreal.so")
    targets = {name: project.targets[name] for name in ("embedded", "ngc")}
    found = list(libraries.check(project, targets, {}))
    assert sorted((each.code, str(each.place), each.target) for each in found) == [
        ("library-not-elf", "model_repository/libtext.so", "embedded"),
        ("library-not-elf", "model_repository/libtext.so", "ngc"),
        ("operator-duplicate", "plugin/CMakeLists.txt:2", "embedded"),
        ("operator-duplicate", "plugin/CMakeLists.txt:2", "ngc"),
    ]
    only_a = project.model_copy(update={"plugins": ("a",)})
    assert {each.code for each in libraries.check(only_a, targets, {})} == {"library-not-elf"}
