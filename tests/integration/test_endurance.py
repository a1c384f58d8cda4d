"""A server under load for a long time: no wrong byte, no lost request, no growth; and it ends in order.

ENDURANCE_SECONDS says for how long (`make endurance`: ten minutes); by default just long enough to see that it works.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from bench.load import ANSWER_SECONDS, Connection, Model
from bench.server import MeasuredServer, Memory, measured
from builder.docker.engine import Engine

from .conftest import Project

SECONDS = float(os.environ.get("ENDURANCE_SECONDS", "20"))
CLIENTS = 32
STEADY, PASSING = "mydali", "passing"
"""The shipped model, and a copy of it that comes and goes."""
INPUT, OUTPUT = "DALI_INPUT_0", "DALI_OUTPUT_0"
BATCH_AT_MOST = 256
SAMPLE_BYTES = (1, 3, 255, 1 << 10, 4 << 10, 64 << 10)
LARGE = ((4, (1 << 20) + 1), (2, 3 << 20), (256, 1 << 10))
GROWTH_AT_MOST = 1.05
# Sent so long before a signal, a request is the server's.
SETTLED_SECONDS = 0.05

Ask = Callable[[], str]
"""Sends one request; says what kind it was, if it was answered as it must be."""


@pytest.fixture(scope="module")
def repository(shipped: Project, image: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second model repository, with a copy of the built model under another name."""
    root = tmp_path_factory.mktemp("endurance")
    source = shipped.root / ".builder" / "embedded" / "parts" / "models" / STEADY
    shutil.copytree(source, root / PASSING)
    config = root / PASSING / "config.pbtxt"
    config.write_text(config.read_text().replace(f'"{STEADY}"', f'"{PASSING}"'))
    # pytest's folders are its own user's; the server is another.
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for path in (root.parent, root.parent.parent):
        path.chmod(path.stat().st_mode | 0o055)
    return root


@pytest.fixture
def server(engine: Engine, image: dict[str, Any], repository: Path) -> Iterator[MeasuredServer]:
    arguments = [
        "--model-repository=/more",
        "--model-control-mode=explicit",
        f"--load-model={STEADY}",
    ]
    with measured(engine, image["digest"], arguments, {repository: "/more"}) as running:
        yield running


class Client:
    """One of many, with requests of its own. Every answer is held against what it must be."""

    def __init__(self, server: MeasuredServer, number: int) -> None:
        self._random = random.Random(number)
        data = np.random.default_rng(number)
        self._small = [
            data.integers(0, 256, (self._random.randint(1, 4), size), dtype=np.uint8)
            for size in SAMPLE_BYTES
            for _ in range(4)
        ]
        self._large = data.integers(0, 256, LARGE[number % len(LARGE)], dtype=np.uint8)
        # Both protocols, three to one.
        self._module: Any = tritonclient.grpc if number % 4 == 0 else tritonclient.http
        # A connection over HTTP can only be used by the thread that made it.
        self.thread = ThreadPoolExecutor(1)
        if self._module is tritonclient.grpc:
            address, settings, self._limit = server.grpc, {}, {"client_timeout": ANSWER_SECONDS}
        else:
            address, settings, self._limit = server.http, {"network_timeout": ANSWER_SECONDS}, {}
        self._client = self.thread.submit(self._module.InferenceServerClient, address, **settings).result()

    def close(self) -> None:
        self.thread.submit(self._client.close).result()
        self.thread.shutdown()

    def ask(self) -> str:
        """One request, of a kind by chance; what kind it was."""
        kinds: tuple[tuple[Ask, int], ...] = (
            (self._good, 80),
            (self._good_and_large, 3),
            (self._good_or_gone, 8),
            (self._wrong_type, 3),
            (self._too_many, 2),
            (self._nothing, 2),
            (self._unknown, 2),
        )
        (chosen,) = self._random.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
        return chosen()

    def large(self) -> str:
        return self._good_and_large()

    def _good(self) -> str:
        self._right(STEADY, self._random.choice(self._small))
        return "good"

    def _good_and_large(self) -> str:
        self._right(STEADY, self._large)
        return "good"

    def _good_or_gone(self) -> str:
        """The model that comes and goes answers rightly, or says that it is not there."""
        try:
            self._right(PASSING, self._random.choice(self._small))
        except InferenceServerException as error:
            said = error.message()
            assert any(
                words in said
                for words in ("is not ready", "is not found", "unknown model", "unloading", "not available")
            ), said
            return "gone"
        return "passing"

    def _wrong_type(self) -> str:
        return self._refused(STEADY, np.zeros((1, 16), np.float32), "FP32", "inference input")

    def _too_many(self) -> str:
        return self._refused(STEADY, np.zeros((BATCH_AT_MOST + 1, 1), np.uint8), "UINT8", "batch-size must be <= 256")

    def _nothing(self) -> str:
        # Not [0, 0]: Triton never answers that for a model in Python, whatever the model.
        return self._refused(STEADY, np.zeros((0, 16), np.uint8), "UINT8", "byte size mismatch")

    def _unknown(self) -> str:
        return self._refused("no-such-model", self._small[0], "UINT8", "unknown model")

    def _refused(self, model: str, array: Any, datatype: str, words: str) -> str:
        with pytest.raises(InferenceServerException) as caught:
            self._infer(model, array, datatype)
        said = str(caught.value)
        assert words in said, said
        assert not any(lost in said for lost in ("timed out", "UNAVAILABLE", "Deadline", "[500]")), said
        return "refused"

    def _right(self, model: str, array: Any) -> None:
        answer = self._infer(model, array, "UINT8")
        assert answer.shape == array.shape
        assert np.array_equal(answer, array), f"{model}: wrong bytes for a request of shape {array.shape}"

    def _infer(self, model: str, array: Any, datatype: str) -> Any:
        tensor = self._module.InferInput(INPUT, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        return self._client.infer(model, [tensor], **self._limit).as_numpy(OUTPUT)


def _all_at_once(clients: list[Client], do: Callable[[Client], Counter[str]]) -> Counter[str]:
    pending = [client.thread.submit(do, client) for client in clients]
    return sum((each.result() for each in pending), Counter())


def _succeeded(server: MeasuredServer, model: str) -> int:
    """Requests that the server counts as answered by a model."""
    with closing(tritonclient.http.InferenceServerClient(server.http)) as client:
        (found,) = client.get_inference_statistics(model)["model_stats"]
        return int(found["inference_stats"]["success"]["count"])


def _come_and_go(server: MeasuredServer, until: threading.Event) -> int:
    """Loads and unloads the other model over and over; how often."""
    times = 0
    with closing(tritonclient.http.InferenceServerClient(server.http)) as client:
        while not until.is_set():
            client.load_model(PASSING)
            until.wait(0.5)
            client.unload_model(PASSING)
            times += 1
            # An unload is answered before the model is gone: its process ends in its own time.
            deadline = time.monotonic() + 30
            while _state(client, PASSING) not in ("", "UNAVAILABLE"):
                assert time.monotonic() < deadline, f"{PASSING} is {_state(client, PASSING)}, 30 s after its unload"
                time.sleep(0.05)
    return times


def _state(client: Any, model: str) -> str:
    """Empty for a model that was never loaded."""
    return next((each.get("state", "") for each in client.get_model_repository_index() if each["name"] == model), "")


def _watch(server: MeasuredServer, until: threading.Event) -> list[Memory]:
    """The memory of all that stays, every second."""
    seen = [server.memory(without=PASSING)]
    while not until.wait(1):
        seen.append(server.memory(without=PASSING))
    return seen


def _grown(before: list[int], after: list[int]) -> str:
    """Empty if there is no growth. The server itself takes and gives back a tenth from one second to the next, as large
    answers come and go: what it has in the middle of the time is held against the most that it ever had before."""
    most, now = max(before), statistics.median(after)
    return "" if now <= most * GROWTH_AT_MOST else f"at most {most / 2**20:.1f} MiB became {now / 2**20:.1f} MiB"


def test_a_server_under_load_gets_nothing_wrong_loses_nothing_and_does_not_grow(server: MeasuredServer) -> None:
    clients = [Client(server, number) for number in range(CLIENTS)]

    def asking(seconds: float) -> tuple[Counter[str], int, list[Memory]]:
        """All clients and the other model's coming and going; the kinds of requests, how often it came, the memory."""
        over, deadline = threading.Event(), time.monotonic() + seconds

        def ask(client: Client) -> Counter[str]:
            kinds: Counter[str] = Counter()
            while time.monotonic() < deadline:
                kinds[client.ask()] += 1
            return kinds

        with ThreadPoolExecutor(2) as pool:
            coming, watching = pool.submit(_come_and_go, server, over), pool.submit(_watch, server, over)
            try:
                kinds = _all_at_once(clients, ask)
            finally:
                over.set()
            return kinds, coming.result(timeout=60), watching.result(timeout=60)

    try:
        # What is needed at most: the largest requests of all, at once.
        for _ in range(3):
            _all_at_once(clients, lambda client: Counter([client.large()]))
        _, _, before = asking(max(10, SECONDS / 4))
        counted = _succeeded(server, STEADY)
        kinds, times, after = asking(SECONDS)
        assert _succeeded(server, STEADY) - counted == kinds["good"]
    finally:
        for client in clients:
            client.close()
    assert kinds["good"] > 50 * SECONDS
    assert min(kinds["passing"], kinds["gone"], kinds["refused"]) > 0, kinds
    assert times >= max(2, SECONDS / 10)
    later = after[len(after) // 2 :]
    assert _grown([each.resident for each in before], [each.resident for each in later]) == ""
    assert _grown([each.shared for each in before], [each.shared for each in later]) == ""


def test_sigterm_under_load_answers_what_is_in_flight_and_exits_in_order(server: MeasuredServer) -> None:
    model = Model(STEADY, INPUT, OUTPUT)
    # Large enough to queue: at the signal most of them wait for their turn.
    requests = [
        model.request(np.random.default_rng(number).integers(0, 256, (8, 1 << 19), dtype=np.uint8))
        for number in range(CLIENTS)
    ]
    signalled = threading.Event()
    when = [float("inf")]
    in_flight, failures = Counter[str](), []

    def ask(number: int) -> None:
        with closing(Connection(server.http)) as connection:
            while not signalled.is_set():
                sent = float("inf")
                try:
                    connection.send(requests[number])
                    sent = time.monotonic()
                    connection.answer(requests[number])
                    # Answered after the signal, and there well before it.
                    if sent < when[0] - SETTLED_SECONDS and time.monotonic() > when[0]:
                        in_flight["answered"] += 1
                except Exception as error:
                    if sent < when[0] - SETTLED_SECONDS:
                        failures.append(f"client {number}: {type(error).__name__}: {error}")
                    return

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    when[0] = time.monotonic()
    server.container.kill("SIGTERM")
    signalled.set()
    status = server.container.wait(timeout=30)["StatusCode"]
    took = time.monotonic() - when[0]
    for thread in threads:
        thread.join(timeout=10)
    assert failures == []
    assert in_flight["answered"] > 0
    assert (status, took < 10) == (0, True), f"exit status {status} after {took:.1f} s"
