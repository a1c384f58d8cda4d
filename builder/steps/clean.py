"""`clean`: what this program holds on disk, and which of it may go.

Deciding is apart from doing: `plan` is given everything, and asks nobody.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from builder import bases, journal
from builder.artifacts import Image, Parts, Pushed
from builder.docker import storage
from builder.docker.engine import Engine
from builder.docker.owned import Owned, is_just_made, local_name, owned
from builder.docker.storage import StoredImage
from builder.errors import MachineError
from builder.journal import Entry
from builder.project import Project

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DEPLOYED = (".env", "docker-compose.yml", "compose.yaml")
"""Files beside builder.toml that name what is served."""
_SHARED = ("verified", "bases", "contexts", "uploads")
"""Folders of the state that belong to no target."""
_MADE_AGAIN = ("unpacked",)
_TRIALS = ("parts.trial", "oci.trial", "rebase")
_RUNNING = timedelta(hours=1)
"""What is younger may belong to a command that is running."""
_BUSY = "a command may be running that uses it"


class Group(StrEnum):
    """Things that are told of together."""

    IMAGES = "images of this project"
    OTHERS = "images of other projects"
    BASES = "embedded bases, toolchains, husks"
    TOOLS = "images of this program: Debian, registry"
    BUILDS = "layers and parts of the last builds"
    GONE = "builds of targets that are no more"
    UNPACKED = "images unpacked for smoke --local"
    TRIALS = "left by commands that were killed"
    RECORDS = "verifications, bases, uploads"
    HISTORY = "history"


_IMAGES = (Group.IMAGES, Group.OTHERS, Group.BASES, Group.TOOLS)
_BY_AGE = (Group.GONE, Group.RECORDS, Group.HISTORY)
"""Not as builds of a target: those of targets that builder.toml does not have may be another branch's, or of --set."""


@dataclass(frozen=True)
class Item:
    """Something on disk."""

    group: Group
    name: str
    key: str
    """An image's ID, or a path."""
    used: datetime | None
    """When it was last made, tagged or written to; None where nobody knows."""
    parts: Mapping[str, int]
    """Bytes by what they are of: what two items share is there once."""
    kept: str = ""
    """Why it stays whatever is asked for; empty for what may go."""
    rank: int | None = None
    """1 for a target's last build, or the newest base of its kind, 2 for the one before; None for what has no order."""
    wide: bool = False
    """Whether it goes with --all alone: it is no part of this project."""

    @property
    def bytes(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Rules:
    """What is asked for; what goes, fulfils all of it."""

    older_than: timedelta | None = None
    to: int | None = None
    """Bytes that may be left; the oldest goes first."""
    keep: int | None = None
    """So many last builds of each target stay."""
    all: bool = False

    @property
    def frees(self) -> bool:
        """Whether anything is to go at all."""
        return any(each is not None for each in (self.older_than, self.to, self.keep))


BY: Mapping[Group, tuple[str, Rules]] = {
    Group.IMAGES: ("clean --keep 1", Rules(keep=1)),
    Group.OTHERS: ("clean --all --keep 1", Rules(keep=1, all=True)),
    Group.BASES: ("clean --keep 1", Rules(keep=1)),
    Group.TOOLS: ("clean --all --older-than 30d", Rules(older_than=timedelta(days=30), all=True)),
    Group.BUILDS: ("", Rules()),
    Group.GONE: ("clean --older-than 30d", Rules(older_than=timedelta(days=30))),
    Group.UNPACKED: ("clean --keep 1", Rules(keep=1)),
    Group.TRIALS: ("clean --keep 1", Rules(keep=1)),
    Group.RECORDS: ("clean --older-than 30d", Rules(older_than=timedelta(days=30))),
    Group.HISTORY: ("clean --older-than 30d", Rules(older_than=timedelta(days=30))),
}
"""The line that frees most of a group, and nothing that a next command misses."""


@dataclass(frozen=True)
class Plan:
    """What goes, what stays and why, in the order in which it would go."""

    goes: tuple[Item, ...]
    stays: tuple[tuple[Item, str], ...]
    holds: int
    """Bytes of all items that are asked about: without --all those of other projects do not count."""
    frees: int
    """Bytes that nothing else needs once these are gone."""


def plan(items: Sequence[Item], rules: Rules, now: datetime, pinned: Collection[str] = ()) -> Plan:
    """Decides what goes.

    Args:
        pinned: the parts that others need, too.
    """
    oldest_first = sorted(items, key=lambda each: (each.used is None, each.used or now, each.key))
    users = Counter(part for each in items for part in each.parts)
    goes: list[Item] = []
    stays: list[tuple[Item, str]] = []
    holds, freed = _union([each for each in items if rules.all or not each.wide]), 0
    for each in oldest_first:
        why = stays_by(each, rules, now)
        if not why and rules.to is not None and holds - freed <= rules.to:
            why = "there is room enough"
        if why:
            stays.append((each, why))
            continue
        goes.append(each)
        for part, size in each.parts.items():
            users[part] -= 1
            if not users[part] and part not in pinned:
                freed += size
    return Plan(tuple(goes), tuple(stays), holds, freed)


def stays_by(item: Item, rules: Rules, now: datetime) -> str:
    """Why an item stays, however little room there is; empty if it need not."""
    if item.kept:
        return item.kept
    if item.wide and not rules.all:
        return "not of this project: --all"
    if not rules.frees:
        return "nothing asks for its room"
    if rules.keep is not None and item.rank is not None and item.rank <= rules.keep:
        return f"among the last {rules.keep} of its kind"
    if rules.older_than is None and rules.to is None:
        if item.group in _BY_AGE:
            return "goes by its age"
        if item.group in _IMAGES and item.rank is None:
            return "nobody knows its place among the builds: goes by its age"
    if rules.older_than is not None:
        if item.used is None:
            return "nobody knows how old it is"
        if now - item.used <= rules.older_than:
            return "younger"
    return ""


def could_go(items: Sequence[Item], group: Group, now: datetime, pinned: Collection[str] = ()) -> int:
    """The bytes that a group's line in `BY` frees of it."""
    goes = [each for each in plan(items, BY[group][1], now, pinned).goes if each.group == group]
    rest = {part for each in items if each not in goes for part in each.parts} | set(pinned)
    return _union(goes, rest)


def _union(items: Iterable[Item], without: Collection[str] = ()) -> int:
    parts: dict[str, int] = {}
    for each in items:
        parts.update(each.parts)
    return sum(size for part, size in parts.items() if part not in without)


# What there is.


@dataclass(frozen=True)
class Home:
    """A project on this machine, as far as its folder tells."""

    repository: str
    targets: frozenset[str]
    deployed: frozenset[str]
    """Digests that its .env, its compose file or its last pushes name."""
    built: Mapping[str, str]
    """What digests are for: the last builds and their bases."""


@dataclass(frozen=True)
class Found:
    """All that there is."""

    items: tuple[Item, ...]
    pinned: frozenset[str] = field(repr=False, default=frozenset())
    """The layers of images that are not this program's."""
    cache: storage.BuildCache | None = None
    """None where no engine answers."""
    layers_bytes: int = 0


def look(project: Project | None, engine: Engine | None, stages: Iterable[str], now: datetime) -> Found:
    """Everything of this program's on this machine.

    Args:
        stages: those of the Dockerfile.

    Raises:
        MachineError: the engine does not tell.
    """
    entries = list(journal.entries())
    homes = _homes(project, entries)
    files = [*of_history(entries, project), *(of_state(project, now) if project else ())]
    if engine is None:
        return Found(tuple(files))
    held = storage.read(engine, stages)
    images = of_images(held.images, project, homes, entries, now)
    own = {each.key for each in images}
    pinned = {chain for each in held.images if each.id not in own for chain in each.layers}
    return Found((*images, *files), frozenset(pinned), held.cache, held.layers_bytes)


def _homes(project: Project | None, entries: Iterable[Entry]) -> list[Home]:
    """This project, and all others that built something here and are still there."""
    found: dict[Path, Project] = {project.root: project} if project else {}
    for each in entries:
        root = Path(each.project)
        if root not in found and root.is_dir():
            values = {"root": root, "repository": each.repository, "targets": {each.target: {}}}
            with contextlib.suppress(ValueError):
                found[root] = Project.model_validate(values)
    return [
        # Of another one's builder.toml nothing is known; of this one's, what is no target of it any more may go.
        _home(each, set(each.targets) | (set() if each is project else _built(each)))
        for each in found.values()
    ]


def _built(project: Project) -> set[str]:
    return {path.parent.name for path in project.state.glob("*/image.json")}


def _home(project: Project, targets: Collection[str]) -> Home:
    deployed = {digest for name in _DEPLOYED for digest in _DIGEST.findall(_text(project.root / name))}
    built: dict[str, str] = {}
    for target in sorted(targets):
        if pushed := Pushed.find(project, target):
            deployed.add(pushed.digest)
        for record in (Parts.find(project, target), Image.find(project, target)):
            if record and record.base_digest:
                built[record.base_digest] = f"the base of target {target}"
            if isinstance(record, Image):
                built[record.digest] = f"the last build of target {target}"
    return Home(project.repository, frozenset(targets), frozenset(deployed), built)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def of_images(
    images: Sequence[StoredImage],
    project: Project | None,
    homes: Sequence[Home],
    entries: Sequence[Entry],
    now: datetime,
) -> list[Item]:
    """Those of the engine's images that this program made.

    Args:
        entries: the newest first.
    """
    ranks, last_used, bases_of = _ranks(entries), _last_used(entries), _bases(entries)
    gone = {each.repository for each in entries} - {each.repository for each in homes}
    found: list[tuple[Item, StoredImage]] = []
    for each in images:
        its = owned(each.names, each.labels)
        if its is None and not each.names and each.id in bases_of:
            its = Owned("", "")  # an embedded base whose name a later one took
        if its is None:
            continue
        here = project is not None and (its.repository == project.repository or _is_of(project, each.id, entries))
        group = Group.IMAGES if here else Group.OTHERS
        if not its.repository:
            group = Group.TOOLS if its.tool else Group.BASES
        moments = [moment for moment in (each.tagged, last_used.get(each.id)) if moment]
        item = Item(
            group,
            next(iter(each.tags or each.names), "") or _once(each, its),
            each.id,
            max(moments, default=None),
            each.layers,
            _why_kept(each, its, homes, gone) or (_BUSY if _is_of_running(each, now) else ""),
            ranks.get(each.id),
            wide=group in (Group.OTHERS, Group.TOOLS),
        )
        found.append((item, each))
    return _ranked(_with_bases(found))


def _ranked(items: Iterable[Item]) -> list[Item]:
    """The items, with the ranks of bases among those of their kind, of which the newest may be the next build's."""
    ranked = []
    count: Counter[str] = Counter()
    for each in sorted(items, key=lambda item: item.used.timestamp() if item.used else 0.0, reverse=True):
        kind = each.name.partition(":")[0]
        count[kind] += each.group == Group.BASES
        ranked.append(replace(each, rank=count[kind]) if each.group == Group.BASES else each)
    return ranked


def _is_of(project: Project, digest: str, entries: Iterable[Entry]) -> bool:
    return any(each.digest == digest and each.project == str(project.root) for each in entries)


def _once(image: StoredImage, its: Owned) -> str:
    """For one that lost its name."""
    return f"{local_name(its.repository, its.target) if its.repository else 'a base'}, once: {image.id[7:19]}"


def _is_of_running(image: StoredImage, now: datetime) -> bool:
    moments = [moment for moment in (image.tagged, image.created) if moment]
    return bool(moments) and now - max(moments) < _RUNNING and is_just_made(image.names)


def _why_kept(image: StoredImage, its: Owned, homes: Sequence[Home], gone: Collection[str]) -> str:
    """
    Args:
        gone: the repositories of projects whose folders were here once.
    """
    if image.containers:
        return f"the container {image.containers[0]} is made of it"
    if its.foreign:
        return f"it is also {its.foreign[0]}"
    # Docker's older image store has a configuration's digest for an ID; registries, and what deploys, the manifest's.
    digests = {image.id, *(name.partition("@")[2] for name in image.names if "@" in name)}
    for home in homes:
        if digests & home.deployed:
            return f"{home.repository} deploys it"
        if built := next((home.built[each] for each in sorted(digests) if each in home.built), ""):
            return built + ("" if home.repository == its.repository else f" of {home.repository}")
    known = {home.repository: home.targets for home in homes}
    # A project that built nothing here may be elsewhere; of one whose folder is gone there will be no other build.
    targets = known.get(its.repository, frozenset() if its.repository in gone else frozenset([its.target]))
    # The name moves on with each build.
    if its.target in targets and local_name(its.repository, its.target) in image.tags:
        return f"the last build of target {its.target}"
    return ""


def _with_bases(found: Sequence[tuple[Item, StoredImage]]) -> list[Item]:
    """The items; bases were used when what lies on them was, and stay with it, as nothing would get free."""
    items = []
    for item, image in found:
        top = next(iter(list(image.layers)[-1:]), "")
        above = [other for other, its in found if its is not image and top in its.layers]
        if top and item.group in (Group.BASES, Group.TOOLS):
            kept = next((each for each in above if each.kept), None)
            moments = [each.used for each in (item, *above) if each.used]
            why = item.kept or (f"the base of {kept.name}" if kept else "")
            item = replace(item, kept=why, used=max(moments, default=None))
        items.append(item)
    return items


def _ranks(entries: Iterable[Entry]) -> dict[str, int]:
    """How many images of its target are newer, itself counted, by digest; the best where several builds gave it."""
    seen: dict[tuple[str, str], list[str]] = {}
    ranks: dict[str, int] = {}
    for each in entries:
        of_target = seen.setdefault((each.project, each.target), [])
        if each.digest and each.digest not in of_target:
            of_target.append(each.digest)
            ranks[each.digest] = min(len(of_target), ranks.get(each.digest, len(of_target)))
    return ranks


def _last_used(entries: Iterable[Entry]) -> dict[str, datetime]:
    """When an image was last built, or built on, by digest."""
    found: dict[str, datetime] = {}
    for each in entries:
        when = storage.moment(each.when)
        for digest in (each.digest, each.base_digest):
            if when and digest:
                found[digest] = max(when, found.get(digest, when))
    return found


def _bases(entries: Iterable[Entry]) -> set[str]:
    return {each.base_digest for each in entries if each.base.startswith(bases.OURS)}


def of_state(project: Project, now: datetime) -> Iterator[Item]:
    """What is below .builder."""
    state = project.state
    home = _home(project, project.targets)
    needed = {digest.removeprefix("sha256:") for digest in (*home.deployed, *home.built)}
    for name in _SHARED:
        for path in sorted(state.glob(f"{name}/*")):
            digest = path.name.partition("-")[0].partition(".")[0]
            kept = "of an image that is kept" if digest in needed else ""
            yield _of_path(Group.RECORDS, path, f"{name}/{path.name}", kept)
    for folder in sorted(each for each in state.glob("*/") if each.name not in _SHARED):
        if not any((folder / name).exists() for name in ("parts.json", "image.json", *_MADE_AGAIN, *_TRIALS)):
            continue  # not a target's: another command's, which knows when it may go
        if folder.name not in project.targets and folder.name != "any":
            item = _of_path(Group.GONE, folder, folder.name)
            yield replace(item, kept=_BUSY if _is_young(item, now) else "")
            continue
        for path in sorted(folder.iterdir()):
            item = _of_path(Group.BUILDS, path, f"{folder.name}/{path.name}", f"of the last build of {folder.name}")
            if path.name in _MADE_AGAIN:
                item = replace(item, group=Group.UNPACKED, kept=_BUSY if _is_young(item, now) else "")
            elif path.name in _TRIALS:
                item = replace(item, group=Group.TRIALS, kept=_BUSY if _is_young(item, now) else "")
            yield item


def _is_young(item: Item, now: datetime) -> bool:
    return item.used is not None and now - item.used < _RUNNING


def of_history(entries: Sequence[Entry], project: Project | None) -> Iterator[Item]:
    """The builds' records, the newest first."""
    count: Counter[tuple[str, str]] = Counter()
    for each in entries:
        count[each.project, each.target] += 1
        rank = count[each.project, each.target]
        path = journal.folder() / f"{each.id}.json"
        yield Item(
            Group.HISTORY,
            each.id,
            str(path),
            storage.moment(each.when),
            {str(path): _bytes(path)},
            f"the last build of target {each.target}" if rank == 1 and Path(each.project).is_dir() else "",
            rank,
            wide=project is None or each.project != str(project.root),
        )


def _of_path(group: Group, path: Path, name: str, kept: str = "") -> Item:
    return Item(group, name, str(path), _written(path), {str(path): _bytes(path)}, kept)


def _written(path: Path) -> datetime | None:
    """Of a folder, when the newest of itself and what is right in it was."""
    try:
        inside = path.iterdir() if path.is_dir() and not path.is_symlink() else ()
        newest = max(each.lstat().st_mtime for each in (path, *inside))
        return datetime.fromtimestamp(newest, UTC)
    except OSError:
        return None


def _bytes(path: Path) -> int:
    """On disk, as `du` counts them; what cannot be read counts for nothing."""
    files = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    total, seen = 0, set()
    for each in files:
        with contextlib.suppress(OSError):
            found = each.lstat()
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total


# The doing.


@dataclass(frozen=True)
class Removed:
    """What became of a plan."""

    items: tuple[Item, ...]
    left: tuple[tuple[Item, str], ...]
    """With what stood in the way."""
    freed: int
    """Bytes: of files as they were counted, of unpacked layers as the engine counts them before and after."""


def carry_out(planned: Plan, engine: Engine | None, layers_before: int) -> Removed:
    """Removes what the plan says, one by one; what cannot be removed is left, and told.

    Args:
        layers_before: the engine's unpacked layers, in bytes.
    """
    gone: list[Item] = []
    left: list[tuple[Item, str]] = []
    images = {each.key: each for each in planned.goes if each.key.startswith("sha256:")}
    for each in planned.goes:
        if each.key in images:
            assert engine is not None
            why = _remove_image(engine, each)
        else:
            why = _remove_path(Path(each.key))
        if why:
            left.append((each, why))
        else:
            gone.append(each)
    freed = sum(each.bytes for each in gone if each.key not in images)
    if images and engine:
        with contextlib.suppress(MachineError):  # what is gone is told even by an engine that stopped counting
            freed += max(0, layers_before - storage.layers_bytes(engine))
    return Removed(tuple(gone), tuple(left), freed)


def _remove_image(engine: Engine, item: Item) -> str:
    try:
        return storage.remove(engine, item.key, owned_still=lambda names, labels: _is_unnamed_or_own(names, labels))
    except MachineError as error:
        return error.what


def _is_unnamed_or_own(names: Sequence[str], labels: Mapping[str, str]) -> bool:
    its = owned(names, labels)
    return not names or (its is not None and not its.foreign)


def _remove_path(path: Path) -> str:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        return str(error.strerror)
    return ""


def document(found: Found, planned: Plan, removed: Removed | None, now: datetime) -> dict[str, Any]:
    """For `clean --json`."""
    cache = found.cache
    return {
        "holds": planned.holds,
        "groups": [
            {
                "what": str(group),
                "count": sum(each.group == group for each in found.items),
                "bytes": _union([each for each in found.items if each.group == group]),
                "could_go": could_go(found.items, group, now, found.pinned),
                "by": BY[group][0],
            }
            for group in Group
        ],
        "build_cache": {name: value for name, value in vars(cache).items() if name != "ages"} if cache else None,
        "frees": planned.frees,
        "goes": [_told(each) for each in planned.goes],
        "stays": [{**_told(each), "why": why} for each, why in planned.stays],
        "removed": [each.key for each in removed.items] if removed else [],
        "left": [{"key": each.key, "why": why} for each, why in removed.left] if removed else [],
        "freed": removed.freed if removed else 0,
    }


def _told(item: Item) -> dict[str, Any]:
    return {
        "group": str(item.group),
        "name": item.name,
        "key": item.key,
        "bytes": item.bytes,
        "used": item.used.isoformat() if item.used else None,
    }


def bytes_of(items: Iterable[Item], group: Group) -> int:
    """What a group holds, shared parts counted once."""
    return _union([each for each in items if each.group == group])
