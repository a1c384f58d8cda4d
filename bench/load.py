"""Clients that cost less than the server that they load: prepared requests, plain sockets, every answer compared.

tritonclient spends about as much processor time on a small request as the server does. Where a figure is the server's,
its requests are written beforehand (by tritonclient, as any client sends them) and the answers are only compared.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.http

ANSWER_SECONDS = 60.0
_RECEIVE_BYTES = 64 << 10
_LENGTH = b"\r\ncontent-length:"  # not that of the inference header


class WrongAnswer(Exception):
    """Not the bytes that were sent, or no success."""


@dataclass(frozen=True)
class Model:
    """A model that gives back the bytes it gets."""

    name: str
    input: str
    output: str

    def tensors(self, array: npt.NDArray[np.uint8]) -> list[Any]:
        """tritonclient's inputs for a request."""
        tensor = tritonclient.http.InferInput(self.input, list(array.shape), "UINT8")
        tensor.set_data_from_numpy(array)
        return [tensor]

    def request(self, array: npt.NDArray[np.uint8]) -> Request:
        body, header = tritonclient.http.InferenceServerClient.generate_request_body(self.tensors(array))
        lines = (
            f"POST /v2/models/{self.name}/infer HTTP/1.1",
            "Host: localhost",
            f"Inference-Header-Content-Length: {header}",
            f"Content-Length: {len(body)}",
        )
        return Request("\r\n".join([*lines, "", ""]).encode() + bytes(body), array.tobytes())


@dataclass(frozen=True)
class Request:
    """A whole HTTP request, and the bytes that its answer must end with."""

    sent: bytes
    expected: bytes


class Connection:
    """One connection to a server. Not for several threads."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(_RECEIVE_BYTES)

    def ask(self, request: Request) -> None:
        """Raises WrongAnswer or OSError."""
        self._socket.sendall(request.sent)
        self.answer(request)

    def answer(self, request: Request) -> None:
        """Waits for the answer to a request that was sent."""
        have = 0
        while (end := self._buffer.find(b"\r\n\r\n", 0, have)) < 0:
            have += self._receive(have)
        head = bytes(self._buffer[:end]).lower()
        at = head.index(_LENGTH) + len(_LENGTH)
        total = end + 4 + int(head[at:].split(b"\r\n", 1)[0])
        if total > len(self._buffer):
            self._buffer.extend(bytes(total - len(self._buffer)))
        while have < total:
            have += self._receive(have)
        size = len(request.expected)
        with memoryview(self._buffer) as view:
            if not head.startswith(b"http/1.1 200 ") or view[total - size : total] != request.expected:
                raise WrongAnswer(f"{size} bytes were sent, the answer is {bytes(view[: min(total, 600)])!r}")

    def send(self, request: Request) -> None:
        self._socket.sendall(request.sent)

    def close(self) -> None:
        self._socket.close()

    def _receive(self, have: int) -> int:
        with memoryview(self._buffer) as view:
            count = self._socket.recv_into(view[have:])
        if not count:
            raise ConnectionError(f"the server closed the connection after {have} bytes of an answer")
        return count


@dataclass(frozen=True)
class Load:
    """What clients did together."""

    requests: int
    seconds: float
    client_cpu_seconds: float  # of the processes that asked

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def drive(
    address: str,
    requests: Callable[[int], Sequence[Request]],
    *,
    processes: int,
    threads: int,
    seconds: float,
    count: int | None = None,
) -> Load:
    """Asks from `processes` times `threads` connections at once, each with requests of its own, over and over.

    Args:
        requests: what the connection of a number asks; called in its process.
        seconds: for how long at most.
        count: for how many requests altogether, each connection its share; None for as many as there is time for.

    Raises:
        WrongAnswer: of any of them.
    """
    context = multiprocessing.get_context("fork")  # the parent has no threads of its own, and it starts at once
    pipes: list[Pipe] = []
    started = []
    for process in range(processes):
        ours, theirs = context.Pipe()
        numbers = range(process * threads, (process + 1) * threads)
        share = None if count is None else -(-count // (processes * threads))
        worker = context.Process(target=_work, args=(theirs, address, requests, numbers, seconds, share), daemon=True)
        worker.start()
        pipes.append(ours)
        started.append(worker)
    try:
        for pipe in pipes:
            _said(pipe)  # ready
        began = time.perf_counter()
        for pipe in pipes:
            pipe.send("go")
        done = [_said(pipe) for pipe in pipes]
        took = time.perf_counter() - began
    finally:
        for worker in started:
            worker.kill()
            worker.join()
    return Load(sum(requests for requests, _ in done), took, sum(cpu for _, cpu in done))


def _said(pipe: Pipe) -> Any:
    try:
        said = pipe.recv()
    except EOFError:
        raise WrongAnswer("a client's process ended without a word") from None
    if isinstance(said, str) and said:
        raise WrongAnswer(said)
    return said


def _work(
    pipe: Pipe,
    address: str,
    requests: Callable[[int], Sequence[Request]],
    numbers: Sequence[int],
    seconds: float,
    share: int | None,
) -> None:
    try:
        asked = [list(requests(number)) for number in numbers]
        pipe.send("")
        pipe.recv()
        cpu = _cpu_seconds()
        deadline = time.perf_counter() + seconds
        answered = [0] * len(asked)
        failures: list[str] = []

        def ask(index: int) -> None:
            try:
                with contextlib.closing(Connection(address)) as connection:
                    for request in _repeated(asked[index], share):
                        connection.ask(request)
                        answered[index] += 1
                        if failures or time.perf_counter() > deadline:
                            return
            except (OSError, WrongAnswer) as error:
                failures.append(f"{type(error).__name__}: {error}")

        clients = [threading.Thread(target=ask, args=(index,)) for index in range(len(asked))]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        pipe.send(failures[0] if failures else (sum(answered), _cpu_seconds() - cpu))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def _repeated(requests: list[Request], share: int | None) -> Iterator[Request]:
    asked = 0
    while share is None or asked < share:
        yield from requests[: None if share is None else share - asked]
        asked += len(requests)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
