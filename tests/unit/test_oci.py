"""Images put together out of blobs, by hand and in full, so that every digest can be checked."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder import oci
from builder.oci import BaseImage, Blocks, Layout, skip
from builder.reference import Digest

LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LABELS = {"org.opencontainers.image.title": "mydali"}


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def base(media_type: str = f"{LAYER}+gzip", *layers: bytes) -> BaseImage:
    """Of two layers, with an annotation that some registries add; or of `layers`."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["A=b"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "1" * 64, "sha256:" + "2" * 64]},
        "history": [{"created_by": "one"}, {"created_by": "two"}],
    }
    content = json.dumps(config, indent=1).encode()
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "config": {"mediaType": oci.CONFIG, "digest": sha256(content), "size": len(content)},
        "layers": [{"mediaType": media_type, "digest": sha256(each), "size": len(each)} for each in layers]
        or [
            {"mediaType": media_type, "digest": "sha256:" + "a" * 64, "size": 10, "annotations": {"from": "x"}},
            {"mediaType": media_type, "digest": "sha256:" + "b" * 64, "size": 20},
        ],
    }
    return BaseImage("debian:12", Digest("sha256:" + "d" * 64), json.dumps(manifest).encode(), content)


def built(folder: Path, *layers: bytes, on: BaseImage | None = None) -> Layout:
    """As BuildKit leaves it: the layers of an image on the husk of `on`."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def add(content: bytes, media_type: str) -> dict[str, Any]:
        digest = sha256(content)
        (blobs / digest.removeprefix("sha256:")).write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    config = (on or base()).husk
    config["config"] = {**config["config"], "Labels": LABELS}
    config["rootfs"] = {"type": "layers", "diff_ids": [sha256(b"unpacked" + each) for each in layers]}
    config["history"] = [{"created_by": f"COPY {number}"} for number in range(len(layers))]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": add(json.dumps(config, indent=1).encode(), oci.CONFIG),
        "layers": [add(each, f"{LAYER}+zstd") for each in layers],
    }
    entry = add(json.dumps(manifest, indent=1).encode(), MANIFEST)
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return Layout(folder)


def members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as opened:
        return {each.name: opened.extractfile(each).read() for each in opened}  # type: ignore[union-attr]


def test_layers_are_put_on_those_of_the_base(tmp_path: Path) -> None:
    layout = built(tmp_path, b"ours", b"also ours")
    digest = layout.put_on(base())
    assert (layout.digest, sha256(layout.content)) == (digest, str(digest))
    assert [layer["digest"] for layer in layout.manifest["layers"]] == [
        *("sha256:" + digit * 64 for digit in "ab"),
        sha256(b"ours"),
        sha256(b"also ours"),
    ]
    assert [layer["size"] for layer in layout.manifest["layers"]] == [10, 20, 4, 9]
    config = layout.config
    assert config["rootfs"]["diff_ids"] == [
        *("sha256:" + digit * 64 for digit in "12"),
        sha256(b"unpackedours"),
        sha256(b"unpackedalso ours"),
    ]
    assert [each["created_by"] for each in config["history"]] == ["one", "two", "COPY 0", "COPY 1"]
    assert config["config"] == {"Env": ["A=b"], "Cmd": ["sh"], "Labels": LABELS}
    assert (layout.media_type, layout.exists) == (MANIFEST, True)


def test_every_descriptor_is_of_the_bytes_that_are_there(tmp_path: Path) -> None:
    layout = built(tmp_path, b"ours")
    layout.put_on(base())
    index = json.loads((tmp_path / "index.json").read_text())
    [entry] = index["manifests"]
    for told in (entry, layout.manifest["config"], layout.manifest["layers"][-1]):
        content = layout.path(told["digest"]).read_bytes()
        assert (sha256(content), len(content)) == (told["digest"], told["size"])
    assert [layout.holds(layer["digest"]) for layer in layout.manifest["layers"]] == [False, False, True]


def test_equal_layers_on_equal_bases_are_one_image(tmp_path: Path) -> None:
    first, second, other = (built(tmp_path / name, layer) for name, layer in (("a", b"x"), ("b", b"x"), ("c", b"y")))
    # The base's own JSON is spaced otherwise when a registry or the engine gives it; the image is not.
    again = base()
    again = BaseImage(again.name, again.digest, json.dumps(json.loads(again.manifest), indent=3).encode(), again.config)
    assert first.put_on(base()) == second.put_on(again)
    assert first.content == second.content
    assert other.put_on(base()) != first.digest


@pytest.mark.parametrize("packed", ["", "+gzip", "+zstd"])
def test_docker_s_layers_get_oci_s_names_and_nothing_else(packed: str) -> None:
    docker = base(DOCKER_LAYER + packed.replace("+", "."))
    assert docker.layers == base(LAYER + packed).layers
    assert [each["mediaType"] for each in docker.layers] == [LAYER + packed] * 2
    assert all(set(each) == {"mediaType", "digest", "size"} for each in docker.layers)


def test_layers_of_other_kinds_keep_theirs() -> None:
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    assert {each["mediaType"] for each in base(foreign).layers} == {foreign}


def test_the_same_image_whichever_way_docker_or_oci_wrote_the_base(tmp_path: Path) -> None:
    oci_s, docker_s = built(tmp_path / "a", b"x"), built(tmp_path / "b", b"x")
    assert oci_s.put_on(base(f"{LAYER}+gzip")) == docker_s.put_on(base(f"{DOCKER_LAYER}.gzip"))


def test_a_base_without_a_history_has_none(tmp_path: Path) -> None:
    config = json.loads(base().config)
    del config["history"]
    silent = BaseImage("x", base().digest, base().manifest, json.dumps(config).encode())
    layout = built(tmp_path, b"ours", on=silent)
    layout.put_on(silent)
    assert [each["created_by"] for each in layout.config["history"]] == ["COPY 0"]


def test_a_husk_has_the_configuration_and_no_layer() -> None:
    husk = base().husk
    assert husk["config"] == {"Env": ["A=b"], "Cmd": ["sh"]}
    assert (husk["architecture"], husk["rootfs"], husk["history"]) == ("amd64", {"type": "layers", "diff_ids": []}, [])


def test_an_archive_has_all_but_the_base_s_layers(tmp_path: Path) -> None:
    layout = built(tmp_path, b"o" * 1000, b"p" * 512)
    digest = layout.put_on(base())
    found = members(b"".join(layout.archive("docker.io/library/mydali:embedded")))
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    [entry] = json.loads(found["index.json"])["manifests"]
    assert (entry["digest"], entry["size"], entry["mediaType"]) == (str(digest), len(layout.content), MANIFEST)
    assert entry["annotations"] == {
        "io.containerd.image.name": "docker.io/library/mydali:embedded",
        "org.opencontainers.image.ref.name": "embedded",
    }
    blobs = {name: content for name, content in found.items() if name.startswith("blobs/")}
    assert len(blobs) == 4
    assert all(name == f"blobs/sha256/{hashlib.sha256(content).hexdigest()}" for name, content in blobs.items())
    assert {b"o" * 1000, b"p" * 512, layout.content} < set(blobs.values())


def test_a_blob_is_opened_from_where_it_is_wanted(tmp_path: Path) -> None:
    layout = built(tmp_path, b"0123456789")
    for offset in (0, 4, 10):
        with layout.open(Digest(sha256(b"0123456789")), offset) as stream:
            assert stream.read() == b"0123456789"[offset:]


def test_a_layout_that_was_not_made_does_not_exist(tmp_path: Path) -> None:
    assert not Layout(tmp_path / "none").exists


def blocks(*given: bytes) -> Iterator[bytes]:
    yield from given


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_blocks_are_read_as_a_file(size: int) -> None:
    stream = Blocks(blocks(b"abc", b"de", b"fghij"))
    read = iter(lambda: stream.read(size), b"")
    assert b"".join(read) == b"abcdefghij"
    assert stream.read(size) == b""


def test_as_much_is_read_as_was_asked_for() -> None:
    stream = Blocks(blocks(b"abc", b"defg"))
    assert [stream.read(size) for size in (1, 3, 0, 9)] == [b"a", b"bcd", b"", b"efg"]


@pytest.mark.parametrize(("count", "rest"), [(0, b"abcdef"), (4, b"ef"), (6, b""), (9, b"")])
def test_bytes_are_skipped(count: int, rest: bytes) -> None:
    stream = Blocks(blocks(b"abc", b"def"))
    skip(stream, count)
    assert stream.read(9) == rest


def test_more_is_skipped_than_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci, "_BLOCK", 4)
    asked: list[int] = []

    class Stream(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            asked.append(size or 0)
            return super().read(size)

    stream = Stream(b"0123456789")
    skip(stream, 9)
    assert (asked, stream.read()) == ([4, 4, 1, -1], b"9")
