from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import docker.errors
import pytest
from rich.console import Console

from builder.artifacts import Image, Parts, Plugin
from builder.docker.engine import Engine
from builder.errors import MachineError, PluginUnlisted
from builder.project import Project
from builder.recipe import Base
from builder.reference import Digest
from builder.revision import Revision
from builder.steps import image

MANIFEST, CONFIG, LAYER = ("sha256:" + digit * 64 for digit in "abc")
# Of an empty tar file: what BuildKit makes of `RUN true`.
EMPTY_LAYER = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
PLUGIN, OTHER = "/models/libcustomcopy.so", "/models/libother.so"
METADATA = {"containerimage.digest": MANIFEST, "containerimage.config.digest": CONFIG}
BASE = Base("debian:12", Digest(MANIFEST))
PARTS = Parts(
    target="embedded",
    triton_version="24.10",
    dali_version="1.53.0",
    plugins=(Plugin(path=PLUGIN, sha256="d" * 64, bytes=1, gpu=True),),
    pipelines=(),
)


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
        command = ["tritonserver", f"--backend-config=dali,plugin_libs={PLUGIN}"]
        return {"Id": name, "Size": 7, "RootFS": {"Layers": self.layers}, "Config": {"Cmd": command}}

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


@pytest.mark.parametrize("plugins", [(), (PLUGIN,)])
def test_a_command_that_lists_what_the_models_ask_for_is_taken(plugins: tuple[str, ...]) -> None:
    image._check_command(FakeClient("x").inspect_image("x"), plugins)


def test_a_command_that_lists_less_is_refused_with_the_whole_list() -> None:
    with pytest.raises(PluginUnlisted, match=OTHER) as failure:
        image._check_command(FakeClient("x").inspect_image("x"), (OTHER, PLUGIN))
    assert f"--backend-config=dali,plugin_libs={PLUGIN}:{OTHER}" in failure.value.remedy


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


@pytest.mark.parametrize(
    ("source", "remote", "label"),
    [
        ("", "https://user:secret@example.com/team/x.git", "https://example.com/team/x.git"),
        ("", "https://token@example.com/team/x.git", "https://example.com/team/x.git"),
        ("", "ssh://user:secret@example.com/team/x", "ssh://example.com/team/x"),
        ("", "git@example.com:team/x.git", "git@example.com:team/x.git"),
        ("https://example.com/mine", "https://example.com/x.git", "https://example.com/mine"),
        ("", "", None),
    ],
)
def test_the_source_is_an_address_without_a_user(project: Project, source: str, remote: str, label: str | None) -> None:
    changed = Project.model_validate({**dict(project), "source": source})
    made = image.labels(changed, PARTS, BASE, Revision("c0ffee", 0, remote))
    assert made.get(image.OCI + "source") == label


def test_labels_tell_what_the_image_is_made_of(project: Project) -> None:
    made = image.labels(project, PARTS, BASE, Revision("", 0, ""))
    assert made[image.OURS + "plugins"] == f"{PLUGIN}@sha256:{'d' * 64}"
    assert made[image.OCI + "base.digest"] == MANIFEST
    assert image.OCI + "revision" not in made


@pytest.mark.parametrize(("plugins", "right"), [((PLUGIN,), True), ((OTHER,), False)])
def test_an_image_is_named_only_when_it_is_right(
    project: Project, console: Console, monkeypatch: pytest.MonkeyPatch, plugins: tuple[str, ...], right: bool
) -> None:
    monkeypatch.setattr(image, "bake", lambda targets, **_: dict.fromkeys(targets, METADATA))
    client = FakeClient(MANIFEST)

    def build() -> list[Image]:
        parts, bases, revision = {"embedded": PARTS}, {"embedded": BASE}, Revision("", 0, "")
        return image.run(project, engine(client), parts, bases, revision, console, plugins=plugins, began=0)

    if right:
        assert build() == [Image.find(project, "embedded")]
        assert client.tags == [(MANIFEST, "mydali", "embedded")]
        return
    with pytest.raises(PluginUnlisted):
        build()
    assert (client.tags, Image.find(project, "embedded")) == ([], None)
