"""What comes with the program: from a checkout, and from the wheel that is built of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from builder import package, scaffold

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, unpacked as installers do."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True, text=True)
    [wheel] = folder.glob("*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        for entry in archive.infolist():
            if entry.external_attr >> 16 & 0o111:
                (site / entry.filename).chmod(0o755)
    return site


def builder(installed: Path, folder: Path, *arguments: str) -> str:
    """The stdout of the installed program, run in `folder` where no engine answers."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "DOCKER_HOST": f"unix://{folder}/none.sock"}
    command = [sys.executable, "-m", "builder", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_a_checkout_has_its_files_beside_the_program() -> None:
    assert package.ROOT == CHECKOUT


def test_a_project_s_own_files_come_before_the_program_s(tmp_path: Path) -> None:
    for of, name in ((package.dockerfile, "Dockerfile"), (package.compose_file, "docker-compose.yml")):
        assert of(tmp_path) == package.ROOT / name
        (tmp_path / name).touch()
        assert of(tmp_path) == tmp_path / name


def test_a_wheel_has_all_that_the_package_s_stage_copies(installed: Path) -> None:
    shipped = installed / "builder" / "shipped"
    stage = (shipped / "Dockerfile").read_text().split("FROM scratch AS package\n")[1].split("\n\n")[0]
    copied = re.findall(r"^COPY (\S+) ", stage, re.MULTILINE)
    assert len(copied) == 3
    for name in (*copied, "plugin", "model_repository"):
        if (CHECKOUT / name).is_dir():
            assert files(shipped / name) == files(CHECKOUT / name)
        else:
            assert (shipped / name).read_bytes() == (CHECKOUT / name).read_bytes()


def test_a_wheel_has_all_that_is_read_at_run_time(installed: Path) -> None:
    for path in (CHECKOUT / "builder").rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert (installed / path.relative_to(CHECKOUT)).read_bytes() == path.read_bytes()
    assert all((installed / "builder" / "shipped" / name).exists() for name in scaffold._EJECTED)


def test_a_wheel_has_nothing_else(installed: Path) -> None:
    assert [name for name in files(installed) if "__pycache__" in name or name.endswith(".pyc")] == []
    assert {name.split("/")[0] for name in files(installed)} == {"builder", *(
        path.name for path in installed.glob("*.dist-info")
    )}  # fmt: skip


def test_programs_in_a_wheel_can_be_run(installed: Path) -> None:
    for path in (CHECKOUT / "embedded").rglob("*"):
        if path.is_file():
            shipped = installed / "builder" / "shipped" / path.relative_to(CHECKOUT)
            assert os.access(shipped, os.X_OK) == os.access(path, os.X_OK)


def test_an_installed_program_starts_and_plans_a_project(installed: Path, tmp_path: Path) -> None:
    started = json.loads(builder(installed, tmp_path, "init", "my_blur", "--json"))
    assert "plugin/my_blur.cu" in started["files"]
    planned = json.loads(builder(installed, tmp_path, "plan", "-C", "my_blur", "--json"))
    shipped = installed / "builder" / "shipped"
    assert planned["targets"][0]["dockerfile"] == str(shipped / "Dockerfile")
    target = planned["bake"]["parts"]["target"]["embedded"]
    assert target["contexts"]["package"] == str(shipped)
    assert [each["code"] for each in json.loads(builder(installed, tmp_path, "explain", "--json"))["codes"]]


def test_an_installed_program_ejects_what_a_checkout_does(installed: Path, tmp_path: Path) -> None:
    builder(installed, tmp_path, "init", "my_blur")
    ejected = json.loads(builder(installed, tmp_path, "eject", "-C", "my_blur", "--json"))["files"]
    names = [name for name in ejected if name not in ("Dockerfile", "docker-compose.yml")]
    assert {"embedded/backend/model.py", "builder/stages/facts.py", ".dockerignore"} <= set(names)
    assert all((tmp_path / "my_blur" / name).read_bytes() == (CHECKOUT / name).read_bytes() for name in names)
