"""`plan`: what a build would do."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from builder.commands.options import HERE, Directory, Json, Quiet, Set, Targets, Verbose, prepare


def plan(
    target: Targets = None,
    project: Directory = HERE,
    settings: Set = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show the resolved project, where each value comes from, and what would be built. Builds nothing, needs no engine.

    With --json also the exact bake definitions; that of the image is whole once the plugins were built. Examples:

      python -m builder plan --set targets.embedded.dali=2.1.1

      python -m builder plan --json | jq .bake.parts
    """
    import os

    from builder import project as projects
    from builder import settings as values
    from builder.docker.engine import Engine
    from builder.errors import MachineError
    from builder.steps import base
    from builder.steps import plan as step

    output = prepare(json, quiet, verbose)
    given = values.read(project, settings or (), os.environ)
    here = projects.validated(project, given)
    chosen = here.select(target or ("all",))
    try:
        engine = Engine.connect()  # which knows the base's digest
    except MachineError:
        engine = None
    bases = {name: base.presumed(here, each, engine) for name, each in chosen.items()}
    told = list(projects.described(given))
    planned = [step.target(here, name, each, bases[name]) for name, each in chosen.items()]
    if not json:
        _show(told, planned, output.console)
    output.result(
        {
            "values": [{"key": key, "value": value, "from": origin} for key, value, origin in told],
            "targets": planned,
            "bake": step.definitions(here, bases),
        }
    )


def _show(told: list[tuple[str, Any, str]], planned: list[dict[str, Any]], console: Console) -> None:
    values = Table(box=None, padding=(0, 2), title="builder.toml, the environment and --set", title_justify="left")
    values.add_column("key", no_wrap=True)
    for column in ("value", "from"):
        values.add_column(column, overflow="fold")
    for key, value, origin in told:
        values.add_row(key, escape(_text(value)), origin, style="dim" if origin == "default" else "")
    console.print(values)
    for each in planned:
        table = Table(
            box=None, padding=(0, 2), title=f"target {each['target']}", title_justify="left", show_header=False
        )
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for key, value in each.items():
            if key != "target":
                table.add_row(key, escape(_text(value)))
        console.print(table)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    return "-" if value in (None, "") else str(value)
