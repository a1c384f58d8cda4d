"""Three libraries, twelve models, two targets: what one plugin and one model cannot show."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from builder.docker.engine import Engine
from builder.docker.server import listed_plugins

from .conftest import REPOSITORY, Project

MANY = Path(__file__).resolve().parents[1] / "projects" / "many"
TARGETS = ["embedded", "embedded-dali2"]
LIBRARIES = ("/models/libbytereverse.so", "/models/libsamplesum.so", "/models/libscaleadd.so")
MODELS = {
    ("both", "1"): "oracles/many.py:both",
    ("builtin", "1"): "oracles/many.py:builtin",
    ("chain", "1"): "oracles/many.py:chain",
    ("checksum", "1"): "signature",
    ("invert", "1"): "signature",
    ("pair", "1"): "oracles/many.py:pair",
    ("reverse", "1"): "oracles/many.py:reverse",
    ("scale", "1"): "oracles/many.py:scale",
    ("scale", "2"): "oracles/many.py:scale",
    ("single", "1"): "oracles/many.py:reverse_all",
    ("total", "1"): "golden/total.npz",
    ("twice", "1"): "identity",
    ("upper", "1"): "oracles/many.py:upper",
}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Project:
    """The project in a copy of its own, under a name of the tests'."""
    root = tmp_path_factory.mktemp("many") / "project"
    shutil.copytree(MANY, root)
    project = Project(root)
    project.edit("builder.toml", "localhost:5000/many", f"localhost:5000/{REPOSITORY}-many")
    return project


@pytest.fixture(scope="module")
def built_many(many: Project) -> dict[str, Any]:
    """Both targets in one call."""
    return dict(many.builder("build", "--target=all", "--json").ok().document)


def test_one_call_builds_every_target_with_every_library(built_many: dict[str, Any], engine: Engine) -> None:
    assert [image["target"] for image in built_many["images"]] == TARGETS
    for image in built_many["images"]:
        assert listed_plugins(engine.image(image["digest"])) == LIBRARIES


def test_every_model_of_every_target_is_verified(many: Project, built_many: dict[str, Any]) -> None:
    verified = many.builder("smoke", "--target=all", "--json").ok().document
    assert verified["passed"]
    assert [image["target"] for image in verified["images"]] == TARGETS
    for image in verified["images"]:
        assert {(model["name"], model["version"]): model["oracle"] for model in image["models"]} == MODELS
        for model in image["models"]:
            assert model["values_compared"] == (model["oracle"] != "signature")
            assert model["requests"] > 100
        control = image["negative_control"]
        assert control["applicable"]
        assert control["passed"]


def test_a_model_s_configuration_is_built_in_without_compiling(many: Project, built_many: dict[str, Any]) -> None:
    new = f"max_batch_size: 16  # {uuid.uuid4()}"  # what an earlier run left in the cache is not this
    many.edit("model_repository/both/config.pbtxt", "max_batch_size: 32", new)
    done = many.builder("build", "--target=all", "--json").ok()
    digests = [image["digest"] for image in done.document["images"]]
    assert digests != [image["digest"] for image in built_many["images"]]
    # Steps that are cached are not shown.
    assert "serialize the pipelines" in done.stderr
    assert "compile the plugins" not in done.stderr


def test_a_version_that_disagrees_with_its_oracle_is_named(many: Project, built_many: dict[str, Any]) -> None:
    """An oracle that is right for version 1 alone."""
    many.edit("oracles/many.py", "2: (3, -1)", "2: (3, -2)")
    try:
        error = many.builder("smoke", "--json").failed("wrong-answer", 5)
    finally:
        many.edit("oracles/many.py", "2: (3, -2)", "2: (3, -1)")
    assert "'scale/2'" in error["what"]
    assert "(rtol 1e-06, atol 0)" in error["what"]
