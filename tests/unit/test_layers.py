from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import zstandard

from builder.layers import File, files, first_difference

TAR = "application/vnd.oci.image.layer.v1.tar"


def layer(*entries: tuple[str, dict[str, Any]], content: bytes = b"x") -> bytes:
    """A tar file with entries of these names; files, unless they say what else, with `content`."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, fields in entries:
            member = tarfile.TarInfo(name)
            for field, value in fields.items():
                setattr(member, field, value)
            if member.isreg():
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


def read(blob: bytes, media_type: str = TAR) -> dict[str, File]:
    return files(io.BytesIO(blob), media_type)


def zstd_frames(content: bytes) -> bytes:
    """As BuildKit may write them: several, one after the other."""
    return b"".join(zstandard.compress(part) for part in (content[:700], content[700:]))


@pytest.mark.parametrize(
    ("media_type", "compress"),
    [
        (TAR, bytes),
        (f"{TAR}+gzip", gzip.compress),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip.compress),
        (f"{TAR}+zstd", zstd_frames),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", zstd_frames),
    ],
)
def test_a_layer_is_read_however_it_is_compressed(media_type: str, compress: Callable[[bytes], bytes]) -> None:
    fields = {"mode": 0o4755, "uid": 1000, "gid": 50, "uname": "me", "gname": "staff", "mtime": 1.5}
    fields["pax_headers"] = {"SCHILY.xattr.user.b": "2", "SCHILY.xattr.user.a": "1", "comment": "not of the file"}
    blob = layer(("opt", {"type": tarfile.DIRTYPE}), ("opt/a", fields), content=b"hello")
    found = read(compress(blob), media_type)
    assert list(found) == ["/opt", "/opt/a"]
    assert found["/opt"].kind == "folder"
    assert found["/opt/a"] == File(
        kind="file",
        mode=0o4755,
        owner=(1000, 50, "me", "staff"),
        modified=1.5,
        link="",
        device=(0, 0),
        attributes=(("user.a", "1"), ("user.b", "2")),
        sha256=hashlib.sha256(b"hello").hexdigest(),
        size=5,
    )


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("symbolic link", {"type": tarfile.SYMTYPE, "linkname": "a/b"}),
        ("hard link", {"type": tarfile.LNKTYPE, "linkname": "a/b"}),
        ("character device", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
        ("block device", {"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 0}),
        ("pipe", {"type": tarfile.FIFOTYPE}),
    ],
)
def test_what_has_no_content_is_told_apart(kind: str, fields: dict[str, Any]) -> None:
    found = read(layer(("x", fields)))["/x"]
    assert (found.kind, found.sha256, found.size) == (kind, "", 0)
    assert found.link == fields.get("linkname", "")
    assert found.device == (fields.get("devmajor", 0), fields.get("devminor", 0))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("./etc/passwd", "/etc/passwd"),
        ("/etc/passwd", "/etc/passwd"),
        ("etc/passwd", "/etc/passwd"),
        ("home/", "/home"),
        ("./", "/"),
        (".hidden", "/.hidden"),
        ("./.hidden", "/.hidden"),
        ("hidden.", "/hidden."),
        ("..data", "/..data"),
    ],
)
def test_an_entry_is_known_by_its_path_from_the_root(name: str, path: str) -> None:
    assert list(read(layer((name, {})))) == [path]


def test_a_hidden_file_is_not_the_one_without_the_dot() -> None:
    assert set(read(layer((".hidden", {}), ("hidden", {})))) == {"/.hidden", "/hidden"}


ONE = File(
    kind="file",
    mode=0o644,
    owner=(0, 0, "root", "root"),
    modified=1,
    link="",
    device=(0, 0),
    attributes=(),
    sha256="a" * 64,
    size=5,
)


def test_equal_layers_have_no_difference() -> None:
    assert first_difference({"/a": ONE}, {"/a": replace(ONE)}) == ("", "")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sha256": "b" * 64, "size": 6}, "content: 5 bytes, aaaaaaaaaaaa, rebuilt 6 bytes, bbbbbbbbbbbb"),
        ({"mode": 0o755}, "mode: 644, rebuilt 755"),
        ({"kind": "pipe"}, "kind: file, rebuilt pipe"),
        ({"owner": (1, 0, "me", "root")}, "owner: (0, 0, 'root', 'root'), rebuilt (1, 0, 'me', 'root')"),
        ({"modified": 1.5}, "time: 1, rebuilt 1.5"),
        ({"link": "x"}, "link: , rebuilt x"),
        ({"device": (1, 3)}, "device: (0, 0), rebuilt (1, 3)"),
        ({"attributes": (("user.a", "1"),)}, "extended attributes: {}, rebuilt {'user.a': '1'}"),
        ({"mode": 0o755, "modified": 2}, "mode: 644, rebuilt 755, time: 1, rebuilt 2"),
    ],
)
def test_a_difference_is_told_with_what_it_is_in(changes: dict[str, Any], told: str) -> None:
    assert first_difference({"/a": ONE}, {"/a": replace(ONE, **changes)}) == ("/a", told)


def test_the_first_difference_by_name_is_told() -> None:
    other = replace(ONE, mode=0)
    assert first_difference({"/c": ONE, "/b": ONE, "/a": ONE}, {"/a": ONE, "/b": other, "/c": other})[0] == "/b"
    assert first_difference({"/a": ONE}, {}) == ("/a", "it is only in the image")
    assert first_difference({}, {"/a": ONE}) == ("/a", "it is only in the rebuilt one")
