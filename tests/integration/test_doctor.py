"""`doctor` looks at a real engine and at real registries."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from builder.docker.engine import Engine

from .conftest import Finished, Project


def states(done: Finished) -> dict[str, str]:
    return {each["name"]: each["state"] for each in done.document["checks"]}


def at(project: Project, repository: str) -> Project:
    """The project, to be pushed elsewhere."""
    settings = project.root / "builder.toml"
    lines = settings.read_text().splitlines(keepends=True)
    settings.write_text("".join(f'repository = "{repository}"\n' if "repository" in each else each for each in lines))
    return project


def test_this_machine_can_build(project: Project, engine: Engine, debian: str, registry: str) -> None:
    began = time.monotonic()
    done = at(project, f"{registry}/under-test/doctor").builder("doctor", "--json").ok()
    assert time.monotonic() - began < 12
    assert done.document["ready"] is True
    found = states(done)
    assert {"engine", "disk", "buildx", "compose", "base", "registry", "read", "write"} <= set(found)
    assert {found[name] for name in ("engine", "buildx", "base", "registry", "read", "write")} == {"ok"}
    version = engine.client.version()["Version"]
    assert any(version in each["what"] for each in done.document["checks"])


def test_nothing_is_changed_in_the_registry(project: Project, registry: str, engine: Engine) -> None:
    before = {str(image.id) for image in engine.client.images.list(all=True)}
    at(project, f"{registry}/under-test/untouched").builder("doctor", "--json").ok()
    assert {str(image.id) for image in engine.client.images.list(all=True)} == before
    asked = project.docker("buildx", "imagetools", "inspect", f"{registry}/under-test/untouched:latest")
    assert asked.returncode != 0


def test_the_table_is_readable_in_80_columns_without_colour(project: Project, registry: str) -> None:
    project.environment |= {"COLUMNS": "80", "NO_COLOR": "1"}
    done = at(project, f"{registry}/under-test/doctor").builder("doctor").ok()
    assert "\x1b[" not in done.stderr
    assert max(len(line.rstrip()) for line in done.stderr.splitlines()) <= 80
    assert "nothing is missing that a build needs" in done.stderr
    assert done.stdout == ""


def test_a_read_only_registry_is_told_from_a_writable_one(project: Project, start_registry: Callable[..., str]) -> None:
    registry = start_registry({"REGISTRY_STORAGE_MAINTENANCE_READONLY": "{enabled: true}"})
    done = at(project, f"{registry}/under-test").builder("doctor", "--json").ok()  # a build needs no registry
    found = states(done)
    assert (found["registry"], found["read"], found["write"]) == ("ok", "ok", "failed")


def test_credentials_are_tried_and_never_shown(
    project: Project, start_registry: Callable[..., str], tmp_path: Path
) -> None:
    secret = "correct-horse"
    passwords = tmp_path / "htpasswd"
    passwords.write_text("ann:" + bcrypt.hashpw(secret.encode(), bcrypt.gensalt(4)).decode() + "\n")
    passwords.chmod(0o644)
    settings = {
        "REGISTRY_AUTH": "htpasswd",
        "REGISTRY_AUTH_HTPASSWD_REALM": "r",
        "REGISTRY_AUTH_HTPASSWD_PATH": "/htpasswd",
    }
    registry = start_registry(settings, {passwords: "/htpasswd"})
    at(project, f"{registry}/under-test")

    found = states(project.builder("doctor", "--json").ok())
    assert (found["registry"], found["read"], found["write"]) == ("ok", "failed", "failed")

    _log_in(project, tmp_path / "wrong", registry, "ann", "wrong-horse")
    done = project.builder("doctor", "--json", "--verbose").ok()
    assert states(done)["write"] == "failed"
    assert "wrong-horse" not in done.stdout + done.stderr

    _log_in(project, tmp_path / "right", registry, "ann", secret)
    done = project.builder("doctor", "--json", "--verbose").ok()
    found = states(done)
    assert (found["credentials"], found["read"], found["write"]) == ("ok", "ok", "ok")
    assert secret not in done.stdout + done.stderr


def test_a_registry_that_is_down_is_told_of_and_does_not_keep_a_build_back(project: Project) -> None:
    done = at(project, "localhost:1/under-test").builder("doctor", "--json").ok()
    (found,) = [each for each in done.document["checks"] if each["name"] == "registry"]
    assert (found["state"], found["needed"]) == ("missing", False)
    assert found["remedy"]


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_no_engine_is_what_a_build_needs(project: Project, arguments: tuple[str, ...]) -> None:
    project.environment["DOCKER_HOST"] = "unix:///nowhere/docker.sock"
    done = project.builder("doctor", *arguments)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    if arguments:
        assert states(done)["engine"] == "missing"
        assert done.document["ready"] is False
    else:
        assert "a build needs engine" in done.stderr


def test_a_folder_without_a_project_is_looked_at_all_the_same(project: Project) -> None:
    (project.root / "builder.toml").unlink()
    found = states(project.builder("doctor", "--json").ok())
    assert (found["project"], found["engine"]) == ("warning", "ok")
    assert "registry" not in found


def test_a_project_that_is_wrong_is_a_fault(project: Project) -> None:
    (project.root / "builder.toml").write_text("repositori = 1\n")
    done = project.builder("doctor", "--json")
    assert done.returncode == 3
    assert states(done)["project"] == "failed"


def test_a_gpu_is_looked_for_where_one_is_wanted(project: Project, engine: Engine) -> None:
    done = project.builder("doctor", "--gpu", "--json")
    found = states(done)
    if Path("/proc/driver/nvidia/version").exists():
        assert found["gpu"] == "ok"
    else:
        assert (found["gpu"], done.returncode) == ("missing", 3)


def _log_in(project: Project, folder: Path, registry: str, user: str, password: str) -> None:
    """A Docker configuration with credentials, and the plugins of the one in use."""
    folder.mkdir()
    present = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
    if (present / "cli-plugins").exists():
        (folder / "cli-plugins").symlink_to(present / "cli-plugins")
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    config: dict[str, Any] = {"auths": {registry: {"auth": auth}}}
    (folder / "config.json").write_text(json.dumps(config))
    project.environment["DOCKER_CONFIG"] = str(folder)
