"""`doctor`: what this machine has, what it lacks, and the command that mends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Set, Targets, Verbose, prepare
from builder.errors import BuilderError, MachineError

if TYPE_CHECKING:
    from rich.console import Console

    from builder.docker.engine import Engine
    from builder.doctor import BaseImage, Result
    from builder.project import Project, Target


def doctor(
    target: Targets = None,
    project: Directory = HERE,
    settings: Set = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="GPUs are wanted: not to have one is a fault.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Look at this machine: engine, disk, buildx, registry, GPU, network. Changes nothing, takes 10 seconds at most.

    Exit code 3 where something is missing that a build needs. Examples:

      python -m builder doctor

      python -m builder doctor --target all --gpu --json
    """
    from builder import doctor as machine
    from builder import project as projects
    from builder.steps import base

    output = prepare(json, quiet, verbose)
    here: Project | None = None
    problem: BuilderError | None = None
    chosen: dict[str, Target] = {}
    try:
        here = projects.load(project, settings or ())
    except BuilderError as error:
        problem = error
    if here is not None:
        chosen = here.select(tuple(target or ()))  # a target that is not there is a mistake of the command line

    def bases(engine: Engine) -> Iterator[BaseImage]:
        if here is None:
            return
        for each in chosen.values():
            name = base.presumed(here, each, engine).outermost.name
            yield machine.BaseImage(name, each.is_embedded and name == base.DOCKER_HUB and base.BOOTSTRAP.exists())

    results = machine.examine(here, chosen, bases, problem=problem, gpus=gpu)
    bad = [each for each in results if each.blocks]
    if json:
        output.document({"ready": not bad, "checks": [each.as_json() for each in results]})
    else:
        shown = [each for each in results if not quiet or each.state is not machine.State.OK]
        if shown:
            _show(shown, output.console)
        if bad:
            missing = ", ".join(dict.fromkeys(each.name for each in bad))
            output.console.print(f"a build needs {missing}", soft_wrap=True)
        elif not quiet:
            output.console.print("nothing is missing that a build needs")
    if bad:
        raise typer.Exit(MachineError.exit_code)


_STYLES = {"ok": "green", "warning": "yellow", "missing": "bold red", "failed": "bold red"}


def _show(results: list[Result], console: Console) -> None:
    """A line for each, and the remedy below those that have one."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for each in results:
        state = str(each.state)
        table.add_row(each.name, f"[{_STYLES[state]}]{state}[/]", escape(each.what))
        if each.remedy and state != "ok":
            table.add_row("", "", f"[bold]remedy[/]  {escape(each.remedy)}")
    console.print(table, soft_wrap=False)
