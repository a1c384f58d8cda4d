"""`clean`: what there is on disk, and how it goes."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Verbose, prepare


def _duration(text: str) -> timedelta:
    """As 7d, 12h, 2w, 30m, or ISO 8601."""
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(timedelta)
    # ISO 8601's M is a month where no T is before it.
    for each in (f"PT{text}", f"P{text}", text):
        try:
            found = adapter.validate_strings(each.upper())
        except ValidationError:
            continue
        if found >= timedelta():
            return found
    raise typer.BadParameter(f"{text!r} is no duration; write it as 7d, 12h, 2w, or P7DT12H")


def _size(text: str) -> int:
    """As 20GB or 20GiB."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_strings(text))
    except ValidationError:
        raise typer.BadParameter(f"{text!r} is no size; write it as 20GB, 500MB or 20GiB") from None


def clean(
    older_than: Annotated[
        timedelta | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            parser=_duration,
            help="Free what was neither built nor used for so long, such as 7d.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        int | None,
        typer.Option(
            "--to",
            metavar="SIZE",
            parser=_size,
            help="Free the oldest until no more than this is left, such as 20GB.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep",
            metavar="N",
            min=1,
            help="Free all but the last N builds of each target; what is of no known build goes by its age alone.",
            show_default=False,
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also of other projects, and this program's Debian and registry.")
    ] = False,
    cache: Annotated[
        bool, typer.Option("--cache", help="Also what of BuildKit's cache nothing uses, whoever made it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would go, and let it be.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    project: Directory = HERE,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show what builds have left on this machine, and free what is not needed.

    Without --older-than, --to or --keep it only shows. What goes fulfils all of them that are given. Images that
    others made, that a container uses or that have a name of somebody else's stay; so do each target's last build, what
    .env and the compose file deploy, and their bases. BuildKit's cache is everybody's: it goes with --cache alone.
    Examples:

      python -m builder clean

      python -m builder clean --older-than 7d --dry-run

      python -m builder clean --keep 2 --to 20GB --yes
    """
    import sys
    from datetime import UTC, datetime

    from builder import package
    from builder import project as projects
    from builder.docker import present, storage
    from builder.errors import BadUsage, MachineError, ProjectMissing
    from builder.output import size
    from builder.steps import clean as step
    from builder.views import clean as view
    from builder.views import results

    output = prepare(json, quiet, verbose)
    rules = step.Rules(older_than, to, keep, everything)
    wanted = rules.frees or cache
    can_ask = sys.stdin.isatty() and not json
    if wanted and not (yes or dry_run or can_ask):
        raise BadUsage("nobody is there to ask", where="clean", remedy="add --yes, or --dry-run to see what would go")
    try:
        here = projects.load(project)
    except ProjectMissing:
        here = None  # what is left of it, and what any project may use, can go all the same
    now = datetime.now(UTC)
    engine = present.engine()
    found = step.look(here, engine, storage.stages(package.dockerfile(project)), now)
    plan = step.plan(found.items, rules, now, found.pinned)
    console = results.stdout()
    if not json and not wanted:
        view.overview(found, console, now)
    asks = wanted and not (yes or dry_run)
    frees_of_cache = found.cache.unused_since(now - older_than if older_than else None) if cache and found.cache else 0
    if wanted and not json and (asks or not quiet):  # nobody can answer what he does not see
        if rules.frees:
            view.planned(plan, rules, console, now)
        if cache:
            console.print(f"up to {size(frees_of_cache)} of BuildKit's cache go, everybody's")
    removed, of_cache, failure = None, 0, None
    if wanted and not dry_run and (yes or _confirmed()):
        removed = step.carry_out(plan, engine, found.layers_bytes)
        try:
            if cache and engine:
                of_cache = storage.prune_cache(engine, older_than.total_seconds() if older_than else 0)
        except MachineError as error:
            failure = error  # what went before it is told all the same
        if not json:
            view.done(removed, of_cache, console)
    told = {
        **step.document(found, plan, removed, now),
        "frees_of_cache": frees_of_cache,
        "freed_of_cache": of_cache,
    }
    if failure:
        failure.partial = told
        raise failure
    if json:
        output.document(told)


def _confirmed() -> bool:
    try:
        return typer.confirm("free it?", err=True)
    except typer.Abort:  # Ctrl-D
        typer.echo(err=True)
        return False
