"""Watches a project, and makes, serves and asks whatever is saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256

from rich.console import Console

from builder import recipe
from builder.bases import OURS
from builder.dev.session import Foundation, Round, Session
from builder.dev.snapshot import Camera, Moved, Snapshot, newest
from builder.dev.verdict import Verdict
from builder.dev.watcher import Watcher
from builder.docker.bake import bake
from builder.docker.engine import Engine
from builder.errors import (
    BaseElsewhere,
    BuilderError,
    BuildError,
    NoBase,
    NoRegistry,
    ProjectError,
    Unauthorized,
    VerificationError,
)
from builder.findings import Finding
from builder.lock import LockedTarget, write_packages
from builder.project import FILE_NAME, Project
from builder.recipe import Bases
from builder.views import live

_QUIET_SECONDS = 0.05
_LOOKS = 200
_REPEATS = 5
_OF_THE_USER = (ProjectError, BuildError, VerificationError, NoBase, BaseElsewhere, NoRegistry, Unauthorized)
"""Mistakes that the next save may mend; a base that is not to be had may be another one then."""


def foundation(
    project: Project, name: str, bases: Bases, locked: LockedTarget | None, engine: Engine, console: Console
) -> Foundation:
    """The images that a target is compiled and served in, made where the engine does not have them.

    Raises:
        BaseElsewhere: the base is in its registry alone.
        BuildError and its family: a stage failed.
    """
    if bases.triton and not engine.has_image(bases.triton.name):
        raise BaseElsewhere(
            f"the base of {name} is not on this machine, so nothing can be started from it",
            where=bases.triton.name,
            remedy=f"pull it, or choose another target: docker pull {bases.triton.name}",
        )
    write_packages(locked, recipe.lock_folder(project, name))
    whole = recipe.parts(project, name, bases)
    embedded = recipe.embedded_name(project, name, bases)
    made_of = repr((embedded, bases, project.targets[name].toolchain))
    toolchain = f"{OURS}toolchain:{sha256(made_of.encode()).hexdigest()[:12]}"
    targets = {name: {**whole, "target": "toolchain", "output": [f"type=image,name={toolchain}"]}}
    if bases.triton is None:
        targets[name + recipe.EMBEDDED_BASE] = recipe.embedded(project, name, bases, embedded)
    bake(targets, context=project.root, definition=project.state / "dev.bake.json", view=live.view(console))
    return Foundation(bases.triton.name if bases.triton else embedded, toolchain)


def run(
    project: Project,
    target: str,
    session: Session,
    watcher: Watcher,
    *,
    load: Callable[[], Project],
    begin: Callable[[Project], Foundation],
    check: Callable[[Project], Sequence[Finding]],
    tell: Callable[[Verdict], None],
) -> None:
    """Goes on until it is interrupted; what is wrong with the project is told, and waits for the next save.

    Args:
        load: reads builder.toml again.
        begin: makes the images that `project` wants to begin with.
        check: raises CheckFailed for sources that are wrong.
        tell: shows each verdict.

    Raises:
        MachineError: what no save can mend.
    """
    camera = Camera(project.root)
    begun: tuple[object, Foundation] | None = None
    changed: tuple[str, ...] = ()
    is_read = True  # what builder.toml says now
    repeated = 0
    saved = time.time()
    watcher.follow(project)
    now = camera.take(project)
    while True:
        looked = time.time()
        this = Round()
        error: BuilderError | None = None
        try:
            if not is_read:
                project = load()
                is_read = True
                watcher.follow(project)
                now = camera.take(project)
            check(project)
            settings = project.targets.get(target), project.debian_image, now.settings()
            if begun is None or begun[0] != settings:
                begun = settings, begin(project)
            session.round(project, project.select([target])[target], begun[1], now, changed, this)
        except Moved as moved:
            if repeated < _REPEATS:
                repeated += 1
                watcher.follow(project)
                before, now = now, _settled(project, camera)
                more = before.differences(now)
                saved = newest(project.root, more, looked, time.time()) if more else saved
                changed = tuple(sorted({*changed, *more})) if changed else ()
                is_read = is_read and FILE_NAME not in more
                continue
            error = VerificationError(
                "files go on changing while they are read",
                where=", ".join(map(str, moved.args[:3])),
                remedy="end what writes them, or let it write elsewhere; then save once more",
            )
        except _OF_THE_USER as wrong:
            error = wrong
        repeated = 0
        endpoint = session.server.endpoint if session.server and session.server.server.exited() is None else None
        tell(
            Verdict(
                when=datetime.now().astimezone(),
                changed=changed,
                done=tuple(this.done),
                models=this.models,
                not_run=tuple(sorted(this.not_run.items())),
                seconds=time.time() - saved,
                http=endpoint.http if endpoint else "",
                grpc=endpoint.grpc if endpoint else "",
                error=error,
            )
        )
        session.tidy()
        saved, now, changed = _next(project, camera, watcher, now, looked)
        is_read = is_read and FILE_NAME not in changed


def _next(
    project: Project, camera: Camera, watcher: Watcher, before: Snapshot, looked: float
) -> tuple[float, Snapshot, tuple[str, ...]]:
    """Waits for a change of contents: when it was saved, what there is now, and what is different.

    Args:
        looked: when `before` was taken.
    """
    while True:
        came = watcher.wait()
        watcher.follow(project)
        now = camera.take(project)
        if now == before:
            continue
        now = _settled(project, camera)
        if now != before:
            changed = before.differences(now)
            return newest(project.root, changed, looked, max(came, looked)), now, changed


def _settled(project: Project, camera: Camera) -> Snapshot:
    """What there is once nobody writes any more."""
    now = camera.take(project)
    for _ in range(_LOOKS):
        time.sleep(_QUIET_SECONDS)
        earlier, now = now, camera.take(project)
        if earlier == now:
            break
    return now
