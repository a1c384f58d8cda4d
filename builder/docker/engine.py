"""The Docker engine, through the SDK: everything but builds, which need BuildKit."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Self
from urllib.parse import urlsplit

import docker
import docker.context
import docker.errors
import requests.exceptions
from docker.models.containers import Container

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
)
from builder.process import is_running, redact, run, uninterrupted
from builder.reference import Reference

BUILDX_AT_LEAST = (0, 13)
API_AT_LEAST = (1, 44)
"""Docker 25: the first whose own Dockerfile frontend knows all that the Dockerfile uses."""
OWNER = "triton-dali-builder.run"
"""The label of every container that this program starts; its value is the process that did."""
CONTAINERD = '"features": {"containerd-snapshotter": true} in /etc/docker/daemon.json'
"""What switches on the image store that keeps manifests."""
_REMOVALS = 5
_START_ENGINE = "start Docker, or run the command under `make shell`, which brings an engine of its own"


class Engine:
    """A connection to a Docker engine."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client

    @classmethod
    def connect(cls) -> Self:
        """Connects as the `docker` command would: DOCKER_HOST, or else the current context.

        Raises:
            NoEngine: nothing answers there.
        """
        address = os.environ.get("DOCKER_HOST") or _context_host() or "unix:///var/run/docker.sock"
        try:
            # from_env also takes the TLS settings that go with DOCKER_HOST.
            client = docker.from_env() if "DOCKER_HOST" in os.environ else docker.DockerClient(base_url=address)
            # The SDK has asked for it.
            version = str(client.api.api_version)
        except (docker.errors.DockerException, requests.exceptions.RequestException, ValueError) as error:
            raise NoEngine(
                "no Docker engine answers", where=redact(address), remedy=_START_ENGINE, detail=[_first_line(error)]
            ) from None
        if tuple(map(int, version.split("."))) < API_AT_LEAST:
            raise EngineTooOld(
                f"the Docker engine speaks API {version} only",
                where=redact(address),
                remedy="update it to Docker 25 or newer, or run the command under `make shell`",
            )
        return cls(client)

    def require_local(self) -> None:
        """Raises MachineError unless ports that the engine publishes on loopback are reachable from here."""
        url = urlsplit(self.client.api.base_url)
        if url.hostname == "ssh" or (url.scheme in ("http", "https") and not Reference(url.netloc, "-").is_loopback):
            raise MachineError(
                "the engine is on another machine, where its loopback ports cannot be reached from here",
                where=url.netloc,
                remedy="run the command on that machine",
            )

    def find(self, reference: str) -> dict[str, Any] | None:
        """The engine's description of an image; None where it has none of that name."""
        try:
            return dict(self.client.api.inspect_image(reference))
        except docker.errors.NotFound:
            return None

    def image(self, reference: str) -> dict[str, Any]:
        """The engine's description of an image.

        Raises:
            NoImage: it has none of that name.
        """
        found = self.find(reference)
        if found is None:
            raise NoImage(
                f"the engine has no image {reference}", where=reference, remedy="build it, or `docker pull` it"
            )
        return found

    @cached_property
    def version(self) -> str:
        """Such as 26.1.5."""
        return str(self.client.version()["Version"])

    @cached_property
    def keeps_manifests(self) -> bool:
        """Whether its images are what registries hold: Docker's containerd image store, not the older one."""
        status = self.client.info().get("DriverStatus") or ()
        return any("io.containerd.snapshotter.v1" in value for _, value in status)

    def require_manifests(
        self,
        without: str,
        *,
        where: str = "the Docker engine",
        remedy: str = f"switch the containerd image store on: {CONTAINERD}",
        failure: type[BuilderError] = MachineError,
    ) -> None:
        """Raises `failure` unless it keeps manifests.

        Args:
            without: what is wrong then, for the message.
        """
        if not self.keeps_manifests:
            raise failure(without, where=where, remedy=remedy)

    def load(self, archive: Iterable[bytes], name: str) -> None:
        """`docker load`.

        Raises:
            DiskFull, MachineError: the engine does not take it.
        """
        with translated(name):
            for event in self.client.api.load_image(iter(archive)):
                if "error" in event:
                    raise engine_failure(str(event["error"]), name)

    def pull(self, reference: str, platform: str = "") -> None:
        """`docker pull`, of the engine's own platform unless another is given. Raises NoBase."""
        try:
            self.client.images.pull(*_repository_and_tag(reference), platform=platform or None)
        except (docker.errors.APIError, requests.exceptions.RequestException) as error:
            raise NoBase(
                f"{reference} cannot be pulled",
                where=reference,
                remedy="pull it by hand to see why (`docker login` may be needed), or name another one in builder.toml",
                detail=[_first_line(error)],
            ) from None

    def tag(self, image: str, reference: str) -> None:
        """`docker tag`. Raises NoImage, MachineError."""
        named = Reference.parse(reference)
        with translated(reference):
            self.client.api.tag(image, named.repository, named.tag or "latest", force=True)

    def has_image(self, reference: str) -> bool:
        return self.find(reference) is not None

    @contextlib.contextmanager
    def running(self, image: str, **options: Any) -> Iterator[Container]:
        """A container of `image` for the length of a `with`, gone afterwards whatever happens.

        Raises:
            NoImage, PortInUse, DiskFull, MachineError: it cannot be started.
        """
        with self.created(image, **options) as container:
            with translated(image):
                container.start()
            yield container

    @contextlib.contextmanager
    def created(self, image: str, **options: Any) -> Iterator[Container]:
        """As `running`, but not started: its files can be read.

        Raises:
            NoImage, DiskFull, MachineError: it cannot be created.
        """
        # A name of ours: an interrupt may come between the engine's creating it and our hearing of it.
        name = f"triton-dali-builder-{uuid.uuid4().hex[:12]}"
        try:
            with translated(image):
                container = self.client.containers.create(image, name=name, labels={OWNER: _this_process()}, **options)
            yield container
        finally:
            with uninterrupted():
                self._remove(name)

    def _remove(self, name: str) -> None:
        """Also where an interrupt came while the engine was still creating it."""
        for _ in range(_REMOVALS):
            try:
                self.client.api.remove_container(name, force=True, v=True)
            except docker.errors.NotFound:
                time.sleep(0.05)
            except (docker.errors.APIError, requests.exceptions.RequestException):
                return  # the engine is gone, or is removing it already
            else:
                return

    def sweep(self) -> None:
        """Removes containers whose process on this machine was killed before it could."""
        for container in self.client.containers.list(all=True, filters={"label": OWNER}, ignore_removed=True):
            host, _, pid = container.labels[OWNER].rpartition("/")
            if host == socket.gethostname() and not is_running(int(pid)):
                with contextlib.suppress(docker.errors.APIError):
                    container.remove(force=True, v=True)


def last_lines(container: Container, count: int = 20) -> list[str]:
    """The end of a container's log."""
    return str(container.logs(tail=count).decode(errors="replace")).splitlines()


@contextlib.contextmanager
def translated(where: str, failure: type[BuilderError] = MachineError) -> Iterator[None]:
    """Turns what the engine says into errors of ours; `failure` is for what has no better name."""
    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise NoImage(
            f"the engine has no image {where}", where=where, remedy="build or pull it", detail=[_first_line(error)]
        ) from None
    except (docker.errors.APIError, requests.exceptions.RequestException) as error:
        raise foreign(error, where, failure) or error from None


def foreign(
    error: Exception, where: str = "the engine", failure: type[BuilderError] = MachineError
) -> BuilderError | None:
    """The error for what the SDK raised; None for what is not the SDK's."""
    if isinstance(error, docker.errors.APIError):
        return engine_failure(str(error.explanation or error), where, failure)
    if isinstance(error, requests.exceptions.RequestException):
        return gone(where, _first_line(error))
    if isinstance(error, docker.errors.DockerException):
        return MachineError(
            "Docker's own configuration does not work",
            where="the Docker SDK",
            remedy="see its message: a credential helper may be missing",
            detail=[_first_line(error)],
        )
    return None


def gone(where: str, told: str) -> NoEngine:
    """The error for an engine that answered before."""
    return NoEngine("the Docker engine stopped answering", where=where, remedy=_START_ENGINE, detail=[told])


def engine_failure(text: str, where: str, failure: type[BuilderError] = MachineError) -> BuilderError:
    """The error that an engine's message stands for."""
    if "no space left on device" in text:
        return DiskFull(
            "the engine's disk is full",
            where=where,
            remedy="free some space, for example with `docker system prune`",
            detail=[text],
        )
    if "port is already allocated" in text or "address already in use" in text:
        port = re.search(r":(\d+)(?:/tcp)?[: ]", text)
        return PortInUse(
            f"port {port[1] if port else ''} is in use".replace("  ", " "),
            where=where,
            remedy="stop what listens there, or choose another port",
            detail=[text],
        )
    if "could not select device driver" in text or "nvidia-container-cli" in text:
        return MachineError(
            "the engine cannot give a GPU to a container",
            where=where,
            remedy="install the NVIDIA driver and the NVIDIA container toolkit, or leave --gpus out",
            detail=[text],
        )
    return failure("the Docker engine refused", where=where, remedy="see the engine's message", detail=[text])


def require_buildx() -> None:
    """Raises NoBuildx unless buildx is new enough for bake's JSON definitions and raw progress."""
    found = run(["docker", "buildx", "version"])
    version = re.search(r"\bv?(\d+)\.(\d+)\.\d+", found.stdout)
    if found.returncode or not version:
        raise NoBuildx(
            "docker has no buildx",
            where="docker buildx version",
            remedy="install Docker's buildx plugin, 0.13 or newer",
        )
    if (int(version[1]), int(version[2])) < BUILDX_AT_LEAST:
        raise NoBuildx(
            f"buildx {version[0]} is too old", where="docker buildx version", remedy="install buildx 0.13 or newer"
        )


def require_compose() -> None:
    """Raises NoCompose unless `docker compose` works."""
    if run(["docker", "compose", "version"]).returncode:
        raise NoCompose(
            "docker has no compose",
            where="docker compose version",
            remedy="install Docker's compose plugin, version 2.20 or newer",
        )


def engine_builder() -> str:
    """The name under which buildx knows the engine itself: that of Docker's context."""
    if os.environ.get("DOCKER_HOST"):
        return "default"
    context = _context()
    return str(context.Name) if context else "default"


def _repository_and_tag(reference: str) -> tuple[str, str]:
    """As the SDK wants them: a digest stands in the place of the tag."""
    parsed = Reference.parse(reference)
    return parsed.repository, str(parsed.digest or parsed.tag or "latest")


def _this_process() -> str:
    return f"{socket.gethostname()}/{os.getpid()}"


def _context_host() -> str | None:
    context = _context()
    return str(context.Host) if context and context.Host else None


def _context() -> docker.context.Context | None:
    try:
        return docker.context.ContextAPI.get_current_context()
    except (docker.errors.DockerException, OSError, ValueError):
        return None


def _first_line(error: BaseException) -> str:
    return redact(str(error).splitlines()[0]) if str(error) else type(error).__name__
