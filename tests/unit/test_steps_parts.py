from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tree_sitter_toml
from rich.console import Console

from builder import elf, sources
from builder.artifacts import Parts
from builder.elf import BadLibrary
from builder.errors import CompileError
from builder.project import Project
from builder.recipe import Base
from builder.steps import parts

FIRST = ["libcustomcopy.so", "mydali"]
BASES = {"embedded": Base("debian:12", None)}
LIBRARY = Path(tree_sitter_toml._binding.__file__)  # any small one
TOLD = {
    "path": "/models/libcustomcopy.so",
    "sha256": "a" * 64,
    "bytes": 1,
    "operators": [{"name": "CustomCopy", "devices": ["cpu", "gpu"]}],
}
FACTS = {"triton": "24.10", "dali": "1.53.0", "dali_cuda": "12", "glibc": "2.36", "glibcxx": "3.4.30"}


class Bake:
    """In place of `bake`: leaves files where a definition sends them."""

    def __init__(self, **files: bytes) -> None:
        self.files = files
        self.library = LIBRARY.read_bytes()
        self.failure: Exception | None = None

    def __call__(self, targets: Mapping[str, Mapping[str, Any]], **_: object) -> None:
        for target in targets.values():
            folder = Path(target["output"][0].removeprefix("type=local,dest="))
            assert not folder.exists()
            for name, content in self.files.items():
                path = folder / "models" / name / "1" / "model.dali"
                path.parent.mkdir(parents=True)
                path.write_bytes(content)
            library = folder / TOLD["path"].lstrip("/")
            library.parent.mkdir(parents=True, exist_ok=True)
            library.write_bytes(self.library)
            (folder / "facts.json").write_text(json.dumps({**FACTS, "plugins": [TOLD]}))
        if self.failure:
            raise self.failure


@pytest.fixture
def bake(monkeypatch: pytest.MonkeyPatch) -> Bake:
    monkeypatch.setattr(parts, "bake", made := Bake(mydali=b"pipeline"))
    return made


def kept(project: Project) -> list[str]:
    return sorted(path.name for path in project.state.glob("embedded/parts/models/*"))


def test_parts_are_what_the_files_say(project: Project, console: Console, bake: Bake) -> None:
    [made] = parts.run(project, BASES, console)
    assert (made.target, made.triton_version, made.dali_version) == ("embedded", "24.10", "1.53.0")
    assert (made.glibc, made.glibcxx) == ("2.36", "3.4.30")
    [plugin] = made.plugins
    told = plugin.model_dump(mode="json", include=set(TOLD))
    assert told == TOLD


def test_what_a_library_needs_is_read_from_its_file(project: Project, console: Console, bake: Bake) -> None:
    [made] = parts.run(project, BASES, console)
    [plugin] = made.plugins
    assert plugin.demands == elf.read(LIBRARY).demands
    assert (plugin.demands["GLIBC"] >= "2", plugin.architectures) == (True, ())


def test_the_sources_of_plugins_are_recorded(project: Project, console: Console, bake: Bake) -> None:
    project.plugin_folder.mkdir()
    (project.plugin_folder / "CMakeLists.txt").write_text("project(x)\n")
    [made] = parts.run(project, BASES, console)
    assert made.plugin_sources == sources.digest(project.plugin_folder)


def test_parts_are_on_trial_until_they_are_kept(project: Project, console: Console, bake: Bake) -> None:
    [first] = parts.run(project, BASES, console)
    assert (kept(project), Parts.find(project, "embedded")) == ([], None)
    parts.keep(project, first)
    assert (kept(project), Parts.find(project, "embedded")) == (FIRST, first)
    bake.files = {"other": b"pipeline"}
    [second] = parts.run(project, BASES, console)
    assert (kept(project), Parts.find(project, "embedded")) == (FIRST, first)
    parts.keep(project, second)
    assert (kept(project), Parts.find(project, "embedded")) == (["libcustomcopy.so", "other"], second)


def test_what_a_failed_build_leaves_is_no_part_of_the_next(project: Project, console: Console, bake: Bake) -> None:
    bake.files, bake.failure = {"stale": b"pipeline"}, CompileError("the plugin does not compile")
    with pytest.raises(CompileError):
        parts.run(project, BASES, console)
    bake.files, bake.failure = {"mydali": b"pipeline"}, None
    [made] = parts.run(project, BASES, console)
    parts.keep(project, made)
    assert kept(project) == ["libcustomcopy.so", "mydali"]


def test_a_library_that_is_none_is_refused(project: Project, console: Console, bake: Bake) -> None:
    bake.library = b"no ELF"
    with pytest.raises(BadLibrary, match="not an ELF file"):
        parts.run(project, BASES, console)
