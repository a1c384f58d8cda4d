from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tree_sitter_toml
from rich.console import Console

from builder import elf, recipe, sources
from builder.artifacts import Parts
from builder.docker.builders import Builder
from builder.docker.caches import Caches
from builder.elf import BadLibrary
from builder.errors import CompileError
from builder.lock import LockedTarget
from builder.project import Project, Target
from builder.recipe import Base, Bases
from builder.reference import Digest
from builder.steps import parts

FIRST = ["libcustomcopy.so", "mydali"]
BASES = {"embedded": Bases(debian=Base("debian:12", None))}
UNLOCKED = {"embedded": None}
BASE = "sha256:" + "b" * 64
LOCKED = LockedTarget(wheels={}, debian={"g++-12": "12.2.0-14+deb12u1", "libc6": "2.36-9+deb12u10"})
TOOLCHAIN = {"debian": [{"name": name, "version": version} for name, version in LOCKED.debian.items()]}
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
        self.asked: dict[str, Mapping[str, Any]] = {}

    def __call__(self, targets: Mapping[str, Mapping[str, Any]], **_: object) -> dict[str, dict[str, str]]:
        self.asked = dict(targets)
        for target in targets.values():
            [output] = target["output"]
            if not output.startswith("type=local,"):
                continue
            folder = Path(output.removeprefix("type=local,dest="))
            assert not folder.exists()
            for name, content in self.files.items():
                path = folder / "models" / name / "1" / "model.dali"
                path.parent.mkdir(parents=True)
                path.write_bytes(content)
            library = folder / TOLD["path"].lstrip("/")
            library.parent.mkdir(parents=True, exist_ok=True)
            library.write_bytes(self.library)
            (folder / "facts.json").write_text(json.dumps({**FACTS, "plugins": [TOLD]}))
            (folder / "toolchain.json").write_text(json.dumps(TOOLCHAIN))
        if self.failure:
            raise self.failure
        return {name: {"containerimage.digest": BASE} for name in targets if name.endswith("_base")}


@pytest.fixture
def bake(monkeypatch: pytest.MonkeyPatch) -> Bake:
    monkeypatch.setattr(parts, "bake", made := Bake(mydali=b"pipeline"))
    return made


def kept(project: Project) -> list[str]:
    return sorted(path.name for path in project.state.glob("embedded/parts/models/*"))


def test_parts_are_what_the_files_say(project: Project, console: Console, bake: Bake) -> None:
    [made] = parts.run(project, BASES, UNLOCKED, console)
    assert (made.target, made.triton_version, made.dali_version) == ("embedded", "24.10", "1.53.0")
    assert (made.glibc, made.glibcxx) == ("2.36", "3.4.30")
    [plugin] = made.plugins
    told = plugin.model_dump(mode="json", include=set(TOLD))
    assert told == TOLD


def test_what_a_library_needs_is_read_from_its_file(project: Project, console: Console, bake: Bake) -> None:
    [made] = parts.run(project, BASES, UNLOCKED, console)
    [plugin] = made.plugins
    assert plugin.demands == elf.read(LIBRARY).demands
    assert (plugin.demands["GLIBC"] >= "2", plugin.architectures) == (True, ())


def test_the_sources_of_plugins_are_recorded(project: Project, console: Console, bake: Bake) -> None:
    project.plugin_folder.mkdir()
    (project.plugin_folder / "CMakeLists.txt").write_text("project(x)\n")
    [made] = parts.run(project, BASES, UNLOCKED, console)
    assert made.plugin_sources == sources.digest(project.plugin_folder)
    assert made.plugin_files == sources.files(project.plugin_folder)


def test_parts_are_on_trial_until_they_are_kept(project: Project, console: Console, bake: Bake) -> None:
    [first] = parts.run(project, BASES, UNLOCKED, console)
    assert (kept(project), Parts.find(project, "embedded")) == ([], None)
    parts.keep(project, first)
    assert (kept(project), Parts.find(project, "embedded")) == (FIRST, first)
    bake.files = {"other": b"pipeline"}
    [second] = parts.run(project, BASES, UNLOCKED, console)
    assert (kept(project), Parts.find(project, "embedded")) == (FIRST, first)
    parts.keep(project, second)
    assert (kept(project), Parts.find(project, "embedded")) == (["libcustomcopy.so", "other"], second)


def test_what_a_failed_build_leaves_is_no_part_of_the_next(project: Project, console: Console, bake: Bake) -> None:
    bake.files, bake.failure = {"stale": b"pipeline"}, CompileError("the plugin does not compile")
    with pytest.raises(CompileError):
        parts.run(project, BASES, UNLOCKED, console)
    bake.files, bake.failure = {"mydali": b"pipeline"}, None
    [made] = parts.run(project, BASES, UNLOCKED, console)
    parts.keep(project, made)
    assert kept(project) == ["libcustomcopy.so", "mydali"]


def test_a_library_that_is_none_is_refused(project: Project, console: Console, bake: Bake) -> None:
    bake.library = b"no ELF"
    with pytest.raises(BadLibrary, match="not an ELF file"):
        parts.run(project, BASES, UNLOCKED, console)


def test_the_embedded_base_becomes_an_image_that_layers_are_put_on(
    project: Project, console: Console, bake: Bake
) -> None:
    [made] = parts.run(project, BASES, UNLOCKED, console)
    assert set(bake.asked) == {"embedded", "embedded_base"}
    assert bake.asked["embedded_base"]["target"] == "embedded"
    assert made.base == recipe.embedded_name(project, "embedded", BASES["embedded"])
    assert made.base_digest == BASE


def test_targets_with_one_embedded_base_make_it_once(project: Project, console: Console, bake: Bake) -> None:
    both = project.model_copy(update={"targets": {"embedded": Target(), "cpu": Target(cuda="OFF")}})
    made = parts.run(both, dict.fromkeys(both.targets, BASES["embedded"]), dict.fromkeys(both.targets), console)
    assert set(bake.asked) == {"embedded", "embedded_base", "cpu"}
    assert [(each.target, each.base_digest) for each in made] == [("embedded", BASE), ("cpu", BASE)]
    assert len({each.base for each in made}) == 1


def test_layers_for_a_base_that_is_known_are_built_in_the_same_call(
    project: Project, console: Console, bake: Bake
) -> None:
    asked = []

    def layers(name: str, bases: Bases, base: Base) -> dict[str, Any]:
        asked.append((name, bases, base))
        return {"target": "runtime", "output": ["type=oci,dest=x"]}

    parts.run(project, BASES, UNLOCKED, console, layers=layers)
    assert bake.asked["embedded_layers"]["target"] == "runtime"
    named = Base(recipe.embedded_name(project, "embedded", BASES["embedded"]), None)
    assert asked == [("embedded", BASES["embedded"], named)]
    parts.run(project, BASES, UNLOCKED, console, layers=lambda *_: None)
    assert set(bake.asked) == {"embedded", "embedded_base"}


def test_where_no_layers_are_put_on_it_the_embedded_base_is_no_image(
    project: Project, console: Console, bake: Bake
) -> None:
    [made] = parts.run(project, BASES, UNLOCKED, console, with_base=False)
    assert (set(bake.asked), made.base_digest) == ({"embedded"}, "")


def test_a_base_of_somebody_else_s_is_the_one_that_layers_are_put_on(
    project: Project, console: Console, bake: Bake
) -> None:
    bases = {"ngc": Bases(Base("nvcr.io/x/y:1", Digest(BASE)))}
    [made] = parts.run(project, bases, {"ngc": None}, console)
    assert set(bake.asked) == {"ngc"}
    assert (made.base, made.base_digest) == ("nvcr.io/x/y:1", BASE)


def test_a_build_is_held_to_the_packages_of_its_lock(project: Project, console: Console, bake: Bake) -> None:
    folder = recipe.lock_folder(project, "embedded")
    [made] = parts.run(project, BASES, {"embedded": LOCKED}, console)
    assert (folder / "debian").read_text() == "g++-12=12.2.0-14+deb12u1\nlibc6=2.36-9+deb12u10\n"
    assert {target["contexts"]["lock"] for target in bake.asked.values()} == {str(folder)}
    # The base of one lock is not that of another, or of none.
    held = made.base
    [free] = parts.run(project, BASES, UNLOCKED, console)
    assert list(folder.iterdir()) == []
    assert free.base != held


def test_what_the_build_found_of_debian_s_packages_is_recorded(project: Project, console: Console, bake: Bake) -> None:
    [made] = parts.run(project, BASES, UNLOCKED, console)
    assert made.packages == LOCKED.debian


def test_a_cache_is_left_of_the_parts_alone_which_all_that_takes_time_is_below(
    project: Project, console: Console, bake: Bake
) -> None:
    builder = Builder("ci", caches=Caches.parse(exported=["localhost:5000/cache"]))
    parts.run(project, BASES, UNLOCKED, console, builder=builder)
    assert {name: "cache-to" in target for name, target in bake.asked.items()} == {
        "embedded": True,
        "embedded_base": False,
    }
