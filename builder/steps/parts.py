"""Compiles the plugins and serializes the pipelines: the image's files, before there is an image.

One graph for BuildKit, so that all targets share what they can and run at once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from builder import elf, recipe, sources
from builder.artifacts import Parts, Plugin
from builder.docker.bake import bake
from builder.project import Project
from builder.recipe import Base


def run(project: Project, bases: Mapping[str, Base], console: Console, *, no_cache: bool = False) -> list[Parts]:
    """The parts of every target in `bases`. They are on trial until `keep`: earlier ones stay as they are.

    Raises:
        CompileError, SerializeError, BuildError: a stage failed.
    """
    for name in bases:
        shutil.rmtree(recipe.trial(project, name), ignore_errors=True)  # BuildKit would add to what is there
    bake(
        {name: recipe.parts(project, name, base) for name, base in bases.items()},
        context=project.root,
        definition=project.state / "parts.bake.json",
        console=console,
        no_cache=no_cache,
    )
    return [_read(project, name) for name in bases]


def keep(project: Project, parts: Parts) -> None:
    """Puts parts that are right in the place of the earlier ones."""
    kept = project.state / parts.target / "parts"
    shutil.rmtree(kept, ignore_errors=True)
    recipe.trial(project, parts.target).replace(kept)
    parts.save(project)


def _read(project: Project, target: str) -> Parts:
    folder = recipe.trial(project, target)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return Parts(
        target=target,
        triton_version=facts["triton"],
        dali_version=facts["dali"],
        dali_cuda=facts["dali_cuda"],
        glibc=facts["glibc"],
        glibcxx=facts["glibcxx"],
        plugins=tuple(_plugin(folder, told) for told in facts["plugins"]),
        plugin_sources=sources.digest(project.plugin_folder),
        built_as=project.targets[target],
    )


def _plugin(folder: Path, told: Mapping[str, Any]) -> Plugin:
    """What the image told of a library, and what its file does."""
    file = folder / told["path"].lstrip("/")
    library = elf.read(file)
    cuda = elf.cuda(file) if library.gpu else ""
    return Plugin(**told, demands=library.demands, architectures=library.architectures, cuda=cuda)
