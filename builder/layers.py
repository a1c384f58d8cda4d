"""What is in a layer, and how it differs from another."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import zstandard


@dataclass(frozen=True)
class File:
    """What a layer's entry brings into the image.

    A layer's digest depends on more: on the order of the entries, on how tar and the compression write them.
    """

    kind: str
    mode: int
    owner: tuple[int, int, str, str]
    """User and group, by number and by name."""
    modified: float
    """Seconds since 1970."""
    link: str
    device: tuple[int, int]
    """Major and minor number."""
    attributes: tuple[tuple[str, str], ...]
    """Extended ones by name, such as security.capability."""
    sha256: str
    """Of its content; empty for what has none."""
    size: int


_KINDS = {
    tarfile.DIRTYPE: "folder",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.LNKTYPE: "hard link",
    tarfile.FIFOTYPE: "pipe",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
}
_ATTRIBUTE = "SCHILY.xattr."
"""What a PAX header's key begins with for an extended attribute:
https://github.com/opencontainers/image-spec/blob/main/layer.md#file-attributes."""


def files(blob: BinaryIO, media_type: str) -> dict[str, File]:
    """The entries of a layer by their paths from the root of the image.

    Args:
        blob: as registries have it.
        media_type: as `unpacked` takes it.
    """
    return files_and_contents(blob, media_type, lambda _: False)[0]


def files_and_contents(
    blob: BinaryIO, media_type: str, wanted: Callable[[str], bool]
) -> tuple[dict[str, File], dict[str, bytes]]:
    """As `files`, and the contents of those whose paths are `wanted`, in one reading."""
    found, contents = {}, {}
    with closing(unpacked(blob, media_type)) as content, tarfile.open(fileobj=content, mode="r|") as archive:
        for member in archive:
            path = _path(member.name)
            stream = archive.extractfile(member) if member.isreg() else None
            if stream and wanted(path):
                contents[path] = stream.read()
                stream = cast(Any, io.BytesIO(contents[path]))
            found[path] = File(
                kind=_KINDS.get(member.type, "file"),
                mode=member.mode,
                owner=(member.uid, member.gid, member.uname, member.gname),
                modified=member.mtime,
                link=member.linkname,
                device=(member.devmajor, member.devminor),
                attributes=_attributes(member),
                sha256=hashlib.file_digest(cast(Any, stream), "sha256").hexdigest() if stream else "",
                size=member.size,
            )
    return found, contents


def _path(name: str) -> str:
    """From the root of the image: layers have `./etc/`, `etc` and `/etc` for the same."""
    return str(PurePosixPath("/", name.lstrip("/")))


def _attributes(member: tarfile.TarInfo) -> tuple[tuple[str, str], ...]:
    of = {name: value for name, value in member.pax_headers.items() if name.startswith(_ATTRIBUTE)}
    return tuple(sorted((name.removeprefix(_ATTRIBUTE), value) for name, value in of.items()))


def unpacked(blob: BinaryIO, media_type: str) -> BinaryIO:
    """The tar file in a layer.

    Args:
        media_type: OCI's, or Docker's, such as application/vnd.docker.image.rootfs.diff.tar.zstd.
    """
    if media_type.endswith(("+zstd", ".zstd")):
        return cast(BinaryIO, zstandard.ZstdDecompressor().stream_reader(blob, read_across_frames=True))
    return cast(BinaryIO, gzip.GzipFile(fileobj=blob)) if media_type.endswith("gzip") else blob


def first_difference(one: Mapping[str, File], other: Mapping[str, File]) -> tuple[str, str]:
    """The first path, by name, that is not the same in both, and in what; empty where there is none."""
    for path in sorted({*one, *other}):
        mine, its = one.get(path), other.get(path)
        if mine == its:
            continue
        if mine is None or its is None:
            return path, "it is only in the image" if its is None else "it is only in the rebuilt one"
        return path, ", ".join(_differing(mine, its))
    return "", ""


def _differing(one: File, other: File) -> list[str]:
    return [f"{what}: {its}, rebuilt {ours}" for what, (its, ours) in differing(one, other).items()]


def differing(one: File, other: File) -> dict[str, tuple[Any, Any]]:
    """In what two entries of one path are not the same, with the value of each."""
    told: dict[str, tuple[Any, Any]] = {
        "content": (f"{one.size} bytes, {one.sha256[:12]}", f"{other.size} bytes, {other.sha256[:12]}"),
        "kind": (one.kind, other.kind),
        "mode": (f"{one.mode:o}", f"{other.mode:o}"),
        "owner": (one.owner, other.owner),
        "time": (one.modified, other.modified),
        "link": (one.link, other.link),
        "device": (one.device, other.device),
        "extended attributes": (dict(one.attributes), dict(other.attributes)),
    }
    return {what: values for what, values in told.items() if values[0] != values[1]}
