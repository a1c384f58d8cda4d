from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import docker.errors
import pytest
from rich.console import Console

from builder.docker.engine import Engine
from builder.errors import NoBase, NoRegistry, TagMoved
from builder.lock import LockedImage, LockedTarget
from builder.process import Completed
from builder.project import Project, Target
from builder.recipe import Base, Bases
from builder.reference import Digest
from builder.steps import base
from builder.steps.base import DOCKER_HUB, HOME_MADE

SHA, OTHER, NEWEST = ("sha256:" + digit * 64 for digit in "abc")
NGC = "nvcr.io/nvidia/tritonserver:26.06-py3"
WHEEL = Target(triton_image=NGC, toolchain="wheel")


class FakeClient:
    """An SDK client of an engine that has `images`, and that may reach Docker Hub and every other registry."""

    def __init__(self, *images: str, hub: bool = False, described: dict[str, Any] | None = None) -> None:
        self.api = self.images = self
        self.there = dict.fromkeys(images, SHA)
        self.hub = hub
        self.described = described or {}
        self.pulled: list[str] = []
        self.platforms: set[str | None] = set()

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name not in self.there:
            raise docker.errors.ImageNotFound(name)
        return {"Id": self.there[name], **self.described}

    def pull(self, name: str, tag: str = "", platform: str | None = None) -> None:
        whole = f"{name}{'@' if tag.startswith('sha256:') else ':'}{tag}" if tag else name
        self.pulled.append(whole)
        self.platforms.add(platform)
        if not self.hub:
            raise docker.errors.APIError("no such host")
        self.there[whole] = tag if tag.startswith("sha256:") else NEWEST

    def tag(self, image: str, repository: str, tag: str, **_: object) -> None:
        self.there[f"{repository}:{tag}"] = self.there[image]


class Maker:
    """In place of `builder.process.run`: notes the command that makes a base."""

    def __init__(self, returncode: int = 0) -> None:
        self.returncode = returncode
        self.commands: list[Sequence[str]] = []
        self.makes: Callable[[], None] = lambda: None

    def __call__(self, command: Sequence[str], **_: object) -> Completed:
        self.commands.append(command)
        self.makes()
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
        (FakeClient(HOME_MADE, described={"RepoDigests": [f"debian@{OTHER}"]}), OTHER),
        (FakeClient(HOME_MADE, described={"Id": "no digest", "RepoDigests": None}), None),
    ],
)
def test_the_embedded_target_starts_from_debian_by_digest(
    project: Project, console: Console, client: FakeClient, digest: str | None
) -> None:
    found = base.resolve(project, project.targets["embedded"], engine(client), console)
    assert found == Bases(debian=Base(HOME_MADE, Digest(digest) if digest else None))
    assert client.pulled == []


def test_another_target_starts_from_its_own_image_which_is_pulled_where_it_is_not(
    project: Project, console: Console
) -> None:
    for client, digest, pulled in ((FakeClient(NGC), SHA, []), (FakeClient(hub=True), NEWEST, [NGC])):
        found = base.resolve(project, project.targets["ngc"], engine(client), console)
        assert found == Bases(Base(NGC, Digest(digest)))
        assert client.pulled == pulled
    assert client.platforms == {"linux/amd64"}


def test_a_base_that_cannot_be_pulled_is_told(project: Project, console: Console) -> None:
    with pytest.raises(NoBase, match="cannot be pulled") as failure:
        base.resolve(project, project.targets["ngc"], engine(FakeClient()), console)
    assert failure.value.where == NGC


class Registries:
    """In place of `bases.digest_in_registry`: what names stand for; None: nobody answers."""

    def __init__(self, digests: dict[str, str] | None) -> None:
        self.digests = digests
        self.asked: list[str] = []

    def __call__(self, name: str) -> Digest | None:
        self.asked.append(name)
        if self.digests is None:
            raise NoRegistry("nobody answers")
        return Digest(self.digests[name]) if name in self.digests else None


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> Registries:
    made = Registries({NGC: NEWEST})
    monkeypatch.setattr(base.bases, "digest_in_registry", made)
    return made


def test_a_base_that_the_wheel_s_toolchain_does_without_stays_where_it_is(
    project: Project, console: Console, registries: Registries
) -> None:
    client = FakeClient(HOME_MADE, hub=True)
    found = base.resolve(project, WHEEL, engine(client), console)
    assert found == Bases(Base(NGC, Digest(NEWEST)), Base(HOME_MADE, Digest(SHA)))
    assert (client.pulled, registries.asked) == ([], [NGC])


def test_a_base_that_is_here_is_taken_for_the_wheel_s_toolchain_too(
    project: Project, console: Console, registries: Registries
) -> None:
    found = base.resolve(project, WHEEL, engine(FakeClient(HOME_MADE, NGC)), console)
    assert found == Bases(Base(NGC, Digest(SHA)), Base(HOME_MADE, Digest(SHA)))
    assert registries.asked == []


def test_a_base_that_another_builder_pulls_stays_where_it_is(
    project: Project, console: Console, registries: Registries
) -> None:
    client = FakeClient(hub=True)
    found = base.resolve(project, project.targets["ngc"], engine(client), console, elsewhere=True)
    assert (found, client.pulled) == (Bases(Base(NGC, Digest(NEWEST))), [])
    found = base.resolve(project, project.targets["ngc"], engine(FakeClient(NGC)), console, elsewhere=True)
    assert found == Bases(Base(NGC, Digest(SHA)))
    assert registries.asked == [NGC]


def test_a_base_that_no_registry_has_is_told(project: Project, console: Console, registries: Registries) -> None:
    registries.digests = {}
    with pytest.raises(NoBase, match="no such image"):
        base.resolve(project, WHEEL, engine(FakeClient(HOME_MADE)), console)


# what builder.lock holds


def held(triton: str = "", debian: str = "", name: str = HOME_MADE) -> LockedTarget:
    return LockedTarget(
        triton_image=LockedImage(name=NGC, digest=triton) if triton else None,
        debian_image=LockedImage(name=name, digest=debian) if debian else None,
        wheels={},
        debian={},
    )


def test_the_base_that_is_locked_is_taken(project: Project, console: Console) -> None:
    client = FakeClient(HOME_MADE, NGC)
    found = base.resolve(project, project.targets["embedded"], engine(client), console, held(debian=SHA))
    assert found == Bases(debian=Base(HOME_MADE, Digest(SHA)))
    found = base.resolve(project, project.targets["ngc"], engine(client), console, held(triton=SHA))
    assert found == Bases(Base(NGC, Digest(SHA)))


def test_a_base_that_is_not_here_is_pulled_by_the_locked_digest_whatever_its_tag_is_now(
    project: Project, console: Console
) -> None:
    client = FakeClient(hub=True)
    found = base.resolve(project, project.targets["ngc"], engine(client), console, held(triton=OTHER))
    assert found == Bases(Base(NGC, Digest(OTHER)))
    assert client.pulled == [f"nvcr.io/nvidia/tritonserver@{OTHER}"]
    assert client.there[NGC] == OTHER


def test_the_locked_debian_is_taken_where_another_would_be_looked_for(
    project: Project, console: Console, maker: Maker
) -> None:
    client = FakeClient(HOME_MADE, hub=True)
    locked = held(debian=OTHER, name=DOCKER_HUB)
    found = base.resolve(project, project.targets["embedded"], engine(client), console, locked)
    assert found == Bases(debian=Base(DOCKER_HUB, Digest(OTHER)))
    assert client.pulled == [f"docker.io/library/debian@{OTHER}"]
    assert maker.commands == []


def test_a_base_that_builder_toml_names_by_digest_gets_no_tag(project: Project, console: Console) -> None:
    pinned = f"nvcr.io/nvidia/tritonserver@{OTHER}"
    locked = LockedTarget(triton_image=LockedImage(name=pinned, digest=OTHER), wheels={}, debian={})
    client = FakeClient(hub=True)
    found = base.resolve(project, Target(triton_image=pinned), engine(client), console, locked)
    assert found == Bases(Base(pinned, Digest(OTHER)))
    assert client.pulled == [pinned]
    assert list(client.there) == [pinned]


def test_a_locked_base_that_is_made_here_is_made_and_not_pulled(
    project: Project, console: Console, maker: Maker
) -> None:
    client = FakeClient(hub=True)
    maker.makes = lambda: client.there.update({HOME_MADE: SHA})
    target = project.targets["embedded"]
    assert base.resolve(project, target, engine(client), console, held(debian=SHA)).debian == Base(
        HOME_MADE, Digest(SHA)
    )
    del client.there[HOME_MADE]
    with pytest.raises(TagMoved, match=f"{SHA} now; builder.lock holds {OTHER}"):
        base.resolve(project, target, engine(client), console, held(debian=OTHER))
    assert (len(maker.commands), client.pulled) == (2, [])


def test_a_locked_base_that_cannot_be_made_here_is_told(
    project: Project, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    client = FakeClient(hub=True)
    with pytest.raises(NoBase, match=f"no {HOME_MADE}") as failure:
        base.resolve(project, project.targets["embedded"], engine(client), console, held(debian=SHA))
    assert "as root on Debian" in failure.value.remedy
    assert client.pulled == []


@pytest.mark.parametrize(
    ("target", "locked", "name", "can_go_back"),
    [
        ("ngc", held(triton=OTHER), NGC, True),
        ("embedded", held(debian=OTHER, name=DOCKER_HUB), DOCKER_HUB, True),
        # No registry has it.
        ("embedded", held(debian=OTHER), HOME_MADE, False),
    ],
)
def test_a_tag_that_moved_is_told(
    project: Project, console: Console, target: str, locked: LockedTarget, name: str, can_go_back: bool
) -> None:
    client = FakeClient(HOME_MADE, DOCKER_HUB, NGC)
    with pytest.raises(TagMoved, match=f"{SHA} now; builder.lock holds {OTHER}") as failure:
        base.resolve(project, project.targets[target], engine(client), console, locked)
    assert failure.value.where == name
    assert "python -m builder lock" in failure.value.remedy
    assert (f"@{OTHER}" in failure.value.remedy) is can_go_back
    assert client.pulled == []


def test_a_tag_that_moved_in_a_registry_alone_is_told(
    project: Project, console: Console, registries: Registries
) -> None:
    locked = held(triton=OTHER, debian=SHA)
    with pytest.raises(TagMoved, match=f"{NEWEST} now") as failure:
        base.resolve(project, WHEEL, engine(FakeClient(HOME_MADE)), console, locked)
    assert "docker pull" not in failure.value.remedy


# what names stand for today


@pytest.mark.parametrize("pull", [True, False])
def test_a_lock_is_of_what_the_registry_has_today(
    project: Project, console: Console, registries: Registries, pull: bool
) -> None:
    client = FakeClient(NGC, hub=True)
    found = base.current(project, project.targets["ngc"], engine(client), console, pull=pull)
    assert found == Bases(Base(NGC, Digest(NEWEST)))
    assert client.pulled == ([NGC] if pull else [])


def test_a_base_that_is_the_newest_is_not_pulled(project: Project, console: Console, registries: Registries) -> None:
    registries.digests = {NGC: SHA}
    client = FakeClient(NGC, hub=True)
    found = base.current(project, project.targets["ngc"], engine(client), console, pull=True)
    assert (found, client.pulled) == (Bases(Base(NGC, Digest(SHA))), [])


@pytest.mark.parametrize("digests", [None, {}], ids=["no answer", "no such image"])
def test_without_a_registry_the_engine_s_own_is_the_newest(
    project: Project, console: Console, registries: Registries, digests: dict[str, str] | None
) -> None:
    registries.digests = digests
    found = base.current(project, project.targets["ngc"], engine(FakeClient(NGC)), console, pull=True)
    assert found == Bases(Base(NGC, Digest(SHA)))


def test_no_registry_is_asked_for_what_was_made_here(
    project: Project, console: Console, registries: Registries
) -> None:
    found = base.current(project, project.targets["embedded"], engine(FakeClient(HOME_MADE)), console, pull=True)
    assert (found, registries.asked) == (Bases(debian=Base(HOME_MADE, Digest(SHA))), [])


def test_a_base_elsewhere_stays_there(project: Project, console: Console, registries: Registries) -> None:
    client = FakeClient(HOME_MADE, hub=True)
    found = base.current(project, WHEEL, engine(client), console, pull=True)
    assert (found.triton, client.pulled) == (Base(NGC, Digest(NEWEST)), [])


# plans


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
    assert found == Bases(debian=Base(name, digest))
    assert client is None or client.pulled == []


def test_a_base_that_is_named_is_presumed_as_it_is(project: Project) -> None:
    mirror = "mirror.example.com/debian:12"
    named = Project.model_validate({**dict(project), "debian_image": mirror})
    assert base.presumed(named, named.targets["embedded"], None) == Bases(debian=Base(mirror, None))
    assert base.presumed(named, named.targets["ngc"], None) == Bases(Base(NGC, None))
    assert base.presumed(named, WHEEL, None) == Bases(Base(NGC, None), Base(mirror, None))
    client = FakeClient(NGC, hub=True)
    assert base.presumed(named, WHEEL, engine(client)) == Bases(Base(NGC, Digest(SHA)), Base(mirror, None))
    assert client.pulled == []
