"""The rows without anything built before: on an engine of their own, so that nobody's images and caches are lost.

What stays between two builds is what a network would bring again: Debian's image, its packages and the wheels.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import docker.errors

from bench.daily import projects
from bench.daily.commands import run
from bench.daily.images import NAME
from bench.daily.limits import Limit, say
from bench.daily.projects import ROOT, TARGET
from bench.daily.sides import BUILDER, Ours, Rival
from bench.daily.warm import Measured
from bench.daily.wheels import fetched, served
from builder.docker.engine import Engine
from tests.integration.engines import GATEWAY, SecondEngine, second_engine

ROWS = ("cold", "targets")
_DOWNLOADS = ("/var/cache/apt", "/var/lib/apt/lists", "/root/.cache/pip")
"""Where the Dockerfiles mount caches of what was downloaded. What was compiled is in others, which do not stay."""
_KEPT = "exec.cachemount"
"""BuildKit's type of the caches that a RUN mounts."""
_REPOSITORY = f"localhost:5000/{NAME}"


def measure(rows: Sequence[str], rounds: int, folder: Path, limit: Limit) -> Measured:
    """One target of ours and the same by hand in turn, then three targets at once.

    Raises:
        PermissionError: an engine can be started by root alone.
    """
    if os.geteuid() != 0:
        raise PermissionError("the rows cold and targets start an engine of their own, which only root can")
    measured = Measured()
    debian = str(json.loads(run([*BUILDER, "base", "-C", ROOT, "--json"], cwd=ROOT).stdout)["debian_image"])
    wheels = fetched(folder.parent, debian)
    with second_engine(folder / "cold") as second, served(wheels, GATEWAY):
        second.take(debian)
        say("cold: a first build of all targets, which counts for nothing, brings the downloads")
        _ours(folder, second, targets=True).build("--target", "all")
        for number in limit.rounds(rounds, "cold"):
            _round(measured, rows, folder, second, debian, ours_first=number % 2 == 0)
    return measured


def _round(
    measured: Measured, rows: Sequence[str], folder: Path, second: SecondEngine, debian: str, *, ours_first: bool
) -> None:
    figures: dict[str, float] = {}
    turns = ["ours", "rival"] if "cold" in rows else ["ours"]
    last = None
    for turn in turns if ours_first else reversed(turns):
        _forget(second.connect(), debian)
        if turn == "ours":
            last = _ours(folder, second)
            figures["ours"] = last.build()
            figures["ours verified"] = figures["ours"] + (last.smoke() if "cold" in rows else 0)
        else:
            by_hand = _rival(folder, second, debian)
            figures["rival"] = by_hand.build()
            figures["rival verified"] = figures["rival"] + sum(by_hand.verify().values())
    if "cold" in rows:
        measured.add("cold", figures, last)
    if "targets" in rows:
        _forget(second.connect(), debian)
        three = _ours(folder, second, targets=True)
        measured.add("targets", {"ours": three.build("--target", "all"), "one": figures["ours"]}, three)


def _ours(folder: Path, second: SecondEngine, *, targets: bool = False) -> Ours:
    project = folder / "cold-ours"
    shutil.rmtree(project, ignore_errors=True)
    return Ours(projects.ours(project, _REPOSITORY, targets=targets), second.environment)


def _rival(folder: Path, second: SecondEngine, debian: str) -> Rival:
    project = folder / "cold-rival"
    shutil.rmtree(project, ignore_errors=True)
    made = projects.rival(project, with_base=True)
    return Rival(made, f"{_REPOSITORY}-by-hand:{TARGET}", debian=debian, environment=second.environment)


def _forget(engine: Engine, debian: str) -> None:
    """Takes away all images but Debian's, and all caches but those of downloads."""
    for image in engine.client.images.list():
        if debian not in image.tags:
            for name in image.tags or [str(image.id)]:
                try:
                    engine.client.images.remove(name, force=True)
                except docker.errors.ImageNotFound:
                    continue  # it was the same as one that is gone
    for record in _records(engine):
        if record["Type"] == _KEPT and not is_download(record):
            _prune(engine, "id", record["ID"])
    for kind in {record["Type"] for record in _records(engine)} - {_KEPT}:
        _prune(engine, "type", kind)
    left = [record for record in _records(engine) if not is_download(record)]
    assert not left, f"caches that could not be removed: {left}"
    os.sync()


def _prune(engine: Engine, name: str, value: str) -> None:
    filters: Any = {name: [value]}
    engine.client.api.prune_builds(filters=filters, all=True)


def is_download(record: dict[str, str]) -> bool:
    """Whether one of the engine's caches is of what a build downloaded, by what BuildKit says of it."""
    return record["Type"] == _KEPT and any(f" {folder} " in record["Description"] for folder in _DOWNLOADS)


def _records(engine: Engine) -> list[dict[str, str]]:
    return [dict(each) for each in engine.client.df()["BuildCache"] or ()]
