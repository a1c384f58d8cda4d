"""Builds on another BuildKit, reached as buildx's driver `remote` reaches any: the one inside a second, empty engine.

The image is the same, and is in the first engine.

buildx's driver `kubernetes` differs by how a connection comes about alone, and no cluster is at hand here.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.docker.engine import Engine

from .conftest import REPOSITORY, Project, copy_project
from .engines import second_engine
from .remote_builder import relay, remote_builder

FREE_AT_LEAST = 15_000_000_000
COLD_SECONDS = 600
CACHED_SECONDS = 180
COMPILES = "compile the plugins"
"""What is printed of a compiler that ran."""
IMAGE = f"{REPOSITORY}:embedded"


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A builder without anything in its cache; 4 GB come to it, and go with it."""
    folder = tmp_path_factory.mktemp("second")
    assert shutil.disk_usage(folder).free > FREE_AT_LEAST
    with (
        second_engine(folder / "engine") as second,
        relay(second.places.socket, folder) as address,
        remote_builder(address) as name,
    ):
        yield name


@pytest.fixture(scope="module")
def cache(start_registry: Callable[..., str]) -> str:
    """A repository for caches, in a registry that has none yet."""
    return f"{start_registry()}/cache:main"


@pytest.fixture
def far(tmp_path: Path, image: dict[str, Any], builder: str) -> Project:
    """The shipped project once more, to be built elsewhere: `image` is what the engine made of it."""
    return Project(copy_project(tmp_path / "project"), {"BUILDX_BUILDER": builder})


def timed(project: Project, *arguments: str) -> tuple[dict[str, Any], str, float]:
    """The first image of a build, what it printed, and the seconds that it took."""
    began = time.monotonic()
    done = project.builder("build", "--json", *arguments).ok()
    return done.document["images"][0], done.stderr, time.monotonic() - began


def test_an_image_of_another_builder_is_the_very_one(
    far: Project, image: dict[str, Any], builder: str, cache: str, engine: Engine
) -> None:
    """Debian goes there as this machine made it; the base and the image's own layers come back."""
    far.environment.clear()
    both = (f"--cache-from={cache}", f"--cache-to=type=registry,ref={cache}")
    made, printed, seconds = timed(far, "--builder", builder, *both)
    assert (made["digest"], made["base_digest"]) == (image["digest"], image["base_digest"])
    assert (COMPILES in printed, made["in_engine"]) == (True, True)
    assert engine.image(IMAGE)["Id"] == made["digest"]
    assert far.builder("smoke", "--json").ok().document["passed"]
    assert seconds < COLD_SECONDS


def test_a_base_in_a_registry_is_the_builder_s_own_business(
    far: Project, image: dict[str, Any], registry: str, engine: Engine
) -> None:
    """It pulls the base by digest; the engine, which has none of that name, is asked for nothing."""
    base = f"{registry}/{REPOSITORY}-base:1"
    engine.tag(image["base"], base)
    far.docker("push", "--quiet", base).ok()
    engine.client.images.remove(base)
    (far.root / "builder.toml").write_text(
        f"""
repository = "localhost:5000/{REPOSITORY}-elsewhere"

[targets.far]
triton_image = "{base}"
dali = "1.53.0"
cuda = "OFF"
"""
    )
    made, printed, seconds = timed(far)
    assert (made["in_engine"], made["base_digest"]) == (False, image["base_digest"])
    assert (COMPILES in printed, engine.has_image(base)) == (True, False)
    assert seconds < COLD_SECONDS


def test_a_builder_without_a_cache_of_its_own_takes_it_from_a_registry(
    far: Project, image: dict[str, Any], builder: str, cache: str, engine: Engine
) -> None:
    """Also a base that the engine has another of by that name comes from there, whole."""
    prune = ["docker", "buildx", "prune", "--builder", builder, "--all", "--force"]
    subprocess.run(prune, check=True, capture_output=True)
    engine.tag(IMAGE, image["base"])
    made, printed, seconds = timed(far, f"--cache-from={cache}")
    assert COMPILES not in printed
    assert (made["digest"], made["base_digest"]) == (image["digest"], image["base_digest"])
    assert engine.image(image["base"])["Id"] == image["base_digest"]
    assert seconds < CACHED_SECONDS


def test_what_is_built_elsewhere_is_known_as_built(far: Project, builder: str, image: dict[str, Any]) -> None:
    first, *_ = timed(far)
    again, printed, _ = timed(far)
    assert first["digest"] == again["digest"] == image["digest"]
    assert "nothing has changed" in printed


def test_a_cache_that_cannot_be_written_is_told_and_one_that_is_not_there_is_not(far: Project) -> None:
    nowhere = "type=registry,ref=localhost:1/cache"
    done = far.builder("build", "--json", f"--cache-from={nowhere}", f"--cache-to={nowhere}")
    error = done.failed("cache-not-written", 4)
    assert "connection refused" in error["detail"][0]
    far.builder("build", f"--cache-from={nowhere}", f"--cache-to={nowhere},ignore-error=true").ok()


def test_a_builder_that_is_not_there_is_told(far: Project) -> None:
    far.builder("build", "--json", "--builder", "under-test-nobody").failed("no-builder", 3)
    with remote_builder("tcp://127.0.0.1:1") as dead:
        far.builder("build", "--json", "--builder", dead).failed("builder-unreachable", 3)
