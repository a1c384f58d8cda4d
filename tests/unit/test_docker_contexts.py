from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from builder.docker import contexts
from builder.docker.engine import Engine
from builder.errors import NoBase, NoRegistry
from builder.oci import Layout
from builder.recipe import Base, Bases
from builder.reference import Digest
from builder.registry.content import digest_of

from . import test_oci

HOME_MADE = "triton-dali-builder/debian:bookworm"
NVIDIA_S = "nvcr.io/nvidia/tritonserver:26.06-py3"
DIGEST = Digest("sha256:" + "d" * 64)
BLOBS = (b"one", b"two")


class FakeClient:
    """The SDK's client of an engine that has images of that name."""

    def __init__(self, *images: str) -> None:
        self.api = self
        self.there = images

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name not in self.there:
            raise docker.errors.ImageNotFound(name)
        return {"Id": str(DIGEST)}


def engine(*images: str) -> Engine:
    sdk: Any = FakeClient(*images)
    return Engine(sdk)


class Saved:
    """In place of `SavedBlobs`: has the base's layers, and counts who asks."""

    streams = 0

    def __init__(self, _engine: Engine, name: str) -> None:
        assert name
        type(self).streams += 1

    def __enter__(self) -> Saved:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @contextmanager
    def blob(self, digest: Digest) -> Iterator[Any]:
        [content] = [each for each in BLOBS if digest_of(each) == digest]
        yield io.BytesIO(content)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`.builder`, of a machine that no registry answers."""

    def unanswered(_name: str) -> Digest | None:
        raise NoRegistry("no registry answers")

    base = test_oci.base("application/vnd.oci.image.layer.v1.tar", *BLOBS)
    monkeypatch.setattr(contexts.bases, "digest_in_registry", unanswered)
    monkeypatch.setattr(contexts.bases, "described", lambda *_: base)
    monkeypatch.setattr(contexts, "SavedBlobs", Saved)
    Saved.streams = 0
    folder = tmp_path / ".builder"
    folder.mkdir()
    return folder


def layout(state: Path, context: str) -> Layout:
    """What a context names, found from the project's folder."""
    scheme, _, rest = context.partition("://")
    folder, _, digest = rest.partition("@")
    found = Layout(state.parent / folder)
    assert (scheme, str(found.digest)) == ("oci-layout", digest)
    assert not Path(folder).is_absolute()
    assert json.loads((found.folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    for path in (found.folder / "blobs/sha256").iterdir():
        assert digest_of(path.read_bytes()).value == f"sha256:{path.name}"
    return found


def test_a_husk_is_a_layout_without_layers(state: Path) -> None:
    base = test_oci.base()
    made = layout(state, contexts.husk(state, base.husk))
    assert (made.manifest["layers"], made.config) == ([], base.husk)
    assert contexts.husk(state, base.husk) == contexts.husk(state, base.husk)
    assert [path.name for path in state.iterdir()] == ["contexts"]


def test_an_image_of_this_machine_alone_goes_as_a_layout_that_is_written_once(state: Path) -> None:
    found = contexts.of_image(state, engine(HOME_MADE), HOME_MADE, DIGEST, "linux/amd64")
    made = layout(state, found)
    assert [made.path(each["digest"]).read_bytes() for each in made.manifest["layers"]] == list(BLOBS)
    assert contexts.of_image(state, engine(HOME_MADE), HOME_MADE, DIGEST, "linux/amd64") == found
    assert Saved.streams == 1


def test_an_image_of_a_registry_is_pulled_by_digest(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts.bases, "digest_in_registry", lambda _: DIGEST)
    pulled = f"docker-image://nvcr.io/nvidia/tritonserver@{DIGEST}"
    for there in (engine(), engine(NVIDIA_S)):
        assert contexts.of_image(state, there, NVIDIA_S, DIGEST, "linux/amd64") == pulled


@pytest.mark.parametrize("name", [NVIDIA_S, "localhost:5000/base:1", "a-name-of-mine:1"])
def test_an_image_that_others_cannot_pull_goes_as_a_layout(state: Path, name: str) -> None:
    layout(state, contexts.of_image(state, engine(name), name, DIGEST, "linux/amd64"))


def test_an_image_that_the_registry_has_no_longer_goes_as_a_layout(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts.bases, "digest_in_registry", lambda _: None)
    layout(state, contexts.of_image(state, engine(NVIDIA_S), NVIDIA_S, DIGEST, "linux/amd64"))


def test_an_image_without_a_digest_cannot_be_sent(state: Path) -> None:
    with pytest.raises(NoBase):
        contexts.of_image(state, engine(HOME_MADE), HOME_MADE, None, "linux/amd64")


def test_a_layout_that_breaks_off_is_none(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = test_oci.base("application/vnd.oci.image.layer.v1.tar", *BLOBS, b"three")
    monkeypatch.setattr(contexts.bases, "described", lambda *_: broken)
    with pytest.raises(ValueError, match="not enough values"):
        contexts.of_image(state, engine(HOME_MADE), HOME_MADE, DIGEST, "linux/amd64")
    assert list(state.iterdir()) == []


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("docker.io/library/debian:12-slim", "debian:12-slim"),
        ("debian:12-slim", "debian:12-slim"),
        ("debian:latest", "debian"),
        (HOME_MADE, HOME_MADE),
        (f"docker.io/{HOME_MADE}", HOME_MADE),
        (NVIDIA_S, NVIDIA_S),
        (f"nvcr.io/nvidia/tritonserver@{DIGEST}", f"nvcr.io/nvidia/tritonserver@{DIGEST}"),
    ],
)
def test_contexts_have_the_names_by_which_buildkit_asks(image: str, name: str) -> None:
    assert contexts.name_in_build(image) == name


def test_a_target_gets_all_that_it_starts_from(state: Path) -> None:
    found = Bases(triton=Base(NVIDIA_S, DIGEST), debian=Base(HOME_MADE, DIGEST))
    given = contexts.of_bases(state, engine(HOME_MADE), found, "linux/amd64")
    assert {name: context.partition("://")[0] for name, context in given.items()} == {
        NVIDIA_S: "docker-image",
        "debian": "oci-layout",
    }
    alone = contexts.of_bases(state, engine(HOME_MADE), Bases(debian=Base(HOME_MADE, DIGEST)), "linux/amd64")
    assert list(alone) == ["debian"]
