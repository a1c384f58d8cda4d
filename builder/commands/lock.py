"""`lock`: holds builds to the versions of today."""

from __future__ import annotations

from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Set, Targets, Verbose, prepare


def lock(
    target: Targets = None,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; tell what is out of date.")] = False,
    project: Directory = HERE,
    settings: Set = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write builder.lock: base images by digest, wheels by hash, Debian's packages and the compilers by version.

    Builds are held to it from then on. With --check the exit code is 2 where something is out of date. Examples:

      python -m builder lock --target all

      python -m builder lock --check
    """
    from builder import lock as locks
    from builder import project as projects
    from builder.docker.engine import Engine, require_buildx
    from builder.errors import LockOutdated
    from builder.steps import base
    from builder.steps import lock as step

    output = prepare(json, quiet, verbose)
    here = projects.load(project, settings or ())
    chosen = here.select(target or ())
    held = locks.load(here)
    engine = Engine.connect()
    require_buildx()
    bases = {name: base.current(here, each, engine, output.console, pull=not check) for name, each in chosen.items()}
    now = step.run(here, bases, output.progress)
    changes = dict(step.compared(here, now))
    for name, lines in changes.items():
        for line in lines:
            output.progress.print(f"{name}: {line}", markup=False)
    if check:
        if changes:
            error = LockOutdated(
                f"{locks.FILE_NAME} is out of date for {', '.join(changes)}",
                where=str(here.root / locks.FILE_NAME),
                remedy="accept what is new: python -m builder lock"
                + "".join(f" --target {name}" for name in (changes if target else ())),
            )
            error.partial = {"changes": changes}
            raise error
    else:
        locks.save(here, locks.Lock(targets={**held.targets, **now}))
    tools = {name: each.toolchain for name, each in now.items()}
    for name, versions in tools.items():
        found = ", ".join(f"{tool} {version}" for tool, version in versions.items())
        output.progress.print(
            f"{name}: {len(now[name].wheels)} wheels, {len(now[name].debian)} packages of Debian, {found}", markup=False
        )
    output.result(
        {"lock": str(here.root / locks.FILE_NAME), "changes": changes, "toolchain": tools},
        () if check else (str(here.root / locks.FILE_NAME),),
    )
