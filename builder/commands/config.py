"""`config`: a model's config.pbtxt, from its pipeline."""

from __future__ import annotations

from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Set, prepare
from builder.errors import BadUsage, CheckFailed, PipelineMissing, did_you_mean


def config(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder of model_repository/.", show_default=False)],
    project: Directory = HERE,
    settings: Set = None,
    write: Annotated[bool, typer.Option("--write", "-w", help="Into the file, not to stdout.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a model's config.pbtxt from its pipeline, or complete the one that it has. Needs no server and no DALI.

    What the file says already stays as it is, comments included. Examples:

      python -m builder config mydali

      python -m builder config mydali --write
    """
    from builder import configure, pbtxt
    from builder import project as projects
    from builder.artifacts import write_atomically
    from builder.checks import repository
    from builder.findings import errors

    output = prepare(json, quiet, verbose=False)
    here = projects.load(project, settings or ())
    folder = here.repository_folder
    names = repository.names(folder)
    if model not in names:
        raise BadUsage(
            f"there is no model {model!r}{did_you_mean(model, names)}",
            where=str(folder),
            remedy=f"choose among {', '.join(sorted(names)) or 'none'}",
        )
    path = folder / model / pbtxt.FILE_NAME
    described = repository.Model(here.root, path.parent, pbtxt.read(path, here.root) if path.exists() else None)
    target = next(iter(here.targets))
    for version in reversed(described.versions):  # the newest is what Triton serves
        pipeline = described.pipeline(version, here.state / target / "parts" / "models")
        if errors(pipeline.findings):
            raise CheckFailed(pipeline.findings)
        if pipeline.signature:
            text = configure.complete(pipeline.signature, described.config, model)
            break
    else:
        raise PipelineMissing(
            f"model {model!r} has no pipeline",
            where=str(path.parent),
            remedy=f"add {model}/1/{repository.SOURCE}, with a function under @autoserialize and @pipeline_def",
        )
    before = described.config.text if described.config else None
    if before is not None and before.encode() != path.read_bytes():
        where = str(path.relative_to(here.root))
        raise BadUsage("config.pbtxt is not UTF-8", where=where, remedy="save it as UTF-8 first")
    if write and text != before:
        write_atomically(path, text)
    if write:
        told = f"{path.relative_to(here.root)}: {'unchanged' if text == before else 'written'}"
        output.progress.print(told)
    document = {"model": model, "file": str(path), "changed": text != before, "text": text}
    output.result(document, () if write else (text.rstrip("\n"),))
