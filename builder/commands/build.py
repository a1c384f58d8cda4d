"""`build`: from sources to an image in the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Set, Targets, Verbose, prepare

if TYPE_CHECKING:
    from builder.artifacts import Image, Parts
    from builder.project import Project


def build(
    target: Targets = None,
    project: Directory = HERE,
    settings: Set = None,
    locked: Annotated[
        bool, typer.Option("--locked", help="Build nothing that builder.lock does not hold in every version.")
    ] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every stage again.")] = False,
    builder: Annotated[
        str,
        typer.Option(
            "--builder",
            metavar="NAME",
            envvar="BUILDX_BUILDER",
            help="Build on another BuildKit that `docker buildx ls` names; the image comes to the engine all the same.",
            show_default="the engine's own",
        ),
    ] = "",
    cache_to: Annotated[
        list[str] | None,
        typer.Option(
            "--cache-to",
            metavar="CACHE",
            help="Leave what every stage made in type=registry,ref=HOST/PATH, or in type=local,dest=DIR.",
            show_default=False,
        ),
    ] = None,
    cache_from: Annotated[
        list[str] | None,
        typer.Option(
            "--cache-from",
            metavar="CACHE",
            help="Take from there what an earlier build left; none is no failure. May be given again.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compile the plugin, serialize the pipelines, and build the image.

    Prints the image's digest. Examples:

      python -m builder build

      python -m builder build --target embedded-dali2 --json

      python -m builder build --builder ci --cache-from registry.example.com/team/cache
    """
    from builder import lock, recipe, revision
    from builder import output as out
    from builder import project as projects
    from builder.docker import builders, contexts
    from builder.docker.caches import Caches
    from builder.docker.engine import Engine, require_buildx
    from builder.docker.progress import timeline
    from builder.errors import BuilderError
    from builder.steps import base, check, image, parts, recorded, unchanged
    from builder.views import live, summary

    output = prepare(json, quiet, verbose)
    began, when = time.monotonic(), datetime.now(UTC)
    here = projects.load(project, settings or ())
    chosen = here.select(target or ())
    caches = Caches.parse(cache_from or (), cache_to or ())
    found = check.before_build(here, chosen)
    output.findings(found)
    engine = Engine.connect()
    builds = builders.chosen(engine, builder, caches)
    held = {name: lock.held(here, name, required=locked) for name in chosen}
    bases = {
        name: base.resolve(here, each, engine, output.console, held[name], elsewhere=not builds.is_engine)
        for name, each in chosen.items()
    }
    at = revision.of(here.root)
    view = live.view(output.progress)

    def judge(made: Iterable[Parts], left: Callable[[Project, str], Path]) -> dict[str, Parts]:
        """The parts by target. Raises CheckFailed."""
        by_target = {each.target: each for each in made}
        of_build = [each for name, one in by_target.items() for each in check.of_build(here, one, left(here, name))]
        output.findings(of_build)
        found.extend(of_build)
        return by_target

    def make() -> tuple[list[Image], dict[str, Parts]]:
        require_buildx()
        builds_on = builds
        if not builds.is_engine:
            platforms = {name: each.platform for name, each in chosen.items()}
            unseen = {name: contexts.of_bases(here.state, engine, bases[name], platforms[name]) for name in chosen}
            builds_on = builds.given(unseen)
        beforehand = image.Beforehand(here, engine, at)
        made = judge(
            parts.run(
                here,
                bases,
                held,
                view,
                with_base=engine.keeps_manifests,
                layers=beforehand if engine.keeps_manifests else None,
                no_cache=no_cache,
                builder=builds_on,
            ),
            recipe.trial,
        )
        for each in made.values():
            parts.keep(here, each)
        # What was changed while it was read is of no known input.
        now = unchanged.inputs(here, bases, held, at)
        read = {name: digest if now[name] == digest else "" for name, digest in before.items()}
        built = image.run(
            here, engine, made, bases, at, view, on=beforehand.on, inputs=read, began=began, builder=builds_on
        )
        return built, made

    def told() -> dict[str, Any]:
        seconds = time.monotonic() - began
        return {"when": when, "seconds": seconds, "steps": timeline(view.builds, when), "findings": found}

    before = unchanged.inputs(here, bases, held, at)
    earlier = summary.earlier(here, chosen)
    there = [] if no_cache or cache_to else unchanged.images(here, engine, before)
    if there:
        built, made = [each for each, _ in there], judge((each for _, each in there), recipe.kept)
        output.progress.print("nothing has changed since the last build")
    else:
        try:
            built, made = make()
        except BuilderError as error:
            image.discard(here, chosen)
            recorded.failed(here, chosen, error, **told())
            raise
        recorded.built(here, built, made, **told())
    summary.images(here, built, made, earlier, timeline(view.builds, when), time.monotonic() - began, output.progress)
    output.result(out.build_document(built, time.monotonic() - began), tuple(each.digest for each in built))
