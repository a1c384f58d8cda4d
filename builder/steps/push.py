"""Pushes exactly the image that was verified, and says by which digest to deploy it."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from builder import registry
from builder.artifacts import Image, Pushed, Verification
from builder.docker.engine import Engine, engine_failure, translated
from builder.errors import (
    BuilderError,
    DigestMismatch,
    InsecureRegistry,
    NoRegistry,
    NotVerified,
    PushError,
    RegistryReadOnly,
    Unauthorized,
)
from builder.reference import Digest, Reference


def check_verified(image: Image, verification: Verification | None) -> Verification:
    """The verification of this very image.

    Raises:
        NotVerified: there is none, it did not pass, or it is another image's.
    """
    remedy = f"run `python -m builder smoke --target {image.target}` first"
    if verification is None or not verification.passed:
        raise NotVerified(
            "the image has no passed verification", where=f"{image.reference} {image.digest}", remedy=remedy
        )
    if verification.digest != image.digest:
        raise NotVerified(
            f"the image was built again after its verification, which is of {verification.digest}",
            where=f"{image.reference} {image.digest}",
            remedy=remedy,
        )
    return verification


def run(engine: Engine, image: Image, verification: Verification | None, to: Reference, console: Console) -> Pushed:
    """Pushes `image` as `to`, a reference with a tag.

    Raises:
        NotVerified: see check_verified.
        NoRegistry, Unauthorized, RegistryReadOnly, InsecureRegistry, PushError: the registry does not take it.
        DigestMismatch: the registry then holds something else.
    """
    check_verified(image, verification)
    _require_tls(engine, to)
    began = time.monotonic()
    with translated(image.reference, PushError):
        engine.client.api.tag(image.digest, to.repository, to.tag, force=True)
    with _Transfer(console) as transfer, translated(str(to), PushError):
        for event in engine.client.api.push(to.repository, to.tag, stream=True, decode=True):
            if "error" in event:
                raise _refused(str(event["error"]), to)
            transfer.feed(event)
    held = registry.manifest(to)
    # With the containerd image store the engine's ID is the manifest's digest, otherwise its configuration's.
    if Digest(image.digest) not in (held.digest, held.config):
        raise DigestMismatch(
            f"the registry holds {held.digest}, which is not the image that was verified",
            where=str(to),
            remedy="somebody else may have pushed the same tag; push again, or choose another tag",
        )
    return Pushed(
        target=image.target,
        reference=str(to.with_digest(held.digest)),
        tag=str(to),
        digest=str(held.digest),
        bytes_uploaded=transfer.uploaded(_sizes(held, [layer.digest for layer in image.layers])),
        seconds=round(time.monotonic() - began, 2),
    )


def _sizes(held: registry.Manifest, diff_ids: list[str]) -> dict[str, int]:
    """Compressed bytes of each layer, by what the engine's events call it: blob, or in the older store diff ID."""
    by_blob = {_short(blob): size for blob, size in held.layers}
    by_diff_id = {_short(diff_id): size for diff_id, (_, size) in zip(diff_ids, held.layers, strict=False)}
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
