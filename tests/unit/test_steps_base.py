from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import docker.errors
import pytest
from rich.console import Console

from builder.docker.engine import Engine
from builder.errors import NoBase
from builder.process import Completed
from builder.project import Project
from builder.reference import Digest
from builder.steps import base
from builder.steps.base import DOCKER_HUB, HOME_MADE

SHA, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


class FakeClient:
    """An SDK client of an engine that has `images`, and that may reach Docker Hub."""

    def __init__(self, *images: str, hub: bool = False, described: dict[str, Any] | None = None) -> None:
        self.api = self.images = self
        self.there = set(images)
        self.hub = hub
        self.described = described or {"Id": SHA}
        self.pulled: list[str] = []

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name not in self.there:
            raise docker.errors.ImageNotFound(name)
        return self.described

    def pull(self, name: str) -> None:
        self.pulled.append(name)
        if not self.hub:
            raise docker.errors.APIError("no such host")


class Maker:
    """In place of `builder.process.run`: notes the command that makes a base."""

    def __init__(self, returncode: int = 0) -> None:
        self.returncode = returncode
        self.commands: list[Sequence[str]] = []

    def __call__(self, command: Sequence[str], **_: object) -> Completed:
        self.commands.append(command)
        return Completed("python3 bootstrap.py", self.returncode, "", ("mmdebstrap: no mirror",))


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Maker:
    """A machine on which a base can be made."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(base, "run", made := Maker())
    return made


def engine(client: FakeClient) -> Engine:
    sdk: Any = client
    return Engine(sdk)


@pytest.mark.parametrize(
    ("client", "name", "pulled", "made"),
    [
        (FakeClient(HOME_MADE, DOCKER_HUB, hub=True), HOME_MADE, 0, 0),
        (FakeClient(DOCKER_HUB, hub=True), DOCKER_HUB, 0, 0),
        (FakeClient(hub=True), DOCKER_HUB, 1, 0),
        (FakeClient(), HOME_MADE, 1, 1),
    ],
    ids=["home-made", "present", "pull", "make"],
)
def test_a_base_is_looked_for_then_pulled_then_made(
    project: Project, console: Console, maker: Maker, client: FakeClient, name: str, pulled: int, made: int
) -> None:
    assert base.debian(project, engine(client), console) == name
    assert (len(client.pulled), len(maker.commands)) == (pulled, made)


def test_a_base_that_the_project_names_is_taken_unseen(project: Project, console: Console, maker: Maker) -> None:
    named = Project.model_validate({**dict(project), "debian_image": "mirror.example.com/debian:12"})
    client = FakeClient(HOME_MADE, DOCKER_HUB)
    assert base.debian(named, engine(client), console) == "mirror.example.com/debian:12"
    assert (client.pulled, maker.commands) == ([], [])


def test_a_base_that_cannot_be_made_shows_why(project: Project, console: Console, maker: Maker) -> None:
    maker.returncode = 1
    with pytest.raises(NoBase) as failure:
        base.debian(project, engine(FakeClient()), console)
    assert failure.value.detail == ("mmdebstrap: no mirror",)


@pytest.mark.usefixtures("maker")
@pytest.mark.parametrize("lacks", ["root", "script"])
def test_without_root_or_the_script_no_base_is_made(
    project: Project, console: Console, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    if lacks == "root":
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
    else:
        monkeypatch.setattr(base, "BOOTSTRAP", project.root / "nothing.py")
    with pytest.raises(NoBase, match="cannot be pulled") as failure:
        base.debian(project, engine(FakeClient()), console)
    assert "debian_image" in failure.value.remedy
    assert failure.value.detail == ("no such host",)


@pytest.mark.parametrize(
    ("client", "digest"),
    [
        (FakeClient(HOME_MADE), SHA),
        (FakeClient(HOME_MADE, described={"Id": SHA, "RepoDigests": [f"debian@{OTHER}"]}), OTHER),
        (FakeClient(HOME_MADE, described={"Id": "no digest", "RepoDigests": None}), None),
    ],
)
def test_the_embedded_target_starts_from_debian_by_digest(
    project: Project, console: Console, client: FakeClient, digest: str | None
) -> None:
    found = base.resolve(project, project.targets["embedded"], engine(client), console)
    assert (found.name, found.digest) == (HOME_MADE, digest and Digest(digest))


def test_another_target_starts_from_its_own_image_present_or_not(project: Project, console: Console) -> None:
    image = project.targets["ngc"].triton_image
    for client, digest in ((FakeClient(), None), (FakeClient(image), Digest(SHA))):
        found = base.resolve(project, project.targets["ngc"], engine(client), console)
        assert (found.name, found.digest) == (image, digest)


@pytest.mark.parametrize(
    ("client", "name", "digest"),
    [
        (None, DOCKER_HUB, None),
        (FakeClient(hub=True), DOCKER_HUB, None),
        (FakeClient(DOCKER_HUB), DOCKER_HUB, Digest(SHA)),
        (FakeClient(HOME_MADE, DOCKER_HUB), HOME_MADE, Digest(SHA)),
    ],
    ids=["no engine", "absent", "present", "home-made"],
)
def test_a_plan_presumes_what_a_build_would_try_first_and_pulls_nothing(
    project: Project, client: FakeClient | None, name: str, digest: Digest | None
) -> None:
    found = base.presumed(project, project.targets["embedded"], engine(client) if client else None)
    assert (found.name, found.digest) == (name, digest)
    assert client is None or client.pulled == []


def test_a_base_that_is_named_is_presumed_as_it_is(project: Project) -> None:
    named = Project.model_validate({**dict(project), "debian_image": "mirror.example.com/debian:12"})
    assert base.presumed(named, named.targets["embedded"], None).name == "mirror.example.com/debian:12"
    assert base.presumed(named, named.targets["ngc"], None).name == named.targets["ngc"].triton_image
