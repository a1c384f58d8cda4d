"""A tritonserver from an image's unpacked files: a process of this machine, and no container."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.docker.server import SHARED_MEMORY
from builder.errors import NoNamespaces
from builder.process import run, uninterrupted
from builder.triton import Endpoint
from builder.unpacked import enter
from builder.unpacked.image import UnpackedImage

_LINES = 60
_STOPPING_SECONDS = 5.0
"""Of a server that ends by itself when it is told; one that does not is ended at once."""


@dataclass(frozen=True)
class ProcessServer:
    """The Server of builder.triton, for a process."""

    process: subprocess.Popen[bytes]
    output: Path
    ports: tuple[int, int, int]

    def exited(self) -> int | None:
        return self.process.poll()

    def log(self) -> list[str]:
        return self.whole_log().decode(errors="replace").splitlines()[-_LINES:]

    def whole_log(self) -> bytes:
        return self.output.read_bytes()

    def endpoint(self) -> Endpoint:
        http, grpc, _ = self.ports
        return Endpoint(http=f"127.0.0.1:{http}", grpc=f"127.0.0.1:{grpc}")


@contextlib.contextmanager
def serving(
    image: UnpackedImage,
    *,
    gpus: str = "",
    hidden: Sequence[str] = (),
    arguments: Sequence[str] = (),
    folders: Mapping[str, str] | None = None,
    shared_memory: str = SHARED_MEMORY,
) -> Iterator[ProcessServer]:
    """The image's own command on free ports of loopback; files in `hidden` are empty in it.

    Args:
        gpus: '' for none, 'all', or device numbers separated by commas.
        arguments: added to the command.
        folders: of this machine by their place in the image, below /mnt.

    Raises:
        NoProgram: this machine has no `unshare`.
        NoNamespaces: this user may not use it.
    """
    _require_namespaces()
    ports = _free_ports()
    addresses = [
        option
        for name, port in zip(("http", "grpc", "metrics"), ports, strict=True)
        for option in (f"--{name}-port={port}", f"--{name}-address=127.0.0.1")
    ]
    room = enter.Room(
        root=str(image.root),
        arguments=[*image.command, *addresses, *arguments],
        environment=image.environment,
        gpus=gpus,
        hidden=list(hidden),
        folders=dict(folders or {}),
        user=image.user,
        shared_memory=shared_memory,
    )
    with tempfile.TemporaryDirectory(prefix="triton-dali-builder-") as folder:
        output = Path(folder) / "log"
        with output.open("wb") as log:
            process = subprocess.Popen(
                enter.command(room),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield ProcessServer(process, output, ports)
        finally:
            with uninterrupted():
                _stop(process)


@dataclass(frozen=True)
class ProcessHost:
    """The Host of builder.triton, for one unpacked image."""

    unpacked: UnpackedImage

    @property
    def version(self) -> str:
        return ""

    def image(self, _: str) -> dict[str, Any]:
        return self.unpacked.described

    def serving(
        self, _: str, *, gpus: str = "", hidden: Sequence[str] = (), arguments: Sequence[str] = ()
    ) -> AbstractContextManager[ProcessServer]:
        return serving(self.unpacked, gpus=gpus, hidden=hidden, arguments=arguments)


def _require_namespaces() -> None:
    tried = run([*enter.namespaces(), "true"])
    if tried.returncode:
        raise NoNamespaces(
            "this user cannot give a process a root and mounts of its own",
            where=tried.command,
            remedy="run the command as root, or let users have namespaces: sysctl kernel.unprivileged_userns_clone=1, "
            "on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0",
            detail=tried.stderr,
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the first process of the namespace, with which the kernel ends all others there.

    Not `unshare` itself: it blocks SIGINT and SIGTERM for as long as the first process lives (util-linux 2.38).
    """
    first = _children(process.pid)
    for child in first:
        # The first process of a namespace gets no signal that it does not handle (pid_namespaces(7)).
        asked = signal.SIGTERM if _handles(child, signal.SIGTERM) else signal.SIGKILL
        _send(child, asked)
    if first and _ended(process):
        return
    for child in first:
        _send(child, signal.SIGKILL)
    # `unshare` ends when the last process of the namespace has; where it is alone it is what is left to end.
    if not (first and _ended(process)):
        process.kill()
        process.wait()


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_STOPPING_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _children(pid: int) -> list[int]:
    """None where the process is gone, and where the kernel does not tell (CONFIG_PROC_CHILDREN)."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]
    except OSError:
        return []


def _handles(pid: int, wanted: signal.Signals) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (wanted - 1) & 1)


def _send(pid: int, sent: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sent)


def _free_ports() -> tuple[int, int, int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        http, grpc, metrics = (int(each.getsockname()[1]) for each in sockets)
        return http, grpc, metrics
