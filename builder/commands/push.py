"""`push`: takes a verified image to a registry."""

from __future__ import annotations

from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Set, Targets, Verbose, prepare
from builder.errors import BadUsage


def push(
    to: Annotated[
        str,
        typer.Argument(
            metavar="REPOSITORY[:TAG]", help="Where to; builder.toml's repository by default.", show_default=False
        ),
    ] = "",
    target: Targets = None,
    project: Directory = HERE,
    settings: Set = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Push the verified image, and print the one reference to deploy it by: repository@sha256:...

    Credentials come from Docker's own configuration (`docker login`). Examples:

      python -m builder push

      python -m builder push registry.example.com/team/mydali:1.0 --json
    """
    from builder import output as out
    from builder import project as projects
    from builder.artifacts import Image, Verification
    from builder.docker.engine import Engine, require_buildx
    from builder.reference import Reference
    from builder.steps import push as step

    output = prepare(json, quiet, verbose)
    here = projects.load(project, settings or ())
    names = list(here.select(tuple(target or ())))
    where = {name: here.pushed_as(name) for name in names}
    if to:
        given = Reference.parse(to)
        if given.digest:
            raise BadUsage("a push cannot choose its digest", where=to, remedy="give REPOSITORY[:TAG]")
        if given.tag and len(names) > 1:
            raise BadUsage(
                "one tag cannot name several targets", where=to, remedy="leave the tag out, or push one target"
            )
        where = {
            name: (given,) if given.tag else tuple(given.with_tag(str(each.tag)) for each in where[name])
            for name in names
        }
    ready = [(Image.load(here, name), Verification.find(here, name)) for name in names]
    # All of them first: one that is refused must not leave the others pushed.
    for built, verification in ready:
        step.check_verified(built, verification)
    engine = Engine.connect()
    require_buildx()
    pushed = []
    for built, verification in ready:
        with_tags = [step.run(engine, built, verification, each, output.progress) for each in where[built.target]]
        with_tags[0].save(here)
        pushed += with_tags
    output.result(out.push_document(pushed), tuple(dict.fromkeys(each.reference for each in pushed)))
