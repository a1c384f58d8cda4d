"""Compiles the plugins and serializes the pipelines: the image's files, before there is an image.

One graph for BuildKit, so that all targets share what they can and run at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from builder import recipe
from builder.artifacts import Parts, Pipeline
from builder.docker.bake import bake
from builder.errors import SerializeError
from builder.project import Project
from builder.recipe import Base


def run(
    project: Project, bases: Mapping[str, Base], console: Console, *, builder: str = "", no_cache: bool = False
) -> list[Parts]:
    """The parts of every target in `bases`.

    Raises:
        CompileError, SerializeError, BuildError: a stage failed; earlier records stay as they are.
    """
    bake(
        {name: recipe.parts(project, name, base) for name, base in bases.items()},
        context=project.root,
        definition=project.state / "parts.bake.json",
        console=console,
        builder=builder,
        no_cache=no_cache,
    )
    return [_read(project, name).save(project) for name in bases]


def _read(project: Project, target: str) -> Parts:
    folder = project.state / target / "parts"
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
