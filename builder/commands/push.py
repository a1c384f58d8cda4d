"""`push` and `promote`: take a verified image to a registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Set, Targets, Verbose, prepare
from builder.errors import BadUsage

Sign = Annotated[
    Path | None,
    typer.Option(
        "--sign",
        metavar="KEY",
        help="Sign with this key, in the form that cosign verifies; its password is in COSIGN_PASSWORD.",
        show_default=False,
    ),
]


def push(
    to: Annotated[
        str,
        typer.Argument(
            metavar="REPOSITORY[:TAG]", help="Where to; builder.toml's repository by default.", show_default=False
        ),
    ] = "",
    target: Targets = None,
    sign: Sign = None,
    untagged: Annotated[
        bool,
        typer.Option(
            "--untagged", help="Push by digest alone, proven or not; another machine proves it, and gives it its tag."
        ),
    ] = False,
    project: Directory = HERE,
    settings: Set = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Push the verified image, and print the one reference to deploy it by: repository@sha256:...

    Beside it go its verification, its provenance and its SBOM, which `verify` checks. The reference is also written to
    .env, where docker compose reads it. Credentials come from Docker's own configuration (`docker login`). Examples:

      python -m builder push

      python -m builder push registry.example.com/team/mydali:1.0 --sign cosign.key
    """
    from builder import output as out
    from builder import project as projects
    from builder.artifacts import Image, Parts, Verification
    from builder.attest import keys, records
    from builder.docker.engine import Engine
    from builder.reference import Digest, Reference
    from builder.render import dotenv
    from builder.steps import attest
    from builder.steps import push as step

    output = prepare(json, quiet, verbose)
    here = projects.load(project, settings or ())
    names = list(here.select(tuple(target or ())))
    where = {name: here.pushed_as(name) for name in names}
    if to:
        given = Reference.parse(to)
        if given.digest:
            raise BadUsage("a push cannot choose its digest", where=to, remedy="give REPOSITORY[:TAG]")
        if given.tag and (len(names) > 1 or untagged):
            raise BadUsage(
                "there is no tag to give with --untagged" if untagged else "one tag cannot name several targets",
                where=to,
                remedy="leave the tag out" + ("" if untagged else ", or push one target"),
            )
        where = {
            name: (given,) if given.tag else tuple(given.with_tag(str(each.tag)) for each in where[name])
            for name in names
        }
    key = keys.private_key(sign) if sign else None
    ready = [(Image.load(here, name), Parts.load(here, name), Verification.find(here, name)) for name in names]
    # All of them first: one that is refused must not leave the others pushed.
    for built, parts, verification in ready:
        if not untagged:
            step.check_verified(built, verification)
        step.check_made_of(here, built, parts)
    engine = Engine.connect()
    if untagged:
        engine.require_manifests(
            "this engine's image store can only push under a tag",
            where="--untagged",
            remedy="use an engine with the containerd image store",
            failure=BadUsage,
        )
    pushed = []
    for built, parts, verification in ready:
        first, *_ = where[built.target]
        made = step.run(here, engine, built, first, output.progress)
        registry = step.connect(first)
        name, digest = f"{first.repository}", Digest(made.digest)
        statements = records.of_build(here, built, parts, name, digest)
        if verification and verification.passed and verification.digest == built.digest:
            statements.append(records.of_verification(verification, name, digest))
        attached = attest.run(registry, step.subject(made), statements, key, here.state / "uploads")
        step.check_attached(registry, digest, attached.referrers.values())
        tagged = [made] if untagged else [step.tag(registry, made, each) for each in where[built.target]]
        tagged[0].save(here)
        pushed += tagged
    if not untagged:
        dotenv.write(here.root, {"IMAGE": pushed[0].reference})
    output.result(out.push_document(pushed), tuple(dict.fromkeys(each.reference for each in pushed)))


def promote(
    image: Annotated[str, typer.Argument(metavar="REPOSITORY@DIGEST", help="As `push --untagged` printed it.")],
    tags: Annotated[list[str], typer.Option("--tag", metavar="TAG", help="A tag to give; may be given again.")],
    sign: Sign = None,
    project: Directory = HERE,
    settings: Set = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Give tags to an image that is in a registry by its digest alone, and that `smoke` proved on this machine.

    Its verification is attached to it first. No layer is moved. Example:

      python -m builder smoke registry.example.com/team/mydali@sha256:...

      python -m builder promote registry.example.com/team/mydali@sha256:... --tag 1.4
    """
    from builder import output as out
    from builder import project as projects
    from builder.artifacts import Pushed, Verification
    from builder.attest import keys, records
    from builder.reference import Reference
    from builder.render import dotenv
    from builder.steps import attest
    from builder.steps import push as step

    output = prepare(json, quiet, verbose)
    here = projects.load(project, settings or ())
    what = Reference.parse(image)
    if what.digest is None:
        raise BadUsage("only a digest can be promoted", where=image, remedy="give REPOSITORY@sha256:...")
    named = [Reference.parse(f"{what.repository}:{tag}") for tag in tags]
    key = keys.private_key(sign) if sign else None
    verification = step.check_promotable(Verification.of_digest(here, str(what.digest)), what)
    registry = step.connect(what)
    found = step.found(registry, what, verification.target)
    statement = records.of_verification(verification, what.repository, what.digest)
    attached = attest.run(registry, step.subject(found), [statement], key, here.state / "uploads")
    step.check_attached(registry, what.digest, attached.referrers.values())
    promoted: list[Pushed] = [step.tag(registry, found, each) for each in named]
    if found.target in here.targets:
        promoted[0].save(here)
        dotenv.write(here.root, {"IMAGE": found.reference})
    output.result(out.push_document(promoted), (found.reference,))
