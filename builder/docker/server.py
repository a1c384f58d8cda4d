"""A tritonserver in a container, as hardened as in docker-compose.yml."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import docker.errors
import docker.types
from docker.models.containers import Container

from builder.docker.engine import Engine, last_lines
from builder.errors import MachineError
from builder.triton import GRPC_PORT, HTTP_PORT, Endpoint, died

_KILLED = 137
SHARED_MEMORY = "2g"
"""Python-based backends pass every tensor through it; Docker's default of 64 MiB holds no batch of 8 MiB samples."""
_BACKEND_CONFIG = re.compile(r"--backend-config[= ]dali,plugin_libs=(\S+)")


def listed_plugins(described: Mapping[str, Any]) -> tuple[str, ...]:
    """The libraries in an image's own command, where NVIDIA's backend reads them."""
    config = described["Config"]
    command = " ".join([*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())])
    given = _BACKEND_CONFIG.findall(command)
    return tuple(path for path in given[-1].split(":") if path) if given else ()  # the server takes the last one


@dataclass(frozen=True)
class ContainerServer:
    """The Server of builder.triton, for a container."""

    container: Container

    def exited(self) -> int | None:
        try:
            self.container.reload()
        except docker.errors.NotFound:
            return _KILLED
        state = self.container.attrs["State"]
        return None if state["Status"] in ("created", "running", "restarting") else int(state["ExitCode"])

    def log(self) -> list[str]:
        with contextlib.suppress(docker.errors.APIError):
            return last_lines(self.container, 60)
        return []

    def whole_log(self) -> bytes:
        """All that it wrote so far, with the times at which it did left out."""
        with contextlib.suppress(docker.errors.APIError):
            return bytes(self.container.logs())
        return b""

    def endpoint(self) -> Endpoint:
        """Where the engine published the ports, on loopback.

        Raises:
            ServerDied: it is no longer running.
        """
        if (status := self.exited()) is not None:
            raise died(self, status, str(self.container.attrs["Config"]["Image"]))
        return Endpoint(http=self._address(HTTP_PORT), grpc=self._address(GRPC_PORT))

    def _address(self, port: int) -> str:
        published = self.container.ports.get(f"{port}/tcp")
        if not published:
            raise MachineError(
                f"port {port} was not published", where=str(self.container.name), remedy="see `docker ps`"
            )
        return f"127.0.0.1:{published[0]['HostPort']}"


@contextlib.contextmanager
def serving(
    engine: Engine, image: str, *, gpus: str = "", hidden: Sequence[str] = (), arguments: Sequence[str] = ()
) -> Iterator[ContainerServer]:
    """A server from `image` on free loopback ports; files in `hidden` are empty in it.

    Args:
        gpus: '' for none, 'all', or device numbers separated by commas.
        arguments: added to the image's command.
    """
    engine.require_local()
    options = hardened(gpus)
    # /dev/null over a library: no loader takes it, and every engine has it.
    options["mounts"] = [docker.types.Mount(path, "/dev/null", type="bind", read_only=True) for path in hidden]
    if arguments:
        options["command"] = [*(engine.image(image)["Config"]["Cmd"] or ()), *arguments]
    with engine.running(image, **options) as container:
        yield ContainerServer(container)


def hardened(gpus: str = "") -> dict[str, Any]:
    """How a server's container is run: without a privilege, on free loopback ports; `gpus` as in `serving`."""
    options: dict[str, Any] = {
        "ports": {f"{port}/tcp": ("127.0.0.1", None) for port in (HTTP_PORT, GRPC_PORT)},
        "read_only": True,
        "tmpfs": {"/tmp": ""},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "shm_size": SHARED_MEMORY,
    }
    if gpus:
        chosen: dict[str, Any] = {"count": -1} if gpus == "all" else {"device_ids": gpus.split(",")}
        options["device_requests"] = [docker.types.DeviceRequest(capabilities=[["gpu"]], **chosen)]
    return options


@dataclass(frozen=True)
class ContainerHost:
    """The Host of builder.triton, for an engine."""

    engine: Engine

    @property
    def version(self) -> str:
        return self.engine.version

    def image(self, digest: str) -> dict[str, Any]:
        return self.engine.image(digest)

    def serving(
        self, digest: str, *, gpus: str = "", hidden: Sequence[str] = (), arguments: Sequence[str] = ()
    ) -> AbstractContextManager[ContainerServer]:
        return serving(self.engine, digest, gpus=gpus, hidden=hidden, arguments=arguments)
