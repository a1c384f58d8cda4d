from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from builder import record
from builder.artifacts import Image, Parts
from builder.docker.engine import Engine
from builder.errors import BuildError, CheckFailed, DownloadError, NoRecord, NothingBuilt, NotReady
from builder.lock import Lock, LockedImage, LockedTarget, save
from builder.oci import BaseImage, Layout
from builder.project import Project, Target
from builder.recipe import Base, Bases
from builder.record import Record
from builder.reference import Digest
from builder.registry.content import OCI_MANIFEST, as_content, digest_of
from builder.revision import Revision
from builder.steps import rebase
from builder.steps.rebase import Built, Under

from . import records

ONTO = "registry.example.com/tritonserver:patched"
OLD, NEW = (Digest("sha256:" + digit * 64) for digit in "ab")
OLD_BASES = Bases(debian=Base("debian:12", OLD))
BASES = Bases(triton=Base(ONTO, NEW))
LIBRARY = b"a library"
PLUGIN = records.plugin().model_copy(update={"sha256": sha256(LIBRARY).hexdigest()})
FACTS = {"triton": "26.06", "dali": "1.53.0", "glibc": "2.39", "glibcxx": "3.4.33"}
INVENTORY = {"debian": [{"name": "libc6", "version": "2.39-0ubuntu8"}], "python": [], "os": {}}
OWN, OTHER, BELOW = b"our own layer", b"another layer", b"the base's layer"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


def layout(folder: Path, own: bytes, labels: Mapping[str, str] | None = None) -> Layout:
    """As BuildKit makes one on a husk."""
    made = Layout(folder)
    made.path("").mkdir(parents=True)
    config = {
        "config": {"Labels": dict(labels or {})},
        "rootfs": {"type": "layers", "diff_ids": [str(digest_of(own))]},
        "history": [{"comment": "ours"}],
    }

    def add(content: bytes) -> dict[str, Any]:
        digest = digest_of(content)
        made.path(digest).write_bytes(content)
        return {"digest": str(digest), "size": len(content)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": add(as_content(config)),
        "layers": [{"mediaType": ZSTD, **add(own)}],
    }
    index = {"schemaVersion": 2, "manifests": [{"mediaType": OCI_MANIFEST, **add(as_content(manifest))}]}
    (folder / "index.json").write_text(json.dumps(index))
    return made


def under(layer: bytes = BELOW) -> BaseImage:
    config = as_content({"rootfs": {"type": "layers", "diff_ids": [str(digest_of(layer))]}, "history": []})
    described = {"mediaType": ZSTD, "digest": str(digest_of(layer)), "size": len(layer)}
    return BaseImage(ONTO, NEW, as_content({"layers": [described], "config": {}}), config)


@pytest.fixture
def found(project: Project) -> Built:
    """What the last build left."""
    made = records.parts(PLUGIN)
    labels = record.labels(project, made, OLD_BASES, Revision("c0ffee", 7, "https://example.com/repo.git"))
    folder = project.state / "embedded"
    composed = layout(folder / "oci", OWN, labels)
    digest = str(composed.put_on(under(b"an older layer")))
    records.image(digest, labels=labels).save(project)
    made.save(project)
    models = folder / "parts" / "models"
    (models / "mydali" / "1").mkdir(parents=True)
    (models / "libcustomcopy.so").write_bytes(LIBRARY)
    (models / "mydali" / "1" / "model.dali").write_bytes(b"pipeline")
    (folder / "parts" / "toolchain.json").write_text('{"of": "the compiler"}')
    for path in (*models.rglob("*"), models):
        os.utime(path, (0, 0))
    return rebase.built(project, "embedded")


class Bake:
    """In place of `bake`: leaves what a base would tell, or BuildKit make, where a definition sends it."""

    def __init__(self) -> None:
        self.targets: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = dict(FACTS)
        self.failure: Exception | None = None
        self.own = OWN

    def __call__(self, targets: Mapping[str, Mapping[str, Any]], **_: object) -> dict[str, dict[str, Any]]:
        if self.failure:
            raise self.failure
        self.targets += [dict(each) for each in targets.values()]
        for target in targets.values():
            to = Path(target["output"][0].split("dest=")[-1].split(",")[0])
            if target["target"] == "proof":
                self._prove(Path(target["contexts"]["models"]), to)
            elif target["output"][0].startswith("type=oci"):
                layout(to, self.own)
        return {name: {"containerimage.digest": str(NEW)} for name in targets}

    def _prove(self, context: Path, to: Path) -> None:
        for part in ("root-fs", "plugins-fs"):
            shutil.copytree(context / part / "models", to / "models", dirs_exist_ok=True)
        models = context / "plugins-fs" / "models"
        plugins = [
            {"path": f"/models/{path.name}", "sha256": sha256(path.read_bytes()).hexdigest()}
            for path in sorted(models.glob("*.so"))
        ]
        (to / "facts.json").write_text(json.dumps({**self.facts, "plugins": plugins}))
        (to / "inventory.json").write_text(json.dumps(INVENTORY))


@pytest.fixture
def bake(monkeypatch: pytest.MonkeyPatch) -> Bake:
    monkeypatch.setattr(rebase, "bake", made := Bake())
    return made


def rebased(project: Project, found: Built, console: Console, onto: str = ONTO) -> tuple[Parts, Layout, Project]:
    """All of it but the server."""
    proven = rebase.moved(project, found, onto)
    with rebase.workplace(project, "embedded") as folder:
        asked = rebase.measure(proven, found, BASES, None, folder, console)
        made = rebase.prove(proven, found, BASES, asked, folder, console)
        composed = rebase.compose(proven, found, made, BASES, under(), "husk:1", folder, console)
        rebase.keep_layout(project, "embedded", composed)
    return made, Layout(Image.layout(project, "embedded")), proven


def test_what_was_never_built_cannot_be_moved(project: Project) -> None:
    with pytest.raises(NothingBuilt):
        rebase.built(project, "embedded")


def test_layers_that_are_not_those_of_the_record_are_not_moved(project: Project, found: Built) -> None:
    found.image.model_copy(update={"digest": str(NEW)}).save(project)
    with pytest.raises(NothingBuilt, match="layers of the image"):
        rebase.built(project, "embedded")


def test_an_image_without_a_record_is_not_moved(project: Project, found: Built) -> None:
    found.image.model_copy(update={"labels": {}}).save(project)
    with pytest.raises(NoRecord):
        rebase.built(project, "embedded")


def test_the_own_layers_are_those_that_are_here(found: Built) -> None:
    assert [each["digest"] for each in found.own] == [str(digest_of(OWN))]
    assert len(found.layout.manifest["layers"]) == 2


def test_nothing_is_asked_for_that_has_a_compiler_below_it(
    project: Project, found: Built, bake: Bake, console: Console
) -> None:
    rebased(project, found, console)
    assert [each["target"] for each in bake.targets] == ["proof", "proof", "runtime"]
    assert all("models" in each["contexts"] for each in bake.targets)
    assert all(each["args"]["TRITON_IMAGE"] == ONTO for each in bake.targets)


def test_the_base_itself_is_asked_whatever_plugins_are_compiled_on(
    project: Project, found: Built, bake: Bake, console: Console
) -> None:
    proven = rebase.moved(project, found, ONTO)
    target = proven.targets["embedded"].model_copy(update={"toolchain": "wheel"})
    proven = proven.model_copy(update={"targets": {"embedded": target}, "plugins": ("customcopy",)})
    with rebase.workplace(project, "embedded") as folder:
        asked = rebase.measure(proven, found, BASES, None, folder, console)
        rebase.prove(proven, found, BASES, asked, folder, console)
    first, second = bake.targets
    assert "COMPILED_ON" not in {**first["args"], **second["args"]}
    assert "PLUGIN_LIBS" not in first["args"]  # it has none yet
    assert second["args"]["PLUGIN_LIBS"] == "/models/libcustomcopy.so"
    assert rebase.in_engine(target).toolchain == "base"


def test_the_stage_keeps_the_times_that_are_in_the_layer_s_digest(
    project: Project, found: Built, bake: Bake, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: dict[str, float] = {}

    def look(targets: Mapping[str, Mapping[str, Any]], **more: object) -> dict[str, dict[str, Any]]:
        for part in ("root-fs", "plugins-fs"):
            models = Path(targets["embedded"]["contexts"]["models"]) / part / "models"
            times.update({str(each.relative_to(models)): each.stat().st_mtime for each in (models, *models.rglob("*"))})
        return bake(targets, **more)

    proven = rebase.moved(project, found, ONTO)
    with rebase.workplace(project, "embedded") as folder:
        asked = rebase.measure(proven, found, BASES, None, folder, console)
        monkeypatch.setattr(rebase, "bake", look)
        rebase.prove(proven, found, BASES, asked, folder, console)
    assert times == dict.fromkeys((".", "libcustomcopy.so", "mydali", "mydali/1", "mydali/1/model.dali"), 0)


def test_the_parts_are_those_that_were_compiled_on_what_the_new_base_is(
    project: Project, found: Built, bake: Bake, console: Console
) -> None:
    made, _, _ = rebased(project, found, console)
    assert (made.base, made.base_digest, made.triton_version) == (ONTO, str(NEW), "26.06")
    assert (made.glibc, made.glibcxx) == ("2.39", "3.4.33")
    assert made.built_as == Target(triton_image=ONTO)
    kept = {"plugins", "packages", "plugin_sources", "plugin_files", "dali_version"}
    assert made.model_dump(include=kept) == found.parts.model_dump(include=kept)


def test_the_own_layers_lie_on_those_of_the_new_base(
    project: Project, found: Built, bake: Bake, console: Console
) -> None:
    _, composed, _ = rebased(project, found, console)
    assert [each["digest"] for each in composed.manifest["layers"]] == [str(digest_of(BELOW)), str(digest_of(OWN))]
    assert composed.holds(digest_of(OWN))
    assert composed.digest != found.image.digest


def test_other_layers_than_those_of_the_build_are_refused(
    project: Project, found: Built, bake: Bake, console: Console
) -> None:
    bake.own = OTHER
    with pytest.raises(BuildError, match="makes other layers"):
        rebased(project, found, console)


def test_the_record_keeps_what_the_layers_were_made_on(
    project: Project, found: Built, bake: Bake, console: Console
) -> None:
    made, composed, _ = rebased(project, found, console)
    for _ in range(2):  # the second time from one that was moved
        labels = composed.config["config"]["Labels"]
        told = Record.read(labels, "x")
        assert told.built_as == Target(triton_image=ONTO)
        assert told.lock.triton_image == LockedImage(name=ONTO, digest=str(NEW))
        assert told.lock.debian == {"libc6": "2.39-0ubuntu8"}
        assert told.compiled
        assert (told.compiled.built_as, told.compiled.lock) == (found.record.built_as, found.record.lock)
        assert (told.commit, told.epoch, told.sources) == ("c0ffee", 7, found.record.sources)
        assert labels["org.opencontainers.image.base.name"] == ONTO
        assert labels["org.opencontainers.image.revision"] == "c0ffee"
        made.save(project)
        again = records.image(str(composed.digest), labels=labels).save(project)
        assert again.digest != found.image.digest
        made, composed, _ = rebased(project, rebase.built(project, "embedded"), console)


def test_the_embedded_base_is_made_and_has_the_dali_of_the_image(
    project: Project, found: Built, bake: Bake, console: Console
) -> None:
    proven = rebase.moved(project, found, "embedded")
    assert proven.targets["embedded"].dali == "1.53.0"
    with rebase.workplace(project, "embedded") as folder:
        asked = rebase.measure(proven, found, OLD_BASES, None, folder, console)
    assert [each["target"] for each in bake.targets] == ["proof", "embedded"]
    assert asked.base.name.startswith("triton-dali-builder/embedded:1.53.0-")
    assert asked.base.digest == NEW


@pytest.mark.parametrize("where", ["stage facts", "facts 3/3  load the plugins"])
def test_a_base_that_cannot_be_asked_has_no_dali(
    project: Project, found: Built, bake: Bake, console: Console, where: str
) -> None:
    bake.failure = BuildError("it failed", where=where, detail=["No module named 'nvidia'"])
    proven = rebase.moved(project, found, ONTO)
    with rebase.workplace(project, "embedded") as folder, pytest.raises(CheckFailed) as raised:
        rebase.measure(proven, found, BASES, None, folder, console)
    assert raised.value.code == "base-without-dali"
    assert raised.value.detail == ("No module named 'nvidia'",)


def test_a_library_that_the_new_base_does_not_load_is_told(
    project: Project, found: Built, bake: Bake, console: Console
) -> None:
    bake.failure = BuildError("it failed", where="stage facts", detail=["libx.so.1: cannot open shared object file"])
    asked = Under(Base(ONTO, NEW), "26.06", rebase.Runtime("1.53.0"))
    proven = rebase.moved(project, found, ONTO)
    with rebase.workplace(project, "embedded") as folder, pytest.raises(CheckFailed) as raised:
        rebase.prove(proven, found, BASES, asked, folder, console)
    assert raised.value.code == "library-unloadable"
    assert "libx.so.1: cannot open shared object file" in raised.value.detail
    assert "build --target embedded" in raised.value.remedy


@pytest.mark.parametrize(
    "failure",
    [
        DownloadError("a download failed", where="facts 1/1  x"),
        BuildError("stage embedded-packages failed", where="embedded-packages 1/1  install"),
    ],
)
def test_what_is_no_fault_of_the_base_is_told_as_it_is(
    project: Project, found: Built, bake: Bake, console: Console, failure: BuildError
) -> None:
    bake.failure = failure
    proven = rebase.moved(project, found, "embedded")
    with rebase.workplace(project, "embedded") as folder, pytest.raises(BuildError) as raised:
        rebase.measure(proven, found, OLD_BASES, None, folder, console)
    assert raised.value is failure


def test_a_rebase_that_fails_leaves_the_last_build_as_it_was(
    project: Project, found: Built, bake: Bake, console: Console
) -> None:
    def everything() -> dict[str, bytes]:
        return {str(each): each.read_bytes() for each in (project.state / "embedded").rglob("*") if each.is_file()}

    before = everything()
    bake.own = OTHER
    with pytest.raises(BuildError):
        rebased(project, found, console)
    assert everything() == before
    assert not (project.state / "embedded" / "rebase").exists()


def test_the_lines_to_write_are_those_that_builder_toml_does_not_have(project: Project, found: Built) -> None:
    proven = rebase.moved(project, found, ONTO)
    assert rebase.to_write(project, proven, "embedded") == (f'triton_image = "{ONTO}"',)
    assert rebase.to_write(proven, proven, "embedded") == ()


def locked(**images: LockedImage) -> LockedTarget:
    return LockedTarget(wheels={}, debian={}, **images)


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (None, False),
        (locked(triton_image=LockedImage(name=ONTO, digest=str(NEW))), False),
        (locked(triton_image=LockedImage(name=ONTO, digest=str(OLD))), True),  # its tag has moved
        (locked(debian_image=LockedImage(name="debian:12", digest=str(OLD))), True),
    ],
)
def test_a_lock_to_another_base_is_told(project: Project, found: Built, held: LockedTarget | None, told: bool) -> None:
    save(project, Lock(targets={"embedded": held} if held else {}))
    assert rebase.to_lock(rebase.moved(project, found, ONTO), "embedded", BASES) is told


def test_the_base_that_was_asked_for_is_not_held_to_the_lock(project: Project, found: Built) -> None:
    save(project, Lock(targets={"embedded": found.record.lock}))
    assert rebase.held(rebase.moved(project, found, ONTO), "embedded") is None
    assert rebase.held(rebase.moved(project, found, "embedded"), "embedded") == found.record.lock


class FakeClient:
    """The SDK's client of an engine that only knows names."""

    def __init__(self) -> None:
        self.api = self.images = self
        self.there: list[str] = []

    def load_image(self, archive: Any) -> list[dict[str, str]]:
        whole = b"".join(archive)
        name = next(line for line in whole.split(b'"') if line.startswith(b"docker.io/"))
        self.there.append(name.decode().removeprefix("docker.io/library/"))
        return []

    def inspect_image(self, name: str) -> dict[str, Any]:
        assert name in self.there
        return {"Id": name}

    def remove(self, name: str, **_: object) -> None:
        self.there.remove(name)


def test_what_is_not_proven_has_a_name_of_its_own_and_loses_it(found: Built) -> None:
    client: Any = FakeClient()

    def prove() -> None:
        with rebase.loaded(Engine(client), found.layout, "mydali:embedded") as digest:
            assert digest == found.image.digest
            assert client.there == ["mydali:embedded_rebase"]
            raise NotReady("it does not come up")

    with pytest.raises(NotReady):
        prove()
    assert client.there == []
