"""Finds the versions that a build would be made of today."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from builder import lock, recipe, record
from builder.docker.bake import bake
from builder.lock import LockedTarget
from builder.project import Project
from builder.recipe import Bases
from builder.views import live


def run(project: Project, bases: dict[str, Bases], console: Console) -> dict[str, LockedTarget]:
    """What each target of `bases` is made of, with the newest packages that the mirrors have.

    Raises:
        BuildError: a stage failed.
    """
    with tempfile.TemporaryDirectory(prefix="builder-lock-") as temporary:
        folders = {name: Path(temporary) / name for name in bases}
        for name in bases:
            lock.write_packages(None, recipe.lock_folder(project, name))
        bake(
            {name: recipe.inventory(project, name, each, folders[name]) for name, each in bases.items()},
            context=project.root,
            definition=project.state / "lock.bake.json",
            view=live.view(console),
        )
        told = {name: json.loads((folder / "toolchain.json").read_text()) for name, folder in folders.items()}
    return {name: record.locked(project, name, bases[name], lock.packages(told[name])) for name in bases}


def compared(project: Project, now: dict[str, LockedTarget]) -> Iterable[tuple[str, list[str]]]:
    """What is out of date, by target; nothing where a lock has all that there is."""
    held = lock.load(project)
    for name, each in now.items():
        before = held.targets.get(name)
        if before is None:
            yield name, ["it is not locked"]
        elif lines := lock.differences(before, each):
            yield name, lines
