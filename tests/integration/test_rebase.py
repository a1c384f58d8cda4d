"""Images move to another base with the layers that they have, or stay where they are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest

from builder.docker.engine import Engine
from builder.oci import Layout

from .conftest import ROOT, Project, copy_project
from .test_image import secrets

STATE = ".builder/embedded"


def _base(project: Project, number: int, under: str, *more: str) -> str:
    """A Triton image with a file, a variable and a layer of its own."""
    folder = project.root.parent / f"base-{number}"
    folder.mkdir()
    lines = (f"FROM {under}", f"RUN echo {number} > /number", f"ENV BASE_NUMBER={number}", *more)
    (folder / "Dockerfile").write_text("\n".join(lines))
    name = f"under-test-base:{number}"
    project.docker("build", f"--tag={name}", str(folder)).ok()
    return name


@pytest.fixture(scope="module")
def embedded(shipped: Project, built: dict[str, Any]) -> str:
    """The base that the shipped image lies on."""
    return str(json.loads((shipped.root / STATE / "parts.json").read_text())["base"])


@pytest.fixture(scope="module")
def newer(shipped: Project, embedded: str) -> str:
    """One that somebody made of it."""
    return _base(shipped, 2, embedded)


@pytest.fixture(scope="module")
def moved(shipped: Project, verified: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the shipped project, built and verified, whose image has a name of its own."""
    root = copy_project(tmp_path_factory.mktemp("moved") / "project")
    shutil.copytree(shipped.root / ".builder", root / ".builder")
    project = Project(root, dict(shipped.environment))
    project.edit("builder.toml", "under-test", "under-test-moved")
    return project


@pytest.fixture(scope="module")
def rebased(moved: Project, newer: str) -> tuple[dict[str, Any], str]:
    """What `rebase --json` says of it, onto the embedded base, and from there onto the newer; and what that showed."""
    moved.builder("rebase", "--onto=embedded", "--json").ok()
    done = moved.builder("rebase", f"--onto={newer}", "--json").ok()
    (document,) = done.document["images"]
    return document, done.stderr


def _files(project: Project) -> dict[str, bytes]:
    """All that the last build and the last proof left."""
    folder = project.root / STATE
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _own(project: Project) -> list[str]:
    layout = Layout(project.root / STATE / "oci")
    return [each["digest"] for each in layout.manifest["layers"] if layout.holds(each["digest"])]


def test_the_layers_are_the_very_ones_of_the_build(
    rebased: tuple[dict[str, Any], str], shipped: Project, moved: Project
) -> None:
    document, _ = rebased
    kept = [each["digest"] for each in document["layers_kept"]]
    assert kept == _own(shipped) == _own(moved)
    assert len(kept) == 2  # models, and libraries


def test_nothing_is_compiled_or_serialized(rebased: tuple[dict[str, Any], str]) -> None:
    _, shown = rebased
    assert "load the plugins" in shown
    assert not any(f"  {stage} " in shown for stage in ("toolchain", "plugins", "models", "inventory"))


def test_the_image_lies_on_the_new_base_and_has_its_environment(
    rebased: tuple[dict[str, Any], str], newer: str, engine: Engine
) -> None:
    document, _ = rebased
    image, base = (engine.image(name) for name in (document["reference"], newer))
    assert image["Id"] == document["digest"]
    assert image["RootFS"]["Layers"][: len(base["RootFS"]["Layers"])] == base["RootFS"]["Layers"]
    assert "BASE_NUMBER=2" in image["Config"]["Env"]
    labels = image["Config"]["Labels"]
    assert labels["org.opencontainers.image.base.name"] == newer
    assert labels["org.opencontainers.image.base.digest"] == base["Id"] == document["base"]["digest"]
    assert engine.find(document["reference"] + "_rebase") is None


def test_what_was_proven_is_told(rebased: tuple[dict[str, Any], str], newer: str) -> None:
    document, shown = rebased
    dali, glibc, glibcxx = document["needs"]
    assert dali == {"what": "DALI", "needs": "1.53.0", "has": "1.53.0"}
    assert glibc["has"] == "2.36"
    assert glibcxx["needs"].startswith("3.4.")
    assert document["verification"]["passed"]
    assert document["verification"]["negative_control"]["applicable"]
    assert document["builder_toml"] == [f'triton_image = "{newer}"']
    assert document["builder_toml"][0] in shown


def test_the_record_tells_what_the_layers_were_made_on(
    rebased: tuple[dict[str, Any], str], newer: str, engine: Engine
) -> None:
    """After two moves it is still the build's own base."""
    document, _ = rebased
    record = json.loads(engine.image(document["digest"])["Config"]["Labels"]["triton-dali-builder.record"])
    assert record["lock"]["triton_image"]["name"] == record["built_as"]["triton_image"] == newer
    assert record["compiled"]["built_as"]["triton_image"] == "embedded"
    assert "triton_image" not in record["compiled"]["lock"]


def test_what_was_rebased_is_pushed_and_verified(
    rebased: tuple[dict[str, Any], str], newer: str, moved: Project, registry: str
) -> None:
    document, _ = rebased
    (pushed,) = moved.builder("push", f"{registry}/under-test/moved:1", "--json").ok().document["pushed"]
    assert pushed["digest"] == document["digest"]
    verify = [sys.executable, "-m", "builder", "verify", pushed["reference"]]  # which needs no project
    done = subprocess.run(verify, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, newer in done.stderr) == (0, True), done.stderr


def test_a_base_with_another_dali_is_refused(
    rebased: tuple[dict[str, Any], str], moved: Project, debian: str, engine: Engine
) -> None:
    name = "under-test-dali:2.1.1"
    arguments = (f"DEBIAN_IMAGE={debian}", "DALI_VERSION=2.1.1")
    moved.docker(
        "build", "--target=wheel", f"--tag={name}", *(f"--build-arg={each}" for each in arguments), *secrets(), "."
    ).ok()
    before = _files(moved)
    done = moved.builder("rebase", f"--onto={name}", "--json")
    error = done.failed("rebase-dali-differs", 2)
    assert "DALI 1.53.0 is needed" in error["what"]
    assert "has 2.1.1" in error["what"]
    assert "python -m builder build --target embedded" in error["remedy"]
    assert "/models/libcustomcopy.so needs DALI_1.53.0" in error["detail"]
    assert _files(moved) == before


def test_a_base_without_dali_is_refused(rebased: tuple[dict[str, Any], str], moved: Project, debian: str) -> None:
    before = _files(moved)
    error = moved.builder("rebase", f"--onto={debian}", "--json").failed("base-without-dali", 2)
    assert debian in error["what"]
    assert _files(moved) == before


def test_a_base_that_does_not_serve_changes_nothing(
    rebased: tuple[dict[str, Any], str], moved: Project, embedded: str, engine: Engine
) -> None:
    """It has DALI, and no backend that would use it."""
    broken = _base(moved, 3, embedded, "RUN rm /opt/tritonserver/backends/dali/model.py")
    document, _ = rebased
    before = _files(moved)
    done = moved.builder("rebase", f"--onto={broken}", "--json")
    assert done.returncode == 5, done.stderr
    assert _files(moved) == before
    assert engine.image(document["reference"])["Id"] == document["digest"]
    assert engine.find(document["reference"] + "_rebase") is None


def test_a_project_that_was_never_built_is_told(project: Project) -> None:
    project.builder("rebase", "--onto=embedded", "--json").failed("nothing-built", 2)
