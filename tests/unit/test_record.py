from __future__ import annotations

import json
from typing import Any

import pytest

from builder import __version__, lock, package, record, sources
from builder.errors import NoRecord
from builder.lock import LockedImage
from builder.project import Project, Target
from builder.recipe import Base, Bases
from builder.record import LABEL, Record
from builder.reference import Digest
from builder.revision import Revision

from .records import parts, plugin

DEBIAN = Base("debian:12", Digest("sha256:" + "a" * 64))
TRITON = Base("nvcr.io/x/y:1", Digest("sha256:" + "b" * 64))
BASES = Bases(debian=DEBIAN)
HERE = Revision("c" * 40, 1_700_000_000, "https://user:secret@example.com/team/x.git")


def changed(project: Project, **values: Any) -> Project:
    return Project.model_validate({**dict(project), **values})


@pytest.fixture
def whole(project: Project) -> Project:
    """With a plugin, a model, and settings."""
    for folder in (project.plugin_folder, project.repository_folder):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    return changed(project, plugins=["customcopy"], server_args=["--log-verbose=1"], source="https://example.com/x")


def test_a_record_tells_all_that_the_image_was_made_from(whole: Project) -> None:
    told = Record.of(whole, parts(plugin()), BASES, HERE)
    assert (told.builder, told.target, told.built_as) == (__version__, "embedded", Target())
    assert (told.repository, told.plugins) == ("localhost:5000/mydali", ("customcopy",))
    assert (told.server_args, told.source) == (("--log-verbose=1",), "https://example.com/x")
    assert (told.commit, told.epoch) == ("c" * 40, 1_700_000_000)
    assert told.sources == {
        "plugin": sources.digest(whole.plugin_folder),
        "model_repository": sources.digest(whole.repository_folder),
    }
    assert told.lock.debian == parts().packages
    assert told.lock.wheels == lock.wheels(Target())
    assert record.bases(told.lock) == BASES


def test_no_password_is_in_a_record(whole: Project) -> None:
    told = Record.of(whole, parts(plugin()), BASES, HERE)
    assert told.remote == "https://example.com/team/x.git"
    assert "secret" not in told.label


def test_a_label_is_read_back_and_is_the_same_each_time(whole: Project) -> None:
    told = Record.of(whole, parts(plugin()), BASES, HERE)
    assert told.label == Record.of(whole, parts(plugin()), BASES, HERE).label
    assert Record.read({LABEL: told.label}, "x") == told
    assert "\n" not in told.label


def test_what_later_versions_add_is_read_over(whole: Project) -> None:
    told = Record.of(whole, parts(plugin()), BASES, HERE)
    newer = json.dumps({**json.loads(told.label), "more": 1})
    assert Record.read({LABEL: newer}, "x") == told


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ({}, "does not tell what it was made from"),
        ({LABEL: ""}, "record is not known"),
        ({LABEL: "{"}, "record is not known"),
        ({LABEL: "{}"}, "record is not known"),
        ({LABEL: "[]"}, "record is not known"),
    ],
)
def test_an_image_without_a_record_is_told(labels: dict[str, str], what: str) -> None:
    with pytest.raises(NoRecord, match=what) as failure:
        Record.read(labels, "mydali:embedded")
    assert failure.value.where == "mydali:embedded"


def test_the_labels_are_the_recipe_s_and_the_record(whole: Project) -> None:
    labels = record.labels(whole, parts(plugin()), BASES, HERE)
    assert Record.read(labels, "x") == Record.of(whole, parts(plugin()), BASES, HERE)
    assert labels["org.opencontainers.image.revision"] == "c" * 40
    assert labels["triton-dali-builder.target"] == "embedded"


def test_another_source_is_another_record(whole: Project) -> None:
    before = Record.of(whole, parts(plugin()), BASES, HERE)
    for folder in (whole.plugin_folder, whole.repository_folder):
        (folder / "file").write_text("other")
        after = Record.of(whole, parts(plugin()), BASES, HERE)
        assert after.label != before.label
        assert {name for name in after.sources if after.sources[name] != before.sources[name]} == {folder.name}
        before = after


def test_sources_that_are_not_there_are_not_told(project: Project) -> None:
    assert record.digests(project) == {}
    project.repository_folder.mkdir()
    assert set(record.digests(project)) == {"model_repository"}


def test_a_project_s_own_dockerfile_is_one_of_its_sources(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.root / "Dockerfile").write_text("FROM mine\n")
    assert record.digests(project) == {"Dockerfile": sources.of_file(project.root / "Dockerfile")}
    # The program's own is told by the program's version.
    monkeypatch.setattr(package, "ROOT", project.root)
    assert record.digests(project) == {}


@pytest.mark.parametrize("bases", [BASES, Bases(TRITON), Bases(TRITON, DEBIAN)])
def test_bases_are_locked_and_found_again(project: Project, bases: Bases) -> None:
    locked = record.locked(project, "embedded", bases, {"libc6": "1"})
    assert record.bases(locked) == bases
    assert locked.debian == {"libc6": "1"}


def test_a_base_without_a_digest_cannot_be_locked(project: Project) -> None:
    locked = record.locked(project, "embedded", Bases(Base("x:1", None), DEBIAN), {})
    assert (locked.triton_image, locked.debian_image) == (
        None,
        LockedImage(name="debian:12", digest=str(DEBIAN.digest)),
    )


def test_the_settings_are_those_of_the_project_s_file(whole: Project) -> None:
    told = record.settings(Record.of(whole, parts(plugin()), BASES, HERE))
    assert set(told) == {"repository", "plugins", "server_args", "source", "built_as"}
    assert told["built_as"]["triton_image"] == "embedded"
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize(
    "hostile",
    [{"commit": "--remote=."}, {"commit": "HEAD"}, {"sources": {"../x": "1"}}, {"sources": {"--exec=touch x": "1"}}],
)
def test_a_label_cannot_name_what_no_build_does(whole: Project, hostile: dict[str, Any]) -> None:
    """What is in a label comes from whoever made the image, and goes to git and to the file system."""
    told = json.loads(Record.of(whole, parts(plugin()), BASES, HERE).label)
    with pytest.raises(NoRecord):
        Record.read({LABEL: json.dumps({**told, **hostile})}, "x")
