from __future__ import annotations

import stat
from pathlib import Path

import pytest

from builder.artifacts import Image, Layer, Parts, Pipeline, Plugin, write_atomically
from builder.errors import NothingBuilt
from builder.project import Project

IMAGE = Image(
    target="embedded",
    reference="mydali:embedded",
    digest="sha256:" + "a" * 64,
    bytes=3,
    layers=(Layer(digest="sha256:" + "b" * 64, bytes=3),),
    seconds=1.5,
)


def test_what_is_saved_is_what_is_loaded(project: Project) -> None:
    parts = Parts(
        target="embedded",
        triton_version="2.51.0",
        dali_version="1.53.0",
        plugins=(Plugin(path="/models/libcustomcopy.so", sha256="c" * 64, bytes=1, gpu=True),),
        pipelines=(Pipeline(model="mydali", version="1", inputs=("DALI_INPUT_0",)),),
    )
    for artifact in (parts, IMAGE):
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
