"""The embedded backend's speed and memory, beside Triton's own Python backend: `python -m bench.backend`.

A real tritonserver with the shipped example and an identity model, on loopback. Both models are asked in turn, so that
whatever else the machine does hits both. Prints a table on stderr and JSON on stdout; exit status 1 if a figure misses
its floor.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.http
from rich.console import Console

from bench.figures import Figure, Spread, show
from bench.load import Connection, Load, Model, Request, WrongAnswer, drive
from bench.server import MeasuredServer, measured
from builder.docker.engine import Engine

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "bench" / "models"
TARGET = "embedded"
IDENTITY = Model("identity", "IN", "OUT")
DALI = Model("mydali", "DALI_INPUT_0", "DALI_OUTPUT_0")
SMALL, LARGE = (1, 1 << 10), (8, 1 << 20)
PROCESSES, THREADS = 4, 8
LIMIT_SECONDS = 360
_SEQUENTIAL_SECONDS = 5.0
_MEMORY_SECONDS = 100.0
_DIFFERENT = 16
"""Requests of one connection that differ: were two answers swapped, it would be seen."""
_MIXED_BYTES = (1, 3, 255, 1 << 10, 4 << 10, 16 << 10)
_MIXED_LARGE = (1 << 20) + 1
_MIXED = 64
"""Requests of one connection, of which the last is large."""


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    starts: int
    rounds: int
    small: int  # requests a round
    large: int
    seconds: float  # of 32 clients, a round
    mixed: int  # requests, for the memory


THOROUGH = Effort(starts=7, rounds=9, small=400, large=20, seconds=2.0, mixed=100_000)
QUICK = Effort(starts=3, rounds=5, small=100, large=8, seconds=0.5, mixed=10_000)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--image", help="one with the shipped example (default: it is built)")
    parser.add_argument("--quick", action="store_true", help="shows in half a minute what is badly wrong, no more")
    given = parser.parse_args()
    engine = Engine.connect()
    image = given.image or _built()
    # Each part has a limit of its own; this one is for what nobody thought of.
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LIMIT_SECONDS)
    loads = [round(os.getloadavg()[0], 1)]
    figures = measure(engine, image, QUICK if given.quick else THOROUGH)
    loads.append(round(os.getloadavg()[0], 1))
    met = all(figure.met is not False for figure in figures)
    document = {
        "image": image,
        "digest": engine.image(image)["Id"],
        "cores": os.cpu_count(),
        "load": loads,
        "met": met,
        "figures": [asdict(figure) for figure in figures],
    }
    print(json.dumps(document, indent=2))
    title = f"{image}, {os.cpu_count()} cores, load {loads[0]} before and {loads[1]} after; medians (quartiles)"
    show(figures, title, Console(stderr=True, width=None if sys.stderr.isatty() else 160))
    return 0 if met else 1


def measure(engine: Engine, image: str, effort: Effort) -> list[Figure]:
    """Every figure."""
    starts = []
    for _ in range(effort.starts):
        with measured(engine, image) as server:
            starts.append(server.ready_seconds)
    with measured(engine, image, ["--model-repository=/bench"], {MODELS: "/bench"}) as server:
        speed = _speed(server.http, effort)
    with measured(engine, image) as server:
        memory = _memory(server, effort.mixed)
    ready = Spread.of(starts)
    return [
        *speed,
        Figure("ready after its process began", "s", ready, floor="1.5 s", met=ready.median <= 1.5),
        *memory,
    ]


def _speed(address: str, effort: Effort) -> list[Figure]:
    # What tritonclient takes for itself makes any two models look alike: the same requests without it show the servers.
    sequential: dict[str, Callable[[Model], float]] = {
        "[1, 1 KiB]": lambda model: _client(address, model, SMALL, effort.small),
        "[1, 1 KiB], plain sockets": lambda model: _plain(address, model, SMALL, effort.small),
        "[8, 1 MiB]": lambda model: _client(address, model, LARGE, effort.large),
        "[8, 1 MiB], plain sockets": lambda model: _plain(address, model, LARGE, effort.large),
    }
    loads: dict[Model, list[Load]] = {DALI: [], IDENTITY: []}

    def together(model: Model) -> float:
        loads[model].append(_together(address, model, effort.seconds))
        return loads[model][-1].per_second

    parts = {**sequential, "rate": together}
    for take in parts.values():  # warm-up
        for model in loads:
            take(model)
    for each in loads.values():
        each.clear()
    before = _statistics(address, DALI)
    taken: dict[tuple[str, Model], list[float]] = {(name, model): [] for name in parts for model in loads}
    for index in range(effort.rounds):
        for name, take in parts.items():
            for model in (DALI, IDENTITY) if index % 2 else (IDENTITY, DALI):  # neither is always the first
                taken[name, model].append(take(model))
    requests, executions = (after - then for after, then in zip(_statistics(address, DALI), before, strict=True))
    compared = {name: _compared(taken[name, DALI], taken[name, IDENTITY]) for name in parts}
    small, large = compared["[1, 1 KiB]"], compared["[8, 1 MiB]"]
    floors = {
        "[1, 1 KiB]": ("0.45 ms; ratio 1.1", small[0].median <= 0.45 and small[2].median <= 1.1),
        "[8, 1 MiB]": ("19 ms; ratio 1.1", large[0].median <= 19 and large[2].median <= 1.1),
    }
    figures = [
        Figure(f"{name}, one at a time, p50", "ms", *compared[name], *floors.get(name, ("", None)))
        for name in sequential
    ]
    rate = compared["rate"]
    clients = PROCESSES * THREADS
    figures.append(
        Figure(
            f"[1, 1 KiB], {clients} clients",
            "requests/s",
            *rate,
            "4000/s or ratio 0.9",
            rate[0].median >= 4000 or rate[2].median >= 0.9,
        )
    )
    busy = {model: [load.client_cpu_seconds / load.seconds for load in loads[model]] for model in loads}
    figures.append(Figure("of which the clients", "cores", *_compared(busy[DALI], busy[IDENTITY])))
    joined = requests / executions
    # Sequential requests are executions of one: on the whole there must be fewer executions than requests.
    figures.append(
        Figure("requests in an execution, on the whole", "", Spread.of([joined] * 2), None, None, "> 1", joined > 1)
    )
    return figures


def _compared(backend: Sequence[float], identity: Sequence[float]) -> tuple[Spread, Spread, Spread]:
    ratios = [ours / theirs for ours, theirs in zip(backend, identity, strict=True)]
    return Spread.of(backend), Spread.of(identity), Spread.of(ratios)


def _client(address: str, model: Model, shape: tuple[int, int], count: int) -> float:
    """Median milliseconds of requests with tritonclient over HTTP, one after the other."""
    array = _random(shape, 0)
    tensors = model.tensors(array)
    with closing(tritonclient.http.InferenceServerClient(address)) as client:

        def ask() -> float:
            began = time.perf_counter()
            answer = client.infer(model.name, tensors)
            took = time.perf_counter() - began
            if not np.array_equal(answer.as_numpy(model.output), array):
                raise WrongAnswer(f"model {model.name}: not the bytes that were sent")
            return took

        return _median(ask, count)


def _plain(address: str, model: Model, shape: tuple[int, int], count: int) -> float:
    """The same of requests that are written already; to compare the answers belongs to it."""
    request = model.request(_random(shape, 0))
    with closing(Connection(address)) as connection:

        def ask() -> float:
            began = time.perf_counter()
            connection.ask(request)
            return time.perf_counter() - began

        return _median(ask, count)


def _median(ask: Callable[[], float], count: int) -> float:
    took: list[float] = []
    deadline = time.perf_counter() + _SEQUENTIAL_SECONDS
    while len(took) < count and time.perf_counter() < deadline:
        took.append(ask())
    return statistics.median(took) * 1e3


def _together(address: str, model: Model, seconds: float) -> Load:
    def requests(number: int) -> list[Request]:
        return [model.request(_random(SMALL, number * _DIFFERENT + each)) for each in range(_DIFFERENT)]

    return drive(address, requests, processes=PROCESSES, threads=THREADS, seconds=seconds)


def _memory(server: MeasuredServer, count: int) -> list[Figure]:
    """Before and after `count` requests of mixed shapes. The requests before that find what is needed at most: large
    ones alone, as many at once as there can be, and then a fifth of all."""
    _mixed(server, PROCESSES * THREADS * 10, large_alone=True)
    _mixed(server, count // 5)
    before = server.memory()
    load = _mixed(server, count)
    after = server.memory()
    if load.requests < count:
        raise WrongAnswer(f"only {load.requests:,} of {count:,} requests were answered in {load.seconds:.0f} s")
    figures = []
    for name, then, now in (
        ("resident, all processes", before.resident, after.resident),
        ("used of /dev/shm", before.shared, after.shared),
    ):
        growth = (now / then - 1) * 100
        title = f"{name}: {then / 2**20:.1f} MiB, then {load.requests:,} mixed requests"
        figures.append(Figure(title, "% more", Spread.of([growth] * 2), floor="5 %", met=growth <= 5))
    return figures


def _mixed(server: MeasuredServer, count: int, large_alone: bool = False) -> Load:
    def requests(number: int) -> list[Request]:
        random = np.random.default_rng(number)
        large = (1 + number % 4, _MIXED_LARGE)
        sizes = [(int(random.integers(1, 5)), int(random.choice(_MIXED_BYTES))) for _ in range(_MIXED - 1)]
        return [DALI.request(_random(shape, number)) for shape in ([large] if large_alone else [*sizes, large])]

    return drive(server.http, requests, processes=PROCESSES, threads=THREADS, seconds=_MEMORY_SECONDS, count=count)


def _random(shape: tuple[int, int], seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _statistics(address: str, model: Model) -> tuple[int, int]:
    """Requests that the model answered, and executions that it took."""
    with closing(tritonclient.http.InferenceServerClient(address)) as client:
        (found,) = client.get_inference_statistics(model.name)["model_stats"]
        return int(found["inference_stats"]["success"]["count"]), int(found["execution_count"])


def _built() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "builder", "build", "-C", str(ROOT), f"--target={TARGET}", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
    (image,) = json.loads(done.stdout)["images"]
    return str(image["digest"])


def _too_long(_number: int, _frame: Any) -> None:
    raise TimeoutError(f"the benchmark took longer than {LIMIT_SECONDS} s: the machine is too busy to measure on")


if __name__ == "__main__":
    sys.exit(main())
