"""`base`: the Debian under the embedded base."""

from __future__ import annotations

from builder.commands.options import HERE, Directory, Json, Quiet, Set, Verbose, prepare


def base(
    project: Directory = HERE, settings: Set = None, json: Json = False, quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """Print the Debian image that the embedded base starts from; pull it, or make it where it cannot be pulled.

    For plain docker: DEBIAN_IMAGE=$(python -m builder base) docker compose build
    """
    from builder import project as projects
    from builder.docker.engine import Engine
    from builder.steps import base as step

    output = prepare(json, quiet, verbose)
    here = projects.load(project, settings or ())
    name = step.debian(here, Engine.connect(), output.progress)
    output.result({"debian_image": name}, (name,))
