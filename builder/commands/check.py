"""`check`: what is wrong with a project, before anything is built."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Set, Targets, Verbose, prepare
from builder.errors import BadUsage, CheckFailed
from builder.findings import Finding


class Format(StrEnum):
    """What stdout gets."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


def check(
    target: Targets = None,
    project: Directory = HERE,
    settings: Set = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are as bad as errors.")] = False,
    format: Annotated[Format, typer.Option("--format", help="What to print on stdout.")] = Format.TEXT,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find mistakes in builder.toml, plugins, pipelines and configurations; builds nothing, needs no engine.

    What the last build made is looked at too, where its sources are still the same. Examples:

      python -m builder check

      python -m builder check --strict --format sarif > findings.sarif
    """
    from builder import findings, sarif
    from builder import project as projects
    from builder.checks import gpus
    from builder.steps import check as step

    if json and format is Format.SARIF:
        raise BadUsage("--json and --format sarif do not go together", where="check", remedy="give one of them")
    as_json = json or format is Format.JSON
    output = prepare(as_json, quiet, verbose)
    supports: list[gpus.Support] = []
    try:
        here = projects.load(project, settings or ())
        chosen = here.select(target or ("all",))
        found = findings.ordered(step.everything(here, chosen))
        supports += gpus.supports(here, chosen)
    except CheckFailed as error:  # of builder.toml itself: there is no project to look at
        found = findings.ordered(error.findings)
    output.show(found)
    bad = [each for each in found if strict or each in findings.errors(found)]
    if format is Format.SARIF:
        output.document(sarif.document(found, project))
    elif as_json:
        told = {"findings": [each.as_json() for each in found], "gpus": [each.as_json() for each in supports]}
        output.document({"passed": not bad, **told})
    else:
        for line in dict.fromkeys(map(str, supports)):  # of several targets once
            output.progress.print(line)
        output.console.print(_summary(found))
    if bad:
        raise typer.Exit(CheckFailed.exit_code)


def _summary(found: list[Finding]) -> str:
    counts = {kind: sum(each.severity == kind for each in found) for kind in ("error", "warning", "note")}
    told = ", ".join(f"{count} {kind}{'s' * (count > 1)}" for kind, count in counts.items() if count)
    return f"{told}; `builder explain CODE` tells more" if told else "nothing wrong"
