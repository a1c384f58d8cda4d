"""What an engine holds on disk, counted so that what images share is counted once."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker.errors
import requests.exceptions

from builder.docker.engine import Engine, translated

_STAGE = re.compile(r"^FROM .* AS (\S+)$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class StoredImage:
    """An image of the engine."""

    id: str
    names: tuple[str, ...]
    """All that it is known by, tags and REPOSITORY@DIGEST; none for one that lost its name to a later image."""
    tags: tuple[str, ...]
    labels: Mapping[str, str]
    tagged: datetime | None
    """When it got its last name, or came; None where the engine does not tell."""
    layers: Mapping[str, int]
    """Bytes by chain ID, which two images have in common where they share a layer and all below it: unpacked, which
    the engine tells, and compressed, where its image store keeps that too, of which it tells the sum alone."""
    containers: tuple[str, ...] = ()
    """The names of those that were made of it, running or not."""
    created: datetime | None = None
    """When it was made; None where it tells another time on purpose, such as 1970."""

    @property
    def bytes(self) -> int:
        return sum(self.layers.values())


@dataclass(frozen=True)
class BuildCache:
    """BuildKit's cache in the engine. Its records tell the step that made them, not the project."""

    records: int
    bytes: int
    unused: int
    """Bytes of the records that nothing uses right now and no image shares."""
    ours: int
    """Bytes of those whose step is of a stage that the shipped Dockerfile has, too."""
    ages: tuple[tuple[datetime | None, int], ...] = field(default=(), compare=False, repr=False)
    """Of each record that a pruning may take: when it was last used, and its bytes."""

    def unused_since(self, since: datetime | None = None) -> int:
        """The bytes that `prune_cache` frees at most: a record that a younger one is made on stays with that.

        Args:
            since: what was used later stays; None: however late.
        """
        return sum(size for used, size in self.ages if since is None or used is None or used < since)


@dataclass(frozen=True)
class Storage:
    """All of it."""

    images: tuple[StoredImage, ...]
    cache: BuildCache
    layers_bytes: int
    """Of all unpacked layers, those of the build cache among them, each once."""


def read(engine: Engine, stages: Iterable[str] = ()) -> Storage:
    """What the engine holds.

    Args:
        stages: the names of the Dockerfile's stages.

    Raises:
        MachineError: it does not tell.
    """
    with translated("the engine's images"), _patient(engine):
        told = engine.client.df()
        containers: dict[str, list[str]] = {}
        for each in engine.client.api.containers(all=True):
            name = next(iter(each.get("Names") or ()), each["Id"][:12]).lstrip("/")
            containers.setdefault(each["ImageID"], []).append(name)
        sizes = {each["Id"]: each["Size"] for each in told.get("Images") or ()}
        listed = engine.client.api.images(all=True)
        images = [
            _image(engine, each["Id"], sizes.get(each["Id"], each["Size"]), containers.get(each["Id"], ()))
            for each in listed
        ]
    return Storage(
        tuple(each for each in images if each),
        _cache(told.get("BuildCache") or (), stages),
        int(told.get("LayersSize") or 0),
    )


def layers_bytes(engine: Engine) -> int:
    """As `Storage.layers_bytes`. Raises MachineError."""
    with translated("the engine's layers"), _patient(engine):
        return int(engine.client.df().get("LayersSize") or 0)


@contextlib.contextmanager
def _patient(engine: Engine) -> Iterator[None]:
    """Without the SDK's limit of 60 s: to count or to remove hundreds of gigabytes takes a slow disk longer."""
    api: Any = engine.client.api
    before, api.timeout = api.timeout, None
    try:
        yield
    finally:
        api.timeout = before


def _image(engine: Engine, image: str, whole: int, containers: Sequence[str]) -> StoredImage | None:
    """
    Args:
        whole: its bytes, unpacked and compressed.
    """
    api: Any = engine.client.api
    try:
        found = api.inspect_image(image)
        history = api.history(image) or ()
    except docker.errors.NotFound:
        return None  # somebody has removed it in the meantime
    tags = tuple(found.get("RepoTags") or ())
    return StoredImage(
        id=image,
        names=tuple(dict.fromkeys((*tags, *(found.get("RepoDigests") or ())))),
        tags=tags,
        labels=found["Config"].get("Labels") or {},
        tagged=moment((found.get("Metadata") or {}).get("LastTagTime", "")),
        layers=layers_of(found["RootFS"].get("Layers") or (), history, whole),
        containers=tuple(containers),
        created=moment(found.get("Created") or ""),
    )


def layers_of(diff_ids: Sequence[str], history: Iterable[Mapping[str, Any]], whole: int) -> dict[str, int]:
    """The bytes of an image's layers by chain ID.

    What the unpacked layers leave of `whole` is compressed; it is shared out in proportion.
    """
    sizes = [int(each["Size"]) for each in reversed(list(history)) if each["Size"]]
    # An empty layer has no bytes in some image stores: what cannot be told apart is shared out evenly.
    if len(sizes) != len(diff_ids):
        unpacked = sum(sizes)
        sizes = [unpacked // max(1, len(diff_ids))] * len(diff_ids)
    total = sum(sizes)
    rest = max(0, whole - total)
    return {
        chain: size + (rest * size // total if total else 0)
        for chain, size in zip(chain_ids(diff_ids), sizes, strict=True)
    }


def chain_ids(diff_ids: Iterable[str]) -> list[str]:
    """https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid."""
    chains: list[str] = []
    for each in diff_ids:
        below = f"{chains[-1]} {each}" if chains else ""
        chains.append(f"sha256:{hashlib.sha256(below.encode()).hexdigest()}" if below else each)
    return chains


def _cache(records: Iterable[Mapping[str, Any]], stages: Iterable[str]) -> BuildCache:
    found = list(records)
    begins = tuple(f"[{each} " for each in stages)
    return BuildCache(
        len(found),
        sum(each["Size"] for each in found if not each["Shared"]),
        sum(each["Size"] for each in found if not (each["Shared"] or each["InUse"])),
        sum(each["Size"] for each in found if not each["Shared"] and each["Description"].startswith(begins)),
        tuple(
            (moment(each.get("LastUsedAt") or each.get("CreatedAt") or ""), each["Size"])
            for each in found
            # Those types go with `docker builder prune --all` alone.
            if not (each["Shared"] or each["InUse"] or each.get("Type") in ("internal", "frontend"))
        ),
    )


def stages(dockerfile: Path) -> tuple[str, ...]:
    """The names of a Dockerfile's stages; none where it cannot be read."""
    try:
        return tuple(_STAGE.findall(dockerfile.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        return ()


def moment(text: str) -> datetime | None:
    """RFC 3339 with nanoseconds, as the engine writes it; None for none, for Go's zero time, and for 1970.

    BuildKit's SOURCE_DATE_EPOCH, which is 0 for bases, becomes the engine's time of an image, too.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return found if found.year > 1970 else None


def remove(engine: Engine, image: str, owned_still: Callable[[Sequence[str], Mapping[str, str]], bool]) -> str:
    """Removes an image by all its names; why not, or nothing where it is gone.

    Never by force, so that the engine itself keeps what a container uses by now.

    Args:
        image: its ID.
        owned_still: is asked once more, with the names and the labels that it has at this moment.
    """
    try:
        with _patient(engine):
            found = engine.find(image)
            if found is None:
                return ""
            tags = found.get("RepoTags") or ()
            if not owned_still(tags, found["Config"].get("Labels") or {}):
                return "it has another name by now"
            for name in tags or (image,):
                engine.client.api.remove_image(name, force=False)
    except docker.errors.NotFound:
        return ""
    except docker.errors.APIError as error:
        return str(error.explanation or error)
    except requests.exceptions.RequestException as error:
        return f"the engine stopped answering: {type(error).__name__}"
    return ""


def prune_cache(engine: Engine, unused_for: float) -> int:
    """Removes what of the build cache nobody has used for so many seconds, whoever made it; gives the bytes.

    Raises:
        MachineError: the engine refuses.
    """
    filters: Any = {"until": f"{int(unused_for)}s"} if unused_for else {}
    with translated("the engine's build cache"), _patient(engine):
        told: Any = engine.client.api.prune_builds(filters=filters)
        return int(told["SpaceReclaimed"] or 0)
