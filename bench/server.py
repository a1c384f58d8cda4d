"""A tritonserver to measure: an image's own command, on the machine's loopback."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker.types
from docker.models.containers import Container

from builder.docker.engine import Engine
from builder.docker.server import SHARED_MEMORY, ContainerServer
from builder.triton import died

_READY_SECONDS = 60.0
_POLL_SECONDS = 0.002
_CLOCK_TICKS = 100  # a second, on every Linux that Triton runs on
_START_TIME = 19  # in /proc/PID/stat, counted after the command's closing bracket


@dataclass(frozen=True)
class Memory:
    """In bytes."""

    resident: int  # of the server and its models' processes; memory that they share counts in each
    shared: int  # used of /dev/shm


@dataclass(frozen=True)
class MeasuredServer:
    """A server that is ready."""

    container: Container
    http: str
    grpc: str
    ready_seconds: float  # after its process began

    def memory(self, without: str = "") -> Memory:
        """What it has now.

        Args:
            without: a model whose process does not count.
        """
        listed = self.container.top(ps_args="-o pid,rss,comm,args")["Processes"]
        ours = [
            int(resident)
            for _, resident, command, arguments in listed
            if command.startswith("triton")  # not what is run to look
            and not (without and f"/{without}/" in arguments)
        ]
        used = _output(self.container, ["df", "--block-size=1", "--output=used", "/dev/shm"])
        return Memory(sum(ours) * 1024, int(used.split()[-1]))


@contextlib.contextmanager
def measured(
    engine: Engine, image: str, arguments: Sequence[str] = (), folders: dict[Path, str] | None = None
) -> Iterator[MeasuredServer]:
    """A server from `image`, hardened as compose has it. In the machine's own network: with published ports, what is
    measured is above all the engine's forwarding.

    Args:
        arguments: added to the image's command.
        folders: to mount, read-only, each with its path inside.

    Raises:
        ServerDied, TimeoutError: it does not come up.
    """
    engine.require_local()
    ports = _free_ports(3)
    addresses = [
        option
        for name, port in zip(("http", "grpc", "metrics"), ports, strict=True)
        for option in (f"--{name}-port={port}", f"--{name}-address=127.0.0.1")
    ]
    with engine.running(
        image,
        command=[*engine.image(image)["Config"]["Cmd"], *addresses, *arguments],
        network_mode="host",
        healthcheck={"test": ["NONE"]},  # the image's asks another port
        read_only=True,
        tmpfs={"/tmp": ""},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        shm_size=SHARED_MEMORY,
        mounts=[
            docker.types.Mount(inside, str(folder), type="bind", read_only=True)
            for folder, inside in (folders or {}).items()
        ],
    ) as container:
        _wait(container, ports[0], image)
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        yield MeasuredServer(
            container, f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", round(now - _began(container), 3)
        )


def _wait(container: Container, port: int, image: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == http.client.OK:
                return
        server = ContainerServer(container)
        if (status := server.exited()) is not None:
            raise died(server, status, image)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{image} was not ready after {_READY_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)


def _began(container: Container) -> float:
    """When the server's process began, on CLOCK_BOOTTIME. The container's first process becomes the server."""
    stat = _output(container, ["cat", "/proc/1/stat"])
    return int(stat.rpartition(")")[2].split()[_START_TIME]) / _CLOCK_TICKS


def _output(container: Container, command: list[str]) -> str:
    status, output = container.exec_run(command)
    assert isinstance(output, bytes)
    if status:
        raise ChildProcessError(f"{' '.join(command)}: {output.decode(errors='replace').strip()}")
    return output.decode()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
