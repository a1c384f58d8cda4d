"""The options that commands share."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from builder.output import Output

Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        metavar="NAME",
        help="A target of builder.toml, or 'all'; may be given again.",
        show_default="the first",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A value of builder.toml, such as targets.embedded.dali=2.1.1; may be given again.",
        show_default=False,
    ),
]
Directory = Annotated[
    Path, typer.Option("--project", "-C", metavar="DIR", help="The folder with builder.toml.", show_default="here")
]
Gpus = Annotated[str, typer.Option("--gpus", metavar="WHICH", help="'all', or device numbers separated by commas.")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Of the random requests.", show_default="random")]
Timeout = Annotated[float, typer.Option("--timeout", min=1, metavar="SECONDS", help="Seconds to wait for the server.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; errors and results alone.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show every command that is run.")]
HERE = Path()


def prepare(json: bool, quiet: bool, verbose: bool) -> Output:
    """Where the command says what it has to say."""
    output = Output(json=json, quiet=quiet)
    if verbose:
        logging.basicConfig(stream=sys.stderr, format="%(message)s")
        logging.getLogger("builder").setLevel(logging.INFO)
    return output
