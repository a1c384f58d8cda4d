"""Real parts: an engine, the shipped project in a copy of its own, and a registry."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker.errors
import pytest
from docker.models.images import Image as DockerImage

from builder.bases import OURS
from builder.docker.engine import Engine

# Its reaper is an image that many networks cannot pull; every container here ends with its fixture.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import HttpWaitStrategy

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "under-test"
"""In the name of every image that the tests make, so that a user's own are neither replaced nor removed."""
REGISTRY_IMAGE = "triton-dali-builder/registry"
PROJECT_FILES = (
    "Dockerfile",
    ".dockerignore",
    "builder.toml",
    "docker-compose.yml",
    "plugin",
    "model_repository",
    "embedded",
    # Of the builder the Dockerfile takes only what runs in the image.
    "builder/stages",
    "builder/dali_proto.py",
)


@dataclass
class Finished:
    """A command that ended."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """stdout as the one JSON document that it must be."""
        return json.loads(self.stdout)

    def ok(self) -> Finished:
        assert self.returncode == 0, self.stderr
        return self

    def failed(self, code: str, status: int) -> dict[str, Any]:
        """The error of a command with --json that had to fail."""
        assert self.returncode == status, f"exit status {self.returncode}\n{self.stderr}"
        assert "Traceback" not in self.stderr
        error = self.document["error"]
        assert error["code"] == code, error
        assert error["what"]
        assert error["remedy"]
        # People read the same as programs.
        assert error["what"] in self.stderr
        return dict(error)


@dataclass
class Project:
    """A copy of the shipped project that a test may change."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def builder(self, *arguments: str) -> Finished:
        with self.start(*arguments) as process:
            stdout, stderr = process.communicate(timeout=900)
        return Finished(process.returncode, stdout, stderr)

    def start(self, command: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "builder", command, "-C", str(self.root), *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def docker(self, *arguments: str) -> Finished:
        done = subprocess.run(
            ["docker", *arguments],
            cwd=self.root,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        text = path.read_text()
        assert old in text, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new))


def interrupt(process: subprocess.Popen[str], until: Callable[[], bool], timeout: float = 60) -> Finished:
    """Sends SIGINT as soon as `until` holds."""
    deadline = time.monotonic() + timeout
    while not until():
        assert process.poll() is None, f"ended before it could be interrupted: {process.communicate()}"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    return Finished(process.returncode, stdout, stderr)


def copy_project(to: Path) -> Path:
    for name in PROJECT_FILES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__", "model.dali"))
        else:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, to / name)
    settings = to / "builder.toml"
    settings.write_text(settings.read_text().replace("localhost:5000/mydali", f"localhost:5000/{REPOSITORY}"))
    return to


def on_ipv4(container: DockerContainer, port: int) -> DockerContainer:
    """Publishes a port on IPv4 alone: the one on IPv6 is another, and under IPv4 it may be another registry's."""
    ports: dict[str, Any] = container.ports
    ports[f"{port}/tcp"] = ("0.0.0.0", None)
    return container


@pytest.fixture(scope="session", autouse=True)
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Of the tests' own builds; a user's stays as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The engine. Without one these tests fail; they are never skipped."""
    engine = Engine.connect()
    _remove_images(engine, lambda image: REPOSITORY in _names(image))  # of a session that was killed
    before = {image.id for image in engine.client.images.list()}
    yield engine
    _remove_images(engine, lambda image: REPOSITORY in _names(image) or (image.id not in before and _is_ours(image)))


def _remove_images(engine: Engine, wanted: Callable[[DockerImage], bool]) -> None:
    for image in engine.client.images.list():
        if wanted(image):
            # A reference by digest is a name of its own, and keeps the layers when every tag is gone.
            for name in [*image.tags, *(image.attrs["RepoDigests"] or ())] or [image.id]:
                with contextlib.suppress(docker.errors.ImageNotFound):
                    engine.client.images.remove(name, force=True)


def _names(image: DockerImage) -> str:
    return " ".join([*image.tags, *(image.attrs["RepoDigests"] or ())])


def _is_ours(image: DockerImage) -> bool:
    """Bases that the tests changed, and images that lost their name to a later build: gigabytes each."""
    if image.tags:
        return any(
            tag.startswith(tuple(f"{OURS}{each}:" for each in ("embedded", "husk", "toolchain"))) for tag in image.tags
        )
    return any(each.startswith("TRITON_SERVER_VERSION=") for each in image.attrs["Config"].get("Env") or ())


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Project:
    """The shipped project, as a new user has it."""
    return Project(copy_project(tmp_path_factory.mktemp("shipped") / "project"))


@pytest.fixture(scope="session")
def debian(shipped: Project) -> str:
    """The Debian image that the embedded base starts from."""
    return str(shipped.builder("base", "--json").ok().document["debian_image"])


@pytest.fixture(scope="session")
def built(shipped: Project) -> dict[str, Any]:
    """What `build --json` says of the shipped project."""
    return dict(shipped.builder("build", "--json").ok().document)


@pytest.fixture(scope="session")
def image(built: dict[str, Any]) -> dict[str, Any]:
    """The image of the first target."""
    return dict(built["images"][0])


@pytest.fixture(scope="session")
def verified(shipped: Project, built: dict[str, Any]) -> dict[str, Any]:
    """What `smoke --json` says of it."""
    return dict(shipped.builder("smoke", "--json").ok().document)


@pytest.fixture
def project(tmp_path: Path, engine: Engine) -> Project:
    """A copy to break."""
    return Project(copy_project(tmp_path / "project"))


@pytest.fixture
def built_project(shipped: Project, verified: dict[str, Any], tmp_path: Path) -> Project:
    """A copy of the shipped project with its records: built and verified."""
    root = copy_project(tmp_path / "project")
    shutil.copytree(shipped.root / ".builder", root / ".builder")
    return Project(root, dict(shipped.environment))


@pytest.fixture(scope="session")
def registry_image(shipped: Project, debian: str) -> str:
    """Debian's docker-registry, built from the project's own Dockerfile."""
    shipped.docker(
        "build", "--target=registry", f"--build-arg=DEBIAN_IMAGE={debian}", f"--tag={REGISTRY_IMAGE}", "."
    ).ok()
    return REGISTRY_IMAGE


@pytest.fixture(scope="session")
def start_registry(registry_image: str) -> Iterator[Callable[..., str]]:
    """Starts a registry with settings of its own; gives its address, localhost:PORT."""
    started: list[DockerContainer] = []

    def start(settings: dict[str, str] | None = None, files: dict[Path, str] | None = None) -> str:
        container = on_ipv4(DockerContainer(registry_image), 5000)
        for name, value in (settings or {}).items():
            container.with_env(name, value)
        for path, inside in (files or {}).items():
            container.with_volume_mapping(str(path), inside, "ro")
        container.waiting_for(
            HttpWaitStrategy(5000, "/v2/").for_status_code_matching(lambda status: status in (200, 401))
        )
        started.append(container)
        container.start()
        return f"localhost:{container.get_exposed_port(5000)}"

    yield start
    for container in started:
        container.stop()


@pytest.fixture(scope="session")
def registry(start_registry: Callable[..., str]) -> str:
    """A registry that takes everything."""
    return start_registry()
