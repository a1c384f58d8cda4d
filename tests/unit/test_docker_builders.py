"""Builders, as `docker buildx inspect` of buildx 0.13 tells of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from rich.console import Console

from builder.docker import builders as module
from builder.docker.bake import failure
from builder.docker.builders import Builder, chosen
from builder.docker.caches import Caches
from builder.docker.engine import Engine
from builder.docker.progress import BuildProgress
from builder.errors import (
    BuilderError,
    BuilderUnreachable,
    BuilderUnsuitable,
    CacheNotWritten,
    NoBuilder,
    NoEngine,
)
from builder.process import Completed
from builder.views.live import Lines

REMOTE = """\
Name:          ci
Driver:        remote
Last Activity: 2026-11-22 20:58:39 +0000 UTC

Nodes:
Name:             ci0
Endpoint:         tcp://buildkit.example.com:1234
Status:           {status}
BuildKit version: v0.17.0
"""
KUBERNETES = REMOTE.replace("remote", "kubernetes")
DEAD_CONTEXT = """\
Name:   ci
Driver:
Error:  Cannot connect to the Docker daemon at unix:///x/docker.sock. Is the docker daemon running?
"""
TWO_NODES = REMOTE.format(status="running") + "\nName: ci1\nStatus: inactive\n"


class Buildx:
    """In place of `builder.process.run`."""

    def __init__(self, stdout: str = "", stderr: tuple[str, ...] = (), returncode: int = 0) -> None:
        self.completed = Completed("docker", returncode, stdout, stderr)
        self.asked: list[Sequence[str]] = []

    def __call__(self, command: Sequence[str], **_: object) -> Completed:
        self.asked.append(command)
        return self.completed


class Store(Engine):
    """An engine of which only the image store is known."""

    def __init__(self, keeps_manifests: bool = True) -> None:
        self.__dict__["keeps_manifests"] = keeps_manifests


Says = Callable[..., Buildx]


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Says:
    """What buildx is to answer; the engine's own builder is called `default`."""
    monkeypatch.setattr(module, "engine_builder", lambda: "default")
    monkeypatch.setattr(module, "require_buildx", lambda: None)

    def answer(*arguments: Any, **more: Any) -> Buildx:
        monkeypatch.setattr(module, "run", buildx := Buildx(*arguments, **more))
        return buildx

    return answer


@pytest.mark.parametrize("name", ["", "default"])
def test_the_engine_s_own_is_the_default_and_nobody_is_asked(says: Says, name: str) -> None:
    buildx = says()
    found = chosen(Store(), name)
    assert (found.name, found.is_engine, buildx.asked) == ("default", True, [])


@pytest.mark.parametrize(
    ("told", "driver"),
    [
        (REMOTE.format(status="running"), "remote"),
        (TWO_NODES, "remote"),
        (KUBERNETES.format(status="running"), "kubernetes"),
        (KUBERNETES.format(status="inactive"), "kubernetes"),  # the first build starts it
        (REMOTE.format(status="inactive").replace("remote", "docker-container"), "docker-container"),
    ],
)
def test_another_builder_is_one_whatever_its_driver(says: Says, told: str, driver: str) -> None:
    buildx = says(told)
    engine = Store()
    found = chosen(engine, "ci")
    assert (found.name, found.driver, found.is_engine, found.engine) == ("ci", driver, False, engine)
    assert buildx.asked == [["docker", "buildx", "inspect", "ci"]]


def test_an_unknown_builder_is_told(says: Says) -> None:
    says(stderr=('ERROR: no builder "cj" found',), returncode=1)
    with pytest.raises(NoBuilder, match="no builder 'cj'") as raised:
        chosen(Store(), "cj")
    assert "docker buildx ls" in raised.value.remedy
    assert raised.value.detail == ('ERROR: no builder "cj" found',)


@pytest.mark.parametrize(
    ("told", "why"),
    [(REMOTE.format(status="inactive"), "inactive"), (DEAD_CONTEXT, "Cannot connect to the Docker daemon")],
)
def test_a_builder_that_does_not_answer_is_told(says: Says, told: str, why: str) -> None:
    says(told)
    with pytest.raises(BuilderUnreachable, match="ci does not answer") as raised:
        chosen(Store(), "ci")
    assert why in raised.value.detail[0]


def test_another_context_s_engine_is_no_builder_for_this_one(says: Says) -> None:
    says(REMOTE.format(status="running").replace("remote", "docker"))
    with pytest.raises(BuilderUnsuitable, match="ci is another engine") as raised:
        chosen(Store(), "ci")
    assert "docker buildx create" in raised.value.remedy


@pytest.mark.parametrize(("name", "cache"), [("ci", ()), ("", ("localhost:5000/cache",))])
def test_docker_s_older_image_store_has_neither_caches_nor_other_builders(
    says: Says, name: str, cache: tuple[str, ...]
) -> None:
    buildx = says(REMOTE.format(status="running"))
    with pytest.raises(BuilderUnsuitable, match="older image store") as raised:
        chosen(Store(keeps_manifests=False), name, Caches.parse(cache))
    assert "containerd" in raised.value.remedy
    assert buildx.asked == []


def test_docker_s_older_image_store_builds_as_ever(says: Says) -> None:
    says()
    assert chosen(Store(keeps_manifests=False)).is_engine


def test_a_target_is_told_its_images_and_caches() -> None:
    husk, debian = {"husk": "oci-layout://husk"}, {"debian:12": "oci-layout://debian"}
    builder = Builder("ci", caches=Caches.parse(["localhost:5000/cache"])).given({"a": debian})
    told = builder.told("a_base", {"target": "embedded", "contexts": husk})
    assert told == {
        "target": "embedded",
        "contexts": {**husk, **debian},
        "cache-from": ["type=registry,ref=localhost:5000/cache:a"],
    }
    assert builder.told("b", {"contexts": husk})["contexts"] == husk


def broken(console: Console, name: str, error: str) -> BuildProgress:
    progress = BuildProgress(Lines(console))
    vertex = {"digest": "sha256:1", "name": name, "started": "2026-01-02T03:04:05.1Z", "error": error}
    progress.feed(json.dumps({"vertexes": [vertex]}))
    progress.feed(f"ERROR: {error}")
    return progress


OCI = (
    "OCI exporter is not supported for the docker driver. Switch to a different driver, or turn on the containerd image"
)
REFUSED = 'error writing layer blob: failed to do request: Head "https://localhost:1/v2/x": connection refused'
GONE = "failed to receive status: rpc error: code = Unavailable desc = error reading from server: EOF"


@pytest.mark.parametrize(
    ("name", "error", "expected"),
    [
        ("[internal] waiting for connection", "context deadline exceeded", BuilderUnreachable),
        ("[plugins 3/3] RUN <<EOF", GONE, BuilderUnreachable),
        ("[a internal] booting", OCI, BuilderUnsuitable),
        ("exporting cache to registry", REFUSED, CacheNotWritten),
        ("[embedded] exporting cache to client directory", "permission denied", CacheNotWritten),
    ],
)
def test_a_build_that_a_builder_breaks_is_told(
    console: Console, name: str, error: str, expected: type[BuilderError]
) -> None:
    raised = failure(broken(console, name, error), Builder("ci", "remote", engine=Store()))
    assert type(raised) is expected
    assert raised.remedy
    assert any(error in line for line in raised.detail)


def test_the_engine_s_own_is_the_engine_when_it_goes(console: Console) -> None:
    raised = failure(
        broken(console, "[internal] waiting for connection", "context deadline exceeded"), Builder("default")
    )
    assert type(raised) is NoEngine


def test_a_cache_that_is_not_there_breaks_nothing(console: Console) -> None:
    progress = broken(console, "[a] importing cache manifest from localhost:5000/cache:a", "not found")
    assert progress.failed is None
    assert [step.title for step in progress.steps.values()] == [
        "[a] importing cache manifest from localhost:5000/cache:a: none that can be read"
    ]


def test_the_engine_s_own_adds_nothing() -> None:
    assert Builder("default").told("a", {"target": "x"}) == {"target": "x"}
