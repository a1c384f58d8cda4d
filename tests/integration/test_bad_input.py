"""Mistakes: one clear message each, its exit code, no traceback, and earlier results as they were."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from builder.docker.engine import Engine

from .conftest import Project, interrupt


def _records(project: Project) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (project.root / ".builder/embedded").glob("*.json")
    }


CONFIG = "model_repository/mydali/config.pbtxt"
PIPELINE = "model_repository/mydali/1/dali.py"

# file, what is replaced, by what, the error's code, the exit status, what it must say.
MISTAKES = {
    "a C++ error": ("plugin/custom_copy.cc", "namespace ", "int oops = not_declared;\nnamespace ", "plugin-does-not-compile", 4, "not_declared"),
    "a CUDA error": ("plugin/custom_copy.cu", "namespace ", "int oops = not_declared;\nnamespace ", "plugin-does-not-compile", 4, "not_declared"),
    "a CMake error": ("plugin/CMakeLists.txt", "project(", "no_such_command()\nproject(", "plugin-does-not-compile", 4, "no_such_command"),
    "an operator that is not there": (PIPELINE, "return fn.custom_copy", "return fn.custom_cpoy", "pipeline-does-not-serialize", 4, "custom_cpoy"),
    "a syntax error in the pipeline": (PIPELINE, "def pipeline():", "def pipeline(:", "pipeline-does-not-serialize", 4, "dali.py:"),
    "a pipeline that throws": (PIPELINE, "    data = ", "    1 / 0\n    data = ", "pipeline-does-not-serialize", 4, "ZeroDivisionError"),
    "a syntax error in config.pbtxt": (CONFIG, "max_batch_size: 256", "max_batch_size = 256", "config-invalid", 2, "config.pbtxt:3"),
    "an unknown field in config.pbtxt": (CONFIG, "max_batch_size:", "max_batch_sise:", "config-invalid", 2, "max_batch_sise"),
    "another input name": (CONFIG, '"DALI_INPUT_0"', '"INPUT"', "input-name-mismatch", 2, "INPUT"),
    "a plugin that is not there": (CONFIG, "libcustomcopy.so", "libcustomcpy.so", "plugin-missing", 2, "did you mean /models/libcustomcopy.so"),
    "an unknown key": ("builder.toml", "repository =", "repositry =", "project-invalid", 2, "repository"),
    "no such DALI": ("builder.toml", 'dali = "1.53.0"', 'dali = "9.9.9"', "project-invalid", 2, "choose among 1.53.0"),
    "another external_source": (PIPELINE, 'name="DALI_INPUT_0"', 'name="OTHER"', "input-name-mismatch", 2, "'OTHER'"),
    "a plugin that the command leaves out": ("Dockerfile", ', "--backend-config=dali,plugin_libs=/models/libcustomcopy.so"', "", "plugin-unlisted", 2, "/models/libcustomcopy.so"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_and_harms_nothing(mistake: str, built_project: Project) -> None:
    file, old, new, code, status, says = MISTAKES[mistake]
    before = _records(built_project)
    assert "image.json" in before
    path = built_project.root / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    done = built_project.builder("build", "--json")
    error = done.failed(code, status)
    assert says in " ".join([error["what"], error["where"], error["remedy"], *error["detail"]])
    assert len(error["detail"]) <= 40
    assert _records(built_project) == before
    assert not list((built_project.root / ".builder").rglob(".*.json.*"))


def test_a_model_without_a_pipeline(built_project: Project) -> None:
    before = _records(built_project)
    model = built_project.root / "model_repository/other"
    model.mkdir()
    config = (built_project.root / CONFIG).read_text()
    (model / "config.pbtxt").write_text(config.replace('name: "mydali"', 'name: "other"'))
    error = built_project.builder("build", "--json").failed("pipeline-missing", 2)
    assert "other/1/dali.py" in error["remedy"]
    assert _records(built_project) == before


def test_what_a_failed_build_compiled_does_not_replace_what_was_kept(built_project: Project) -> None:
    kept = built_project.root / ".builder/embedded/parts/models/mydali/1/model.dali"
    before = kept.read_bytes()
    built_project.edit(PIPELINE, 'name="DALI_INPUT_0"', 'name="OTHER"')
    built_project.builder("build", "--json").failed("input-name-mismatch", 2)
    assert kept.read_bytes() == before


def test_a_version_that_is_gone_is_not_found_again(built_project: Project) -> None:
    """What an earlier build exported must not be taken for what this one did."""
    versions = built_project.root / "model_repository/mydali"
    (versions / "1").rename(versions / "2")
    built_project.edit("builder.toml", "under-test", "under-test-version-2")
    built_project.builder("build").ok()
    assert [
        path.name for path in (built_project.root / ".builder/embedded/parts/models/mydali").iterdir() if path.is_dir()
    ] == ["2"]


def test_a_proxy_reaches_the_build_and_its_password_is_nowhere(built_project: Project) -> None:
    address = "http://ann:correct-horse@127.0.0.1:9"
    built_project.environment.update(HTTP_PROXY=address, HTTPS_PROXY=address, NO_PROXY="localhost")
    done = built_project.builder("build", "--no-cache", "--json", "--verbose")
    error = done.failed("download-failed", 4)
    assert "127.0.0.1:9" in " ".join(error["detail"])
    assert "correct-horse" not in done.stdout + done.stderr
    for path in (built_project.root / ".builder").rglob("*.json"):
        assert "correct-horse" not in path.read_text()


def test_no_engine(project: Project, tmp_path: Path) -> None:
    project.environment["DOCKER_HOST"] = f"unix://{tmp_path}/nothing.sock"
    for command in ("build", "down", "base"):
        error = project.builder(command, "--json").failed("no-engine", 3)
        assert "nothing.sock" in error["where"]


def test_no_buildx(project: Project, tmp_path: Path) -> None:
    """A docker without plugins, as Debian 12's own is."""
    alone = tmp_path / "bin"
    alone.mkdir()
    script = alone / "docker"
    script.write_text("#!/bin/sh\necho \"docker: 'buildx' is not a docker command.\" >&2\nexit 1\n")
    script.chmod(0o755)
    project.environment["PATH"] = f"{alone}:{os.environ['PATH']}"
    project.builder("build", "--json").failed("no-buildx", 3)


def test_no_project(tmp_path: Path) -> None:
    Project(tmp_path).builder("build", "--json").failed("project-missing", 2)


def test_no_models(project: Project) -> None:
    shutil.rmtree(project.root / "model_repository")
    project.builder("build", "--json").failed("project-invalid", 2)


def test_a_base_that_cannot_be_had(project: Project) -> None:
    project.environment["DEBIAN_IMAGE"] = "localhost:1/debian:12"
    project.builder("build", "--json").failed("no-base", 3)


def test_ctrl_c_in_a_build_leaves_earlier_results(built_project: Project, engine: Engine) -> None:
    before = _records(built_project)
    built_project.edit("plugin/custom_copy.cc", '#include "custom_copy.h"', '// changed\n#include "custom_copy.h"')
    process = built_project.start("build", "--json")
    bake = built_project.root / ".builder/parts.bake.json"
    began = bake.stat().st_mtime_ns
    done = interrupt(process, lambda: bake.stat().st_mtime_ns != began)
    done.failed("interrupted", 130)
    assert _records(built_project) == before
    # And it can be done again.
    built_project.builder("build").ok()


def test_unknown_options_are_one_document_too(project: Project) -> None:
    project.builder("build", "--no-such-option", "--json").failed("usage", 2)


def test_a_target_that_is_not_there(project: Project) -> None:
    error: dict[str, Any] = project.builder("build", "--target=embeded", "--json").failed("usage", 2)
    assert "embedded" in error["what"]
