"""The base image under the embedded target: found, pulled, or made from this machine's Debian mirror."""

from __future__ import annotations

import os
import sys

import docker.errors
import requests.exceptions
from rich.console import Console

from builder import package
from builder.docker.engine import Engine
from builder.errors import BadReference, NoBase
from builder.process import run
from builder.project import AUTO, Project, Target
from builder.recipe import Base
from builder.reference import Digest

DOCKER_HUB = "docker.io/library/debian:12-slim"
BOOTSTRAP = package.ROOT / "embedded" / "bootstrap.py"
HOME_MADE = "triton-dali-builder/debian:bookworm"


def resolve(project: Project, target: Target, engine: Engine, console: Console) -> Base:
    """The image that `target` starts from.

    Raises:
        NoBase: it is not here, cannot be pulled, and cannot be made.
    """
    if not target.is_embedded:
        return Base(target.triton_image, _digest(engine, target.triton_image))
    name = debian(project, engine, console)
    return Base(name, _digest(engine, name))


def presumed(project: Project, target: Target, engine: Engine | None) -> Base:
    """As `resolve`, but without pulling or making anything: what a build would try first."""
    if not target.is_embedded:
        name = target.triton_image
    elif project.debian_image != AUTO:
        name = project.debian_image
    else:
        name = (engine and _present(engine)) or DOCKER_HUB
    return Base(name, _digest(engine, name) if engine else None)


def _present(engine: Engine) -> str | None:
    return next((name for name in (HOME_MADE, DOCKER_HUB) if engine.has_image(name)), None)


def debian(project: Project, engine: Engine, console: Console) -> str:
    """The Debian image to use: what the project names, or what this machine can have."""
    if project.debian_image != AUTO:
        return project.debian_image
    if present := _present(engine):
        return present
    try:
        engine.client.images.pull(DOCKER_HUB)
        return DOCKER_HUB
    except (docker.errors.APIError, requests.exceptions.RequestException) as error:
        console.print(f"{DOCKER_HUB} cannot be pulled; making {HOME_MADE} from this machine's Debian mirror")
        return _make(str(error))


def _make(why: str) -> str:
    if not BOOTSTRAP.exists() or os.geteuid() != 0:
        raise NoBase(
            f"{DOCKER_HUB} cannot be pulled",
            where="the Debian under the embedded base",
            remedy="reach Docker Hub, set debian_image in builder.toml to a copy of Debian 12 that you can pull, "
            "or run this as root on Debian, where it can be made from Debian's packages",
            detail=[why],
        )
    made = run([sys.executable, str(BOOTSTRAP), HOME_MADE])
    if made.returncode:
        raise NoBase(
            "a Debian base could not be made",
            where=HOME_MADE,
            remedy="see the last lines of mmdebstrap",
            detail=made.stderr,
        )
    return HOME_MADE


def _digest(engine: Engine, name: str) -> Digest | None:
    """The digest that the engine holds under `name`: a registry's, or that of an image made here; None without one."""
    found = engine.find(name)
    if found is None:
        return None
    for pinned in found.get("RepoDigests") or ():
        return Digest(pinned.rpartition("@")[2])
    try:
        return Digest(found["Id"])
    except BadReference:
        return None
