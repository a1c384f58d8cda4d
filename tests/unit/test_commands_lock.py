"""`lock` and `build --locked` as they are typed; the engine and BuildKit are stand-ins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from builder import lock, recipe
from builder import project as projects
from builder.docker import engine as engine_module
from builder.docker.engine import Engine
from builder.errors import BuildError
from builder.lock import Lock
from builder.project import Project
from builder.recipe import Base, Bases
from builder.reference import Digest
from builder.steps import base, parts
from builder.steps import check as check_step
from builder.steps import lock as step

from .conftest import Run, document

PROJECT = """\
repository = "localhost:5000/mydali"
[targets.embedded]
[targets.embedded-dali2]
dali = "2.1.1"
"""
SHA, OTHER = Digest("sha256:" + "a" * 64), Digest("sha256:" + "b" * 64)


class Machine:
    """Today's base, and today's packages."""

    def __init__(self) -> None:
        self.debian = SHA
        self.packages = {"g++-12": "12.2.0-14+deb12u1", "libc6": "2.36-9+deb12u10"}
        self.pulls: list[bool] = []
        self.asked: dict[str, Mapping[str, Any]] = {}
        self.held: list[list[str]] = []

    def current(self, *_: object, pull: bool) -> Bases:
        self.pulls.append(pull)
        return Bases(debian=Base("debian:12", self.debian))

    def bake(self, targets: Mapping[str, Mapping[str, Any]], **_: object) -> None:
        self.asked = dict(targets)
        for target in targets.values():
            self.held.append([path.name for path in Path(target["contexts"]["lock"]).iterdir()])
            folder = Path(target["output"][0].removeprefix("type=local,dest="))
            folder.mkdir(parents=True)
            told = [{"name": name, "version": version} for name, version in self.packages.items()]
            (folder / "toolchain.json").write_text(json.dumps({"debian": told}))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(Engine, "connect", lambda: Engine(None))  # type: ignore[arg-type]
    monkeypatch.setattr(engine_module, "require_buildx", lambda: None)
    monkeypatch.setattr(base, "current", made.current)
    monkeypatch.setattr(step, "bake", made.bake)
    return made


@pytest.fixture
def here(tmp_path: Path) -> Project:
    root = tmp_path / "project"
    root.mkdir()
    (root / "builder.toml").write_text(PROJECT)
    return projects.load(root, (), {})


def test_a_lock_holds_what_there_is_today(run: Run, here: Project, machine: Machine) -> None:
    status, out, err = run("lock", "-C", str(here.root))
    assert (status, out) == (0, f"{here.root / 'builder.lock'}\n")
    locked = lock.load(here).targets["embedded"]
    assert (locked.debian, locked.wheels) == (machine.packages, lock.wheels(here.targets["embedded"]))
    assert locked.debian_image is not None
    assert (locked.debian_image.name, locked.debian_image.digest) == ("debian:12", str(SHA))
    assert "g++-12 12.2.0-14+deb12u1" in err
    assert machine.pulls == [True]
    assert set(machine.asked) == {"embedded"}
    # And a build is held to it.
    assert lock.held(here, "embedded", required=True) == locked


def test_locking_again_looks_for_the_newest_whatever_is_locked(run: Run, here: Project, machine: Machine) -> None:
    run("lock", "-C", str(here.root))
    lock.write_packages(lock.load(here).targets["embedded"], recipe.lock_folder(here, "embedded"))
    machine.packages = {**machine.packages, "libc6": "2.36-9+deb12u11"}
    machine.held.clear()
    status, out, err = run("lock", "-C", str(here.root), "--json")
    assert machine.held == [[]]
    told = document(out)
    assert (status, told["changes"]) == (0, {"embedded": ["libc6: 2.36-9+deb12u10 → 2.36-9+deb12u11"]})
    assert told["toolchain"]["embedded"]["g++-12"] == "12.2.0-14+deb12u1"
    assert "embedded: libc6: 2.36-9+deb12u10 → 2.36-9+deb12u11" in err
    assert lock.load(here).targets["embedded"].debian["libc6"] == "2.36-9+deb12u11"


def test_other_targets_stay_as_they_are_locked(run: Run, here: Project, machine: Machine) -> None:
    run("lock", "-C", str(here.root), "--target", "all")
    before = lock.load(here)
    assert set(before.targets) == {"embedded", "embedded-dali2"}
    machine.packages = {"libc6": "3"}
    run("lock", "-C", str(here.root), "--target", "embedded-dali2")
    after = lock.load(here)
    assert after.targets["embedded"] == before.targets["embedded"]
    assert after.targets["embedded-dali2"].debian == {"libc6": "3"}


def test_a_check_of_what_is_up_to_date_changes_nothing(run: Run, here: Project, machine: Machine) -> None:
    run("lock", "-C", str(here.root))
    written = (here.root / "builder.lock").read_bytes()
    status, out, _ = run("lock", "--check", "-C", str(here.root))
    assert (status, out) == (0, "")
    assert (here.root / "builder.lock").read_bytes() == written
    assert machine.pulls == [True, False]


def test_a_check_tells_what_is_out_of_date_and_changes_nothing(run: Run, here: Project, machine: Machine) -> None:
    run("lock", "-C", str(here.root))
    written = (here.root / "builder.lock").read_bytes()
    machine.debian = OTHER
    status, out, err = run("lock", "--check", "-C", str(here.root), "--json")
    told = document(out)
    assert (status, told["error"]["code"]) == (2, "lock-outdated")
    [line] = told["changes"]["embedded"]
    assert "its tag has moved" in line
    assert line in err
    assert told["error"]["remedy"].endswith("python -m builder lock")
    assert (here.root / "builder.lock").read_bytes() == written


def test_a_check_of_a_target_that_is_not_locked_names_it(run: Run, here: Project, machine: Machine) -> None:
    run("lock", "-C", str(here.root))
    status, out, _ = run("lock", "--check", "-C", str(here.root), "--target", "all", "--json")
    told = document(out)
    assert (status, told["changes"]) == (2, {"embedded-dali2": ["it is not locked"]})
    assert told["error"]["remedy"].endswith("python -m builder lock --target embedded-dali2")


def test_a_lock_that_cannot_be_read_is_told_before_anything_is_built(run: Run, here: Project, machine: Machine) -> None:
    (here.root / "builder.lock").write_text("<<<<<<<\n")
    status, out, _ = run("lock", "-C", str(here.root), "--json")
    assert (status, document(out)["error"]["code"]) == (2, "lock-invalid")
    assert machine.asked == {}
    assert (here.root / "builder.lock").read_text() == "<<<<<<<\n"


# build --locked


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> dict[str, Any]:
    """What a build is held to; it ends there."""
    told: dict[str, Any] = {}

    def run_parts(_project: Project, _bases: object, locked: dict[str, Any], *_: object, **__: object) -> None:
        told.update(locked)
        raise BuildError("it goes no farther")

    class Client:
        def info(self) -> dict[str, Any]:
            return {}

    monkeypatch.setattr(Engine, "connect", lambda: Engine(Client()))  # type: ignore[arg-type]
    monkeypatch.setattr(check_step, "before_build", lambda *_: [])

    def resolve(*given: Any, **_: object) -> Bases:
        told.setdefault("bases", []).append(given[-1])
        return Bases(debian=Base("debian:12", None))

    monkeypatch.setattr(base, "resolve", resolve)
    monkeypatch.setattr(parts, "run", run_parts)
    return told


@pytest.mark.parametrize("arguments", [(), ("--locked",)])
def test_a_build_is_held_to_its_lock_whether_it_asks_for_it_or_not(
    run: Run, here: Project, held: dict[str, Any], arguments: tuple[str, ...]
) -> None:
    run("lock", "-C", str(here.root))
    status, out, _ = run("build", *arguments, "-C", str(here.root), "--json")
    assert (status, document(out)["error"]["code"]) == (4, "build-failed")
    locked = lock.load(here).targets["embedded"]
    assert held == {"embedded": locked, "bases": [locked]}


def test_a_build_without_a_lock_is_free_unless_it_asks_for_one(run: Run, here: Project, held: dict[str, Any]) -> None:
    assert run("build", "-C", str(here.root))[0] == 4
    assert held == {"embedded": None, "bases": [None]}
    held.clear()
    status, out, _ = run("build", "--locked", "-C", str(here.root), "--json")
    assert (status, document(out)["error"]["code"], held) == (2, "lock-missing", {})


def test_a_build_that_the_lock_is_not_of_does_not_begin(run: Run, here: Project, held: dict[str, Any]) -> None:
    run("lock", "-C", str(here.root))
    locked = lock.load(here).targets["embedded"]
    lock.save(here, Lock(targets={"embedded": locked.model_copy(update={"wheels": {}})}))
    status, out, _ = run("build", "-C", str(here.root), "--json")
    assert (status, document(out)["error"]["code"], held) == (2, "lock-outdated", {})
