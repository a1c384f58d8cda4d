"""`diff` of images in the engine, in a registry, and of builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import REPOSITORY, Project, copy_project

NAME = f"{REPOSITORY}-diff"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, image: dict[str, Any]) -> Project:
    """The shipped project with another batch size and another pipeline, built under a name of its own."""
    project = Project(copy_project(tmp_path_factory.mktemp("other") / "project"))
    project.edit("builder.toml", f"localhost:5000/{REPOSITORY}", f"localhost:5000/{NAME}")
    project.edit("model_repository/mydali/config.pbtxt", "max_batch_size: 256", "max_batch_size: 128")
    project.edit("model_repository/mydali/1/dali.py", "num_threads=4", "num_threads=2")
    project.builder("build", "--quiet").ok()
    return project


def check(told: dict[str, Any]) -> None:
    """The images differ in what was changed, and in nothing else."""
    assert told["identical"] is False
    assert {each["path"] for each in told["files"]} == {
        "/models/mydali/config.pbtxt",
        "/models/mydali/1/model.dali",
        "/models/mydali/1/dali.py",
    }
    assert {each["status"] for each in told["files"]} == {"changed"}
    by_status = [each["status"] for each in told["layers"] if each["status"] != "same"]
    # The layer with the models; the base and the plugins are the same.
    assert by_status == ["removed", "added"]
    assert not any(each["base"] for each in told["layers"] if each["status"] != "same")
    models = {each["path"]: each["diff"] for each in told["models"]}
    assert "-max_batch_size: 256" in models["/models/mydali/config.pbtxt"]
    assert "+max_batch_size: 128" in models["/models/mydali/config.pbtxt"]
    assert "+num_threads = 2" in models["/models/mydali/1/model.dali"]
    # By file where this machine's history has both builds, by folder otherwise.
    sources = {each["what"].partition("/")[0] for each in told["changes"] if each["kind"] == "source"}
    assert sources == {"model_repository"}
    assert not any(each["kind"] in ("wheel", "package", "config", "env") for each in told["changes"])


def test_images_of_the_engine_are_compared(other: Project, image: dict[str, Any]) -> None:
    told = other.builder("diff", image["digest"], f"{NAME}:embedded", "--json").ok().document
    check(told)
    assert told["a"]["digest"] == image["digest"]
    # What is the other's own layout is read there.
    check(other.builder("diff", image["reference"], "embedded", "--json").ok().document)


def test_people_see_the_same(other: Project, image: dict[str, Any]) -> None:
    shown = other.builder("diff", image["reference"], "embedded", "--exit-code")
    assert shown.returncode == 1
    for text in ("+max_batch_size: 128", "~ /models/mydali/1/model.dali", "+num_threads = 2"):
        assert text in shown.stdout
    assert other.builder("diff", "embedded", f"{NAME}:embedded", "--exit-code").ok().stdout.endswith("identical\n")


def test_an_image_of_a_registry_is_read_there(
    other: Project, image: dict[str, Any], registry: str, tmp_path: Path
) -> None:
    pushed = other.builder("push", "--untagged", f"{registry}/{NAME}", "--json").ok().document["pushed"][0]
    # No engine is asked, so nothing but the registry and what the other build left can tell.
    project = Project(other.root, {"DOCKER_HOST": "unix:///nowhere.sock"})
    assert project.builder("diff", pushed["reference"], "embedded", "--exit-code").ok().stdout.endswith("identical\n")
    missing = f"{registry}/{NAME}@sha256:{'0' * 64}"
    project.builder("diff", missing, "embedded", "--json").failed("no-image", 3)
    # Layers that differ come from the registry, too.
    other_side = Project(tmp_path, {})
    check(other_side.builder("diff", image["digest"], pushed["reference"], "--json").ok().document)


def test_bases_that_differ_are_told_by_folder_and_by_file_if_asked(shipped: Project, image: dict[str, Any]) -> None:
    base = image["base"]
    told = shipped.builder("diff", "triton-dali-builder/debian:bookworm", base, "--json").ok().document
    assert told["files"] == []
    assert any(each["path"].startswith("/opt") and each["added"] for each in told["base_folders"])
    told = shipped.builder("diff", "triton-dali-builder/debian:bookworm", base, "--files", "--json").ok().document
    assert any(each["path"] == "/opt/tritonserver/bin/tritonserver" for each in told["files"])
    assert {each["status"] for each in told["layers"]} == {"same", "added"}
