"""Proves an image: real inference in the real image, and proof that its plugin is what did it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from rich.console import Console

from builder import oracles, triton
from builder.artifacts import Latency, NegativeControl, Verification, VerifiedModel
from builder.docker.engine import Engine
from builder.docker.server import listed_plugins, serving
from builder.errors import InferenceFailed, NegativeControlServed, ServerDied, VerificationError, WrongAnswer
from builder.triton import Array, Client, ModelSpec, Server, Tensors
from builder.workload import KIB, Workload

AT_ONCE = 32
ROUNDS = 4
LATENCY_REQUESTS = 200
THROUGHPUT_REQUESTS = 512
_WARM_UP = 20
_DYING_SECONDS = 1.0
# Not the server's table of backends, which names the plugins whatever becomes of them.
_BLAMES_A_PLUGIN = re.compile(r"[Ff]ail\w* to load (?:plugin|library)|(?:No schema found|Schema) for operator")


def run(
    engine: Engine,
    digest: str,
    image: str,
    target: str,
    console: Console,
    *,
    seed: int,
    gpus: str = "",
    timeout: float = 120.0,
) -> Verification:
    """Verifies the image with the engine's ID `digest`, known to the user as `image`.

    Raises:
        ServerDied, NotReady: it does not come up.
        InferenceFailed, WrongAnswer: a request fails, or an answer differs from the oracle's.
        NegativeControlServed: it works without its plugin.
    """
    described = engine.image(digest)
    with serving(engine, digest, gpus=gpus) as server:
        endpoint = server.endpoint()
        ready = triton.wait_until_ready(endpoint, server, timeout=timeout, where=image)
        console.print(f"{image}: ready after {ready:.1f} s")
        try:
            specs = triton.models(endpoint)
            if not specs:
                raise VerificationError(
                    "the server has no model", where=image, remedy="add one to model_repository/ and build again"
                )
            with triton.clients(endpoint, AT_ONCE) as clients:
                models = tuple(_verify(spec, clients, seed, console) for spec in specs)
        except InferenceFailed:
            # A request fails for good when there is nobody left to answer it.
            if (status := _exit_status(server)) is not None:
                raise triton.died(server, status, image, "while it was asked") from None
            raise
    control = _negative_control(engine, digest, image, listed_plugins(described), gpus, timeout)
    console.print(
        f"{image}: {control.evidence if not control.applicable else 'without its plugin it fails: ' + control.evidence}"
    )
    return Verification(
        target=target,
        reference=image,
        digest=digest,
        passed=True,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        gpus=gpus,
        models=models,
        negative_control=control,
        ready_seconds=round(ready, 3),
    )


def _verify(model: ModelSpec, clients: Sequence[Client], seed: int, console: Console) -> VerifiedModel:
    workload = Workload(model, seed)
    asked = 0
    for client in clients:
        for inputs in workload.sweep():
            compare(model, inputs, client.infer(model, inputs), client.protocol)
            asked += 1
        for _ in range(ROUNDS):
            requests = workload.mixed(AT_ONCE)
            for inputs, outputs in zip(requests, client.infer_many(model, requests), strict=True):
                compare(model, inputs, outputs, f"{client.protocol}, {AT_ONCE} at once")
            asked += len(requests)
    latency = _latency(model, clients[0], workload.request(KIB, 1))
    rate = _throughput(model, clients[0], [workload.request(KIB, 1) for _ in range(AT_ONCE)])
    asked += _WARM_UP + LATENCY_REQUESTS + THROUGHPUT_REQUESTS
    console.print(
        f"model {model.name}: {asked} requests over HTTP and gRPC, every byte right; "
        f"p50 {latency.p50:.2f} ms, p99 {latency.p99:.2f} ms, {rate:.0f} requests/s with {AT_ONCE} at once"
    )
    return VerifiedModel(
        name=model.name, oracle="identity", requests=asked, latency_ms=latency, requests_per_second=round(rate, 1)
    )


def compare(model: ModelSpec, inputs: Tensors, outputs: Tensors, how: str) -> None:
    """Checks one answer.

    Raises:
        WrongAnswer: a shape, a data type or a byte differs from the oracle's.
    """
    for name, expected in oracles.identity(model, inputs).items():
        got = outputs[name]
        shape = tuple(expected.shape)
        if got is None:
            problem = "is missing"
        elif got.shape != shape or got.dtype != expected.dtype:
            problem = f"is {got.dtype}{list(got.shape)}, not {expected.dtype}{list(shape)}"
        elif not is_same(got, expected):
            problem = f"differs from element {_first_difference(got, expected)} on"
        else:
            continue
        raise WrongAnswer(
            f"output {name!r} of model {model.name!r} {problem}",
            where=f"model {model.name}, {how}, input {list(next(iter(inputs.values())).shape)}",
            remedy="the operator or the pipeline is wrong for this shape; run it in DALI alone with the same one",
        )


def is_same(got: Array, expected: Array) -> bool:
    """Whether every byte is; equal NaNs are equal."""
    if got.dtype.kind == "O":
        return bool((got == expected).all())
    return got.tobytes() == expected.tobytes()


def _first_difference(got: Array, expected: Array) -> int:
    return int(np.argmax((got != expected).ravel()))


def _exit_status(server: Server) -> int | None:
    """Of a server that may be about to end: its connections break before its process is gone."""
    deadline = time.monotonic() + _DYING_SECONDS
    while (status := server.exited()) is None and time.monotonic() < deadline:
        time.sleep(_DYING_SECONDS / 20)
    return status


def _latency(model: ModelSpec, client: Client, inputs: Tensors) -> Latency:
    for _ in range(_WARM_UP):
        client.infer(model, inputs)
    times = []
    for _ in range(LATENCY_REQUESTS):
        began = time.perf_counter()
        outputs = client.infer(model, inputs)
        times.append(time.perf_counter() - began)
        compare(model, inputs, outputs, client.protocol)
    p50, p99 = np.percentile(times, (50, 99)) * 1000
    return Latency(p50=round(float(p50), 3), p99=round(float(p99), 3))


def _throughput(model: ModelSpec, client: Client, requests: list[Tensors]) -> float:
    """Requests a second, answers checked outside the time."""
    seconds = 0.0
    for _ in range(THROUGHPUT_REQUESTS // len(requests)):
        began = time.perf_counter()
        answers = client.infer_many(model, requests)
        seconds += time.perf_counter() - began
        for inputs, outputs in zip(requests, answers, strict=True):
            compare(model, inputs, outputs, f"{client.protocol}, {AT_ONCE} at once")
    return THROUGHPUT_REQUESTS // len(requests) * len(requests) / seconds


def _negative_control(
    engine: Engine, digest: str, image: str, plugins: tuple[str, ...], gpus: str, timeout: float
) -> NegativeControl:
    """Serves the image with its plugins hidden, which must fail for that very reason."""
    if not plugins:
        return NegativeControl(
            applicable=False, passed=True, evidence="no plugin in the image's command, so nothing to take away"
        )
    with serving(engine, digest, gpus=gpus, hidden=plugins) as server:
        try:
            triton.wait_until_ready(server.endpoint(), server, timeout=timeout, where=image)
        except ServerDied:  # as it must
            return _judge(server, image)
    raise NegativeControlServed(
        "the image is ready even without its plugins, so inference proves nothing about them",
        where=image,
        remedy="use the plugin's operator in a pipeline, or remove the plugin from the image's command",
        detail=plugins,
    )


def _judge(server: Server, image: str) -> NegativeControl:
    lines = server.log()
    for line in lines:
        if _BLAMES_A_PLUGIN.search(line):
            return NegativeControl(applicable=True, passed=True, evidence=line.strip()[:300])
    raise VerificationError(
        "without its plugins the server fails, but its log does not name them, so something else may be wrong",
        where=image,
        remedy="see the last lines of its log",
        detail=triton.last_words(lines),
    )
