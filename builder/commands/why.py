"""`why`: the cause of a server's failure, from its log."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from builder.commands.options import Json, Quiet, Verbose, prepare
from builder.errors import BadUsage, CauseUnknown, NothingBuilt, did_you_mean

if TYPE_CHECKING:
    from docker.models.containers import Container

    from builder.symptoms import Diagnosis

_BYTES = 5_000_000
_LINES = 50_000
_TARGET = "triton-dali-builder.target"
"""The label that every image of this program has, and so every container of one."""
_SERVICES = ("triton", "triton-gpu")


def why(
    source: Annotated[
        str,
        typer.Argument(
            metavar="[CONTAINER|LOGFILE|-]",
            help="A container, a file, or - for stdin; the newest container of this program's images by default.",
            show_default=False,
        ),
    ] = "",
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Read Triton's log, and name the causes of a failure and what to do about them.

    Examples:

      python -m builder why

      kubectl logs POD | python -m builder why -
    """
    from builder import symptoms
    from builder.findings import Finding, Place
    from builder.triton import last_words

    output = prepare(json, quiet, verbose)
    log = _read(source)
    output.progress.print(f"reading {log.name}", markup=False, highlight=False)
    causes = log.refused or symptoms.diagnose(log.lines, status=log.status, out_of_memory=log.out_of_memory)
    health = symptoms.health(log.lines)
    document: dict[str, Any] = {"source": log.name, "ready": health.ready, "models": list(health.models)}
    document["diagnoses"] = [each.as_json() for each in causes]
    if causes:
        for each in causes:
            place = Place(f"{log.name}, model {each.model}" if each.model else log.name)
            output.show([Finding(each.code, each.what, place, each.remedy, each.evidence, model=each.model)])
        several = f"{len(causes)} causes; " if len(causes) > 1 else ""
        output.progress.print(f"{several}`builder explain {causes[0].code}` tells more", markup=False)
    elif health.ready and (log.status in (None, 0) or health.stopped):
        count = len(health.models)
        told = f"{count} model{'s' * (count != 1)} READY" if count else "ready, without any model"
        stopped = "; it was stopped" * health.stopped
        output.console.print(f"nothing wrong: {told}{stopped}", markup=False)
    elif not (health.begins or health.complains or log.status):
        output.console.print("nothing wrong in these lines; the log does not have the server's start", markup=False)
    elif log.is_running:
        output.console.print("nothing wrong yet: the server is starting", markup=False)
        for line in last_words(symptoms.plain(log.lines), 5):
            output.progress.print(f"  {line}", markup=False)
    else:
        raise _unknown(log, last_words(symptoms.plain(log.lines)), begins=health.begins)
    if json:
        output.document(document)


@dataclass(frozen=True)
class _Log:
    """What a server said, and how it ended where that is known."""

    name: str
    lines: list[str]
    status: int | None = None
    out_of_memory: bool = False
    is_running: bool = False
    refused: tuple[Diagnosis, ...] = ()
    """Why the engine did not even start it."""


def _unknown(log: _Log, said: list[str], *, begins: bool) -> Exception:
    if not said:
        return CauseUnknown(
            "the log is empty",
            where=log.name,
            remedy="see how the container was started: `docker inspect` has its command",
        )
    ended = "the server did not become ready"
    if log.status:
        ended = f"the server ended with exit status {log.status}"
    elif not begins:
        ended = "the log does not have the server's start"
    return CauseUnknown(
        f"{ended}, and nothing in {'its log' if begins or log.status else 'it'} is known",
        where=log.name,
        remedy="see its last words; start it again with --log-verbose=1 for more of them",
        detail=said,
    )


def _read(source: str) -> _Log:
    """The log that is meant.

    Raises:
        BadUsage: there is no such file, and no such container.
        NothingBuilt: none is named, and there is no container of ours.
    """
    if source == "-":
        return _Log("stdin", _decoded(sys.stdin.buffer.read()))
    if source and Path(source).exists():
        try:
            with Path(source).open("rb") as file:
                return _Log(source, _decoded(_end(file), mark=_mark(file)))
        except OSError as error:
            raise BadUsage(
                f"the log cannot be read: {error.strerror}", where=source, remedy="name a file that can be read"
            ) from None
    return _of_container(_container(source))


def _mark(file: BinaryIO) -> bytes:
    """The first bytes, which tell UTF-16: what a shell of Windows writes."""
    file.seek(0)
    return file.read(2)


def _end(file: BinaryIO) -> bytes:
    size = file.seek(0, 2)
    # By an even number of bytes, for encodings that have two for a character.
    file.seek(max(0, size - _BYTES) // 2 * 2)
    return file.read()


def _decoded(content: bytes, mark: bytes = b"") -> list[str]:
    content, mark = content[-_BYTES:], mark or content[:2]
    encoding = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}.get(mark, "utf-8")
    return content.decode(encoding, errors="replace").removeprefix("\ufeff").split("\n")


def _container(name: str) -> Container:
    import docker.errors

    from builder.docker.engine import Engine, translated

    engine = Engine.connect()
    with translated(name or "the engine"):
        everything = engine.client.containers
        if name:
            try:
                return everything.get(name)
            except docker.errors.NotFound:
                known = [str(each.name) for each in everything.list(all=True, ignore_removed=True)]
                raise BadUsage(
                    f"there is neither a file nor a container {name!r}{did_you_mean(name, known)}",
                    where="why",
                    remedy="`docker ps --all` lists the containers",
                ) from None
        labels = [_TARGET, *(f"com.docker.compose.service={service}" for service in _SERVICES)]
        ours = {
            str(each.id): each
            for label in labels
            for each in everything.list(all=True, filters={"label": label}, ignore_removed=True)
        }
    if not ours:
        raise NothingBuilt(
            "there is no container of this program's images",
            where="why",
            remedy="name a container or a file with its log; `docker run` without --rm leaves one to look at",
        )
    return max(ours.values(), key=lambda each: str(each.attrs["Created"]))


def _of_container(container: Container) -> _Log:
    from builder.docker.engine import engine_failure, translated
    from builder.symptoms import Diagnosis

    name = str(container.name)
    with translated(name):
        lines = _decoded(bytes(container.logs(tail=_LINES)))
        container.reload()
    state = container.attrs["State"]
    refused: tuple[Diagnosis, ...] = ()
    if state.get("Error"):
        known = engine_failure(str(state["Error"]), name)
        refused = (Diagnosis(known.code, known.what, known.remedy, known.detail),)
    status = str(state["Status"])
    image = str(container.attrs["Config"]["Image"])
    told = f"{status}, exit status {state['ExitCode']}" if status == "exited" else status
    return _Log(
        f"container {name} of {image} ({told})",
        lines,
        # A container that is started again and again is between two lives as often as not.
        status=int(state["ExitCode"]) if status in ("exited", "dead") or state["ExitCode"] else None,
        out_of_memory=bool(state.get("OOMKilled")),
        is_running=status == "running",
        refused=refused,
    )
