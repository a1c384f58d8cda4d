"""`history`: the builds on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Verbose, prepare


def history(
    count: Annotated[int, typer.Option("--count", "-n", metavar="N", min=1, help="How many, the newest first.")] = 20,
    here: Annotated[bool, typer.Option("--here", help="Of the project in this folder alone.")] = False,
    target: Annotated[
        str, typer.Option("--target", "-t", metavar="NAME", help="Of one target alone.", show_default="all")
    ] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Those alone that failed.")] = False,
    project: Directory = HERE,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List the builds on this machine: when, of what, how large, and whether they were verified and pushed.

    A build that found nothing to do is not among them. It needs no project and no engine; with an engine it tells
    whether that still has the image. `diff` takes the ids in the last column. Examples:

      python -m builder history

      python -m builder history --here --target embedded --failed --json
    """
    from itertools import islice

    from builder import journal
    from builder.docker import present
    from builder.steps import history as step
    from builder.views import history as view
    from builder.views import results

    output = prepare(json, quiet, verbose)
    where = project.resolve() if here else None
    wanted = list(islice(step.chosen(journal.entries(), here=where, target=target, failed=failed), count))
    engine = present.engine() if wanted else None
    images = present.images(engine) if engine else None
    builds = [step.build(each, images) for each in wanted]
    if json:
        output.document({"builds": [each.document for each in builds]})
    elif builds:
        view.show(builds, results.stdout())
    elif not quiet:
        output.console.print(_nothing(bool(here or target or failed)), markup=False)


def _nothing(filtered: bool) -> str:
    if filtered:
        return "no such build on this machine; `python -m builder history` lists all"
    return "no build on this machine yet; `python -m builder build` makes one"
