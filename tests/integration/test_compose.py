"""Serving with compose."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import ROOT, Project


@pytest.fixture
def pushed_project(built_project: Project, registry: str) -> Iterator[Project]:
    built_project.environment.update(COMPOSE_PROJECT_NAME="served", HTTP_PORT="0", GRPC_PORT="0", METRICS_PORT="0")
    built_project.builder("push", f"{registry}/under-test-served:1").ok()
    yield built_project
    built_project.builder("down").ok()


def test_up_serves_the_pushed_digest_and_down_stops_it(pushed_project: Project) -> None:
    served: dict[str, Any] = pushed_project.builder("up", "--json").ok().document
    assert "@sha256:" in served["reference"]
    assert served["http"].startswith("127.0.0.1:")
    asked = subprocess.run(
        [sys.executable, "examples/infer.py", served["http"]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr
    running = pushed_project.docker("compose", "ps", "--format={{.Image}} {{.Health}}").ok().stdout.strip()
    assert running == f"{served['reference']} healthy"
    pushed_project.builder("down").ok()
    assert pushed_project.docker("compose", "ps", "--all", "--quiet").ok().stdout == ""


def test_a_port_in_use(pushed_project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        pushed_project.environment["HTTP_PORT"] = port
        error = pushed_project.builder("up", "--json").failed("port-in-use", 3)
    assert port in error["what"]
    assert "HTTP_PORT" in error["remedy"]
    assert pushed_project.docker("compose", "ps", "--all", "--quiet").ok().stdout == ""


def test_down_with_nothing_up(project: Project) -> None:
    project.environment["COMPOSE_PROJECT_NAME"] = "never-up"
    assert project.builder("down", "--json").ok().document == {"stopped": True}
