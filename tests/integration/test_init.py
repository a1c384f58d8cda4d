"""From an empty folder to a pushed image, with no edit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builder.docker.engine import Engine

from .conftest import REPOSITORY, ROOT, Finished, Project


def init(folder: Path, *arguments: str) -> Finished:
    """As a new user would: in the folder itself."""
    done = subprocess.run(
        [sys.executable, "-m", "builder", "init", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, engine: Engine, registry: str) -> Project:
    folder = tmp_path_factory.mktemp("init") / "MyBlur"
    folder.mkdir()
    init(folder, "--repository", f"{registry}/{REPOSITORY}-init", "--quiet").ok()
    return Project(folder)


def test_what_init_wrote_passes_its_own_test(started: Project) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(started.root / "tests")],
        cwd=started.root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_it_is_pushed_and_served(started: Project) -> None:
    pushed = started.builder("push", "--json").ok().document["pushed"]
    assert [each["target"] for each in pushed] == ["embedded"]
    started.environment.update(HTTP_PORT="0", GRPC_PORT="0", METRICS_PORT="0")
    try:
        served = started.builder("up", "--json").ok().document
        assert served["reference"] == pushed[0]["reference"]
    finally:
        started.builder("down").ok()


def test_its_own_dockerfile_builds_the_same_files(started: Project, debian: str) -> None:
    """`eject`, and plain docker without this program."""
    before = sorted(path.name for path in started.root.iterdir())
    written = started.builder("eject", "--json").ok().document["files"]
    assert "Dockerfile" in written
    assert set(before) < {path.name for path in started.root.iterdir()}
    tag = f"{REPOSITORY}-ejected"
    started.docker("build", f"--build-arg=DEBIAN_IMAGE={debian}", f"--tag={tag}", ".").ok()
    command = started.docker("inspect", "--format", "{{json .Config.Cmd}}", tag).ok().stdout
    assert "plugin_libs=/models/libmyblur.so" in command
    assert started.builder("check", "--strict").ok()


def test_a_folder_that_has_files_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin/CMakeLists.txt").write_text("mine")
    error = init(tmp_path, "--name", "my_blur", "--json").failed("usage", 2)
    assert "plugin/CMakeLists.txt" in error["what"]
    assert [path.name for path in tmp_path.iterdir()] == ["plugin"]
