"""Only what was verified gets into a registry, and what is there serves."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from builder.docker.engine import Engine
from builder.reference import Digest

from .conftest import Project, interrupt


@pytest.fixture(scope="module")
def registry(start_registry: Callable[..., str]) -> str:
    """An empty one: what others pushed before would not be uploaded again."""
    return start_registry()


@pytest.fixture(scope="module")
def pushed(shipped: Project, verified: dict[str, Any], registry: str) -> dict[str, Any]:
    """The shipped image's push to an empty registry."""
    (document,) = shipped.builder("push", f"{registry}/under-test/mydali:1.0", "--json").ok().document["pushed"]
    return dict(document)


def test_push_gives_the_digest_that_was_verified(
    pushed: dict[str, Any], verified: dict[str, Any], registry: str
) -> None:
    assert pushed["target"] == "embedded"
    assert pushed["reference"] == f"{registry}/under-test/mydali@{pushed['digest']}"
    assert Digest(pushed["digest"])
    assert pushed["digest"] == verified["images"][0]["digest"]
    assert pushed["bytes_uploaded"] > 100_000_000
    assert pushed["seconds"] > 0


def test_the_same_image_again_uploads_nothing(shipped: Project, pushed: dict[str, Any], registry: str) -> None:
    again = shipped.builder("push", f"{registry}/under-test/mydali:1.1", "--json").ok().document["pushed"][0]
    assert again["digest"] == pushed["digest"]
    assert again["bytes_uploaded"] == 0


def test_the_pushed_digest_pulls_and_serves(
    shipped: Project, pushed: dict[str, Any], registry: str, engine: Engine, image: dict[str, Any]
) -> None:
    repository, _, digest = pushed["reference"].partition("@")
    for name in (f"{repository}:1.0", f"{repository}:1.1", pushed["reference"]):
        if engine.has_image(name):
            engine.client.images.remove(name, force=False)
    engine.client.images.pull(repository, tag=digest)
    document = shipped.builder("smoke", pushed["reference"], "--json").ok().document
    assert document["images"][0]["digest"] == digest


def test_people_get_the_reference_alone_on_stdout(shipped: Project, pushed: dict[str, Any], registry: str) -> None:
    done = shipped.builder("push", f"{registry}/under-test/mydali:1.0").ok()
    assert done.stdout == pushed["reference"] + "\n"


def test_ctrl_c_in_a_push_leaves_it_to_the_next(built_project: Project, start_registry: Callable[..., str]) -> None:
    to = f"{start_registry()}/under-test/interrupted:1"
    record = built_project.root / ".builder/embedded/pushed.json"
    record.unlink(missing_ok=True)
    sessions = built_project.root / ".builder/uploads"
    process = built_project.start("push", to, "--json")
    interrupt(process, lambda: any(sessions.glob("*.json"))).failed("interrupted", 130)
    assert not record.exists()
    built_project.builder("push", to).ok()


def test_an_unverified_image_is_refused(built_project: Project, registry: str) -> None:
    (built_project.root / ".builder/embedded/verification.json").unlink()
    built_project.builder("push", f"{registry}/under-test-never:1", "--json").failed("not-verified", 6)
    _has_nothing(built_project, f"{registry}/under-test-never:1")


def test_an_image_built_after_its_verification_is_refused(built_project: Project, registry: str) -> None:
    path = built_project.root / ".builder/embedded/verification.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "digest": "sha256:" + "0" * 64}))
    error = built_project.builder("push", f"{registry}/under-test-never:1", "--json").failed("not-verified", 6)
    assert "built again" in error["what"]
    _has_nothing(built_project, f"{registry}/under-test-never:1")


def test_nothing_was_built(project: Project) -> None:
    project.builder("push", "--json").failed("nothing-built", 2)
    project.builder("smoke", "--json").failed("nothing-built", 2)
    project.builder("up", "--json").failed("nothing-built", 2)


@pytest.mark.parametrize("reference", ["Localhost:5000/MyDali", "a/b:c:d", "", "mydali@sha256:1"])
def test_no_reference(shipped: Project, verified: dict[str, Any], reference: str) -> None:
    if not reference:
        reference = " "
    shipped.builder("push", reference, "--json").failed("reference-invalid", 2)


def test_a_registry_that_is_down(shipped: Project, verified: dict[str, Any]) -> None:
    shipped.builder("push", "localhost:1/under-test:1", "--json").failed("no-registry", 3)


def test_a_registry_that_is_read_only(
    shipped: Project, verified: dict[str, Any], start_registry: Callable[..., str]
) -> None:
    registry = start_registry({"REGISTRY_STORAGE_MAINTENANCE_READONLY": "{enabled: true}"})
    shipped.builder("push", f"{registry}/under-test:1", "--json").failed("registry-read-only", 6)


def test_credentials_come_from_dockers_configuration(
    built_project: Project, start_registry: Callable[..., str], tmp_path: Path
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
    to = f"{registry}/under-test:1"

    built_project.builder("push", to, "--json").failed("unauthorized", 6)
    _log_in(built_project, tmp_path / "wrong", registry, "ann", "wrong-horse")
    done = built_project.builder("push", to, "--json", "--verbose")
    done.failed("unauthorized", 6)
    assert "wrong-horse" not in done.stdout + done.stderr

    _log_in(built_project, tmp_path / "right", registry, "ann", secret)
    done = built_project.builder("push", to, "--json", "--verbose").ok()
    assert re.fullmatch(
        rf"{re.escape(registry)}/under-test@sha256:[0-9a-f]{{64}}", done.document["pushed"][0]["reference"]
    )
    assert secret not in done.stdout + done.stderr


def _log_in(project: Project, folder: Path, registry: str, user: str, password: str) -> None:
    """A Docker configuration with credentials, and the plugins of the one in use."""
    folder.mkdir()
    present = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
    if (present / "cli-plugins").exists():
        (folder / "cli-plugins").symlink_to(present / "cli-plugins")
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry: {"auth": auth}}}))
    project.environment["DOCKER_CONFIG"] = str(folder)


def _has_nothing(project: Project, reference: str) -> None:
    assert project.docker("buildx", "imagetools", "inspect", reference).returncode != 0
