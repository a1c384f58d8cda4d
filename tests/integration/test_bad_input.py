"""What goes wrong around a build: one clear message each, and earlier results as they were.

Mistakes in a project are in tests/broken.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from builder.docker.engine import Engine

from .conftest import Project, interrupt


def _records(project: Project) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (project.root / ".builder/embedded").glob("*.json")
    }


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


def test_a_base_that_cannot_be_had(project: Project) -> None:
    project.environment["DEBIAN_IMAGE"] = "localhost:1/debian:12"
    project.builder("build", "--json").failed("no-base", 3)


def test_ctrl_c_in_a_build_leaves_earlier_results(built_project: Project, engine: Engine) -> None:
    built_project.edit("builder.toml", "under-test", "under-test-interrupted")
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
