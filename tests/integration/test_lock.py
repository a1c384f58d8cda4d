"""builder.lock holds builds to what it has, with a real mirror and a real engine."""

from __future__ import annotations

import re
from typing import Any

import pytest

from builder.docker.engine import Engine

from .conftest import Project

BASE = "under-test-locked-base:1"
"""The embedded base under a name of its own, so that no build here makes it again."""


@pytest.fixture
def locked(project: Project, image: dict[str, Any], engine: Engine) -> Project:
    """A project with a lock."""
    repository, _, tag = BASE.partition(":")
    engine.client.api.tag(image["base"], repository, tag)
    project.edit("builder.toml", "nvcr.io/nvidia/tritonserver:26.06-py3", BASE)
    project.edit("builder.toml", "localhost:5000/under-test", "localhost:5000/under-test-locked")
    document = project.builder("lock", "--target=ngc", "--json").ok().document
    assert document["changes"] == {"ngc": ["it is not locked"]}
    assert any(tool.startswith("g++-") for tool in document["toolchain"]["ngc"])
    return project


def test_a_build_is_held_to_its_lock(locked: Project, engine: Engine) -> None:
    text = (locked.root / "builder.lock").read_text()
    assert BASE in text
    assert "nvidia-cuda-nvcc" in text
    image = locked.builder("build", "--target=ngc", "--locked", "--json").ok().document["images"][0]
    assert image["base_digest"] in text
    # Another target has none.
    locked.builder("build", "--locked", "--json").failed("lock-missing", 2)
    locked.builder("lock", "--target=ngc", "--check", "--json").ok()

    # A version that the mirror does not have.
    path = locked.root / "builder.lock"
    path.write_text(re.sub(r'"g\+\+-12" = ".*"', '"g++-12" = "12.0.0-0"', text))
    assert path.read_text() != text
    error = locked.builder("build", "--target=ngc", "--json").failed("lock-outdated", 2)
    assert any(line.startswith("g++-12=") for line in error["detail"])
    told = locked.builder("lock", "--target=ngc", "--check", "--json").failed("lock-outdated", 2)
    assert "ngc" in told["what"]
    path.write_text(text)

    # Another image under the name of the base.
    repository, _, tag = BASE.partition(":")
    engine.client.api.tag(image["digest"], repository, tag, force=True)
    error = locked.builder("build", "--target=ngc", "--json").failed("tag-moved", 2)
    assert image["base_digest"] in error["what"]
    assert image["digest"] in error["what"]
