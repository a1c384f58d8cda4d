"""Serving with compose."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import ROOT, Project, interrupt


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


def test_ctrl_c_while_it_starts_leaves_nothing(pushed_project: Project) -> None:
    def is_created() -> bool:
        return bool(pushed_project.docker("compose", "ps", "--all", "--quiet").stdout)

    process = pushed_project.start("up", "--json")
    interrupt(process, is_created).failed("interrupted", 130)
    assert not is_created()


def test_down_leaves_the_registry_alone(pushed_project: Project, registry_image: str, debian: str) -> None:
    pushed_project.environment.update(REGISTRY_PORT="0", DEBIAN_IMAGE=debian)
    pushed_project.docker("compose", "--profile=registry", "up", "--detach", "--wait", "registry").ok()
    try:
        pushed_project.builder("up").ok()
        pushed_project.builder("down").ok()
        left = pushed_project.docker("compose", "--profile=*", "ps", "--services").ok().stdout.split()
        assert left == ["registry"]
    finally:
        pushed_project.docker("compose", "--profile=*", "down", "--volumes").ok()


def test_compose_alone_serves_what_was_built(built_project: Project) -> None:
    """`docker compose up` with nothing set but where the image's name is this test's."""
    built_project.edit("docker-compose.yml", "mydali:embedded", "under-test:embedded")
    built_project.environment.update(COMPOSE_PROJECT_NAME="alone", HTTP_PORT="0", GRPC_PORT="0", METRICS_PORT="0")
    try:
        built_project.docker("compose", "up", "--detach", "--wait").ok()
        (container,) = built_project.docker("compose", "ps", "--quiet").ok().stdout.split()
        described = json.loads(built_project.docker("inspect", container).ok().stdout)[0]
    finally:
        built_project.docker("compose", "down").ok()
    host = described["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Memory"] == 4 << 30
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert described["Config"]["User"] == "1000:1000"
    addresses = {each["HostIp"] for ports in described["NetworkSettings"]["Ports"].values() for each in ports}
    assert addresses == {"127.0.0.1"}


def test_the_gpu_profile_asks_for_gpus(project: Project) -> None:
    config = json.loads(project.docker("compose", "--profile=gpu", "config", "--format=json").ok().stdout)
    devices = config["services"]["triton-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"capabilities": ["gpu"], "count": -1, "driver": "nvidia"}]


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
