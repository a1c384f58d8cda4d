"""Proves an image: real inference in the real image, and proof that its plugins are what did it."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from builder import __version__, negative_control, oracles, pbtxt, sources, triton
from builder.artifacts import Latency, NegativeControl, NotRun, Verification, VerifiedModel, buckets
from builder.asking import Clock, Turn
from builder.checks import placement
from builder.docker.server import listed_plugins
from builder.errors import (
    InferenceFailed,
    OracleModelUnknown,
    VerificationError,
    did_you_mean,
)
from builder.oracles import Case, Oracle
from builder.project import FILE_NAME, Project
from builder.recipe import OURS
from builder.triton import Client, Host, ModelSpec, ReachableServer, Server

AT_ONCE = 32
ROUNDS = 4
LATENCY_REQUESTS = 200
THROUGHPUT_REQUESTS = 512
MODELS_SECONDS = 30.0
"""For all models together. What one of them leaves, the next ones have; what none can do without is asked anyway."""
_WARM_UP = 20
_LATENCY_REQUESTS_AT_LEAST = 20
_MEASURING_SHARE = 0.15
_MEASURING_SECONDS = 2.0
_DYING_SECONDS = 1.0
_LOG_LINES = 40
_LIGHT_BYTES = 256 << 20


def run(
    host: Host,
    digest: str,
    image: str,
    target: str,
    console: Console,
    *,
    project: Project,
    seed: int,
    gpus: str = "",
    not_run: Sequence[NotRun] = (),
    timeout: float = 120.0,
) -> Verification:
    """Verifies the image with the engine's ID `digest`, known to the user as `image`.

    Args:
        project: says how its models are verified, by their names.
        target: the target that the image was built for; empty for an image from anywhere.
        not_run: models that are left out, and with which nothing has passed; for images of `target` alone.

    Raises:
        OracleMissing, OracleModelUnknown, GoldenInvalid, OracleFailed: what should say what is right cannot.
        ServerDied, NotReady: it does not come up.
        InferenceFailed, WrongAnswer: a request fails, or an answer differs from the oracle's.
        NegativeControlServed: it works without its plugins.
    """
    told = _oracles(project, target)
    described = host.image(digest)
    labels = described["Config"].get("Labels") or {}
    left_out = {each.name for each in not_run}
    arguments = _only(_names(_models(project, target)) - left_out) if left_out else ()
    plugins = listed_plugins(described)

    def without_plugins() -> contextlib.AbstractContextManager[ReachableServer]:
        return host.serving(digest, gpus=gpus, hidden=plugins, arguments=arguments)

    control = None
    if not plugins:
        control = NegativeControl(
            applicable=False, passed=True, evidence="no plugin in the image's command, so nothing to take away"
        )
    judged = None
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(host.serving(digest, gpus=gpus, arguments=arguments))
        began = time.monotonic()
        # Most of what a server does until it gives up is waiting, so the other one costs little beside this one, unless
        # both want much memory.
        if control is None and not gpus and _is_light(project, target):
            judged = stack.enter_context(negative_control.beside(without_plugins, image, plugins, timeout))
        endpoint = server.endpoint()
        triton.wait_until_ready(endpoint, server, timeout=timeout, where=image)
        ready = time.monotonic() - began
        console.print(f"{image}: ready after {ready:.1f} s")
        try:
            specs = triton.models(endpoint)
            if not specs:
                raise VerificationError(
                    "the server has no model" + (" that needs no GPU" if left_out else ""),
                    where=image,
                    remedy="add one to model_repository/ and build again",
                )
            if target:
                _check_all_served(project, specs, left_out)
            with triton.clients(endpoint, AT_ONCE) as clients:
                models = verify(specs, told, clients, seed, console, alone=judged)
        except InferenceFailed:
            # A request fails for good when there is nobody left to answer it.
            if (status := _exit_status(server)) is not None:
                raise triton.died(server, status, image, "while it was asked") from None
            raise
        log = server.whole_log()
        control = judged() if judged else control
    if control is None:
        with without_plugins() as other:
            control = negative_control.judged(other, image, plugins, timeout)
    failed = "without its plugins it fails: " if control.applicable else ""
    console.print(f"{image}: {failed}{control.evidence}")
    for each in not_run:
        console.print(f"model {each.name}: not run: {each.why}")
    return Verification(
        target=target or labels.get(OURS + "target", ""),
        reference=image,
        digest=digest,
        passed=not not_run,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        gpus=gpus,
        models=models,
        not_run=tuple(not_run),
        negative_control=control,
        ready_seconds=round(ready, 3),
        versions=_versions(host, labels),
        configuration=_configuration(project),
        server_log_sha256=hashlib.sha256(log).hexdigest(),
        server_log=tuple(log.decode(errors="replace").splitlines()[-_LOG_LINES:]),
    )


def _versions(host: Host, labels: Mapping[str, str]) -> dict[str, str]:
    return {
        "triton": labels.get(OURS + "triton.version", ""),
        "dali": labels.get(OURS + "dali.version", ""),
        "builder": __version__,
        "engine": host.version,
    }


def _configuration(project: Project) -> dict[str, str]:
    """SHA-256 of the files that say how models are verified, by their names in the project."""
    named = {FILE_NAME, *(file for each in project.models.values() if (file := oracles.file_of(each)))}
    return {name: sources.of_file(project.root / name) for name in sorted(named) if (project.root / name).is_file()}


def of_gpus(project: Project, target: str) -> list[NotRun]:
    """The target's models that do not run without a GPU: where their configurations place them, or a step of theirs."""
    folder = _models(project, target)
    configs = {
        name: pbtxt.read(config).message
        for name in sorted(_names(folder))
        if (config := folder / name / pbtxt.FILE_NAME).is_file()
    }
    left_out = placement.of_gpus(configs)
    return [NotRun(name=name, why=left_out[name]) for name in sorted(left_out)]


def _models(project: Project, target: str) -> Path:
    """The model repository as the target's image has it."""
    return project.state / target / "parts" / "models"


def _is_light(project: Project, target: str) -> bool:
    """Whether the models of two servers can be loaded at once; of an image from anywhere nobody knows."""
    folder = _models(project, target)
    files = (path.stat().st_size for path in folder.rglob("*") if path.is_file()) if target else ()
    return bool(target) and folder.is_dir() and sum(files) <= _LIGHT_BYTES


def _names(folder: Path) -> set[str]:
    """Those of the models in a repository: they have versions, which are numbers."""
    return {path.parent.name for path in folder.glob("*/*") if path.name.isdecimal()}


def _only(names: set[str]) -> list[str]:
    """What makes the server load these models and no others."""
    return ["--model-control-mode=explicit", *(f"--load-model={name}" for name in sorted(names))]


def _oracles(project: Project, target: str) -> dict[str, Oracle]:
    """Those of builder.toml, by model, tried as far as they can be without a server.

    Raises:
        OracleMissing, GoldenInvalid, OracleFailed: one cannot be used.
    """
    told = {
        name: oracles.load(project.root, each, str(project.place("models", name, "oracle")))
        for name, each in project.models.items()
    }
    if target:
        for name, oracle in told.items():
            config = _models(project, target) / name / pbtxt.FILE_NAME
            if config.is_file() and (spec := _declared(pbtxt.read(config).message, name)):
                oracle.ask(spec, 0)
    return told


def _declared(config: Any, name: str) -> ModelSpec | None:
    """The signature in a config.pbtxt; None where the server has to complete it."""
    tensors = [*config.input, *config.output]
    complete = config.input and config.output and all(each.data_type and each.dims for each in tensors)
    return replace(triton.specification(config), name=name) if complete else None


def _check_all_served(project: Project, specs: Sequence[ModelSpec], left_out: AbstractSet[str] = frozenset()) -> None:
    served = {spec.name for spec in specs} | left_out
    for name in project.models:
        if name not in served:
            raise OracleModelUnknown(
                f"the server has no model {name!r}, so it cannot be verified{did_you_mean(name, served)}",
                where=str(project.place("models", name)),
                remedy=f"it has {', '.join(sorted(served))}; mend the table's name, or build again",
            )


def verify(
    specs: Sequence[ModelSpec],
    told: Mapping[str, Oracle],
    clients: Sequence[Client],
    seed: int,
    console: Console,
    *,
    alone: Callable[[], object] | None = None,
) -> tuple[VerifiedModel, ...]:
    """Asks every version of every model; one without an oracle is held to its signature.

    Args:
        alone: waits until nothing else of ours runs; called before anything is timed, and not counted as time.

    Raises:
        InferenceFailed, WrongAnswer: the first request that fails, or is answered wrongly.
    """
    clock = Clock()
    verified = []
    for number, spec in enumerate(specs):
        left = max(0.0, MODELS_SECONDS - clock.seconds)
        share = left / (len(specs) - number)
        # Kept back for latency and for throughput, as they come last.
        each = min(_MEASURING_SHARE * share, _MEASURING_SECONDS)
        turn = Turn(spec, told.get(spec.name, oracles.SIGNATURE), share - 2 * each, clock)
        verified.append(_verify(turn, clients, seed, console, each, alone or (lambda: None)))
    return tuple(verified)


def _verify(
    turn: Turn, clients: Sequence[Client], seed: int, console: Console, seconds: float, alone: Callable[[], object]
) -> VerifiedModel:
    """Asks what cannot be done without however long it takes, and in the turn's time whatever else there is.

    Then it measures, latency and throughput for `seconds` each.
    """
    model, oracle = turn.model, turn.oracle
    questions = oracle.ask(model, seed)
    others = turn.needed(clients, questions)
    for client in clients:
        turn.many(client, questions.mixed(AT_ONCE))
    for _ in range(ROUNDS - 1):
        for client in clients:
            if turn.is_over:
                turn.left_out += AT_ONCE
            else:
                turn.many(client, questions.mixed(AT_ONCE))
    for ask in others:
        if turn.is_over:
            turn.left_out += len(clients)
            continue
        case = questions.case(ask)
        for client in clients:
            turn.one(client, case)
    with turn.clock.stopped():
        alone()
    latency = _latency(turn, clients[0], questions.small(), seconds)
    rate = _throughput(turn, clients[0], [questions.small() for _ in range(AT_ONCE)], seconds)
    what = "every value right" if oracle.compares_values else "types and shapes right, no oracle compared values"
    console.print(
        f"model {model.title}: {turn.asked} requests over HTTP and gRPC, {what} ({oracle.name}); "
        f"p50 {latency.p50:.2f} ms, p99 {latency.p99:.2f} ms, {rate:.0f} requests/s with {AT_ONCE} at once"
        + (f"; no time for {turn.left_out} more requests" if turn.left_out else "")
    )
    return VerifiedModel(
        name=model.name,
        version=model.version,
        oracle=oracle.name,
        values_compared=oracle.compares_values,
        rtol=oracle.rtol,
        atol=oracle.atol,
        requests=turn.asked,
        left_out=turn.left_out,
        latency_ms=latency,
        requests_per_second=round(rate, 1),
    )


def _exit_status(server: Server) -> int | None:
    """Of a server that may be about to end: its connections break before its process is gone."""
    deadline = time.monotonic() + _DYING_SECONDS
    while (status := server.exited()) is None and time.monotonic() < deadline:
        time.sleep(_DYING_SECONDS / 20)
    return status


def _latency(turn: Turn, client: Client, case: Case, seconds: float) -> Latency:
    counted = turn.times(client, case, _WARM_UP, LATENCY_REQUESTS, seconds, at_least=_LATENCY_REQUESTS_AT_LEAST)
    p50, p99 = np.percentile(counted, (50, 99))
    return Latency(p50=round(float(p50), 3), p99=round(float(p99), 3), histogram=buckets(counted))


def _throughput(turn: Turn, client: Client, cases: list[Case], seconds: float) -> float:
    """Requests a second, answers checked outside the time."""
    asked, took = 0, 0.0
    while asked < THROUGHPUT_REQUESTS and (not asked or took < seconds):
        took += turn.many(client, cases)
        asked += len(cases)
    return asked / took
