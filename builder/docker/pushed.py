"""The engine's own push, for Docker's older image store: there nobody but the engine knows the manifest."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from builder.artifacts import Image
from builder.docker.engine import Engine, engine_failure, translated
from builder.errors import (
    BuilderError,
    DigestMismatch,
    InsecureRegistry,
    NoRegistry,
    PushError,
    RegistryReadOnly,
    Unauthorized,
)
from builder.reference import Digest, Reference
from builder.registry import Manifest, Registry


def by_engine(
    engine: Engine, image: Image, to: Reference, registry: Registry, console: Console
) -> tuple[Manifest, int, int]:
    """Pushes under the tag of `to`, as this engine cannot otherwise; gives the manifest, the bytes sent, and 0.

    Raises:
        NoRegistry, Unauthorized, RegistryReadOnly, InsecureRegistry, PushError: the registry does not take it.
        DigestMismatch: the registry then holds something else.
    """
    _require_tls(engine, to)
    with translated(image.reference, PushError):
        engine.client.api.tag(image.digest, to.repository, to.tag, force=True)
    with _Transfer(console) as transfer, translated(str(to), PushError):
        for event in engine.client.api.push(to.repository, to.tag, stream=True, decode=True):
            if "error" in event:
                raise _refused(str(event["error"]), to)
            transfer.feed(event)
    held = registry.manifest(str(to.tag))
    if held is None or held.config is None or held.config.digest != Digest(image.digest):
        raise DigestMismatch(
            f"the registry holds {held.digest if held else 'nothing'}, which is not the image that was verified",
            where=str(to),
            remedy="somebody else may have pushed the same tag; push again, or choose another tag",
        )
    return held, transfer.uploaded(_sizes(held, [layer.digest for layer in image.layers])), 0


def _sizes(held: Manifest, diff_ids: list[str]) -> dict[str, int]:
    """Compressed bytes of each layer, by what the engine's events call it: blob, or in the older store diff ID."""
    by_blob = {_short(str(layer.digest)): layer.size for layer in held.layers}
    by_diff_id = {_short(diff_id): layer.size for diff_id, layer in zip(diff_ids, held.layers, strict=False)}
    return by_diff_id | by_blob


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


class _Transfer:
    """The engine's push events: a bar for each layer, and which layers were uploaded."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._sent: set[str] = set()
        self._final: dict[str, str] = {}

    def __enter__(self) -> _Transfer:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def feed(self, event: dict[str, Any]) -> None:
        layer, status = event.get("id", ""), event.get("status", "")
        if not layer or not status:
            return
        detail = event.get("progressDetail") or {}
        if status == "Pushing" and detail.get("current"):
            self._sent.add(layer)
            task = self._tasks.get(layer)
            if task is None:
                task = self._tasks[layer] = self._progress.add_task(layer)
            self._progress.update(task, completed=detail["current"], total=detail.get("total"))
        elif self._final.get(layer) != status and status not in ("Preparing", "Waiting", "Pushing"):
            self._final[layer] = status
            if not self._console.is_terminal:
                self._console.print(f"{layer}: {status}")

    def uploaded(self, sizes: dict[str, int]) -> int:
        """Compressed bytes of the layers that were sent; `sizes` by the digests' first 12 digits."""
        return sum(
            size for layer, size in sizes.items() if layer in self._sent and "exists" not in self._final.get(layer, "")
        )


def _require_tls(engine: Engine, to: Reference) -> None:
    """Raises InsecureRegistry where the engine is set up to speak plain HTTP to a host that is not this one."""
    settings = engine.client.info().get("RegistryConfig") or {}
    index = (settings.get("IndexConfigs") or {}).get(to.host, {})
    if not to.is_loopback and (
        not index.get("Secure", True) or _is_within(to.host, settings.get("InsecureRegistryCIDRs") or ())
    ):
        raise InsecureRegistry(
            f"the engine speaks plain HTTP to {to.host}",
            where=str(to),
            remedy="give the registry a certificate and remove it from the engine's insecure-registries",
        )


def _is_within(host: str, networks: Iterable[str]) -> bool:
    try:
        address = ipaddress.ip_address(re.sub(r":\d+$", "", host).strip("[]"))
    except ValueError:
        return False  # a name
    return any(address in ipaddress.ip_network(network, strict=False) for network in networks)


# What registries and the engine say, the unmistakable first: a port or a digest may contain the number of a status.
_REFUSALS: tuple[tuple[re.Pattern[str], type[BuilderError], str, str], ...] = (
    (
        re.compile(r"connection refused|no such host|i/o timeout|no route to host|connection reset|\beof\b"),
        NoRegistry,
        "no registry answers",
        "see that a registry runs at {host}",
    ),
    (
        re.compile(r"http response to https client"),
        InsecureRegistry,
        "the registry speaks plain HTTP",
        "plain HTTP is for registries on this machine; give it a certificate",
    ),
    (
        re.compile(r"unauthorized|no basic auth|authentication required|\bdenied\b|(?<![\w:])40[13] "),
        Unauthorized,
        "the registry refuses the credentials",
        "run `docker login {host}` with a user who may push",
    ),
    (
        re.compile(r"(?<![\w:])405 |method not allowed|operation is unsupported|read[- ]only"),
        RegistryReadOnly,
        "the registry takes no writes",
        "switch its read-only mode off, or push elsewhere",
    ),
)


def _refused(message: str, to: Reference) -> BuilderError:
    for pattern, failure, what, remedy in _REFUSALS:
        if pattern.search(message.lower()):
            return failure(what, where=str(to), remedy=remedy.format(host=to.host), detail=[message])
    return engine_failure(message, str(to), PushError)
