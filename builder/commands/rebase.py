"""`rebase`: moves a built image to another base without compiling."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Gpus, Json, Quiet, Seed, Set, Targets, Timeout, Verbose, prepare


def rebase(
    onto: Annotated[
        str,
        typer.Option("--onto", metavar="BASE", help="A Triton image in NVIDIA's layout, or 'embedded'."),
    ],
    target: Targets = None,
    project: Directory = HERE,
    settings: Set = None,
    gpus: Gpus = "",
    seed: Seed = None,
    timeout: Timeout = 120.0,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Put the layers of the last build on another base, without compiling, where that base can be shown to serve them.

    Its DALI must be the one that they were made for, its GLIBC and GLIBCXX new enough, and every plugin must load.
    Then the image is proven as by `smoke`, and takes the place of the last build. Prints its digest. Examples:

      python -m builder rebase --onto registry.example.com/tritonserver:26.06-py3-patched

      python -m builder rebase --onto embedded --json
    """
    import secrets

    from builder import project as projects
    from builder import recipe, record
    from builder.checks import rebase as rules
    from builder.docker import contexts
    from builder.docker.engine import Engine, require_buildx
    from builder.docker.server import ContainerHost
    from builder.errors import BuilderError
    from builder.process import uninterrupted
    from builder.project import EMBEDDED, Project
    from builder.reference import Reference
    from builder.steps import base, check, image, parts, smoke
    from builder.steps import rebase as step

    output = prepare(json, quiet, verbose)
    began = time.monotonic()
    here = projects.load(project, settings or ())
    if onto != EMBEDDED:
        Reference.parse(onto)
    # Records of earlier runs are read first: there is no use in an engine without an image.
    found = {name: step.built(here, name) for name in here.select(tuple(target or ()))}
    output.findings([each for one in found.values() for each in rules.check_release(one.parts, onto)])
    engine = Engine.connect()
    require_buildx()
    engine.require_manifests("the engine's image store cannot put layers on another base")
    engine.sweep()
    chosen_seed = secrets.randbits(32) if seed is None else seed

    def move(name: str, before: step.Built, proven: Project) -> step.Moved:
        started = time.monotonic()
        output.findings(rules.check_embedded(proven, name))
        held = step.held(proven, name)
        bases = base.resolve(proven, step.in_engine(proven.targets[name]), engine, output.console, held)
        with step.workplace(here, name) as folder:
            under = step.measure(proven, before, bases, held, folder, output.progress)
            needs = rules.needs(before.parts, under.runtime)
            for each in needs:
                has = f"{onto} has {each.has or 'none'}"
                output.progress.print(f"{each.what}: {each.needs or 'nothing'} needed, {has}", markup=False)
            libraries = step.libraries(here, before)
            output.findings(list(rules.check_base(before.parts, libraries, under.runtime, onto)))
            made = step.prove(proven, before, bases, under, folder, output.progress)
            # Where the sources have changed since, they say nothing of what is in the image.
            if record.digests(here) == before.record.sources:
                output.findings(check.of_build(proven, made, recipe.trial(proven, name)))
            else:
                output.progress.print(f"{name}: the sources have changed since; the image has those of its build")
            on = step.base_image(proven, engine, made)
            husk = contexts.husk(proven.state, on.husk)
            layout = step.compose(proven, before, made, bases, on, husk, folder, output.progress)
            reference, own = here.local_name(name), before.own
            with step.loaded(engine, layout, reference) as digest:
                verification = smoke.run(
                    ContainerHost(engine),
                    digest,
                    reference,
                    name,
                    output.progress,
                    project=here,
                    seed=chosen_seed,
                    gpus=gpus,
                    timeout=timeout,
                )
                with uninterrupted():
                    now = image.named(engine, digest, reference, made, time.monotonic() - started)
                    parts.keep(here, made)
                    step.keep_layout(here, name, layout)
                    now.save(here)
                    verification.save(here).keep(here)
        lines, lock = step.to_write(here, proven, name), step.to_lock(proven, name, bases)
        return step.Moved(before.image, now, tuple(own), needs, verification, lines, lock)

    moved: list[step.Moved] = []

    def document() -> dict[str, object]:
        return {"images": [each.document for each in moved], "seconds": round(time.monotonic() - began, 2)}

    for name, before in found.items():
        try:
            moved.append(move(name, before, step.moved(here, before, onto)))
        except BuilderError as error:
            error.partial = {**error.partial, **document()}
            raise
        for line in moved[-1].told:
            output.progress.print(line, markup=False)
    output.result(document(), tuple(each.image.digest for each in moved))
