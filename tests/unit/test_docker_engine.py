from __future__ import annotations

import os
import signal
import socket
import time
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest
import requests.exceptions

from builder.docker import engine as module
from builder.docker.engine import (
    OWNER,
    Engine,
    engine_builder,
    engine_failure,
    foreign,
    require_buildx,
    require_compose,
    translated,
)
from builder.errors import (
    BuilderError,
    DiskFull,
    EngineTooOld,
    MachineError,
    NoBase,
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


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (requests.exceptions.ReadTimeout("slow"), NoEngine),
        (docker.errors.APIError("500", explanation="no space left on device"), DiskFull),
        (docker.errors.APIError("500", explanation="what?"), MachineError),
        (docker.errors.DockerException("docker-credential-nope not installed"), MachineError),
        (RuntimeError("a bug"), None),
        (OSError("a bug"), None),
    ],
)
def test_what_the_sdk_raises_unexpectedly_is_no_bug_of_ours(
    error: Exception, expected: type[BuilderError] | None
) -> None:
    failure = foreign(error)
    assert (type(failure) if failure else None) is expected


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


class ForgetfulClient(FakeClient):
    """Of an engine that is still creating the container when its removal is asked for."""

    def __init__(self, *answers: Exception | None) -> None:
        super().__init__()
        self.answers = list(answers)

    def remove_container(self, name: str, **_: object) -> None:
        super().remove_container(name)
        if answer := self.answers.pop(0):
            raise answer


NOT_YET = docker.errors.NotFound("no such container")


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        ((None,), 1),
        ((NOT_YET, NOT_YET, None), 3),
        ((NOT_YET,) * 9, 5),
        ((docker.errors.APIError("removal is already in progress"),), 1),
        ((requests.exceptions.ConnectionError("gone"),), 1),
    ],
)
def test_a_container_is_removed_as_soon_as_it_is_there(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[Exception | None, ...], asked: int
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    client: Any = ForgetfulClient(*answers)
    with Engine(client).running("mydali"):
        pass
    assert client.removed == client.made * asked


def test_an_interrupt_does_not_stop_the_removal() -> None:
    class Interrupting(FakeClient):
        def remove_container(self, name: str, **_: object) -> None:
            signal.raise_signal(signal.SIGINT)
            super().remove_container(name)

    client: Any = Interrupting()
    with pytest.raises(KeyboardInterrupt), Engine(client).running("mydali"):
        pass
    assert client.removed == client.made


def test_only_containers_of_dead_processes_of_this_machine_are_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    here, removed = socket.gethostname(), []

    def container(owner: str) -> Any:
        return SimpleNamespace(labels={OWNER: owner}, remove=lambda **_: removed.append(owner))

    found = [container(owner) for owner in (f"{here}/{os.getpid()}", f"{here}/7", f"{here}/8", "elsewhere/7")]
    monkeypatch.setattr(module, "is_running", lambda pid: pid in (os.getpid(), 8))
    client: Any = SimpleNamespace(containers=SimpleNamespace(list=lambda **_: found))
    Engine(client).sweep()
    assert removed == [f"{here}/7"]


@pytest.mark.parametrize(("version", "fit"), [("1.43", False), ("1.9", False), ("1.44", True), ("1.100", True)])
def test_an_engine_older_than_the_dockerfile_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: str, fit: bool
) -> None:
    client: Any = SimpleNamespace(api=SimpleNamespace(api_version=version))
    monkeypatch.setenv("DOCKER_HOST", "tcp://user:secret@engine.example:2376")
    monkeypatch.setattr(docker, "from_env", lambda: client)
    if fit:
        assert Engine.connect().client is client
        return
    with pytest.raises(EngineTooOld, match=rf"API {version} only"):
        Engine.connect()


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("http+docker://localhost", True),  # a socket, as the SDK writes it
        ("http+docker://localnpipe", True),
        ("http://127.0.0.1:2375", True),
        ("https://[::1]:2376", True),
        ("http://localhost:2375", True),
        ("http+docker://ssh", False),
        ("http://10.0.0.1:2375", False),
        ("https://engine.example:2376", False),
    ],
)
def test_an_engine_of_another_machine_is_refused_where_ports_are_needed(address: str, local: bool) -> None:
    client: Any = SimpleNamespace(api=SimpleNamespace(base_url=address))
    if local:
        Engine(client).require_local()
        return
    with pytest.raises(MachineError, match="on another machine"):
        Engine(client).require_local()


def test_buildx_knows_the_engine_by_its_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(module, "_context", lambda: SimpleNamespace(Name="far"))
    assert engine_builder() == "far"
    monkeypatch.setattr(module, "_context", lambda: None)
    assert engine_builder() == "default"
    monkeypatch.setenv("DOCKER_HOST", "unix:///x.sock")
    monkeypatch.setattr(module, "_context", lambda: SimpleNamespace(Name="far"))
    assert engine_builder() == "default"


@pytest.mark.parametrize(
    ("status", "keeps"),
    [
        ([["driver-type", "io.containerd.snapshotter.v1"]], True),
        ([["Backing Filesystem", "extfs"], ["Supports d_type", "true"]], False),
        ([], False),
        (None, False),
    ],
)
def test_an_image_store_with_manifests_is_told_from_the_older_one(status: Any, keeps: bool) -> None:
    client: Any = SimpleNamespace(info=lambda: {"DriverStatus": status})
    engine = Engine(client)
    assert engine.keeps_manifests is keeps
    if keeps:
        engine.require_manifests("no digests")
    else:
        with pytest.raises(MachineError, match="no digests") as refused:
            engine.require_manifests("no digests")
        assert refused.value.where == "the Docker engine"
        assert refused.value.remedy == (
            'switch the containerd image store on: "features": {"containerd-snapshotter": true} '
            "in /etc/docker/daemon.json"
        )


def loading(*events: dict[str, str]) -> Any:
    taken: list[bytes] = []

    def load_image(archive: Any) -> Any:
        taken.extend(archive)
        return iter(events)

    return SimpleNamespace(api=SimpleNamespace(load_image=load_image), taken=taken)


def test_an_archive_is_loaded_as_it_comes() -> None:
    client = loading({"stream": "Loaded image: x"})
    Engine(client).load((each for each in (b"a", b"b")), "x")
    assert client.taken == [b"a", b"b"]


@pytest.mark.parametrize(
    ("said", "expected"), [("no space left on device", DiskFull), ("content digest sha256:1: not found", MachineError)]
)
def test_an_archive_that_the_engine_does_not_take_is_told(said: str, expected: type[BuilderError]) -> None:
    with pytest.raises(expected) as failure:
        Engine(loading({"status": "Loading layer"}, {"error": said})).load([b"a"], "mydali:embedded")
    assert (type(failure.value), failure.value.where) == (expected, "mydali:embedded")


DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("reference", "asked"),
    [
        ("debian:12-slim", ("docker.io/library/debian", "12-slim")),
        ("debian", ("docker.io/library/debian", "latest")),
        (f"localhost:5000/x@{DIGEST}", ("localhost:5000/x", DIGEST)),
        (f"localhost:5000/x:1@{DIGEST}", ("localhost:5000/x", DIGEST)),
    ],
)
def test_one_image_is_pulled_and_no_other_tag(reference: str, asked: tuple[str, str]) -> None:
    pulls: list[Any] = []
    images = SimpleNamespace(pull=lambda *given, platform: pulls.append((given, platform)))
    client: Any = SimpleNamespace(images=images)
    Engine(client).pull(reference)
    Engine(client).pull(reference, "linux/arm64")
    assert pulls == [(asked, None), (asked, "linux/arm64")]


@pytest.mark.parametrize(
    "error", [docker.errors.ImageNotFound("no such image"), requests.exceptions.ConnectionError("gone")]
)
def test_an_image_that_cannot_be_pulled_is_told(error: Exception) -> None:
    def pull(*_: object, **__: object) -> None:
        raise error

    client: Any = SimpleNamespace(images=SimpleNamespace(pull=pull))
    with pytest.raises(NoBase, match="cannot be pulled"):
        Engine(client).pull("debian:12")


def test_an_image_gets_another_name() -> None:
    tags: list[Any] = []
    client: Any = SimpleNamespace(api=SimpleNamespace(tag=lambda *given, force: tags.append((*given, force))))
    Engine(client).tag(DIGEST, "localhost:5000/x:1")
    Engine(client).tag(DIGEST, "localhost:5000/x")
    assert tags == [(DIGEST, "localhost:5000/x", tag, True) for tag in ("1", "latest")]
