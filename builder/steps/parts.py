"""Compiles the plugins and serializes the pipelines: the image's files, before there is an image.

One graph for BuildKit, so that all targets share what they can and run at once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from builder import recipe
from builder.artifacts import Parts, Pipeline
from builder.docker.bake import bake
from builder.errors import SerializeError
from builder.project import Project
from builder.recipe import Base


def run(project: Project, bases: Mapping[str, Base], console: Console, *, no_cache: bool = False) -> list[Parts]:
    """The parts of every target in `bases`. They are on trial until `keep`: earlier ones stay as they are.

    Raises:
        CompileError, SerializeError, BuildError: a stage failed.
    """
    for name in bases:
        shutil.rmtree(_trial(project, name), ignore_errors=True)  # BuildKit would add to what is there
    bake(
        {name: recipe.parts(project, name, base, _trial(project, name)) for name, base in bases.items()},
        context=project.root,
        definition=project.state / "parts.bake.json",
        console=console,
        no_cache=no_cache,
    )
    return [_read(_trial(project, name), name) for name in bases]


def keep(project: Project, parts: Parts) -> None:
    """Puts parts that are right in the place of the earlier ones."""
    kept = project.state / parts.target / "parts"
    shutil.rmtree(kept, ignore_errors=True)
    _trial(project, parts.target).replace(kept)
    parts.save(project)


def _trial(project: Project, target: str) -> Path:
    return project.state / target / "parts.trial"


def _read(folder: Path, target: str) -> Parts:
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return Parts(
        target=target,
        triton_version=facts["triton"],
        dali_version=facts["dali"],
        plugins=facts["plugins"],
        pipelines=tuple(_signature(path) for path in sorted(folder.glob("models/*/*/model.dali"))),
    )


def _signature(path: Path) -> Pipeline:
    from builder import dali_proto

    try:
        parsed = dali_proto.parse(path.read_bytes())
    except ValueError as error:
        model = "/".join(path.parts[-3:])
        raise SerializeError(
            f"{model} is {error}", where=model, remedy="remove it, or give its source as dali.py"
        ) from None
    inputs = tuple(source.inst_name for source in dali_proto.external_sources(parsed))
    return Pipeline(model=path.parent.parent.name, version=path.parent.name, inputs=inputs)
