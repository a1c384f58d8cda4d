"""`reproduce`: makes an image again, and tells whether it is the same."""

from __future__ import annotations

from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Verbose, prepare


def reproduce(
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="An image of the engine, or of a registry.")],
    project: Directory = HERE,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Build an image again from what it tells of itself, with no cache, and hold the two against each other.

    Settings, base images and versions come from the image, so do this with images that you trust alone; the sources
    come from the project's folder, or from the commit that the image names. Says "identical", or the first file that
    differs and why; of a rebased image its own layers are compared. builder.lock and earlier builds stay as they are.
    Example:

      python -m builder reproduce registry.example.com/team/mydali@sha256:...
    """
    import tempfile
    from pathlib import Path

    from builder.docker.engine import Engine, require_buildx
    from builder.project import PLATFORM
    from builder.steps import base, image, parts
    from builder.steps import reproduce as step
    from builder.views import live

    output = prepare(json, quiet, verbose)
    engine = Engine.connect()
    require_buildx()
    engine.require_manifests("the engine's image store keeps no manifests, of which digests are made")
    with tempfile.TemporaryDirectory(prefix="builder-reproduce-") as folder:
        found = step.original(engine, Path(folder), reference, PLATFORM)
        here = step.project_of(found.record, project, Path(folder))
        name, held = found.record.target, found.record.made_on.lock
        bases = {name: base.resolve(here, here.targets[name], engine, output.console, held)}
        view = live.view(output.progress)
        [made] = parts.run(here, bases, {name: held}, view, no_cache=True)
        parts.keep(here, made)
        image.compose(here, engine, {name: made}, bases, found.record.revision, view, no_cache=True)
        step.compare(engine, found, here, made)
    moved = found.record.compiled is not None
    told = "its own layers come out the same; it was rebased since, and what is under them is not compared"
    if not moved:
        told = f"identical: it comes out as {found.digest} again"
    output.progress.print(f"{reference}: {told}", markup=False)
    document = {
        "identical": not moved,
        "own_layers_identical": True,
        "reference": reference,
        "digest": str(found.digest),
    }
    output.result(document, (str(found.digest),))
