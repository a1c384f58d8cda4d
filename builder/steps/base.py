"""The images that builds start from: found, pulled, or made from this machine's Debian mirror."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import docker.errors
import requests.exceptions
from rich.console import Console

from builder import bases, package
from builder.docker.engine import Engine
from builder.errors import BadReference, MachineError, NoBase, PushError, TagMoved
from builder.lock import LockedImage, LockedTarget
from builder.process import run
from builder.project import AUTO, Project, Target
from builder.recipe import Base, Bases
from builder.reference import Digest, Reference

DOCKER_HUB = "docker.io/library/debian:12-slim"
BOOTSTRAP = package.ROOT / "embedded" / "bootstrap.py"
HOME_MADE = f"{bases.OURS}debian:bookworm"


def resolve(
    project: Project,
    target: Target,
    engine: Engine,
    console: Console,
    locked: LockedTarget | None = None,
    *,
    elsewhere: bool = False,
) -> Bases:
    """The images that `target` starts from, in the engine; a base that the wheel's toolchain does without stays away.

    Args:
        locked: what they have to be.
        elsewhere: whether another builder pulls the base, so that it stays away as well.

    Raises:
        NoBase: one is not here, cannot be pulled, and cannot be made.
        TagMoved: one is not the one that is locked.
    """
    triton = debian_base = None
    if not target.is_embedded:
        held = locked.triton_image if locked else None
        if (elsewhere or target.toolchain == "wheel") and not engine.has_image(target.triton_image):
            triton = _in_registry(target.triton_image, held)
        else:
            triton = _in_engine(target.triton_image, held, engine, target.platform)
    if _needs_debian(target):
        held = locked.debian_image if locked else None
        name = held.name if held and project.debian_image == AUTO else debian(project, engine, console)
        if name == HOME_MADE and not engine.has_image(name):
            console.print(f"the engine has no {HOME_MADE}; making it from this machine's Debian mirror")
            _make(
                f"the engine has no {HOME_MADE}, and no registry has it",
                "name a Debian 12 that can be pulled as debian_image in builder.toml (and `python -m builder lock`)",
            )
        debian_base = _in_engine(name, held, engine, target.platform)
    return Bases(triton, debian_base)


def _needs_debian(target: Target) -> bool:
    return target.is_embedded or target.toolchain == "wheel"


def _in_engine(name: str, held: LockedImage | None, engine: Engine, platform: str) -> Base:
    found = engine.find(name)
    if found is None:
        reference = Reference.parse(name)
        if held:
            # By digest, whatever the tag is by now; named, as `FROM` will ask for it by name.
            pinned = str(reference.with_digest(Digest(held.digest)))
            engine.pull(pinned, platform)
            if not reference.digest:
                engine.tag(pinned, name)
        else:
            engine.pull(name, platform)
        found = engine.find(name)
    return _unmoved(Base(name, _digest_of(found)), held, can_go_back=not name.startswith(bases.OURS))


def _in_registry(name: str, held: LockedImage | None) -> Base:
    digest = bases.digest_in_registry(name)
    if digest is None:
        raise NoBase("the registry has no such image", where=name, remedy="name another one in builder.toml")
    return _unmoved(Base(name, digest), held, can_go_back=False)


def _unmoved(base: Base, held: LockedImage | None, *, can_go_back: bool) -> Base:
    if held and base.name == held.name and str(base.digest) != held.digest:
        at_lock = Reference.parse(held.name).with_digest(Digest(held.digest))
        raise TagMoved(
            f"{base.name} is {base.digest or 'without a digest'} now; builder.lock holds {held.digest}",
            where=base.name,
            remedy="accept it with `python -m builder lock`"
            + (f", or go back: docker pull {at_lock} && docker tag {at_lock} {base.name}" if can_go_back else ""),
        )
    return base


def current(project: Project, target: Target, engine: Engine, console: Console, *, pull: bool) -> Bases:
    """As `resolve`, but what the names stand for in their registries today, as far as these answer.

    Args:
        pull: whether the engine gets what is newer than its own.
    """
    found = resolve(project, target, engine, console)
    return Bases(*(each and _newest(each, engine, target.platform, pull=pull) for each in (found.triton, found.debian)))


def _newest(base: Base, engine: Engine, platform: str, *, pull: bool) -> Base:
    if base.name.startswith(bases.OURS):
        return base  # no registry has it
    try:
        newest = bases.digest_in_registry(base.name)
    except (MachineError, PushError):
        return base  # what is here is all that can be known
    if newest in (None, base.digest):
        return base
    if pull and engine.has_image(base.name):
        engine.pull(base.name, platform)
    return Base(base.name, newest)


def presumed(project: Project, target: Target, engine: Engine | None) -> Bases:
    """As `resolve`, but without pulling or making anything: what a build would try first."""
    triton = debian_base = None
    if not target.is_embedded:
        triton = target.triton_image
    if _needs_debian(target):
        debian_base = project.debian_image
        if debian_base == AUTO:
            debian_base = (engine and _present(engine)) or DOCKER_HUB
    return Bases(
        *((name and Base(name, _digest(engine, name) if engine else None)) or None for name in (triton, debian_base))
    )


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
        remedy = "reach Docker Hub, set debian_image in builder.toml to a copy of Debian 12 that you can pull"
        return _make(f"{DOCKER_HUB} cannot be pulled", remedy, str(error))


def _make(what: str, remedy: str, *why: str) -> str:
    """Makes `HOME_MADE`; where this machine cannot, these tell what is wrong, what else helps, and what shows it."""
    if not BOOTSTRAP.exists() or os.geteuid() != 0:
        raise NoBase(
            what,
            where="the Debian under the embedded base",
            remedy=f"{remedy}, or run this as root on Debian, where it can be made from Debian's packages",
            detail=why,
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
    return _digest_of(engine.find(name))


def _digest_of(found: Mapping[str, Any] | None) -> Digest | None:
    """The digest that the engine holds for an image: a registry's, or that of one made here; None without one."""
    if found is None:
        return None
    for pinned in found.get("RepoDigests") or ():
        return Digest(pinned.rpartition("@")[2])
    try:
        return Digest(found["Id"])
    except BadReference:
        return None
