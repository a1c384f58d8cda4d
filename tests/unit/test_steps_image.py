from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import docker.errors
import pytest
from rich.console import Console

from builder.artifacts import Image
from builder.docker.engine import Engine
from builder.errors import BuildError, MachineError
from builder.project import Project
from builder.recipe import Base
from builder.revision import Revision
from builder.steps import image

from .records import parts, plugin

MANIFEST, CONFIG, LAYER = ("sha256:" + digit * 64 for digit in "abc")
# Of an empty tar file: what BuildKit makes of `RUN true`.
EMPTY_LAYER = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
METADATA = {"containerimage.digest": MANIFEST, "containerimage.config.digest": CONFIG}


class FakeClient:
    """The SDK's client of an engine that has `images`, all alike."""

    def __init__(self, *images: str, history: tuple[int, ...] = (), layers: tuple[str, ...] = ()) -> None:
        self.api = self
        self.there = images
        self.sizes = history
        self.layers = list(layers)
        self.tags: list[tuple[str, str, str]] = []

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name not in self.there:
            raise docker.errors.ImageNotFound(name)
        return {"Id": name, "Size": 7, "RootFS": {"Layers": self.layers}}

    def history(self, _name: str) -> list[dict[str, int]]:
        return [{"Size": size} for size in self.sizes]

    def tag(self, name: str, repository: str, tag: str, **_: object) -> None:
        self.tags.append((name, repository, tag))


def engine(client: FakeClient) -> Engine:
    sdk: Any = client
    return Engine(sdk)


@pytest.mark.parametrize(
    ("there", "metadata", "digest"),
    [
        ((MANIFEST,), METADATA, MANIFEST),
        ((MANIFEST, CONFIG), METADATA, MANIFEST),
        ((CONFIG,), METADATA, CONFIG),  # the older image store
        ((MANIFEST,), {"containerimage.digest": MANIFEST}, MANIFEST),
    ],
)
def test_what_was_built_is_known_by_the_engine_s_own_id(
    there: tuple[str, ...], metadata: Mapping[str, str], digest: str
) -> None:
    assert image._digest(engine(FakeClient(*there)), metadata) == digest


@pytest.mark.parametrize("metadata", [METADATA, {}])
def test_an_image_that_another_builder_kept_is_told(metadata: Mapping[str, str]) -> None:
    with pytest.raises(MachineError, match="does not have the image"):
        image._digest(engine(FakeClient()), metadata)


@pytest.mark.parametrize(
    ("history", "sizes"),
    [
        ((0, 30, 0, 0, 20, 10), [10, 20, 30]),  # newest first, with instructions that made no layer
        ((10,), [10, 0, 0]),
        ((), [0, 0, 0]),
    ],
)
def test_layers_have_the_sizes_of_the_history(history: tuple[int, ...], sizes: list[int]) -> None:
    client = FakeClient(MANIFEST, history=history, layers=(LAYER,) * 3)
    named = image._name(engine(client), MANIFEST, "mydali:embedded", "embedded", 1.234)
    assert [layer.bytes for layer in named.layers] == sizes
    assert (named.reference, named.digest, named.bytes, named.seconds) == ("mydali:embedded", MANIFEST, 7, 1.23)
    assert client.tags == [(MANIFEST, "mydali", "embedded")]


def test_a_layer_without_files_takes_no_other_s_size() -> None:
    client = FakeClient(MANIFEST, history=(0, 30, 0, 10), layers=(LAYER, EMPTY_LAYER, LAYER))
    named = image._name(engine(client), MANIFEST, "mydali:embedded", "embedded", 1)
    assert [layer.bytes for layer in named.layers] == [10, 0, 30]


def test_an_image_is_named_once_it_was_built(
    project: Project, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "bake", lambda targets, **_: dict.fromkeys(targets, METADATA))
    client = FakeClient(MANIFEST)
    made, bases = {"embedded": parts(plugin())}, {"embedded": Base("debian:12", None)}
    built = image.run(project, engine(client), made, bases, Revision("", 0, ""), console, began=0)
    assert built == [Image.find(project, "embedded")]
    assert client.tags == [(MANIFEST, "mydali", "embedded")]


def test_an_image_that_was_not_built_leaves_the_earlier_one_its_name(
    project: Project, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bake(*_: object, **__: object) -> None:
        raise BuildError("a stage failed")

    monkeypatch.setattr(image, "bake", bake)
    client = FakeClient(MANIFEST)
    made, bases = {"embedded": parts(plugin())}, {"embedded": Base("debian:12", None)}
    with pytest.raises(BuildError):
        image.run(project, engine(client), made, bases, Revision("", 0, ""), console, began=0)
    assert (client.tags, Image.find(project, "embedded")) == ([], None)
