from __future__ import annotations

from typing import Any

import docker.errors
import pytest
import requests.exceptions

from builder.docker import engine as module
from builder.docker.engine import Engine, engine_failure, require_buildx, require_compose, translated
from builder.errors import (
    BuilderError,
    DiskFull,
    MachineError,
    NoBuildx,
    NoCompose,
    NoEngine,
    NoImage,
    PortInUse,
    PushError,
)
from builder.process import Completed


@pytest.mark.parametrize(
    ("text", "expected", "what"),
    [
        ("write /var/lib/docker/tmp: no space left on device", DiskFull, "disk is full"),
        (
            "driver failed programming external connectivity on endpoint x (0a1b): "
            "Bind for 127.0.0.1:8000 failed: port is already allocated",
            PortInUse,
            "port 8000 is in use",
        ),
        ("listen tcp4 0.0.0.0:8001: bind: address already in use", PortInUse, "port 8001 is in use"),
        ("listen tcp6 [::]:8002: bind: address already in use", PortInUse, "port 8002 is in use"),
        (
            "failed to bind host port for 0.0.0.0:8000:172.17.0.2:9000/tcp: address already in use",
            PortInUse,
            "port 8000 is in use",
        ),
        ("address already in use", PortInUse, "port is in use"),
        ('could not select device driver "" with capabilities: [[gpu]]', MachineError, "cannot give a GPU"),
        ("nvidia-container-cli: initialization error", MachineError, "cannot give a GPU"),
        ("anything else", MachineError, "refused"),
    ],
)
def test_an_engine_s_message_is_told_by_what_it_stands_for(text: str, expected: type[BuilderError], what: str) -> None:
    failure = engine_failure(text, "mydali")
    assert type(failure) is expected
    assert what in failure.what
    assert (failure.where, failure.detail) == ("mydali", (text,))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (docker.errors.ImageNotFound("no such image"), NoImage),
        (docker.errors.APIError("500", explanation="no space left on device"), DiskFull),
        (docker.errors.APIError("500", explanation="what?"), PushError),
        (requests.exceptions.ConnectionError("gone"), NoEngine),
    ],
)
def test_the_sdk_s_errors_become_ours(error: Exception, expected: type[BuilderError]) -> None:
    with pytest.raises(BuilderError) as failure, translated("mydali", PushError):
        raise error
    assert type(failure.value) is expected


def answers(monkeypatch: pytest.MonkeyPatch, stdout: str, returncode: int = 0) -> None:
    monkeypatch.setattr(module, "run", lambda command: Completed(" ".join(command), returncode, stdout, ()))


@pytest.mark.parametrize(
    "stdout",
    [
        "github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3\n",
        "github.com/docker/buildx v0.14.0 171fcbeb\n",
        "github.com/docker/buildx v1.0.0-rc1 x\n",
    ],
)
def test_a_buildx_that_is_new_enough_will_do(monkeypatch: pytest.MonkeyPatch, stdout: str) -> None:
    answers(monkeypatch, stdout)
    require_buildx()


@pytest.mark.parametrize(
    ("stdout", "returncode", "what"),
    [
        ("github.com/docker/buildx v0.12.1 30feaa1", 0, "v0.12.1 is too old"),
        ("github.com/docker/buildx v0.9.0 x", 0, "v0.9.0 is too old"),
        ("", 1, "no buildx"),
        ("Docker version 26, build x", 0, "no buildx"),
    ],
)
def test_a_missing_or_old_buildx_is_refused(
    monkeypatch: pytest.MonkeyPatch, stdout: str, returncode: int, what: str
) -> None:
    answers(monkeypatch, stdout, returncode)
    with pytest.raises(NoBuildx, match=what):
        require_buildx()


def test_a_missing_compose_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "Docker Compose version v2.26.1")
    require_compose()
    answers(monkeypatch, "", 1)
    with pytest.raises(NoCompose):
        require_compose()


class FakeClient:
    """The SDK's client, as far as running a container needs it."""

    def __init__(self, refusal: str = "") -> None:
        self.api = self.containers = self
        self.refusal = refusal
        self.made: list[str] = []
        self.removed: list[str] = []
        self.options: dict[str, Any] = {}

    def create(self, _image: str, *, name: str, **options: Any) -> FakeClient:
        self.made.append(name)
        self.options = options
        return self

    def start(self) -> None:
        if self.refusal:
            raise docker.errors.APIError("500", explanation=self.refusal)

    def remove_container(self, name: str, **_: object) -> None:
        self.removed.append(name)


def test_a_container_is_removed_when_the_block_ends_and_when_it_breaks() -> None:
    client: Any = FakeClient()
    with Engine(client).running("mydali"):
        assert client.removed == []
    with pytest.raises(KeyboardInterrupt), Engine(client).running("mydali"):
        raise KeyboardInterrupt
    assert client.removed == client.made
    assert len(set(client.made)) == 2


def test_a_container_that_does_not_start_is_removed() -> None:
    client: Any = FakeClient(refusal="Bind for 0.0.0.0:8000 failed: port is already allocated")
    with pytest.raises(PortInUse), Engine(client).running("mydali"):
        pytest.fail("it runs")
    assert client.removed == client.made


def test_an_engine_that_is_not_there_is_told_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(NoEngine) as failure:
        Engine.connect()
    assert failure.value.where == "unix:///nonexistent/docker.sock"
