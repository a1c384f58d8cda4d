"""The rows of the daily loop: on the machine's engine, with everything there that an earlier build left."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.daily import projects
from bench.daily.commands import run
from bench.daily.goals import SIZES
from bench.daily.images import NAME, Images
from bench.daily.limits import Limit, fresh, say
from bench.daily.projects import ROOT
from bench.daily.sides import BUILDER, Ours, Phase, Rival
from builder.docker.secrets import from_machine

ROWS = ("help", "check", "build", "operator", "config", "push")
_REGISTRY_IMAGE = "triton-dali-builder/registry"
_READY_SECONDS = 30.0

Rows = dict[str, list[dict[str, float]]]
One = TypeVar("One")
Other = TypeVar("Other")


@dataclass
class Measured:
    """The rounds of each row, and where the time of each row's last round went."""

    rows: Rows = field(default_factory=dict)
    phases: dict[str, list[Phase]] = field(default_factory=dict)

    def add(self, row: str, figures: dict[str, float], ours: Ours | None = None) -> None:
        self.rows.setdefault(row, []).append({name: round(value, 4) for name, value in figures.items()})
        if ours:
            self.phases[row] = ours.taken()


def measure(rows: Sequence[str], rounds: int, folder: Path, limit: Limit, images: Images) -> Measured:
    """The rows that are asked for; a row that another one's change is needed for comes with it."""
    measured = Measured()
    with _registry(needed="push" in rows) as address:
        ours = Ours(projects.ours(folder / "ours", f"{address}/{NAME}"))
        say("a first build and verification of both, which count for nothing")
        ours.build()
        rival = Rival(projects.rival(folder / "rival"), f"{address}/{NAME}-by-hand:latest", base=ours.base())
        _first(ours, rival, rows)
        images.note()
        for number in limit.rounds(rounds, "daily loop"):
            _round(measured, ours, rival, rows, images, ours_first=number % 2 == 0)
            images.note()
    return measured


def _first(ours: Ours, rival: Rival, rows: Sequence[str]) -> None:
    rival.build()
    if {"operator", "config", "push"} & set(rows):
        ours.smoke()
        rival.verify()
    if "push" in rows:
        ours.push()
        rival.push()
    ours.taken()


def _round(
    measured: Measured, ours: Ours, rival: Rival, rows: Sequence[str], images: Images, *, ours_first: bool
) -> None:
    if "help" in rows:
        command = run([*BUILDER, "--help"], cwd=ROOT)
        measured.add("help", {"ours": command.seconds, "floor": _python("pass")})
    if "check" in rows:
        seconds = ours.run("check").seconds
        measured.add("check", {"ours": seconds, "floor": _python("import pydantic, google.protobuf.text_format")}, ours)
    if "build" in rows:
        one, other = _both(ours.build, rival.build, ours_first)
        round_trip = run(["docker", "version"]).seconds
        measured.add("build", {"ours": one, "rival": other, "floor": round_trip}, ours)
    if not {"operator", "config", "push"} & set(rows):
        return
    for project in (ours.project, rival.project):
        projects.change_operator(project, fresh())
    one_by_part, other_by_part = _both(lambda: _verified(ours), lambda: _verified_by_hand(rival), ours_first)
    images.note()
    inside = rival.floors()
    floor = {
        "floor compile": inside["compile"],
        "floor serialize": inside["serialize"],
        # By the rival's own container: the same server, started by one plain command.
        "floor start": other_by_part["rival start"],
        "floor inference": other_by_part["rival inference"],
    }
    figures = {**one_by_part, **other_by_part, "floor": sum(floor.values()), **floor}
    is_told = ours.compiled  # as it must have: or else nobody can tell below that it did not
    measured.add("operator", figures, ours)
    if not {"config", "push"} & set(rows):
        return
    for project in (ours.project, rival.project):
        projects.change_configuration(project, fresh())
    one_by_part, other_by_part = _both(lambda: _verified(ours), lambda: _verified_by_hand(rival), ours_first)
    floor = {
        "floor start": other_by_part["rival start"],
        "floor inference": other_by_part["rival inference"],
    }
    figures = {**one_by_part, **other_by_part, "floor": sum(floor.values()), **floor}
    if is_told:
        figures["compiled"] = float(ours.compiled)
    measured.add("config", figures, ours)
    if "push" in rows:
        (one, sent), other = _both(ours.push, rival.push, ours_first)
        measured.add("push", {"ours": one, "rival": other, "bytes": sent}, ours)


def _both(ours: Callable[[], One], rival: Callable[[], Other], ours_first: bool) -> tuple[One, Other]:
    """In turn one or the other is first, so that neither always has the machine warm."""
    os.sync()  # what the last one wrote is not this one's to wait for
    if ours_first:
        one = ours()
        os.sync()
        return one, rival()
    other = rival()
    os.sync()
    return ours(), other


def _verified(ours: Ours) -> dict[str, float]:
    build = ours.build()
    smoke = ours.smoke()
    return {"ours": build + smoke, "ours build": build, "ours smoke": smoke}


def _verified_by_hand(rival: Rival) -> dict[str, float]:
    build = rival.build()
    parts = rival.verify()
    named = {f"rival {name}": seconds for name, seconds in parts.items()}
    return {"rival": build + sum(parts.values()), "rival build": build, **named}


def _python(statement: str) -> float:
    return run([sys.executable, "-c", statement]).seconds


def models(rounds: int, folder: Path, limit: Limit, images: Images) -> Measured:
    """Check and build of ever more models, each with a pipeline that no build has seen; their plugin is compiled."""
    measured = Measured()
    sizes = {
        count: Ours(projects.many(folder / f"models-{count}", f"localhost:5000/{NAME}-{count}", count))
        for count in SIZES
    }
    say("a first build of each number of models, which counts for nothing")
    for each in sizes.values():
        each.build()
    images.note()
    for _ in limit.rounds(rounds, "models"):
        figures: dict[str, float] = {}
        for count, each in sizes.items():
            projects.change_pipelines(each.project, fresh())
            os.sync()
            figures[f"check {count}"] = each.run("check").seconds
            figures[f"build {count}"] = each.build()
        images.note()
        last = sizes[SIZES[-1]]
        measured.add("models", {"ours": figures[f"build {SIZES[-1]}"], **figures}, last)
    return measured


@contextlib.contextmanager
def _registry(*, needed: bool) -> Iterator[str]:
    """The address of a registry of its own; where none is needed, one at which nobody listens."""
    if not needed:
        yield "localhost:5000"
        return
    if not run(["docker", "image", "ls", "--quiet", _REGISTRY_IMAGE]).stdout.strip():
        say("building a registry")
        told = json.loads(run([*BUILDER, "base", "-C", ROOT, "--json"], cwd=ROOT).stdout)
        network = from_machine()
        run(
            [
                *("docker", "build", "--target=registry", f"--build-arg=DEBIAN_IMAGE={told['debian_image']}"),
                *(f"--secret={each}" for each in network.secrets),
                *(f"--build-arg={name}" for name in network.proxies),
                *(f"--tag={_REGISTRY_IMAGE}", ROOT),
            ],
            environment=network.environment,
        )
    run(["docker", "rm", "--force", "--volumes", NAME])  # of a run that was killed
    started = run(["docker", "run", "--detach", "--publish=0.0.0.0::5000", f"--name={NAME}", _REGISTRY_IMAGE])
    container = started.stdout.strip()
    try:
        port = run(["docker", "port", container, "5000/tcp"]).stdout.split()[0].rpartition(":")[2]
        deadline = time.monotonic() + _READY_SECONDS
        health = ["docker", "inspect", "--format={{.State.Health.Status}}", container]
        while run(health).stdout.strip() != "healthy":
            if time.monotonic() > deadline:
                raise TimeoutError(f"the registry was not up after {_READY_SECONDS:.0f} s")
            time.sleep(0.2)
        yield f"localhost:{port}"
    finally:
        run(["docker", "rm", "--force", "--volumes", container])
