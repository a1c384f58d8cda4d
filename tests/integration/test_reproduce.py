"""The same input gives the same digest: with no cache, in another folder, from nothing but the image's own record."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from builder.docker.engine import Engine

from .conftest import Project

BASE = "under-test-reproduced-base:1"
"""The embedded base under a name of its own: a base that is not made again."""


@pytest.fixture(scope="module")
def second(shipped: Project) -> dict[str, Any]:
    """The image of the second target."""
    document = shipped.builder("build", "--target=embedded-dali2", "--json").ok().document
    return dict(document["images"][0])


def test_the_first_target_comes_out_identical(shipped: Project, image: dict[str, Any], registry: str) -> None:
    done = shipped.builder("reproduce", image["reference"], "--json").ok()
    same = {"identical": True, "own_layers_identical": True, "reference": image["reference"], "digest": image["digest"]}
    assert done.document == same
    assert f"{image['reference']}: identical" in done.stderr


def test_so_does_the_second(shipped: Project, second: dict[str, Any]) -> None:
    assert shipped.builder("reproduce", second["reference"], "--json").ok().document["digest"] == second["digest"]


@pytest.fixture
def on_a_base(project: Project, image: dict[str, Any], engine: Engine) -> Project:
    """A committed project whose base is there already."""
    repository, _, tag = BASE.partition(":")
    engine.client.api.tag(image["base"], repository, tag)
    project.edit("builder.toml", "nvcr.io/nvidia/tritonserver:26.06-py3", BASE)
    project.edit("builder.toml", "localhost:5000/under-test", "localhost:5000/under-test-reproduced")
    return project


def _git(project: Project, *arguments: str) -> None:
    name = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    subprocess.run(["git", "-C", str(project.root), *name, *arguments], check=True, capture_output=True)


def test_sources_come_from_the_commit_that_the_image_names(on_a_base: Project) -> None:
    (on_a_base.root / ".gitignore").write_text(".builder/\n")
    _git(on_a_base, "init", "-q")
    _git(on_a_base, "add", "-A")
    _git(on_a_base, "commit", "-qm", "all")
    built = on_a_base.builder("build", "--target=ngc", "--json").ok().document["images"][0]
    on_a_base.edit("plugin/custom_copy.cc", "CustomCopy,", "OtherCopy,")
    before = (on_a_base.root / "plugin/custom_copy.cc").read_text()
    done = on_a_base.builder("reproduce", built["reference"], "--json").ok()
    assert done.document["digest"] == built["digest"]
    # The work tree is the user's.
    assert (on_a_base.root / "plugin/custom_copy.cc").read_text() == before


def test_what_varies_is_named(on_a_base: Project) -> None:
    varies = "    date +%s%N > /root-fs/models/mydali/made\n    chmod -R u=rwX,go=rX /root-fs\n"
    on_a_base.edit("Dockerfile", "    chmod -R u=rwX,go=rX /root-fs\n", varies)
    built = on_a_base.builder("build", "--target=ngc", "--json").ok().document["images"][0]
    error = on_a_base.builder("reproduce", built["reference"], "--json").failed("not-reproducible", 5)
    assert "/models/mydali/made" in error["what"]
    assert "content: 20 bytes" in error["detail"][0]


def test_other_sources_are_told_before_anything_is_built(on_a_base: Project, image: dict[str, Any]) -> None:
    on_a_base.edit("plugin/custom_copy.cc", "CustomCopy,", "OtherCopy,")
    error = on_a_base.builder("reproduce", image["reference"], "--json").failed("sources-differ", 2)
    assert error["detail"][0].startswith("plugin: sha256 ")


def test_an_image_of_somebody_else_has_no_record(shipped: Project, debian: str) -> None:
    shipped.builder("reproduce", debian, "--json").failed("no-record", 2)
