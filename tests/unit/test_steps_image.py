"""Images, put together of a base and of layers that BuildKit's place is taken for."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker.errors
import pytest
from rich.console import Console

from builder import recipe, record
from builder.artifacts import Image, Parts
from builder.docker.engine import Engine
from builder.errors import BuildError, MachineError
from builder.oci import BaseImage, Layout
from builder.project import Project
from builder.recipe import Base, Bases
from builder.reference import Digest
from builder.registry.content import digest_of
from builder.revision import Revision
from builder.steps import image

from . import test_oci
from .records import parts, plugin

MANIFEST, CONFIG, LAYER, BASE_DIGEST = ("sha256:" + digit * 64 for digit in "abcd")
# Of an empty tar file: what BuildKit makes of `RUN true`.
EMPTY_LAYER = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
METADATA = {"containerimage.digest": MANIFEST, "containerimage.config.digest": CONFIG}
BASE = "triton-dali-builder/embedded:1.53.0-0123456789ab"
MADE = {"embedded": parts(plugin()).model_copy(update={"base": BASE, "base_digest": BASE_DIGEST})}
BASES = {"embedded": Bases(debian=Base("debian:12", Digest("sha256:" + "e" * 64)))}
HERE = Revision("", 0, "")


class FakeClient:
    """The SDK's client of an engine that has `images`, all alike, and takes archives; `older` is its image store."""

    def __init__(
        self, *images: str, history: tuple[int, ...] = (), layers: tuple[str, ...] = (), older: bool = False
    ) -> None:
        self.api = self
        self.there = set(images)
        self.sizes = history
        self.layers = list(layers)
        self.tags: list[tuple[str, str, str]] = []
        self.loaded: list[dict[str, bytes]] = []
        self.older = older

    def info(self) -> dict[str, Any]:
        driver = [["Backing Filesystem", "extfs"]] if self.older else [["driver-type", "io.containerd.snapshotter.v1"]]
        return {"DriverStatus": driver}

    def version(self) -> dict[str, str]:
        return {"Version": "26.1.5"}

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name not in self.there:
            raise docker.errors.ImageNotFound(name)
        return {"Id": name, "Size": 7, "RootFS": {"Layers": self.layers}, "Config": {"Labels": {"a": "b"}}}

    def history(self, _name: str) -> list[dict[str, int]]:
        return [{"Size": size} for size in self.sizes]

    def tag(self, name: str, repository: str, tag: str, **_: object) -> None:
        self.tags.append((name, repository, tag))

    def load_image(self, archive: Iterable[bytes]) -> list[dict[str, str]]:
        with tarfile.open(fileobj=io.BytesIO(b"".join(archive)), mode="r:") as opened:
            found = {each.name: opened.extractfile(each).read() for each in opened}  # type: ignore[union-attr]
        self.loaded.append(found)
        if "manifest.json" in found:
            self.there.update(json.loads(found["manifest.json"])[0]["RepoTags"])
        else:
            self.there.add(json.loads(found["index.json"])["manifests"][0]["digest"])
        return []


class Bake:
    """In place of `bake`: leaves the layers that a definition asks for, on the husk that it names."""

    def __init__(self) -> None:
        self.layers: tuple[bytes, ...] = (b"ours",)
        self.asked: dict[str, Mapping[str, Any]] = {}

    def __call__(self, targets: Mapping[str, Mapping[str, Any]], **_: object) -> dict[str, dict[str, str]]:
        self.asked = dict(targets)
        for target in targets.values():
            [output] = target["output"]
            if output.startswith("type=oci,"):
                folder = dict(each.partition("=")[::2] for each in output.split(","))["dest"]
                assert not Path(folder).exists()
                test_oci.built(Path(folder), *self.layers)
        return dict.fromkeys(targets, METADATA)


@pytest.fixture
def bake(monkeypatch: pytest.MonkeyPatch) -> Bake:
    """With a base whose manifest and configuration can be read."""

    def described(_state: Path, _engine: Engine, name: str, digest: Digest, platform: str) -> BaseImage:
        assert (name, str(digest), platform) == (BASE, BASE_DIGEST, "linux/amd64")
        return test_oci.base()

    monkeypatch.setattr(image.base_images, "described", described)
    monkeypatch.setattr(image, "bake", made := Bake())
    return made


def engine(client: FakeClient) -> Engine:
    sdk: Any = client
    return Engine(sdk)


def run(project: Project, client: FakeClient, console: Console, made: Mapping[str, Parts] | None = None) -> Image:
    [built] = image.run(project, engine(client), made or MADE, BASES, HERE, console, inputs={"embedded": "1"}, began=0)
    return built


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
    named = image.named(engine(client), MANIFEST, "mydali:embedded", MADE["embedded"], 1.234)
    assert [layer.bytes for layer in named.layers] == sizes
    assert (named.reference, named.digest, named.bytes, named.seconds) == ("mydali:embedded", MANIFEST, 7, 1.23)
    assert client.tags == [(MANIFEST, "mydali", "embedded")]


def test_a_layer_without_files_takes_no_other_s_size() -> None:
    client = FakeClient(MANIFEST, history=(0, 30, 0, 10), layers=(LAYER, EMPTY_LAYER, LAYER))
    named = image.named(engine(client), MANIFEST, "mydali:embedded", MADE["embedded"], 1)
    assert [layer.bytes for layer in named.layers] == [10, 0, 30]


LAYERS = (*("sha256:" + digit * 64 for digit in "12"), test_oci.sha256(b"unpackedours"))


def test_own_layers_are_put_on_the_base_and_brought_to_the_engine(
    project: Project, console: Console, bake: Bake
) -> None:
    client = FakeClient(BASE, history=(30, 20, 10), layers=LAYERS)
    built = run(project, client, console)
    layout = Layout(Image.layout(project, "embedded"))
    assert built.digest == str(layout.digest)
    assert [layer["digest"] for layer in layout.manifest["layers"]][:2] == ["sha256:" + d * 64 for d in "ab"]
    [archive] = client.loaded
    [entry] = json.loads(archive["index.json"])["manifests"]
    assert entry["digest"] == built.digest
    assert (
        entry["annotations"]["io.containerd.image.name"] == "docker.io/library/mydali:embedded_load"
    )  # a name of its own, until it has the other
    # The base's layers stay where they are.
    assert sorted(name for name in archive if name.startswith("blobs/")) == sorted(
        f"blobs/sha256/{path.name}"
        for path in (layout.folder / "blobs" / "sha256").iterdir()
        if path.name in {str(each).removeprefix("sha256:") for each in used(layout)}
    )
    assert client.tags == [(built.digest, "mydali", "embedded")]
    assert (built.base, built.base_digest, built.in_engine) == (BASE, BASE_DIGEST, True)
    assert (built.labels, built.engine, built.bytes) == ({"a": "b"}, "26.1.5", 7)
    assert [(layer.digest, layer.bytes) for layer in built.layers] == list(zip(LAYERS, (10, 20, 30), strict=True))
    assert Image.find(project, "embedded") == built


def used(layout: Layout) -> list[str]:
    """The blobs of the image that the layout has."""
    manifest = layout.manifest
    found = [str(layout.digest), manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
    return [digest for digest in found if layout.holds(digest)]


def test_layers_are_asked_for_on_a_husk_and_the_image_gets_the_labels_of_a_record_and_its_command(
    project: Project, console: Console, bake: Bake
) -> None:
    run(project, FakeClient(BASE), console)
    asked = bake.asked["embedded"]
    where, _, digest = asked["contexts"][asked["args"]["SERVED_ON"]].removeprefix("oci-layout://").partition("@")
    husk = Layout(project.root / where)
    assert (str(husk.digest), husk.manifest["layers"], husk.config) == (digest, [], test_oci.base().husk)
    told = Layout(Image.layout(project, "embedded")).config["config"]
    labels = record.labels(project, MADE["embedded"], BASES["embedded"], HERE)
    assert record.LABEL in labels
    assert told["Labels"] == {**test_oci.LABELS, **labels}
    assert told["Cmd"][-1] == "--backend-config=dali,plugin_libs=/models/libcustomcopy.so"


def test_layers_that_are_there_already_are_not_asked_for_again(project: Project, console: Console, bake: Bake) -> None:
    built = run(project, FakeClient(BASE), console)
    bake.asked = {}
    test_oci.built(recipe.trial_layout(project, "embedded"), *bake.layers)
    on = {"embedded": test_oci.base()}
    client = engine(FakeClient(BASE))
    [again] = image.run(project, client, MADE, BASES, HERE, console, on=on, inputs={"embedded": ""}, began=0)
    assert (again.digest, bake.asked) == (built.digest, {})
    # Those on another base are of no use.
    moved = {"embedded": replace(test_oci.base(), digest=Digest("sha256:" + "0" * 64))}
    image.run(project, client, MADE, BASES, HERE, console, on=moved, inputs={"embedded": ""}, began=0)
    assert list(bake.asked) == ["embedded"]


def test_a_base_that_is_known_beforehand_gets_its_layers_at_once(project: Project, bake: Bake) -> None:
    beforehand = image.Beforehand(project, engine(FakeClient()), HERE)
    assert beforehand("embedded", BASES["embedded"], Base(BASE, None)) is None  # is not there yet
    assert beforehand("embedded", BASES["embedded"], Base("", None)) is None
    assert beforehand.on == {}
    known = beforehand("embedded", BASES["embedded"], Base(BASE, Digest(BASE_DIGEST)))
    assert known is not None
    assert known["output"][0].startswith(f"type=oci,tar=false,dest={recipe.trial_layout(project, 'embedded')},")
    assert beforehand.on == {"embedded": test_oci.base()}


def test_the_same_layers_on_the_same_base_are_the_same_image_and_are_brought_once(
    project: Project, console: Console, bake: Bake
) -> None:
    client = FakeClient(BASE)
    first = run(project, client, console)
    second = run(project, client, console)
    assert (first.digest, len(client.loaded)) == (second.digest, 1)
    bake.layers = (b"others",)
    third = run(project, client, console)
    assert third.digest != first.digest
    assert len(client.loaded) == 2


def test_an_image_whose_base_is_elsewhere_is_made_without_the_engine(
    project: Project, console: Console, bake: Bake
) -> None:
    client = FakeClient()
    built = run(project, client, console)
    layout = Layout(Image.layout(project, "embedded"))
    assert (built.in_engine, built.digest) == (False, str(layout.digest))
    assert client.loaded == []
    assert client.tags == []
    assert built.labels == {**test_oci.LABELS, **record.labels(project, MADE["embedded"], BASES["embedded"], HERE)}
    # Its own layers, as they are compressed.
    assert built.bytes == len(b"ours")
    assert [(layer.digest, layer.bytes) for layer in built.layers] == list(zip(LAYERS, (10, 20, 4), strict=True))
    assert Image.find(project, "embedded") == built


def test_the_older_image_store_makes_the_whole_image(project: Project, console: Console, bake: Bake) -> None:
    # Its embedded base is no image of its own.
    client = FakeClient(CONFIG, older=True)
    built = run(project, client, console)
    assert (built.digest, built.in_engine) == (CONFIG, True)
    assert client.tags == [(CONFIG, "mydali", "embedded")]
    assert client.loaded == []
    assert "SERVED_ON" not in bake.asked["embedded"]["args"]
    assert bake.asked["embedded"]["labels"] == record.labels(project, MADE["embedded"], BASES["embedded"], HERE)
    assert Image.find(project, "embedded") == built


def test_the_older_image_store_wants_the_base_here(project: Project, console: Console, bake: Bake) -> None:
    ngc = "nvcr.io/nvidia/tritonserver:26.06-py3"
    made = {"ngc": MADE["embedded"].model_copy(update={"target": "ngc", "base": ngc})}
    bases = {"ngc": Bases(Base(ngc, Digest(BASE_DIGEST)))}
    told: Any = {"inputs": {"ngc": ""}, "began": 0}
    with pytest.raises(MachineError, match="'ngc' is not here") as failure:
        image.run(project, engine(FakeClient(CONFIG, older=True)), made, bases, HERE, console, **told)
    assert (failure.value.where, bake.asked) == (ngc, {})
    [built] = image.run(project, engine(FakeClient(CONFIG, ngc, older=True)), made, bases, HERE, console, **told)
    assert built.base == ngc


@pytest.mark.parametrize("older", [True, False])
def test_an_image_that_was_not_built_leaves_the_earlier_one_its_name(
    project: Project, console: Console, bake: Bake, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BuildError("a stage failed")

    client = FakeClient(BASE, CONFIG, older=older)
    earlier, tags = run(project, client, console), list(client.tags)
    monkeypatch.setattr(image, "bake", fail)
    with pytest.raises(BuildError):
        run(project, client, console)
    assert (client.tags, Image.find(project, "embedded")) == (tags, earlier)
    assert older or str(Layout(Image.layout(project, "embedded")).digest) == earlier.digest


def test_a_manifest_s_digest_is_of_its_bytes(project: Project, console: Console, bake: Bake) -> None:
    built = run(project, FakeClient(BASE), console)
    assert str(digest_of(Layout(Image.layout(project, "embedded")).content)) == built.digest
