"""Triton from outside: what a model takes, whether the server is ready, inference, and what its log means."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tritonclient.grpc
import tritonclient.http
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError
from rich.text import Text
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from builder.errors import InferenceFailed, NotReady, RequestRefused, ServerDied
from builder.symptoms import Diagnosis, diagnose

Array = npt.NDArray[Any]
Tensors = dict[str, Array]

HTTP_PORT, GRPC_PORT, METRICS_PORT = 8000, 8001, 8002
_POLL_SECONDS = 0.05
_ANSWER_SECONDS = 120.0
_TRANSPORT_ERRORS = (OSError, HTTPConnectionClosed, HTTPParseError)
"""What tritonclient lets through where a connection cannot be made, or breaks."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output as the model's configuration has it; `dims` without the batch, -1 where any size will do."""

    name: str
    datatype: str
    dims: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        known: np.dtype[Any] = np.dtype(triton_to_np_dtype(self.datatype))
        return known


@dataclass(frozen=True)
class ModelSpec:
    """A model's signature; `max_batch_size` 0 means that it takes no batches."""

    name: str
    max_batch_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    version: str = ""
    """Empty for the one that the server chooses."""

    @property
    def title(self) -> str:
        """NAME/VERSION, as in the model repository."""
        return f"{self.name}/{self.version}" if self.version else self.name


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens, each as host:port."""

    http: str
    grpc: str


class Server(Protocol):
    """A server's process, wherever it runs."""

    def exited(self) -> int | None:
        """Its exit status; None while it runs."""

    def log(self) -> list[str]:
        """The last lines of its log."""


class ReachableServer(Server, Protocol):
    """One that listens on this machine."""

    def endpoint(self) -> Endpoint:
        """Where. Raises ServerDied if it is no longer running."""

    def whole_log(self) -> bytes:
        """All that it has written."""


class Host(Protocol):
    """What can serve an image: an engine in containers, or this machine itself."""

    @property
    def version(self) -> str:
        """Of the engine; empty without one."""

    def image(self, digest: str) -> dict[str, Any]:
        """What the image says of itself, as an engine describes it."""

    def serving(
        self, digest: str, *, gpus: str = "", hidden: Sequence[str] = (), arguments: Sequence[str] = ()
    ) -> AbstractContextManager[ReachableServer]:
        """A server for the length of a `with`.

        Args:
            gpus: '' for none, 'all', or device numbers separated by commas.
            hidden: files that are empty in it.
            arguments: added to its command.
        """


def wait_until_ready(endpoint: Endpoint, server: Server, *, timeout: float, where: str) -> float:
    """Waits until the server and all of its models are ready; returns the seconds that it took.

    Raises:
        ServerDied: the process ended; the detail has its last lines, the remedy what they mean.
        NotReady: it was not ready within `timeout` seconds.
    """
    began = time.monotonic()
    with contextlib.closing(tritonclient.http.InferenceServerClient(endpoint.http, connection_timeout=5.0)) as client:
        while True:
            # A server that is starting refuses connections, or closes them unanswered.
            with contextlib.suppress(*_TRANSPORT_ERRORS, InferenceServerException):
                if client.is_server_ready():
                    return time.monotonic() - began
            status = server.exited()
            if status is not None:
                raise died(server, status, where)
            if time.monotonic() - began > timeout:
                raise NotReady(
                    f"the server runs, but was not ready after {timeout:.0f} s",
                    where=where,
                    remedy="see the last lines of its log; give it longer with --timeout if it is still loading",
                    detail=last_words(server.log()),
                )
            time.sleep(_POLL_SECONDS)


def died(server: Server, status: int, where: str, when: str = "before it was ready") -> ServerDied:
    """The error for a server that ended, with what its log means."""
    lines = server.log()
    meaning = explain(lines, status)
    return ServerDied(
        f"the server stopped with exit status {status} {when}" + (f": {meaning.what}" if meaning else ""),
        where=where,
        remedy=meaning.remedy if meaning else "see the last lines of its log",
        detail=(meaning and meaning.evidence) or last_words(lines),
    )


def last_words(lines: Sequence[str], count: int = 20) -> list[str]:
    """The end of a log, without the tables that the server prints at its start and without a terminal's commands."""
    plain = (Text.from_ansi(line).plain.strip() for line in lines)
    return [line for line in plain if line and not line.startswith(("|", "+-"))][-count:]


def models(endpoint: Endpoint) -> list[ModelSpec]:
    """Every version of every model that is ready, with the configuration that the server completed."""
    with (
        _translated("repository", "grpc"),
        contextlib.closing(tritonclient.grpc.InferenceServerClient(endpoint.grpc)) as client,
    ):
        index = client.get_model_repository_index()
        ready = {(each.name, each.version) for each in index.models if each.state == "READY"}
        return [
            specification(client.get_model_config(name, version).config, version)
            for name, version in sorted(ready, key=lambda each: (each[0], len(each[1]), each[1]))  # 2 before 10
        ]


def specification(config: Any, version: str = "") -> ModelSpec:
    """The signature in a ModelConfig, as the server gives it or as config.pbtxt has it."""

    def tensors(described: Any) -> tuple[TensorSpec, ...]:
        from tritonclient.grpc import model_config_pb2

        return tuple(
            TensorSpec(each.name, _datatype(model_config_pb2.DataType.Name(each.data_type)), tuple(each.dims))
            for each in described
        )

    return ModelSpec(config.name, config.max_batch_size, tensors(config.input), tensors(config.output), version)


def _datatype(name: str) -> str:
    """The protocol's name for a data type, which for strings is not the configuration's."""
    short = name.removeprefix("TYPE_")
    return "BYTES" if short == "STRING" else short


class Client(Protocol):
    """One way to ask for inference."""

    protocol: str

    def infer(self, model: ModelSpec, inputs: Tensors) -> Tensors:
        """The model's outputs for one request."""

    def infer_many(self, model: ModelSpec, requests: Sequence[Tensors]) -> list[Tensors]:
        """The outputs of several requests that are all in flight at once, in their order."""


class _TritonClient:
    """What tritonclient's HTTP and gRPC modules have in common."""

    def __init__(self, module: Any, protocol: str, at_once: int) -> None:
        self.protocol = protocol
        self._module = module
        self._pool = ThreadPoolExecutor(at_once)

    def infer(self, model: ModelSpec, inputs: Tensors) -> Tensors:
        with _translated(model.title, self.protocol):
            result = self._infer(model, self._inputs(model, inputs))
            return {spec.name: result.as_numpy(spec.name) for spec in model.outputs}

    def infer_many(self, model: ModelSpec, requests: Sequence[Tensors]) -> list[Tensors]:
        pending: list[Future[Tensors]] = [self._pool.submit(self.infer, model, each) for each in requests]
        return [each.result() for each in pending]

    def close(self) -> None:
        # Not waited for: a request that hangs ends with its server.
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _infer(self, model: ModelSpec, inputs: list[Any]) -> Any:
        raise NotImplementedError

    def _inputs(self, model: ModelSpec, values: Tensors) -> list[Any]:
        made = []
        for spec in model.inputs:
            tensor = self._module.InferInput(spec.name, list(values[spec.name].shape), spec.datatype)
            tensor.set_data_from_numpy(values[spec.name])
            made.append(tensor)
        return made


class HttpClient(_TritonClient):
    """HTTP, a connection for each thread: tritonclient's own `async_infer` waits 10 ms for each request it starts."""

    def __init__(self, endpoint: Endpoint, at_once: int) -> None:
        super().__init__(tritonclient.http, "http", at_once)
        self._endpoint = endpoint
        self._local = threading.local()

    def _infer(self, model: ModelSpec, inputs: list[Any]) -> Any:
        if not hasattr(self._local, "client"):
            address = self._endpoint.http
            self._local.client = tritonclient.http.InferenceServerClient(address, network_timeout=_ANSWER_SECONDS)
        return self._local.client.infer(model.name, inputs, model_version=model.version)


class GrpcClient(_TritonClient):
    """gRPC, whose client may be used by many threads."""

    def __init__(self, endpoint: Endpoint, at_once: int) -> None:
        super().__init__(tritonclient.grpc, "grpc", at_once)
        self._client = tritonclient.grpc.InferenceServerClient(endpoint.grpc)

    def close(self) -> None:
        super().close()
        self._client.close()

    def _infer(self, model: ModelSpec, inputs: list[Any]) -> Any:
        return self._client.infer(model.name, inputs, model_version=model.version, client_timeout=_ANSWER_SECONDS)


@contextlib.contextmanager
def clients(endpoint: Endpoint, at_once: int) -> Iterator[tuple[Client, ...]]:
    """A client for each protocol, each able to have `at_once` requests in flight."""
    with (
        contextlib.closing(HttpClient(endpoint, at_once)) as http,
        contextlib.closing(GrpcClient(endpoint, at_once)) as grpc,
    ):
        yield http, grpc


@contextlib.contextmanager
def _translated(model: str, protocol: str) -> Iterator[None]:
    try:
        yield
    except InferenceServerException as error:
        raise RequestRefused(
            f"model {model!r} refused a request over {protocol}",
            where=f"model {model}",
            remedy="see the server's message",
            detail=[str(error)],
        ) from None
    except _TRANSPORT_ERRORS as error:
        raise InferenceFailed(
            f"the connection broke in a request to model {model!r} over {protocol}",
            where=f"model {model}",
            remedy="the server may have stopped; see its log",
            detail=[str(error)],
        ) from None


def explain(lines: Sequence[str], status: int | None = None) -> Diagnosis | None:
    """The first cause that the log of a server that failed shows; None for what is not known."""
    return next(iter(diagnose(lines, status=status)), None)
