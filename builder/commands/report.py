"""`report`: one build as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Set, Targets, prepare
from builder.errors import BadUsage


def report(
    build: Annotated[
        str,
        typer.Argument(metavar="[DIGEST|ID]", help="A build, by the beginning of either.", show_default="the last one"),
    ] = "",
    target: Targets = None,
    project: Directory = HERE,
    settings: Set = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Where to.", show_default=".builder/TARGET/report.html"),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write one build as an HTML page, and print the page's path.

    It shows when each stage ran, the layers, what changed since the build before, the verification with its latencies,
    the bill of materials and the findings. The page is one file and needs no network. A build that failed has one, too.
    Examples:

      python -m builder report

      python -m builder report 20261122T204501 --out report.html
    """
    from builder import journal
    from builder import project as projects
    from builder.steps import report as step

    output = prepare(json, quiet, verbose=False)
    here = projects.load(project, settings or ())
    # A build that is named has a target of its own.
    names = list(here.select(tuple(target or ()))) if target or not build else [""]
    if out and len(names) > 1:
        raise BadUsage("one file cannot have several reports", where="--out", remedy="give one --target")
    entries = list(journal.entries())
    chosen = [step.choose(entries, here, name, build) for name in names]
    made = [step.run(here, builds, out) for builds in chosen]
    document = {
        "reports": [
            {
                "file": str(each.file),
                "build": each.build.id,
                "target": each.build.target,
                "digest": each.build.digest or None,
                "compared_with": each.before.id if each.before else None,
            }
            for each in made
        ]
    }
    output.result(document, tuple(str(each.file) for each in made))
