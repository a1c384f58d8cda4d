"""The stage, with a CMake that goes by times as Ninja does, and tells what it compiled."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.stages import compile as stage

CMAKE = """#!{python}
import pathlib, shutil, sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
log = pathlib.Path({log!r})
say = lambda text: log.write_text(log.read_text() + text + "\\n")
if "-S" in words:
    say("configured")
    (pathlib.Path(words["-B"]) / "source").write_text(words["-S"])
elif "--build" in words:
    build = pathlib.Path(words["--build"])
    for source in sorted(pathlib.Path((build / "source").read_text()).glob("*.cc")):
        made = build / (source.name + ".o")
        if not made.exists() or made.stat().st_mtime_ns < source.stat().st_mtime_ns:
            say("compiled " + source.name)
            if "error" in source.read_text():
                sys.exit(7)
            made.write_text(source.read_text())
else:
    build = pathlib.Path(words["--install"])
    prefix = pathlib.Path(sys.argv[sys.argv.index("--prefix") + 1])
    (prefix / "libx.so").write_text("".join(each.read_text() for each in sorted(build.glob("*.o"))))
"""


class Kept:
    """The folder that outlives a build, and the builds."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.source, self.kept, self.prefix = (folder / name for name in ("plugin", "kept", "prefix"))
        for each in (self.source, self.kept, self.prefix, folder / "bin"):
            each.mkdir()
        self.log = folder / "log"
        program = folder / "bin" / "cmake"
        program.write_text(CMAKE.format(python=sys.executable, log=str(self.log)))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)
        monkeypatch.setattr(stage, "TOOLCHAIN", (folder / "toolchain",))
        self.write("CMakeLists.txt", "add")
        self.write("a.cc", "a")
        self.write("b.cc", "b")

    def write(self, name: str, text: str, age: float = 0) -> None:
        (self.source / name).write_text(text)
        when = (self.source / name).stat().st_mtime - age
        os.utime(self.source / name, (when, when))

    def build(self, *options: str, status: int = 0) -> list[str]:
        """What was done for it."""
        self.log.write_text("")
        assert stage.main([str(self.source), str(self.kept), str(self.prefix), *options]) == status
        return self.log.read_text().splitlines()

    @property
    def library(self) -> str:
        return (self.prefix / "libx.so").read_text()


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    return Kept(tmp_path, monkeypatch)


ALL = ["configured", "compiled a.cc", "compiled b.cc"]


def test_only_what_changed_is_compiled_again(kept: Kept) -> None:
    assert kept.build() == ALL
    assert kept.build() == []
    kept.write("a.cc", "c")
    assert kept.build() == ["compiled a.cc"]
    assert kept.library == "cb"


def test_a_source_that_is_older_than_what_was_compiled_of_its_successor_counts_by_its_content(kept: Kept) -> None:
    kept.build()
    kept.write("a.cc", "new")
    kept.build()
    kept.write("a.cc", "a", age=3600)  # as version control gives it back
    assert kept.build() == ["compiled a.cc"]
    assert kept.library == "ab"


def test_a_time_alone_is_no_change(kept: Kept) -> None:
    kept.build()
    os.utime(kept.source / "a.cc")
    assert kept.build() == []


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept.write("CMakeLists.txt", "other"),
        lambda kept: kept.write("table.csv", "1,2"),
        lambda kept: kept.write("c.cc", "c"),
        lambda kept: (kept.source / "b.cc").unlink(),
        lambda kept: (kept.source.parent / "toolchain").write_text("another"),
        lambda _: os.environ.__setitem__("CXXFLAGS", "-O0"),
    ],
    ids=["cmake", "data", "more", "less", "toolchain", "flags"],
)
def test_what_could_mean_anything_begins_from_nothing(
    kept: Kept, change: Callable[[Kept], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXXFLAGS", "")
    kept.build()
    change(kept)
    assert kept.build()[:2] == ["configured", "compiled a.cc"]


def test_what_was_built_before_a_change_is_there_when_it_is_taken_back(kept: Kept) -> None:
    kept.build("-DX=1")
    assert kept.build("-DX=2") == ALL
    assert kept.build("-DX=1") == []
    assert kept.build("-DX=2") == []


def test_the_folder_has_one_name_whatever_is_built_in_it(kept: Kept) -> None:
    for option in ("-DX=1", "-DX=2"):
        kept.build(option)
        assert (kept.kept / "build" / "a.cc.o").exists()


def test_a_failure_is_told_and_is_tried_again(kept: Kept) -> None:
    kept.write("b.cc", "error")
    assert kept.build(status=7) == ALL
    assert kept.build(status=7) == ["compiled b.cc"]
    kept.write("b.cc", "b")
    assert kept.build() == ["compiled b.cc"]
    assert kept.library == "ab"


def test_what_was_cut_off_after_the_times_were_set_is_compiled(kept: Kept) -> None:
    kept.build()
    kept.write("a.cc", "c")
    stage.set_times(kept.source, kept.kept / "build" / "sources.json")
    assert kept.build() == ["compiled a.cc"]


def test_a_folder_that_was_cut_off_before_it_had_a_name_is_not_taken(kept: Kept) -> None:
    kept.build()
    (kept.kept / "build" / "key").unlink()
    assert kept.build() == ALL


def test_on_request_all_is_made_anew_once(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.build()
    monkeypatch.setenv("FRESH", "one")
    assert kept.build() == ALL
    kept.write("a.cc", "c")
    assert kept.build() == ["compiled a.cc"]  # of those that were made anew
    monkeypatch.setenv("FRESH", "two")
    assert kept.build() == ALL


def test_a_request_counts_for_each_folder(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.build("-DX=1")
    kept.build("-DX=2")
    monkeypatch.setenv("FRESH", "one")
    assert kept.build("-DX=2") == ALL
    assert kept.build("-DX=1") == ALL
    assert kept.build("-DX=2") == []


@pytest.mark.parametrize("target", ["z1.h", "v1"])
def test_what_a_link_points_to_begins_from_nothing(kept: Kept, target: str) -> None:
    for name in ("v1", "v2"):
        (kept.source / name).mkdir()
    for name in ("z1.h", "z2.h"):
        kept.write(name, name)
    link = kept.source / "link.h"
    link.symlink_to(target)
    kept.build()
    link.unlink()
    link.symlink_to(target.replace("1", "2"))
    assert kept.build() == ALL


@pytest.mark.parametrize(
    "command",
    ["file(STRINGS a.cc x)", "FILE ( READ a.cc x )", "execute_process(COMMAND x)", "add_custom_command(OUTPUT x)"],
)
def test_where_cmake_may_read_a_source_each_could_mean_anything(kept: Kept, command: str) -> None:
    kept.write("CMakeLists.txt", command)
    kept.build()
    kept.write("b.cc", "d")
    assert kept.build() == ALL


def test_a_variable_that_a_compiler_may_go_by_begins_from_nothing(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.build()
    for name in ("HTTP_PROXY", "https_proxy", "HOSTNAME"):
        monkeypatch.setenv(name, "x")
    assert kept.build() == []
    monkeypatch.setenv("CPLUS_INCLUDE_PATH", "/x")
    assert kept.build() == ALL


@pytest.mark.parametrize("left", ["", "{"])
def test_a_record_that_was_cut_off_costs_a_compilation(kept: Kept, left: str) -> None:
    kept.build()
    (kept.kept / "build" / "sources.json").write_text(left)
    assert kept.build() == ["compiled a.cc", "compiled b.cc"]


def test_a_clock_that_was_set_back_hides_no_change(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.build()
    monkeypatch.setattr(stage.time, "time_ns", lambda: 1_000_000_000)
    kept.write("a.cc", "c")
    before = {name: when for name, (_, when) in json.loads((kept.kept / "build/sources.json").read_text()).items()}
    stage.set_times(kept.source, kept.kept / "build" / "sources.json")
    after = {name: when for name, (_, when) in json.loads((kept.kept / "build/sources.json").read_text()).items()}
    assert after["a.cc"] > max(before.values())
    assert after["b.cc"] == before["b.cc"]


def test_no_more_folders_are_kept_than_are_of_use(kept: Kept) -> None:
    for number in range(12):
        kept.build(f"-DX={number}")
    assert len(list((kept.kept / "others").iterdir())) == 8
    assert kept.build("-DX=10") == []
