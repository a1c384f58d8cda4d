from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.sources import digest, exactly, files, of_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "plugin"
    (made / "inner").mkdir(parents=True)
    (made / "CMakeLists.txt").write_text("project(x)\n")
    (made / "inner" / "a.cc").write_text("int a;\n")
    return made


def touch(folder: Path) -> None:
    os.utime(folder / "CMakeLists.txt", (0, 0))


def cache(folder: Path) -> None:
    (folder / "inner" / "__pycache__").mkdir()
    (folder / "inner" / "__pycache__" / "a.pyc").touch()


def mode(folder: Path) -> None:
    (folder / "CMakeLists.txt").chmod(0o700)


@pytest.mark.parametrize("change", [touch, cache, mode, lambda folder: (folder / "empty").mkdir()])
def test_what_no_compiler_sees_changes_nothing(folder: Path, change: Callable[[Path], None]) -> None:
    before = digest(folder)
    change(folder)
    assert digest(folder) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "inner" / "a.cc").write_text("int b;\n"),
        lambda folder: (folder / "inner" / "a.cc").rename(folder / "inner" / "b.cc"),
        lambda folder: (folder / "inner" / "a.cc").rename(folder / "a.cc"),
        lambda folder: (folder / "inner" / "a.cc").unlink(),
        lambda folder: (folder / "empty").touch(),
    ],
    ids=["content", "name", "folder", "gone", "new"],
)
def test_another_file_is_another_digest(folder: Path, change: Callable[[Path], None]) -> None:
    before = digest(folder)
    change(folder)
    assert digest(folder) != before


def test_where_the_folder_lies_does_not_count(folder: Path, tmp_path: Path) -> None:
    before = digest(folder)
    (tmp_path / "__pycache__").mkdir()
    assert digest(folder.rename(tmp_path / "__pycache__" / "plugin")) == before


def test_bytes_belong_to_their_file(folder: Path) -> None:
    before = digest(folder)
    (folder / "CMakeLists.txt").write_text("project(x)\nint a;\n")
    (folder / "inner" / "a.cc").write_text("")
    assert digest(folder) != before


def test_a_folder_that_is_not_there_is_as_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert digest(tmp_path / "nowhere") == digest(tmp_path / "empty")


def test_files_are_told_by_their_names_in_the_folder(folder: Path) -> None:
    cache(folder)
    sha256 = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("CMakeLists.txt", "inner/a.cc")
    }
    assert files(folder) == sha256
    assert of_file(folder / "inner" / "a.cc") == sha256["inner/a.cc"]
    assert files(folder / "nowhere") == {}


@pytest.mark.parametrize("change", [touch, cache])
def test_what_no_build_sees_is_exactly_the_same(folder: Path, change: Callable[[Path], None]) -> None:
    before = exactly(folder)
    change(folder)
    assert exactly(folder) == before


@pytest.mark.parametrize(
    "change",
    [
        mode,
        lambda folder: (folder / "empty").mkdir(),
        lambda folder: (folder / "link").symlink_to("inner"),
        lambda folder: (folder / "CMakeLists.txt").write_text("project(y)\n"),
        lambda folder: (folder / "inner").rename(folder / "outer"),
    ],
)
def test_what_a_build_could_see_is_a_difference(folder: Path, change: Callable[[Path], None]) -> None:
    before = exactly(folder)
    change(folder)
    assert exactly(folder) != before


def test_a_socket_is_nothing_that_a_build_gets(folder: Path) -> None:
    before = exactly(folder)
    os.mkfifo(folder / "pipe")
    assert exactly(folder) == before


def test_a_link_is_what_it_points_to_by_name(folder: Path) -> None:
    (folder / "link").symlink_to("a")
    before = exactly(folder)
    (folder / "link").unlink()
    (folder / "link").symlink_to("b")
    assert exactly(folder) != before


def test_where_there_is_no_folder_there_is_nothing(tmp_path: Path) -> None:
    assert exactly(tmp_path / "none") == exactly(tmp_path)
