"""When a build has nothing to do, and when it has."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from builder import package
from builder.artifacts import Image, Parts
from builder.lock import LockedTarget
from builder.project import Project, Target
from builder.recipe import Base, Bases, kept
from builder.reference import Digest
from builder.revision import Revision
from builder.steps import unchanged

from .built import DEBIAN, HERE, image_of, parts_of

BASES = Bases(debian=DEBIAN)


class FakeEngine:
    """Has images by name, each under a digest."""

    def __init__(self, images: dict[str, str], *, keeps_manifests: bool = True) -> None:
        self.images = images
        self.keeps_manifests = keeps_manifests

    def find(self, name: str) -> dict[str, Any] | None:
        assert name  # the SDK takes none that is empty
        digest = self.images.get(name) or (name if name in self.images.values() else None)
        return {"Id": digest} if digest else None

    def has_image(self, name: str) -> bool:
        return self.find(name) is not None

    def tag(self, digest: str, name: str) -> None:
        self.images[name] = digest


def inputs(project: Project, bases: Bases = BASES, held: LockedTarget | None = None, at: Revision = HERE) -> str:
    return unchanged.inputs(project, {"embedded": bases}, {"embedded": held}, at)["embedded"]


@pytest.fixture
def built(project: Project) -> tuple[Image, Parts]:
    """What a build left."""
    (project.repository_folder / "mydali" / "1").mkdir(parents=True)
    made = parts_of(project)
    return image_of(project, made).model_copy(update={"inputs": inputs(project)}).save(project), made


@pytest.fixture
def engine(project: Project, built: tuple[Image, Parts]) -> Any:
    image, made = built
    return FakeEngine({image.reference: image.digest, made.base: "sha256:" + "e" * 64})


def found(project: Project, engine: Any) -> list[tuple[Image, Parts]]:
    return unchanged.images(project, engine, {"embedded": inputs(project)})


def test_what_is_there_is_found(project: Project, built: tuple[Image, Parts], engine: Any) -> None:
    assert found(project, engine) == [built]


def test_the_name_goes_back_to_the_image(project: Project, built: tuple[Image, Parts], engine: Any) -> None:
    image, _ = built
    engine.images |= {"other:name": image.digest, image.reference: "sha256:" + "0" * 64}
    assert found(project, engine) == [built]
    assert engine.images[image.reference] == image.digest


@pytest.mark.parametrize(
    "change",
    [
        lambda project: (project.plugin_folder / "a.cc").touch(),
        lambda project: (project.repository_folder / "mydali" / "2").mkdir(),
        lambda project: (project.root / ".dockerignore").write_text("*"),
        lambda project: (project.root / "Dockerfile").write_text("FROM scratch"),
    ],
    ids=["plugin", "models", "ignored", "dockerfile"],
)
def test_other_files_are_other_inputs(
    project: Project, engine: Any, change: Callable[[Project], None], built: tuple[Image, Parts]
) -> None:
    change(project)
    assert found(project, engine) == []


@pytest.mark.parametrize(
    "told",
    [
        {"bases": Bases(debian=Base(DEBIAN.name, Digest("sha256:" + "0" * 64)))},
        {"held": LockedTarget(wheels={}, debian={"g++": "13"})},
        {"at": Revision("d" * 40, 1, "")},
    ],
    ids=["base", "lock", "revision"],
)
def test_other_bases_packages_and_revisions_are_other_inputs(project: Project, told: dict[str, Any]) -> None:
    project.repository_folder.mkdir()
    assert inputs(project, **told) != inputs(project)


@pytest.mark.parametrize(
    "settings", [{"server_args": ("--log-verbose=1",)}, {"plugins": ("x",)}, {"repository": "localhost:5000/other"}]
)
def test_other_settings_are_other_inputs(project: Project, settings: dict[str, Any]) -> None:
    assert inputs(project.model_copy(update=settings)) != inputs(project)
    # Also what changes no file: it is in the image's record.
    for other in (Target(cuda="OFF"), Target(gpu=False), Target(dali="1.53.0")):
        assert inputs(project.model_copy(update={"targets": {"embedded": other}})) != inputs(project)


def test_how_models_are_verified_is_nothing_to_a_build(project: Project) -> None:
    assert inputs(project.model_copy(update={"models": {}, "tags": ("2",)})) == inputs(project)


def test_a_dockerfile_that_nobody_changed_reads_what_is_known(project: Project) -> None:
    before = inputs(project)
    shutil.copy(package.ROOT / "Dockerfile", project.root)
    assert inputs(project) == before != ""


@pytest.mark.parametrize("lost", ["image", "base", "layout", "parts", "record", "models"])
def test_what_is_lost_is_made_again(project: Project, built: tuple[Image, Parts], engine: Any, lost: str) -> None:
    image, made = built
    if lost in ("image", "base"):
        del engine.images[image.reference if lost == "image" else made.base]
    elif lost == "layout":
        (Image.layout(project, "embedded") / "index.json").unlink()
    elif lost == "parts":
        Parts.discard(project, "embedded")
    elif lost == "record":
        Image.discard(project, "embedded")
    else:
        shutil.rmtree(kept(project, "embedded") / "models")
    assert found(project, engine) == []


def test_an_image_of_other_parts_does_not_count(project: Project, built: tuple[Image, Parts], engine: Any) -> None:
    built[1].model_copy(update={"glibc": "2.41"}).save(project)
    assert found(project, engine) == []


def test_an_image_of_unknown_inputs_does_not_count(project: Project, built: tuple[Image, Parts], engine: Any) -> None:
    built[0].model_copy(update={"inputs": ""}).save(project)
    assert unchanged.images(project, engine, {"embedded": ""}) == []


def test_the_older_store_needs_no_layout(project: Project, built: tuple[Image, Parts], engine: Any) -> None:
    engine.keeps_manifests = False
    shutil.rmtree(Image.layout(project, "embedded"))
    assert found(project, engine) == [built]
    # Nor an image of the embedded base, which has no name there.
    parts = built[1].model_copy(update={"base": ""}).save(project)
    image = built[0].model_copy(update={"parts": parts.digest}).save(project)
    assert found(project, engine) == [(image, parts)]


def test_an_image_whose_base_is_elsewhere_is_in_its_layout(
    project: Project, built: tuple[Image, Parts], engine: Any
) -> None:
    far = built[0].model_copy(update={"in_engine": False}).save(project)
    engine.images.clear()
    assert found(project, engine) == [(far, built[1])]


def test_one_target_that_has_to_be_built_is_enough(project: Project, built: tuple[Image, Parts], engine: Any) -> None:
    assert unchanged.images(project, engine, {"embedded": inputs(project), "ngc": "1"}) == []


def test_several_targets_have_the_inputs_that_each_has_alone(project: Project) -> None:
    whole = project.model_copy(update={"targets": {**project.targets, "other": Target(dali="2.1.1")}})
    other = Bases(debian=Base("debian:13", DEBIAN.digest))
    held = {"embedded": None, "other": LockedTarget(wheels={}, debian={"g++": "13"})}
    both = unchanged.inputs(whole, {"embedded": BASES, "other": other}, held, HERE)
    assert both["embedded"] == inputs(whole) != both["other"]
    assert both["other"] == unchanged.inputs(whole, {"other": other}, held, HERE)["other"]
    (project.root / "Dockerfile").write_text("FROM scratch")
    assert unchanged.inputs(whole, {"embedded": BASES, "other": other}, held, HERE) == {"embedded": "", "other": ""}
