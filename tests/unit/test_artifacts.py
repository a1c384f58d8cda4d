from __future__ import annotations

import stat
from pathlib import Path

import pytest

from builder import sources
from builder.artifacts import Image, Layer, Parts, Verification, write_atomically
from builder.errors import NothingBuilt
from builder.project import Project, Target

from .records import image, parts, plugin, pushed, verification

DIGEST = "sha256:" + "a" * 64
IMAGE = image(DIGEST, layers=(Layer(digest="sha256:" + "b" * 64, bytes=3),))


def test_what_is_saved_is_what_is_loaded(project: Project) -> None:
    for artifact in (
        parts(plugin(), plugin("/models/libother.so"), plugin_sources="c" * 64),
        IMAGE,
        verification(DIGEST),
        pushed(f"localhost:5000/mydali@{DIGEST}"),
    ):
        artifact.save(project)
        assert type(artifact).load(project, "embedded") == artifact


@pytest.mark.parametrize("content", [None, b"", b"{", b"{}", b"\xff", b'{"target": "embedded", "digest": 3}'])
def test_without_a_readable_record_the_command_that_makes_it_is_named(project: Project, content: bytes | None) -> None:
    if content is not None:
        IMAGE.save(project)
        (project.state / "embedded/image.json").write_bytes(content)
    with pytest.raises(NothingBuilt) as failure:
        Image.load(project, "embedded")
    assert "builder build --target embedded" in failure.value.remedy
    assert Image.find(project, "embedded") is None


def test_a_record_belongs_to_its_target(project: Project) -> None:
    IMAGE.save(project)
    assert Image.find(project, "ngc") is None


def test_a_discarded_record_is_gone_and_may_be_discarded_again(project: Project) -> None:
    IMAGE.save(project)
    for _ in range(2):
        Image.discard(project, "embedded")
    assert Image.find(project, "embedded") is None


def test_a_verification_is_found_by_its_digest_until_it_is_forgotten(project: Project) -> None:
    assert Verification.of_digest(project, DIGEST) is None
    told = verification(DIGEST).keep(project)
    assert Verification.of_digest(project, DIGEST) == told
    assert Verification.of_digest(project, "sha256:" + "b" * 64) is None
    assert Verification.find(project, "embedded") is None
    for _ in range(2):
        Verification.forget(project, DIGEST)
    assert Verification.of_digest(project, DIGEST) is None


def test_a_verification_that_cannot_be_read_is_none(project: Project) -> None:
    verification(DIGEST).keep(project)
    [path] = (project.state / "verified").iterdir()
    path.write_text("{}")
    assert Verification.of_digest(project, DIGEST) is None


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new" * 100_000 + "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_written_for_all_to_read_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "record.json"
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_parts_are_current_until_their_sources_or_their_target_change(project: Project) -> None:
    project.plugin_folder.mkdir()
    source = project.plugin_folder / "CMakeLists.txt"
    source.write_text("project(x)\n")
    parts(plugin(), plugin_sources=sources.digest(project.plugin_folder)).save(project)
    assert Parts.current(project, "embedded") == Parts.load(project, "embedded")
    assert Parts.current(project, "ngc") is None
    other = project.model_copy(update={"targets": {"embedded": Target(cuda="OFF")}})
    assert Parts.current(other, "embedded") is None
    source.write_text("project(y)\n")
    assert Parts.current(project, "embedded") is None
