from __future__ import annotations

import json

import pytest

from builder import record
from builder.docker.owned import Owned, is_just_made, local_name, owned
from builder.project import Project

from . import built

DIGEST = "@sha256:" + "a" * 64
BARE = {"triton-dali-builder.target": "embedded", "org.opencontainers.image.title": "team/mydali"}


@pytest.fixture
def labels(project: Project) -> dict[str, str]:
    return built.labels(project, built.parts_of(project))


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("mydali:embedded", "mydali" + DIGEST),
        ("mydali:embedded_load",),
        ("localhost:5000/mydali:1.0", "localhost:5000/mydali" + DIGEST),
        ("localhost:43601/mydali" + DIGEST,),  # pulled from where it was pushed to
    ],
)
def test_the_names_that_builds_and_pulls_give_are_nobody_else_s(labels: dict[str, str], names: tuple[str, ...]) -> None:
    assert owned(names, labels) == Owned("localhost:5000/mydali", "embedded")


@pytest.mark.parametrize(
    "name",
    [
        "mydali:keep",
        "mydali:embedded-copy",
        "mydali-2:embedded",
        "localhost:5000/mydali-2:1.0",
        "registry.example.com/mydali:1.0",
        "customer/app" + DIGEST,
        "triton-dali-builder/embedded:1.53.0-0123456789ab",
    ],
)
def test_other_names_of_an_image_are_somebody_else_s(labels: dict[str, str], name: str) -> None:
    found = owned(("mydali:embedded", name), labels)
    assert found is not None
    assert found.foreign == (name,)


def test_an_image_with_a_record_that_nobody_knows_is_told_by_its_other_labels() -> None:
    for labels in (BARE, {**BARE, record.LABEL: json.dumps({"builder": "9.0"})}):
        assert owned(("mydali:embedded",), labels) == Owned("team/mydali", "embedded")


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("triton-dali-builder/embedded:1.53.0-0123456789ab", False),
        ("triton-dali-builder/husk:0123456789ab", False),
        ("triton-dali-builder/toolchain:0123456789ab", False),
        ("triton-dali-builder/debian:bookworm", True),
        ("triton-dali-builder/registry:latest", True),
    ],
)
def test_what_every_project_uses_is_known_by_its_name(name: str, tool: bool) -> None:
    with_digest = (name, name.partition(":")[0] + DIGEST)
    assert owned(with_digest, {}) == Owned("", "", tool)
    found = owned((*with_digest, "mine:1"), {})
    assert found is not None
    assert found.foreign == ("mine:1",)


@pytest.mark.parametrize(
    "name",
    [
        "triton-dali-builder/embedded:mine",
        "triton-dali-builder/embedded:1.53.0-0123456789abc",
        "triton-dali-builder/embedded-2:1.53.0-0123456789ab",
        "me/triton-dali-builder/embedded:1.53.0-0123456789ab",
        "triton-dali-builder/other:1",
        "mydali:embedded",
        "debian:bookworm",
    ],
)
def test_a_similar_name_is_not_enough(name: str) -> None:
    assert owned((name,), {"org.opencontainers.image.title": "mydali"}) is None


def test_an_image_without_name_and_label_is_nobody_s() -> None:
    assert owned((), {}) is None


def test_the_local_name_is_the_project_s(project: Project) -> None:
    assert local_name(project.repository, "ngc") == project.local_name("ngc")
    assert local_name("localhost:5000/team/x:1.0", "a") == "x:a"


@pytest.mark.parametrize(
    ("names", "made"),
    [
        (("mydali:embedded_load", "mydali" + DIGEST), True),
        (("mydali:embedded_rebase",), True),
        (("triton-dali-builder/husk:0123456789ab",), True),
        (("triton-dali-builder/debian:bookworm",), True),
        (("localhost:5000/mydali" + DIGEST,), True),
        (("mydali:embedded", "mydali" + DIGEST), False),
        ((), False),
    ],
)
def test_what_a_command_works_on_is_known_by_its_names(names: tuple[str, ...], made: bool) -> None:
    assert is_just_made(names) is made
