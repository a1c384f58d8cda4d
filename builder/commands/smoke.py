"""`smoke`: proves an image by inference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.commands.options import HERE, Directory, Gpus, Json, Quiet, Seed, Set, Targets, Timeout, Verbose, prepare
from builder.errors import BadUsage, BaseElsewhere, VerificationError

if TYPE_CHECKING:
    from builder.project import Project
    from builder.triton import Host
    from builder.unpacked.image import UnpackedImage


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
    gpus: Gpus = "",
    without_gpu: Annotated[
        bool,
        typer.Option(
            "--without-gpu", help="Leave out the models of KIND_GPU; nothing has passed then, and push refuses."
        ),
    ] = False,
    local: Annotated[
        bool, typer.Option("--local", help="Without a container: unpack the image's files, and start its server there.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="DIR",
            help="Of the unpacked image; one that is there is taken as it is, and needs no engine.",
            show_default=".builder/TARGET/unpacked, made anew",
        ),
    ] = None,
    seed: Seed = None,
    timeout: Timeout = 120.0,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Start the image and prove it: inference over HTTP and gRPC, and a control without the plugin, which must fail.

    Prints the digest that passed. Examples:

      python -m builder smoke

      python -m builder smoke --target all --gpus all --json

      python -m builder smoke registry.example.com/team/mydali:1.0

      python -m builder smoke --local --gpus all
    """
    import secrets

    from builder import output as out
    from builder import project as projects
    from builder.artifacts import Image, Verification
    from builder.docker.engine import Engine
    from builder.docker.server import ContainerHost
    from builder.reference import Reference
    from builder.steps import smoke as step
    from builder.unpacked.image import UnpackedImage, unpack
    from builder.unpacked.server import ProcessHost
    from builder.views import summary

    output = prepare(json, quiet, verbose)
    here = projects.load(project, settings or ())
    _check_usage(image, target, gpus=gpus, without_gpu=without_gpu, local=local, folder=folder)
    chosen_seed = secrets.randbits(32) if seed is None else seed
    verified: list[Verification] = []

    def verify(host: Host, digest: str, reference: str, name: str) -> Verification:
        try:
            return step.run(
                host,
                digest,
                reference,
                name,
                output.progress,
                project=here,
                seed=chosen_seed,
                gpus=gpus,
                not_run=step.of_gpus(here, name) if without_gpu else (),
                timeout=timeout,
            )
        except VerificationError as error:
            for each in here.targets:
                recorded = Verification.find(here, each)
                # Nothing vouches for it any more; of another image this one says nothing.
                if recorded and recorded.digest == digest:
                    Verification.discard(here, each)
            Verification.forget(here, digest)
            error.partial = {**out.smoke_document(verified), "passed": False}
            raise

    if folder and folder.exists():
        # No engine, and no record: nobody can tell whether the files are still those of the image.
        found = UnpackedImage.read(folder)
        name = _target_of(found, here, tuple(target or ()))
        verified.append(verify(ProcessHost(found), found.digest, found.reference, name))
        summary.verified(verified, output.progress)
        output.result(out.smoke_document(verified), tuple(each.digest for each in verified if each.passed))
        return

    # Records of earlier runs are read first: there is no use in an engine without an image.
    names = [] if image else list(here.select(tuple(target or ())))
    wanted = {name: Image.load(here, name) for name in names}
    engine = Engine.connect()
    engine.sweep()

    def one(digest: str, reference: str, name: str) -> Verification:
        host: Host = ContainerHost(engine)
        if local:
            place = folder or here.state / (name or "any") / "unpacked"
            output.progress.print(f"unpacking {reference} into {place}")
            host = ProcessHost(unpack(engine, digest, reference, place))
        return verify(host, digest, reference, name)

    if image:
        if Reference.parse(image).digest and not engine.has_image(image):
            engine.pull(image)
        verified.append(one(engine.image(image)["Id"], image, "").keep(here))
    for name, each in wanted.items():
        if not each.in_engine:
            raise BaseElsewhere(
                f"the base of {each.reference} is not on this machine, so the image cannot be started here",
                where=each.base,
                remedy=f"python -m builder push --untagged --target {name}; then `smoke` its reference "
                "where there is room, and `promote` it there",
            )
        verified.append(one(each.digest, each.reference, name).save(here).keep(here))
    summary.verified(verified, output.progress)
    output.result(out.smoke_document(verified), tuple(each.digest for each in verified if each.passed))


def _target_of(image: UnpackedImage, project: Project, chosen: tuple[str, ...]) -> str:
    """What the image's own label says; of an image without one, the target that was chosen.

    Raises:
        BadUsage: it is of another target, or of none in builder.toml.
    """
    from builder.recipe import OURS

    label = (image.described["Config"].get("Labels") or {}).get(f"{OURS}target", "")
    targets = project.select(chosen or ((label,) if label else ()))
    if label and label not in targets:
        raise BadUsage(
            f"the image was built for target {label!r}, and not for {' or '.join(map(repr, targets))}",
            where=str(image.folder),
            remedy=f"take --target out, or name {label}, or the folder of another image",
        )
    return label or next(iter(targets))


def _check_usage(
    image: str, target: list[str] | None, *, gpus: str, without_gpu: bool, local: bool, folder: Path | None
) -> None:
    wrong = [
        (bool(image and target), "an image and --target do not go together", "give one of them"),
        (bool(gpus and without_gpu), "--gpus and --without-gpu do not go together", "give one of them"),
        (bool(image and without_gpu), "of any image nobody knows which models want a GPU", "take --without-gpu out"),
        (bool(folder and not local), "--folder is for --local", "add --local"),
        (bool(folder and len(target or ()) > 1), "one folder holds one image", "name one target"),
    ]
    for is_wrong, what, remedy in wrong:
        if is_wrong:
            raise BadUsage(what, where="smoke", remedy=remedy)
