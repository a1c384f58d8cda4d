"""What is in a layer, and how it differs from another."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import zstandard


@dataclass(frozen=True)
class File:
    """All of a layer's entry that its digest depends on, but for its place among the others."""

    kind: str
    mode: int
    owner: tuple[int, int]
    modified: int
    """Seconds since 1970."""
    link: str
    sha256: str
    """Of its content; empty for what has none."""
    size: int


_KINDS = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "symbolic link", tarfile.LNKTYPE: "hard link"}


def files(blob: BinaryIO, media_type: str) -> dict[str, File]:
    """The entries of a layer by their paths from the root of the image.

    Args:
        blob: as registries have it.
        media_type: OCI's, which tells the compression.
    """
    found = {}
    with closing(_unpacked(blob, media_type)) as content, tarfile.open(fileobj=content, mode="r|") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isreg() else None
            found["/" + member.name.strip("./")] = File(
                kind=_KINDS.get(member.type, "file"),
                mode=member.mode,
                owner=(member.uid, member.gid),
                modified=int(member.mtime),
                link=member.linkname,
                sha256=hashlib.file_digest(cast(Any, stream), "sha256").hexdigest() if stream else "",
                size=member.size,
            )
    return found


def _unpacked(blob: BinaryIO, media_type: str) -> BinaryIO:
    if media_type.endswith("+zstd"):
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
    told = {
        "content": (f"{one.size} bytes, {one.sha256[:12]}", f"{other.size} bytes, {other.sha256[:12]}"),
        "kind": (one.kind, other.kind),
        "mode": (f"{one.mode:o}", f"{other.mode:o}"),
        "owner": (one.owner, other.owner),
        "time": (one.modified, other.modified),
        "link": (one.link, other.link),
    }
    return [f"{what}: {its}, rebuilt {ours}" for what, (its, ours) in told.items() if its != ours]
