"""A fraction of what `smoke` asks: enough to see a mistake while it is being made, and no proof of anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from builder.asking import Clock, Turn
from builder.oracles import Oracle
from builder.triton import Client, ModelSpec

AT_ONCE = 32
SECONDS = 1.0
"""For each model. What none can do without is asked anyway."""
_WARM_UP = 5
_LATENCY_REQUESTS = 40


@dataclass(frozen=True)
class Answered:
    """A model whose answers were right."""

    name: str
    version: str
    oracle: str
    """As builder.toml has it."""
    values_compared: bool
    requests: int
    p50_ms: float
    p99_ms: float
    """From request to answer, one at a time, one sample of 1 KiB where that is open."""

    @property
    def title(self) -> str:
        return f"{self.name}/{self.version}"


def ask(model: ModelSpec, oracle: Oracle, clients: Sequence[Client], seed: int) -> Answered:
    """Asks every batch size, the largest sample, and many at once, over every protocol.

    Raises:
        InferenceFailed, WrongAnswer: the first request that fails, or is answered wrongly.
        GoldenInvalid, OracleFailed: what should say what is right cannot.
    """
    turn = Turn(model, oracle, SECONDS, Clock())
    questions = oracle.ask(model, seed)
    turn.needed(clients, questions)
    for client in clients:
        if not turn.is_over:
            turn.many(client, questions.mixed(AT_ONCE))
    times = turn.times(clients[0], questions.small(), _WARM_UP, _LATENCY_REQUESTS, turn.left)
    p50, p99 = np.percentile(times, (50, 99))
    return Answered(
        name=model.name,
        version=model.version,
        oracle=oracle.name,
        values_compared=oracle.compares_values,
        requests=turn.asked,
        p50_ms=round(float(p50), 3),
        p99_ms=round(float(p99), 3),
    )
