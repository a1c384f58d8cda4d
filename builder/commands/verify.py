"""`verify`: checks an image from its registry alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from builder.commands.options import Json, Quiet, Verbose, prepare


def verify(
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="As `push` printed it, or by tag.")],
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="The public key that must have signed it, such as cosign.pub.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check from the registry alone that an image was built, proven and, with --key, signed as it is said to be.

    It needs no project, no engine and nothing of what `push` left behind. Credentials come from Docker's own
    configuration (`docker login`). Examples:

      python -m builder verify registry.example.com/team/mydali:1.0

      python -m builder verify registry.example.com/team/mydali@sha256:... --key cosign.pub
    """
    from builder import output as out
    from builder.attest import keys
    from builder.reference import Reference
    from builder.registry import Registry
    from builder.steps import verify as step

    output = prepare(json, quiet, verbose)
    what = Reference.parse(reference)
    public = keys.public_key(key) if key else None
    registry = Registry.connect(what)
    registry.log_in()
    found = step.run(registry, what, public, lambda check: out.passed(check.name, check.detail, output.progress))
    output.result(
        {
            "verified": True,
            "reference": found.reference,
            "digest": found.digest,
            "key": found.key,
            "checks": [vars(check) for check in found.checks],
        },
        (found.reference,),
    )
