"""`why` with logs in files; those of real servers are in tests/integration."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder import cli
from tests.unit.test_symptoms import CAUSE, HEALTHY, said

Why = Callable[[list[str]], tuple[int, dict[str, Any], str]]


@pytest.fixture
def why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Why:
    """Exit status, document, and what is told to people."""

    def command(lines: list[str]) -> tuple[int, dict[str, Any], str]:
        log = tmp_path / "server.log"
        log.write_text("\n".join(lines))
        arguments = ["why", str(log), "--json"]
        monkeypatch.setattr(sys, "argv", ["builder", *arguments])
        status = cli._run(arguments)
        out, err = capsys.readouterr()
        return status, json.loads(out), " ".join(err.split())

    return command


def test_the_end_of_a_healthy_log_is_no_failure(why: Why) -> None:
    tail = ['I1122 14:10:00.1 1 http_server.cc:1] "a"', 'I1122 14:10:01.1 1 http_server.cc:1] "b"']
    status, document, told = why(tail)
    assert (status, document["diagnoses"]) == (0, [])
    assert "the log does not have the server's start" in told


def test_the_end_of_a_log_with_an_unknown_error_is_not_said_to_be_well(why: Why) -> None:
    status, document, told = why(['E1122 14:10:00.1 1 x.cc:1] "who knows"'])
    assert (status, document["error"]["code"]) == (5, "cause-unknown")
    assert "the log does not have the server's start" in told
    assert "did not become ready" not in told


def test_a_server_that_began_and_did_not_become_ready_failed(why: Why) -> None:
    status, document, told = why(HEALTHY[:5])
    assert (status, document["error"]["code"]) == (5, "cause-unknown")
    assert "did not become ready" in told


def test_a_cause_in_the_end_of_a_log_is_told(why: Why) -> None:
    status, document, _ = why(said(CAUSE))
    assert status == 0
    assert [each["code"] for each in document["diagnoses"]] == ["library-not-elf"]
