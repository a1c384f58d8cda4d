"""`up` and `down`: serve a pushed image on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Set, Targets, Verbose, prepare
from builder.errors import BadUsage


def up(
    target: Targets = None,
    project: Directory = HERE,
    settings: Set = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Serve with all GPUs of this machine.")] = False,
    timeout: Annotated[
        int, typer.Option("--timeout", min=1, metavar="SECONDS", help="Seconds to wait for the server.")
    ] = 180,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Serve the pushed image with docker compose, by its digest.

    HTTP_PORT, GRPC_PORT, METRICS_PORT and BIND choose where. Example:

      HTTP_PORT=9000 python -m builder up
    """
    from builder import project as projects
    from builder.artifacts import Pushed
    from builder.docker.engine import Engine, require_compose
    from builder.steps import deploy

    output = prepare(json, quiet, verbose)
    here = projects.load(project, settings or ())
    names = list(here.select(tuple(target or ())))
    if len(names) > 1:
        raise BadUsage("compose serves one target at a time", where="up", remedy="give one --target")
    pushed = Pushed.tagged(here, names[0])
    Engine.connect()
    require_compose()
    ports = deploy.up(here, pushed.reference, "triton-gpu" if gpu else "triton", timeout)
    output.progress.print(
        f"serving {pushed.reference}: HTTP {ports['http']}, gRPC {ports['grpc']}, metrics {ports['metrics']}"
    )
    output.result({"reference": pushed.reference, **ports}, (pushed.reference,))


def down(
    project: Directory = HERE, settings: Set = None, json: Json = False, quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """Stop what `up` started."""
    from builder import project as projects
    from builder.docker.engine import Engine, require_compose
    from builder.steps import deploy

    output = prepare(json, quiet, verbose)
    here = projects.load(project, settings or ())
    Engine.connect()
    require_compose()
    deploy.down(here)
    output.progress.print("stopped")
    output.result({"stopped": True})
