"""`diff`: two images held against each other. Of their layers only those are read that one of them alone has."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, unified_diff
from pathlib import Path, PurePosixPath
from typing import Any

from builder import layers, pbtxt
from builder.docker.found import FoundImage, Layer
from builder.errors import CheckFailed
from builder.layers import File
from builder.project import MODELS
from builder.recipe import OCI, OURS
from builder.record import LABEL, Record
from builder.views import pipeline

_FOLDERS = 20
"""So many lines at most tell where the bases' files differ, unless there are more at the top."""
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_SETTINGS = ("User", "WorkingDir", "Entrypoint", "Cmd", "ExposedPorts", "Volumes", "StopSignal", "Healthcheck", "Shell")


@dataclass(frozen=True)
class LayerLine:
    """A layer in one of the images, or in both."""

    status: str
    """`same`, `added` or `removed`."""
    layer: Layer


@dataclass(frozen=True)
class FileLine:
    """A file that layers of the two images bring in, but not the same."""

    path: str
    status: str
    """`added`, `removed` or `changed`."""
    of_base: bool
    before: File | None
    after: File | None

    @property
    def what(self) -> dict[str, tuple[Any, Any]]:
        """In what it changed."""
        return layers.differing(self.before, self.after) if self.before and self.after else {}

    @property
    def bytes(self) -> int:
        """By how much it grew, or shrank."""
        return (self.after.size if self.after else 0) - (self.before.size if self.before else 0)


@dataclass(frozen=True)
class Change:
    """A value that is not the same in both; None: it is not there."""

    kind: str
    what: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class ModelChange:
    """A configuration or a pipeline that differs."""

    path: str
    lines: tuple[str, ...]
    """A unified diff of what is in it; empty where it means the same, and is only written otherwise."""


@dataclass(frozen=True)
class Folder:
    """Files that differ below a folder, by their number."""

    path: str
    added: int
    removed: int
    changed: int
    bytes: int
    """By how much they grew, all together."""


@dataclass(frozen=True)
class Difference:
    """Two images, held against each other."""

    before: FoundImage
    after: FoundImage
    layers: tuple[LayerLine, ...]
    files: tuple[FileLine, ...]
    changes: tuple[Change, ...]
    models: tuple[ModelChange, ...]

    @property
    def identical(self) -> bool:
        return self.before.digest == self.after.digest

    def document(self, *, all_files: bool) -> dict[str, Any]:
        """For `diff --json`.

        Args:
            all_files: whether each file of the bases is wanted, or only the folders.
        """
        listed = [each for each in self.files if all_files or not each.of_base]
        return {
            "identical": self.identical,
            "a": _side(self.before),
            "b": _side(self.after),
            "layers": [
                {
                    "status": each.status,
                    "diff_id": each.layer.diff_id,
                    "digest": each.layer.descriptor["digest"],
                    "bytes": each.layer.bytes,
                    "base": each.layer.of_base,
                    "made_by": each.layer.what,
                }
                for each in self.layers
            ],
            "files": [
                {
                    "path": each.path,
                    "status": each.status,
                    "base": each.of_base,
                    "a": _file(each.before),
                    "b": _file(each.after),
                    "differs_in": list(each.what),
                }
                for each in listed
            ],
            "base_folders": [vars(each) for each in folders(self.files)],
            "changes": [
                {"kind": each.kind, "what": each.what, "a": each.before, "b": each.after} for each in self.changes
            ],
            "models": [{"path": each.path, "diff": list(each.lines)} for each in self.models],
        }


def _side(side: FoundImage) -> dict[str, Any]:
    return {"name": side.name, "digest": side.digest, "bytes": side.bytes}


def _file(found: File | None) -> dict[str, Any] | None:
    if found is None:
        return None
    uid, gid, *_ = found.owner
    return {
        "kind": found.kind,
        "bytes": found.size,
        "mode": f"{found.mode:04o}",
        "owner": f"{uid}:{gid}",
        "sha256": found.sha256 or None,
        "link": found.link or None,
    }


def compare(before: FoundImage, after: FoundImage, reading: Callable[[int, int], None] = lambda *_: None) -> Difference:
    """Holds two images against each other.

    Args:
        reading: is told how many layers will be read, and their compressed bytes; once more where those that both
            have must be read, too.

    Raises:
        MachineError, PushError: a layer that differs cannot be read.
    """
    aligned = align(before.layers, after.layers)
    removed = [each.layer for each in aligned if each.status == "removed"]
    added = [each.layer for each in aligned if each.status == "added"]
    reading(len(removed) + len(added), sum(each.bytes for each in (*removed, *added)))
    read = {**_read(before, removed), **_read(after, added)}
    if any(map(_is_whiteout, (path for entries, _ in read.values() for path in entries))):
        # What is removed of the layers that both have, only these tell; own layers of a build remove nothing.
        same = [each.layer for each in aligned if each.status == "same"]
        reading(len(same), sum(each.bytes for each in same))
        read |= _read(after, same)
    one, its = _over_one_another(_of(before, read))
    other, theirs = _over_one_another(_of(after, read))
    return Difference(
        before,
        after,
        aligned,
        compare_files(one, other),
        (*versions(before, after), *settings(before.config, after.config)),
        compare_models(its, theirs),
    )


def align(before: Sequence[Layer], after: Sequence[Layer]) -> tuple[LayerLine, ...]:
    """Both images' layers, from the base upwards, those that are the same once."""
    lines: list[LayerLine] = []
    matcher = SequenceMatcher(None, [each.diff_id for each in before], [each.diff_id for each in after], autojunk=False)
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag == "equal":
            lines += [LayerLine("same", each) for each in after[k:m]]
            continue
        lines += [LayerLine("removed", each) for each in before[i:j]]
        lines += [LayerLine("added", each) for each in after[k:m]]
    return tuple(lines)


Entries = Mapping[str, tuple[File, bool]]
"""Files by their paths, with whether a layer of the base has them."""
Content = tuple[Mapping[str, File], Mapping[str, bytes]]
"""A layer's entries, and the contents of models' files."""


def _read(side: FoundImage, chosen: Sequence[Layer]) -> dict[str, Content]:
    """What is in the layers, by diff ID."""
    read: dict[str, Content] = {}
    # In the order of their digests, in which an engine sends them.
    for each in sorted(chosen, key=lambda layer: str(layer.descriptor["digest"])):
        with side.open(each.descriptor) as blob:
            read[each.diff_id] = layers.files_and_contents(blob, each.descriptor["mediaType"], _is_of_model)
    return read


def _of(side: FoundImage, read: Mapping[str, Content]) -> list[tuple[Layer, Content]]:
    """Those of an image's layers that were read, from the lowest upwards."""
    return [(each, read[each.diff_id]) for each in side.layers if each.diff_id in read]


def _over_one_another(layers_read: Sequence[tuple[Layer, Content]]) -> tuple[Entries, dict[str, bytes]]:
    """What the layers bring, the upper ones over the lower ones; and the contents of models' files.

    Whiteouts remove what layers below bring, and never what is in their own:
    https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts.
    """
    found: dict[str, tuple[File, bool]] = {}
    contents: dict[str, bytes] = {}
    for layer, (entries, texts) in layers_read:
        for path in _removed(filter(_is_whiteout, entries), found):
            del found[path]
            contents.pop(path, None)
        found.update({path: (entry, layer.of_base) for path, entry in entries.items() if not _is_whiteout(path)})
        contents.update({path: text for path, text in texts.items() if not _is_whiteout(path)})
    return found, contents


def _is_whiteout(path: str) -> bool:
    return path.rpartition("/")[2].startswith(_WHITEOUT)


def _removed(whiteouts: Iterable[str], below: Iterable[str]) -> list[str]:
    """Which of the paths that layers below bring a layer's whiteouts remove."""
    removed, emptied = set(), set()
    for each in map(PurePosixPath, whiteouts):
        if each.name == _OPAQUE:
            emptied.add(each.parent)
        elif not each.name.startswith(2 * _WHITEOUT):  # AUFS's own notes
            removed.add(each.with_name(each.name.removeprefix(_WHITEOUT)))
    if not (removed or emptied):
        return []
    roots = removed | emptied
    return [each for each in below if PurePosixPath(each) in removed or roots.intersection(PurePosixPath(each).parents)]


def _is_of_model(path: str) -> bool:
    return path.startswith(f"{MODELS}/") and PurePosixPath(path).name in (pbtxt.FILE_NAME, "model.dali")


def compare_files(before: Entries, after: Entries) -> tuple[FileLine, ...]:
    """By path, those that are not the same."""
    lines = []
    for path in sorted({*before, *after}):
        one, of_base = before.get(path, (None, True))
        other, of_base_too = after.get(path, (None, True))
        if one == other:
            continue
        status = "added" if one is None else "removed" if other is None else "changed"
        lines.append(FileLine(path, status, of_base and of_base_too, one, other))
    return tuple(lines)


def folders(files: Iterable[FileLine]) -> tuple[Folder, ...]:
    """The bases' files, counted by folders as far down as a screen has room for."""
    of_base = [each for each in files if each.of_base]
    deepest = max((len(PurePosixPath(each.path).parts) for each in of_base), default=0)
    counted: tuple[Folder, ...] = ()
    for depth in range(2, deepest + 1):
        deeper = _counted(of_base, depth)
        if counted and len(deeper) > _FOLDERS:
            break
        counted = deeper
    return counted


def _counted(files: Iterable[FileLine], depth: int) -> tuple[Folder, ...]:
    """By the first `depth` parts of the folders' paths, of which `/` is one."""
    found: dict[str, list[FileLine]] = defaultdict(list)
    for each in files:
        found[str(PurePosixPath(*PurePosixPath(each.path).parent.parts[:depth]))].append(each)

    def count(lines: list[FileLine], status: str) -> int:
        return sum(each.status == status for each in lines)

    return tuple(
        Folder(
            path,
            count(lines, "added"),
            count(lines, "removed"),
            count(lines, "changed"),
            sum(each.bytes for each in lines),
        )
        for path, lines in sorted(found.items())
    )


def versions(before: FoundImage, after: FoundImage) -> tuple[Change, ...]:
    """What the images' labels and records tell of what they were made from."""
    one, other = before.record, after.record
    changes = [
        *_changes("version", _versions(before.labels, one), _versions(after.labels, other)),
        *_changes("source", *_sources(before, after)),
    ]
    if one and other:
        for kind, its, theirs in (
            ("wheel", one.lock.wheels, other.lock.wheels),
            ("package", one.lock.debian, other.lock.debian),
        ):
            changes += _changes(kind, its, theirs)
    return tuple(changes)


def _sources(before: FoundImage, after: FoundImage) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """By file where both were built on this machine, by folder otherwise."""
    if before.entry and after.entry and before.entry.sources and after.entry.sources:
        return before.entry.sources, after.entry.sources
    one, other = before.record, after.record
    return one.sources if one else {}, other.sources if other else {}


def _versions(labels: Mapping[str, str], record: Record | None) -> dict[str, str]:
    found = {
        "triton": labels.get(f"{OURS}triton.version", ""),
        "dali": labels.get(f"{OURS}dali.version", ""),
        "commit": labels.get(f"{OCI}revision", ""),
        "target": labels.get(f"{OURS}target", ""),
    }
    for each in labels.get(f"{OURS}plugins", "").split():
        path, _, digest = each.partition("@")
        found[f"plugin {path}"] = digest
    if record:
        found |= {"builder": record.builder, "builder's files": record.program}
        for name, image in (("base", record.lock.triton_image), ("debian", record.lock.debian_image)):
            found[name] = f"{image.name}@{image.digest}" if image else ""
    return {name: value for name, value in found.items() if value}


def settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """What the two configurations, OCI's, tell containers and people; labels of which `versions` tells are left out."""
    return tuple(
        change
        for kind, pick in (("config", _config), ("env", _environment), ("label", _labels))
        for change in _changes(kind, pick(before), pick(after))
    )


def _config(config: Mapping[str, Any]) -> dict[str, str]:
    inner = config.get("config") or {}
    found = {name: inner[name] for name in _SETTINGS if inner.get(name)}
    found |= {name: config[name] for name in ("architecture", "os", "variant") if config.get(name)}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}


def _environment(config: Mapping[str, Any]) -> dict[str, str]:
    pairs = (each.partition("=") for each in (config.get("config") or {}).get("Env") or ())
    return {name: value for name, _, value in pairs}


def _labels(config: Mapping[str, Any]) -> dict[str, str]:
    labels = (config.get("config") or {}).get("Labels") or {}
    told = {f"{OURS}{name}" for name in ("triton.version", "dali.version", "target", "plugins")}
    return {name: value for name, value in labels.items() if name not in {LABEL, f"{OCI}revision", *told}}


def _changes(kind: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    return [
        Change(kind, name, before.get(name), after.get(name))
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    ]


def compare_models(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> tuple[ModelChange, ...]:
    """Configurations and pipelines that both have and that are not the same bytes; by what is in them."""
    return tuple(
        ModelChange(path, tuple(_difference(path, before[path], after[path])))
        for path in sorted({*before} & {*after})
        if before[path] != after[path]
    )


def _difference(path: str, before: bytes, after: bytes) -> Iterator[str]:
    as_text = _as_configuration if PurePosixPath(path).name == pbtxt.FILE_NAME else pipeline.lines
    try:
        one, other = as_text(before), as_text(after)
    except (CheckFailed, ValueError):  # not what its name says: as it is written, where it is a text at all
        one, other = (each.decode(errors="replace").splitlines() for each in (before, after))
    return unified_diff(one, other, f"a{path}", f"b{path}", lineterm="")


def _as_configuration(content: bytes) -> list[str]:
    """As Triton reads it: without comments, every field in one order and one form. Raises CheckFailed."""
    from google.protobuf import text_format

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, pbtxt.FILE_NAME)
        path.write_bytes(content)
        return str(text_format.MessageToString(pbtxt.read(path).message)).splitlines()
