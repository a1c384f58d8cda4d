"""`make demo`, as its user sees it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from builder.docker.engine import Engine

from .conftest import ROOT


@pytest.fixture
def free_ports() -> dict[str, str]:
    """The demo's ports, where nothing listens."""
    names = ("REGISTRY_PORT", "HTTP_PORT", "GRPC_PORT", "METRICS_PORT")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: str(each.getsockname()[1]) for name, each in zip(names, sockets, strict=True)}
    for each in sockets:
        each.close()
    return ports


def test_the_demo_goes_all_the_way_and_leaves_nothing_running(
    built: dict[str, Any], engine: Engine, free_ports: dict[str, str]
) -> None:
    before = {each.id for each in engine.client.containers.list(all=True)}
    environment = {**os.environ, **free_ports, "COMPOSE_PROJECT_NAME": "demo-under-test"}
    done = subprocess.run(
        [sys.executable, "setup/demo.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "mydali gave back 4000 bytes, all of them right" in done.stderr
    assert f"localhost:{free_ports['REGISTRY_PORT']}/mydali@sha256:" in done.stderr
    assert {each.id for each in engine.client.containers.list(all=True)} <= before
