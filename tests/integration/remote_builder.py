"""The BuildKit inside a second engine, as one that has no engine: what buildx's driver `remote` is for.

dockerd speaks BuildKit's gRPC on a connection that began as HTTP (`POST /grpc`, as buildx's own driver for engines asks
for it); the driver `remote` wants it plainly. So a socket stands between the two that asks, and then moves bytes. The
builder that buildx gets knows nothing of Docker: no image of that engine, no name, no `docker load`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

_UPGRADE = b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n"
_BLOCK = 1 << 16


@contextlib.contextmanager
def relay(engine: Path, folder: Path) -> Iterator[str]:
    """The address of the BuildKit of the engine that listens at the socket `engine`."""
    path = folder / "buildkitd.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        threading.Thread(target=_accept, args=(listening, engine), daemon=True).start()
        try:
            yield f"unix://{path}"
        finally:
            # close() alone wakes no thread that accepts.
            listening.shutdown(socket.SHUT_RDWR)


def _accept(listening: socket.socket, engine: Path) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listening.accept()
            threading.Thread(target=_serve, args=(client, engine), daemon=True).start()


def _serve(client: socket.socket, engine: Path) -> None:
    with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
        server.connect(str(engine))
        server.sendall(_UPGRADE)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            # Byte by byte: what follows the answer is gRPC already.
            if not (byte := server.recv(1)):
                return
            answer += byte
        if b" 101 " not in answer.splitlines()[0]:
            return
        back = threading.Thread(target=_move, args=(server, client), daemon=True)
        back.start()
        _move(client, server)
        back.join()


def _move(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(_BLOCK):
            to.sendall(block)
    with contextlib.suppress(OSError):
        to.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def remote_builder(address: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """A builder of buildx's driver `remote`, by its name, for the length of a `with`."""
    name = f"under-test-{uuid.uuid4().hex[:8]}"
    own = {**os.environ, **(environment or {})}
    create = ["docker", "buildx", "create", "--name", name, "--driver", "remote", address]
    subprocess.run(create, env=own, check=True, capture_output=True)
    try:
        yield name
    finally:
        subprocess.run(["docker", "buildx", "rm", "--force", name], env=own, check=False, capture_output=True)
