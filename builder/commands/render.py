"""`render`: manifests that deploy a pushed image."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from builder.commands.options import HERE, Directory, Json, Quiet, Set, Targets, prepare
from builder.errors import BadUsage


class Kind(StrEnum):
    """What the manifests are for."""

    KUBERNETES = "kubernetes"
    KSERVE = "kserve"


def render(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="kubernetes or kserve.", show_default=False)],
    target: Targets = None,
    project: Directory = HERE,
    settings: Set = None,
    image: Annotated[
        str,
        typer.Option("--image", metavar="REPO@DIGEST", help="The image to deploy.", show_default="what was pushed"),
    ] = "",
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Of the objects.", show_default="the project's")
    ] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", metavar="NAME", help="Where to.", show_default="kubectl's")
    ] = "",
    replicas: Annotated[int, typer.Option("--replicas", min=1, metavar="N", help="How many servers.")] = 1,
    gpu: Annotated[int, typer.Option("--gpu", min=0, metavar="N", help="GPUs for each of them.")] = 0,
    cpu: Annotated[str, typer.Option("--cpu", metavar="CORES", help="Cores for each of them.")] = "2",
    memory: Annotated[
        str, typer.Option("--memory", metavar="SIZE", help="Memory for each of them, its shared memory included.")
    ] = "4Gi",
    shared_memory: Annotated[
        str, typer.Option("--shared-memory", metavar="SIZE", help="The size of /dev/shm, for tensors on their way.")
    ] = "1Gi",
    pull_secret: Annotated[
        list[str] | None,
        typer.Option(
            "--pull-secret",
            metavar="NAME",
            help="The Secret with the registry's credentials; may be given again.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to.", show_default="stdout")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print the manifests that deploy the pushed image, by its digest. Needs no cluster and no engine.

    Examples:

      python -m builder render kubernetes | kubectl apply -f -

      python -m builder render kserve --gpu 1 --namespace vision --output deploy.yaml
    """
    from builder import project as projects
    from builder.artifacts import Pushed, write_atomically
    from builder.reference import Reference
    from builder.render import kserve, kubernetes, manifests
    from builder.render.model import Serving, label

    output = prepare(json, quiet, verbose=False)
    here = projects.load(project, settings or ())
    chosen = here.select(tuple(target or ()))
    if len(chosen) > 1:
        raise BadUsage("a manifest deploys one target", where="render", remedy="give one --target")
    ((which, built),) = chosen.items()
    if gpu and not built.gpu:
        raise BadUsage(
            f"target {which!r} never runs on a GPU", where="--gpu", remedy="leave it out, or take `gpu = false` away"
        )
    deployed = image or Pushed.tagged(here, which).reference
    # As a push names them: the first target has the plain name, the others carry their own.
    suffix = "" if which == next(iter(here.targets)) else f"-{which}"
    serving = Serving(
        name=name or label(here.name + suffix),
        image=Reference.parse(deployed),
        platform=built.platform,
        application=here.name,
        namespace=namespace,
        replicas=replicas,
        gpus=gpu,
        cpu=cpu,
        memory=memory,
        shared_memory=shared_memory,
        pull_secrets=tuple(pull_secret or ()),
        server_arguments=here.server_args,
    )
    if serving.image.is_loopback:
        output.progress.print(f"{serving.image.host} is this machine: nodes of a cluster elsewhere cannot pull from it")
    documents = {Kind.KUBERNETES: kubernetes, Kind.KSERVE: kserve}[kind].documents(serving)
    given = {
        "target": which,
        "image": str(serving.image),
        "name": serving.name,
        "namespace": namespace,
        "replicas": str(replicas),
        "gpu": str(gpu),
        "cpu": cpu,
        "memory": memory,
        "shared-memory": shared_memory,
    }
    words = [word for option, value in given.items() if value for word in (f"--{option}", value)]
    words += [word for secret in serving.pull_secrets for word in ("--pull-secret", secret)]
    words += [word for setting in settings or () for word in ("--set", setting)]
    command = shlex.join(["python", "-m", "builder", "render", str(kind), *words])
    text = manifests.text(documents, (f"Made by: {command}", f"Image: {serving.digest}"))
    if file:
        try:
            write_atomically(file, text)
        except OSError as error:
            raise BadUsage(
                f"{file} cannot be written: {error.strerror}", where="--output", remedy="name a file that you may write"
            ) from None
        output.progress.print(f"wrote {file}", highlight=False)
    document = {
        "kind": str(kind),
        "target": which,
        "image": str(serving.image),
        "file": str(file) if file else None,
        "documents": documents,
    }
    output.result(document, () if file else (text.rstrip("\n"),))
