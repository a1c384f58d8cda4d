"""`build`: from sources to an image in the engine."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Set, Targets, Verbose, prepare


def build(
    target: Targets = None,
    project: Directory = HERE,
    settings: Set = None,
    locked: Annotated[
        bool, typer.Option("--locked", help="Build nothing that builder.lock does not hold in every version.")
    ] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every stage again.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compile the plugin, serialize the pipelines, and build the image.

    Prints the image's digest. Examples:

      python -m builder build

      python -m builder build --target embedded-dali2 --json
    """
    from builder import lock, revision
    from builder import output as out
    from builder import project as projects
    from builder.docker.engine import Engine, require_buildx
    from builder.steps import base, check, image, parts

    output = prepare(json, quiet, verbose)
    began = time.monotonic()
    here = projects.load(project, settings or ())
    chosen = here.select(target or ())
    output.findings(check.before_build(here, chosen))
    engine = Engine.connect()
    require_buildx()
    held = {name: lock.held(here, name, required=locked) for name in chosen}
    bases = {name: base.resolve(here, each, engine, output.console, held[name]) for name, each in chosen.items()}
    made = parts.run(here, bases, held, output.progress, with_base=engine.keeps_manifests, no_cache=no_cache)
    output.findings([each for one in made for each in check.of_build(here, one)])
    for each in made:
        parts.keep(here, each)
    by_target = {each.target: each for each in made}
    built = image.run(here, engine, by_target, bases, revision.of(here.root), output.progress, began=began)
    out.images(built, by_target, output.progress)
    output.result(out.build_document(built, time.monotonic() - began), tuple(each.digest for each in built))
