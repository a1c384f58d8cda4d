"""`init` and `eject`: files to start from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Set, prepare


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where to; it may exist.", show_default="here")
    ] = HERE,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Of the operator and the model.", show_default="the folder's")
    ] = "",
    repository: Annotated[
        str,
        typer.Option("--repository", metavar="HOST/PATH", help="Where images are pushed.", show_default="this machine"),
    ] = "",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Start a project: an operator, a pipeline, a configuration and a test that work as they are.

    Examples:

      python -m builder init my_blur

      python -m builder init . --name my_blur --repository registry.example.com/team/my-blur
    """
    from builder import scaffold
    from builder.reference import Reference

    output = prepare(json, quiet, verbose=False)
    if repository:
        Reference.parse(repository)
    chosen = scaffold.Name.parse(name or folder.resolve().name)
    files = scaffold.init(folder, chosen, repository)
    for file in files:
        output.progress.print(f"wrote {folder / file}", highlight=False)
    go = f" -C {shlex.quote(str(folder))}" if folder != HERE else ""
    output.progress.print(f"next: python -m builder check{go}")
    output.result({"folder": str(folder.resolve()), "name": chosen.snake, "files": files})


def eject(project: Directory = HERE, settings: Set = None, json: Json = False, quiet: Quiet = False) -> None:
    """Write the Dockerfile and all that goes with it into the project, to own and change.

    From then on the project's own Dockerfile is built, also with plain `docker build .`, and nobody updates it.
    """
    from builder import project as projects
    from builder import scaffold
    from builder.steps import check

    output = prepare(json, quiet, verbose=False)
    here = projects.load(project, settings or ())
    files = scaffold.eject(here, check.expected_libraries(here))
    for file in files:
        output.progress.print(f"wrote {project / file}", highlight=False)
    output.result({"files": files})
