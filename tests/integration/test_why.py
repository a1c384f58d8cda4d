"""`why` reads the logs of real servers that fail for a real reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker.types
import pytest
from docker.models.containers import Container

from builder.docker.engine import Engine

from .conftest import ROOT, Project

PLUGIN = "/models/libcustomcopy.so"
CONFIG = "/models/mydali/config.pbtxt"
SERVER = ["tritonserver", "--model-repository=/models", "--exit-timeout-secs=1", "--allow-metrics=false"]


@pytest.fixture
def start(engine: Engine, image: dict[str, Any]) -> Iterator[Callable[..., Container]]:
    """Starts a container of the shipped image, and waits until it ends or is ready."""
    started: list[Container] = []

    def run(until: str = "", **options: Any) -> Container:
        defaults: dict[str, Any] = {"shm_size": "1g", "detach": True}
        container = engine.client.containers.run(image["reference"], **{**defaults, **options})
        started.append(container)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            container.reload()
            if container.status == "exited" or (until and until in container.logs().decode(errors="replace")):
                return container
            time.sleep(0.1)
        raise AssertionError(container.logs().decode(errors="replace"))

    yield run
    for container in started:
        container.remove(force=True, v=True)


def hidden(*paths: str) -> list[docker.types.Mount]:
    return [docker.types.Mount(path, "/dev/null", type="bind", read_only=True) for path in paths]


def causes(shipped: Project, *arguments: str) -> list[str]:
    """The codes that `why` gives."""
    done = told(shipped, *arguments)
    assert done["source"]
    assert all(each["what"] and each["remedy"] for each in done["diagnoses"])
    return [each["code"] for each in done["diagnoses"]]


def told(shipped: Project, *arguments: str) -> dict[str, Any]:
    with _why(shipped, *arguments, "--json") as process:
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    return dict(json.loads(stdout))


def _why(shipped: Project, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "builder", "why", *arguments],
        cwd=ROOT,
        env={**os.environ, **shipped.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_hidden_plugin_is_the_cause(start: Callable[..., Container], shipped: Project, tmp_path: Path) -> None:
    container = start(mounts=hidden(PLUGIN))
    document = told(shipped, str(container.name))
    (found,) = document["diagnoses"]
    assert found["code"] == "library-not-elf"
    assert PLUGIN in found["what"]
    assert document["ready"] is False
    # The newest container of this program is the one that is meant when none is named.
    assert str(container.name) in told(shipped)["source"]
    # A file with the same log says the same, and so does a pipe.
    log = tmp_path / "server.log"
    log.write_bytes(container.logs())
    assert causes(shipped, str(log)) == ["library-not-elf"]
    with _why(shipped, "-", "--json") as process:
        stdout, _ = process.communicate(log.read_text(), timeout=60)
    assert '"library-not-elf"' in stdout


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (
            {"mounts": hidden("/models/mydali/1/model.dali", "/models/mydali/1/dali.py"), "command": SERVER},
            "model-file-invalid",
        ),
        ({"command": ["tritonserver", "--model-repository=/nowhere"]}, "repository-missing"),
        ({"command": ["tritonserver", "--no-such-flag"]}, "server-argument-invalid"),
        ({"command": SERVER, "shm_size": "100k"}, "shared-memory-too-small"),
        ({"command": SERVER}, "operator-unregistered"),
        ({"command": ["sh", "-c", "kill -SEGV $$; sleep 9"], "init": True}, "server-crashed"),
        ({"command": ["sh", "-c", "kill -KILL $$; sleep 9"], "init": True}, "server-killed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_server_that_fails_is_told_by_its_cause(
    options: dict[str, Any], code: str, start: Callable[..., Container], shipped: Project
) -> None:
    assert causes(shipped, str(start(**options).name)) == [code]


def test_a_configuration_that_cannot_be_read_is_named(
    start: Callable[..., Container], shipped: Project, tmp_path: Path
) -> None:
    config = tmp_path / "config.pbtxt"
    config.write_text('name: "mydali"\nbackend = "dali"\n')
    config.chmod(0o644)
    container = start(command=SERVER, volumes={str(config): {"bind": CONFIG, "mode": "ro"}})
    (found,) = told(shipped, str(container.name))["diagnoses"]
    assert (found["code"], found["model"]) == ("config-invalid", "mydali")
    assert f"2:9 of {CONFIG}" in found["remedy"]


def test_a_server_that_is_well_is_told_so(start: Callable[..., Container], shipped: Project) -> None:
    container = start(until="Started HTTPService")
    document = told(shipped, str(container.name))
    assert (document["diagnoses"], document["ready"], document["models"]) == ([], True, ["mydali"])
    with _why(shipped, str(container.name)) as process:
        _, stderr = process.communicate(timeout=60)
    assert "nothing wrong: 1 model READY" in stderr


def test_a_failure_that_nobody_knows_shows_the_last_words(start: Callable[..., Container], shipped: Project) -> None:
    container = start(command=["sh", "-c", "echo the dog ate it; exit 3"])
    with _why(shipped, str(container.name), "--json") as process:
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 5
    assert '"cause-unknown"' in stdout
    assert "the dog ate it" in stderr
    assert "exit status 3" in stderr


def test_a_name_that_is_neither_a_file_nor_a_container(shipped: Project, engine: Engine) -> None:
    with _why(shipped, "no-such-thing", "--json") as process:
        stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert '"usage"' in stdout
