"""The README's commands, as a reader would type them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from builder import catalogue
from builder.project import load

from .conftest import ROOT, Project

README = (ROOT / "README.md").read_text()


def _block(before: str) -> list[str]:
    """The commands of the first block after a line."""
    match = re.search(rf"^{re.escape(before)}\n.*?```sh\n(.*?)```", README, re.DOTALL | re.MULTILINE)
    assert match, before
    return [line.partition(" #")[0].strip() for line in match[1].splitlines()]


def test_the_daily_loop_works_as_written(
    project: Project, built: dict[str, Any], registry: str, tmp_path: Path
) -> None:
    ports = {"HTTP_PORT": "0", "GRPC_PORT": "0", "METRICS_PORT": "0", "COMPOSE_PROJECT_NAME": "readme"}
    environment = {
        **os.environ,
        **ports,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    (project.root / "examples").symlink_to(ROOT / "examples")
    commands = _block("## The daily loop")
    assert len(commands) == 7
    for command in commands:
        # The ports are whatever is free here; the rest is to the letter.
        command = command.replace("localhost:5000/mydali", f"{registry}/under-test/mydali")
        if "localhost:8000" in command:
            port = subprocess.run(
                ["docker", "compose", "port", "triton", "8000"],
                cwd=project.root,
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            ).stdout.strip()
            command = command.replace("localhost:8000", port)
        done = subprocess.run(
            command, shell=True, cwd=project.root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_what_happened_can_be_looked_at_as_written(project: Project, built: dict[str, Any]) -> None:
    project.edit("builder.toml", "under-test", "under-test-looked-at")
    project.builder("build").ok()
    project.edit("model_repository/mydali/config.pbtxt", "max_batch_size: ", "# another\nmax_batch_size: ")
    project.builder("build").ok()
    commands = _block("What happened on this machine, what it takes, and where:")
    assert [each.split()[3] for each in commands] == ["report", "history", "diff", "clean"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=project.root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout, command


def test_the_targets_named_are_those_of_the_project() -> None:
    named = re.findall(r"^\| `([a-z0-9-]+)`(?: \([^)]*\))? \| ", README, re.MULTILINE)
    assert [name for name in named if name in load(ROOT).targets] == list(load(ROOT).targets)


def test_every_code_named_is_one_that_can_happen() -> None:
    table = README[README.index("## When it fails") : README.index("Networks:")]
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", table))
    assert named
    assert named <= set(catalogue.codes())
