"""Asks a model of a running server, and holds each answer against its oracle."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from builder import oracles
from builder.errors import RequestRefused, WrongAnswer
from builder.oracles import Ask, Case, Oracle, Questions
from builder.triton import Client, ModelSpec, Tensors


class Clock:
    """The seconds that requests took so far; it can be stopped while something else is waited for."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._began += time.monotonic() - began


class Turn:
    """The requests to one model, and the time that they may take."""

    def __init__(self, model: ModelSpec, oracle: Oracle, seconds: float, clock: Clock) -> None:
        self.model = model
        self.oracle = oracle
        self.seconds = seconds
        self.clock = clock
        self.asked = 0
        self.left_out = 0
        self._began = clock.seconds

    @property
    def is_over(self) -> bool:
        return self._used > self.seconds

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self.seconds - self._used)

    @property
    def _used(self) -> float:
        return self.clock.seconds - self._began

    def needed(self, clients: Sequence[Client], questions: Questions) -> list[Ask]:
        """Asks what cannot be done without, by every client and however long it takes; gives what else there is."""
        needed, others = questions.sweep()
        for ask in needed:
            case = questions.case(ask)
            for client in clients:
                self.one(client, case)
        return others

    def times(
        self, client: Client, case: Case, warm_up: int, count: int, seconds: float, *, at_least: int = 1
    ) -> list[float]:
        """Milliseconds of `count` requests, one after another; of fewer, but `at_least`, once they took `seconds`.

        `warm_up` requests come before, and do not count unless time allows no others.
        """
        times: list[float] = []
        for number in range(warm_up + count):
            if number >= at_least and sum(times) > seconds:
                break
            times.append(self.one(client, case))
        return [each * 1000 for each in times[warm_up:] or times]

    def one(self, client: Client, case: Case) -> float:
        """Asks one request; the seconds until its answer."""
        with self._explained():
            began = time.perf_counter()
            outputs = client.infer(self.model, case.inputs)
            seconds = time.perf_counter() - began
        self._check(case, outputs, client.protocol)
        return seconds

    def many(self, client: Client, cases: Sequence[Case]) -> float:
        """Asks all of them at once; the seconds until the last answer."""
        with self._explained():
            began = time.perf_counter()
            answers = client.infer_many(self.model, [case.inputs for case in cases])
            seconds = time.perf_counter() - began
        for case, outputs in zip(cases, answers, strict=True):
            self._check(case, outputs, f"{client.protocol}, {len(cases)} at once")
        return seconds

    def _check(self, case: Case, outputs: Tensors, how: str) -> None:
        self.asked += 1
        compare(self.model, self.oracle, case, outputs, how)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Random input is wrong for some models, and then it is not the model that is."""
        try:
            yield
        except RequestRefused as error:
            if not self.oracle.has_requests:
                error.remedy = (
                    "see the server's message; for a model that takes no random input, as an image decoder, give "
                    f'requests and answers: oracle = "FILE.npz" in [models.{self.model.name}]'
                )
            raise


def compare(model: ModelSpec, oracle: Oracle, case: Case, outputs: Tensors, how: str) -> None:
    """Checks one answer.

    Raises:
        WrongAnswer: a type or a shape is not as declared, or a value is not the oracle's.
    """
    if problem := oracles.problem(model, oracle, case, outputs):
        given = ", ".join(oracles.shown(array) for array in case.inputs.values()) or "nothing"
        raise WrongAnswer(
            problem,
            where=f"model {model.title}, {how}, input {given}",
            remedy="the operator or the pipeline is wrong for this input, or else the oracle or config.pbtxt is; "
            "run the pipeline in DALI alone with the same input",
        )
