"""`smoke`: proves an image by inference."""

from __future__ import annotations

from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Set, Targets, Verbose, prepare
from builder.errors import BadUsage, BaseElsewhere, VerificationError


def smoke(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE",
            help="Any image of the engine, or one in a registry by its digest; the target's own by default.",
            show_default=False,
        ),
    ] = "",
    target: Targets = None,
    project: Directory = HERE,
    settings: Set = None,
    gpus: Annotated[
        str, typer.Option("--gpus", metavar="WHICH", help="'all', or device numbers separated by commas.")
    ] = "",
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Of the random requests.", show_default="random")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, metavar="SECONDS", help="Seconds to wait for the server.")
    ] = 120.0,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Start the image and prove it: inference over HTTP and gRPC, and a control without the plugin, which must fail.

    Prints the digest that passed. Examples:

      python -m builder smoke

      python -m builder smoke --target all --gpus all --json

      python -m builder smoke registry.example.com/team/mydali:1.0
    """
    import secrets

    from builder import output as out
    from builder import project as projects
    from builder.artifacts import Image, Verification
    from builder.docker.engine import Engine
    from builder.reference import Reference
    from builder.steps import smoke as step

    output = prepare(json, quiet, verbose)
    here = projects.load(project, settings or ())
    if image and target:
        raise BadUsage("an image and --target do not go together", where="smoke", remedy="give one of them")
    # Records of earlier runs are read first: there is no use in an engine without an image.
    names = [] if image else list(here.select(tuple(target or ())))
    wanted = {name: Image.load(here, name) for name in names}
    engine = Engine.connect()
    engine.sweep()
    chosen_seed = secrets.randbits(32) if seed is None else seed
    verified: list[Verification] = []

    def verify(digest: str, reference: str, name: str) -> Verification:
        try:
            return step.run(
                engine,
                digest,
                reference,
                name,
                output.progress,
                project=here,
                seed=chosen_seed,
                gpus=gpus,
                timeout=timeout,
            )
        except VerificationError as error:
            if name:
                Verification.discard(here, name)  # nothing vouches for it any more
            Verification.forget(here, digest)
            error.partial = {**out.smoke_document(verified), "passed": False}
            raise

    if image:
        if Reference.parse(image).digest and not engine.has_image(image):
            engine.pull(image)
        verified.append(verify(engine.image(image)["Id"], image, "").keep(here))
    for name, each in wanted.items():
        if not each.in_engine:
            raise BaseElsewhere(
                f"the base of {each.reference} is not on this machine, so the image cannot be started here",
                where=each.base,
                remedy=f"python -m builder push --untagged --target {name}; then `smoke` its reference "
                "where there is room, and `promote` it there",
            )
        verified.append(verify(each.digest, each.reference, name).save(here).keep(here))
    output.result(out.smoke_document(verified), tuple(each.digest for each in verified))
