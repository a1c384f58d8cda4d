from __future__ import annotations

import pytest

from builder import package, sources
from builder.project import Project
from builder.recipe import Base, Bases
from builder.steps import plan

from .records import parts, plugin

EMBEDDED = Bases(debian=Base("debian:12", None))
BASES = {"embedded": EMBEDDED, "ngc": Bases(Base("nvcr.io/nvidia/tritonserver:26.06-py3", None))}


@pytest.fixture
def built(project: Project) -> Project:
    """With a plugin, and the record of what was built of it."""
    project.plugin_folder.mkdir()
    (project.plugin_folder / "CMakeLists.txt").write_text("project(x)\n")
    parts(plugin(), plugin_sources=sources.digest(project.plugin_folder)).save(project)
    return project


def test_both_definitions_of_a_build_are_told(built: Project) -> None:
    told = plan.definitions(built, BASES)
    assert set(told["parts"]["target"]) == {"embedded", "ngc"}
    # Nothing is known of the other's plugins.
    assert set(told["image"]["target"]) == {"embedded"}
    assert told["image"]["target"]["embedded"]["labels"]["triton-dali-builder.target"] == "embedded"


def test_an_image_is_not_told_before_its_plugins_are_known(project: Project) -> None:
    assert plan.definitions(project, BASES)["image"] is None


def test_a_target_that_was_built_is_told_whole(built: Project) -> None:
    assert plan.target(built, "embedded", built.targets["embedded"], EMBEDDED) == {
        "target": "embedded",
        "image": "mydali:embedded",
        "pushed_as": ["localhost:5000/mydali:latest"],
        "base": "debian:12",
        "base_digest": None,
        "dali": "1.53.0",
        "platform": "linux/amd64",
        "dockerfile": str(package.ROOT / "Dockerfile"),
        "command": [
            "tritonserver",
            "--model-repository=/models",
            "--backend-config=dali,plugin_libs=/models/libcustomcopy.so",
        ],
    }


def test_a_target_that_was_not_built_has_the_dali_of_the_table_and_no_command(project: Project) -> None:
    told = plan.target(project, "ngc", project.targets["ngc"], BASES["ngc"])
    assert (told["dali"], told["command"]) == ("2.1.1", None)


def test_named_libraries_are_known_before_a_build(project: Project) -> None:
    named = Project.model_validate({**dict(project), "plugins": ["b", "a"]})
    told = plan.target(named, "ngc", named.targets["ngc"], BASES["ngc"])
    assert told["command"][-1] == "--backend-config=dali,plugin_libs=/models/libb.so:/models/liba.so"
