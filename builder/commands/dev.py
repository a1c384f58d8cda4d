"""`dev`: a verdict on every save."""

from __future__ import annotations

from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Gpus, Quiet, Set, Verbose, prepare


def dev(
    target: Annotated[
        str, typer.Option("--target", "-t", metavar="NAME", help="A target of builder.toml.", show_default="the first")
    ] = "",
    project: Directory = HERE,
    settings: Set = None,
    gpus: Gpus = "",
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=1, metavar="SECONDS", help="Seconds to wait for the server, or for a model."),
    ] = 120.0,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document for each verdict, each on a line.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Watch the project, and tell of every save within seconds whether the models still answer rightly.

    Compiles and serializes what changed, reloads the models in a running server, and asks each one a part of what
    `smoke` asks. Plugins get code for this machine's GPUs alone, or for one architecture: what is pushed is built by
    `build` and proven by `smoke`. Ctrl-C ends it, with exit status 130. Examples:

      python -m builder dev

      python -m builder dev --target embedded-dali2 --json
    """
    import secrets

    from builder import lock
    from builder import project as projects
    from builder.dev.session import Foundation, Session, architectures
    from builder.dev.verdict import Verdict
    from builder.dev.watcher import Watcher
    from builder.docker.engine import Engine, require_buildx
    from builder.findings import Finding
    from builder.project import Project
    from builder.steps import base, check
    from builder.steps import dev as step
    from builder.views import results, verdict

    output = prepare(json, quiet, verbose)
    here = projects.load(project, settings or ())
    name = next(iter(here.select((target,) if target else ())))
    shown: list[Finding] = []
    served: list[str] = []

    def sources(now: Project) -> list[Finding]:
        found = check.before_build(now, now.select([name]))
        if found != shown:
            output.findings(found)
            shown[:] = found
        return found

    def begin(now: Project) -> Foundation:
        held = lock.held(now, name, required=False)
        bases = base.resolve(now, now.targets[name], engine, output.progress, held)
        made = step.foundation(now, name, bases, held, engine, output.progress)
        if now.targets[name].cuda != "OFF":
            compiled_for = ", ".join(architectures(now.targets[name], gpus))
            output.progress.print(f"GPU code is compiled for {compiled_for} alone; `build` compiles for all")
        return made

    def tell(each: Verdict) -> None:
        verdict.show(each, output, stdout)
        if each.http not in ("", *served):
            output.progress.print(f"serving on {each.http} (HTTP) and {each.grpc} (gRPC)")
            served[:] = [each.http]

    engine = Engine.connect()
    require_buildx()
    engine.sweep()
    stdout = results.stdout()
    watcher = Watcher()
    folder = here.state / name / "dev" / "models"
    try:
        with Session(engine, folder, output.progress, gpus=gpus, seed=secrets.randbits(32), timeout=timeout) as session:
            step.run(
                here,
                name,
                session,
                watcher,
                load=lambda: projects.load(project, settings or ()),
                begin=begin,
                check=sources,
                tell=tell,
            )
    finally:
        watcher.close()
