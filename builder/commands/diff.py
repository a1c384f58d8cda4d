"""`diff`: how two images differ."""

from __future__ import annotations

from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Verbose, prepare


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="An image.", show_default=False)] = "",
    b: Annotated[str, typer.Argument(metavar="B", help="Another one, the newer by custom.", show_default=False)] = "",
    files: Annotated[bool, typer.Option("--files", help="List each file of the bases, not their folders.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if they differ.")] = False,
    project: Directory = HERE,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Tell how two images differ: layers, files, versions, packages, configurations, pipelines.

    An image is the name of a target (its last build), an id of `history`, a reference or a digest in the engine, or
    HOST/REPOSITORY@sha256:... in a registry. Only the layers are read that one of the two alone has. With no
    arguments it takes the last two builds of the project's first target. Examples:

      python -m builder diff

      python -m builder diff registry.example.com/team/mydali:1.4 embedded --exit-code

      python -m builder diff 20261122T204501-3fa2c1 embedded --files --json
    """
    import tempfile
    from pathlib import Path

    from builder import project as projects
    from builder.docker.found import Finder
    from builder.errors import BadUsage, ProjectError
    from builder.output import size
    from builder.steps import diff as step
    from builder.views import diff as view
    from builder.views import results

    output = prepare(json, quiet, verbose)
    if a and not b:
        raise BadUsage("one image cannot differ", where=a, remedy="name two, or none for the last two builds")
    try:
        here = projects.load(project)
    except ProjectError:
        if not a:
            raise
        here = None  # two images need no project

    def reading(count: int, size_of_all: int) -> None:
        if count:
            output.progress.print(f"reading {count} layers, {size(size_of_all)} compressed", markup=False)

    with tempfile.TemporaryDirectory(prefix="builder-diff-") as folder, Finder(here, Path(folder)) as finder:
        before, after = (finder.find(a), finder.find(b)) if a else finder.last_two()
        found = step.compare(before, after, reading)
    if json:
        output.document(found.document(all_files=files))
    else:
        view.show(found, results.stdout(), all_files=files)
    if exit_code and not found.identical:
        raise typer.Exit(1)
