from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from builder import negative_control, triton
from builder.errors import NegativeControlServed, ServerDied, VerificationError

PLUGIN = "/models/libcustomcopy.so"
NO_SCHEMA = 'No schema found for operator "CustomCopy"'


class Server:
    """One whose log has these lines, and that ends when `ended` is set."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)
        self.ended = threading.Event()

    def endpoint(self) -> None:
        return None

    def log(self) -> list[str]:
        return self.lines


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    def wait(_: object, server: Any, **__: object) -> float:
        assert server.ended.wait(30)
        raise ServerDied("it died", remedy="none")

    monkeypatch.setattr(triton, "wait_until_ready", wait)
    return Server(NO_SCHEMA)


def judge(*lines: str) -> Any:
    server: Any = Server("I1122 1 model_lifecycle.cc:472] loading: mydali:1", *lines, "error: creating server")
    return negative_control.judge(server, "mydali")


@pytest.mark.parametrize(
    "line",
    [
        f"E1122 model.py:48] Failed to load plugin library '{PLUGIN}' (parameter plugin_libs): file too short",
        f"Failed to load plugin libs: Failed to load library {PLUGIN}: file too short",
        'No schema found for operator "CustomCopy"',
        "Schema for operator 'CustomCopy' not registered",
    ],
)
def test_a_server_that_fails_for_lack_of_its_plugin_is_the_proof(line: str) -> None:
    control = judge(line)
    assert (control.applicable, control.passed, control.evidence) == (True, True, line)


@pytest.mark.parametrize(
    "lines",
    [
        ("E1122 socket.cc:42] failed to bind port 8000",),
        # Triton prints the backends with their options whatever went wrong.
        (
            "instance group m_0 of model m specifies invalid or unsupported gpu id 0",
            "| dali    | /opt/tritonserver/backends/dali/libtriton_dali.so | "
            f'{{"cmdline":{{"auto-complete-config":"true","plugin_libs":"{PLUGIN}"}}}} |',
        ),
    ],
    ids=["port", "gpu"],
)
def test_a_server_that_fails_for_another_reason_proves_nothing(lines: tuple[str, ...]) -> None:
    with pytest.raises(VerificationError, match="something else"):
        judge(*lines)


def test_the_server_s_table_is_the_last_to_be_taken_as_evidence() -> None:
    assert judge(f"| m | 1 | UNAVAILABLE: {NO_SCHEMA}", NO_SCHEMA).evidence == NO_SCHEMA


def test_a_server_that_is_ready_without_its_plugins_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    server: Any = Server()
    monkeypatch.setattr(triton, "wait_until_ready", lambda *_, **__: 1.0)
    with pytest.raises(NegativeControlServed) as failure:
        negative_control.judged(server, "mydali", [PLUGIN], 1.0)
    assert failure.value.detail == (PLUGIN,)


def test_its_end_is_waited_for_while_something_else_is_done(server: Any) -> None:
    with negative_control.beside(lambda: contextlib.nullcontext(server), "mydali", [PLUGIN], 1.0) as judged:
        server.ended.set()
        assert judged().evidence == judged().evidence == NO_SCHEMA
    server.lines = []
    with (
        negative_control.beside(lambda: contextlib.nullcontext(server), "mydali", [PLUGIN], 1.0) as judged,
        pytest.raises(VerificationError, match="something else"),
    ):
        judged()


def test_a_failure_beside_it_takes_the_server_away_and_waits_for_nothing_else(server: Any) -> None:
    @contextlib.contextmanager
    def serving() -> Iterator[Any]:
        try:
            yield server
        finally:  # a container that is taken away has ended
            server.ended.set()

    before, began = threading.active_count(), time.monotonic()
    with pytest.raises(ZeroDivisionError), negative_control.beside(serving, "mydali", [PLUGIN], 1.0):
        raise ZeroDivisionError
    assert time.monotonic() - began < 20  # as long as the server's end is waited for, and not 30 s
    assert threading.active_count() <= before  # a thread of somebody else may have ended
