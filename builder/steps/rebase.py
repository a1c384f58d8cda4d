"""Moves an image's own layers to another base: proof in that base that they load, and a configuration of its own.

Nothing is compiled and nothing is serialized. Everything lies apart until it is proven, so that a rebase that fails
leaves the last build as it was.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console

from builder import bases as base_images
from builder import elf, lock, recipe, record
from builder.artifacts import Image, Parts, Verification
from builder.checks import rebase as rules
from builder.checks.libraries import Runtime, runtime_of
from builder.checks.rebase import Need
from builder.docker import loaded as images
from builder.docker.bake import bake
from builder.docker.engine import Engine
from builder.elf import Library
from builder.errors import BuildError, CheckFailed, NothingBuilt
from builder.lock import LockedTarget
from builder.oci import BaseImage, Layout
from builder.project import FILE_NAME, Project, Target
from builder.recipe import Base, Bases
from builder.record import Record
from builder.reference import Digest
from builder.revision import Revision
from builder.views import live

_DEFINITION = "rebase.bake.json"
_ON_TRIAL = "_rebase"
"""Added to an image's tag, in which there is no underscore either."""


@dataclass(frozen=True)
class Built:
    """What the last build left."""

    image: Image
    parts: Parts
    record: Record
    layout: Layout

    @property
    def own(self) -> list[dict[str, Any]]:
        """The descriptors of the image's own layers."""
        return [each for each in self.layout.manifest["layers"] if self.layout.holds(each["digest"])]


@dataclass(frozen=True)
class Moved:
    """An image on its new base, in the place of the last build's."""

    before: Image
    image: Image
    layers: tuple[dict[str, Any], ...]
    """The descriptors of its own, which are those that it had."""
    needs: tuple[Need, ...]
    verification: Verification
    to_write: tuple[str, ...]
    """The lines of its table in builder.toml with which the next build has this base; empty where it has them."""
    to_lock: bool
    """Whether builder.lock holds it to another base."""

    @property
    def told(self) -> list[str]:
        """What a person has to know, one line each."""
        count, size = len(self.layers), sum(each["size"] for each in self.layers)
        lines = [
            f"{self.image.reference}: {count} {'layer' if count == 1 else 'layers'} kept ({size} bytes compressed), "
            f"nothing compiled; on {self.image.base}, before on {self.before.base}"
        ]
        if self.to_write:
            lines.append(
                f"so that the next build has that base, write into [targets.{self.image.target}] of {FILE_NAME}:"
            )
            lines += [f"    {each}" for each in self.to_write]
        if self.to_lock:
            lines.append(
                f"{lock.FILE_NAME} holds another base; once {FILE_NAME} names this one: "
                f"python -m builder lock --target {self.image.target}"
            )
        return lines

    @property
    def document(self) -> dict[str, Any]:
        """For `rebase --json`."""
        return {
            **self.image.model_dump(include={"target", "reference", "digest"}),
            "base": {"name": self.image.base, "digest": self.image.base_digest},
            "before": {
                "digest": self.before.digest,
                "base": {"name": self.before.base, "digest": self.before.base_digest},
            },
            "layers_kept": [{"digest": each["digest"], "bytes": each["size"]} for each in self.layers],
            "needs": [vars(each) for each in self.needs],
            "verification": self.verification.model_dump(exclude={"target", "reference", "digest"}),
            "builder_toml": list(self.to_write),
            "lock": self.to_lock,
        }


@dataclass(frozen=True)
class Under:
    """The new base, and what asking it told."""

    base: Base
    triton: str
    runtime: Runtime


def built(project: Project, name: str) -> Built:
    """Reads what the last build of a target left.

    Raises:
        NothingBuilt: it left nothing, or not the image's layers.
        NoRecord: the image does not tell what it was made from.
    """
    image, parts = Image.load(project, name), Parts.load(project, name)
    layout = Layout(Image.layout(project, name))
    if not layout.exists or str(layout.digest) != image.digest:
        raise NothingBuilt(
            f"the layers of the image of target {name!r} are not here",
            where=str(layout.folder),
            remedy=f"run `python -m builder build --target {name}` first",
        )
    return Built(image, parts, Record.read(image.labels, image.reference), layout)


def moved(project: Project, found: Built, onto: str) -> Project:
    """The project as the image was built from it, but for its base."""
    target = found.parts.built_as.model_copy(update={"triton_image": onto})
    if target.is_embedded:
        target = target.model_copy(update={"dali": found.parts.dali_version})
    kept = {"plugins": found.record.plugins, "server_args": found.record.server_args}
    return project.model_copy(update={"targets": {**project.targets, found.parts.target: target}, **kept})


def in_engine(target: Target) -> Target:
    """The target for whose base it is not enough to be in a registry: it has to be run."""
    return target.model_copy(update={"toolchain": "base"})


@contextlib.contextmanager
def workplace(project: Project, name: str) -> Iterator[Path]:
    """A folder for all that is not proven yet, gone afterwards whatever happens."""
    folder = project.state / name / "rebase"
    trial = recipe.trial(project, name)
    try:
        for each in (folder, trial):
            shutil.rmtree(each, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
    finally:
        for each in (folder, trial):
            shutil.rmtree(each, ignore_errors=True)


def held(project: Project, name: str) -> LockedTarget | None:
    """What the embedded base is held to, if builder.lock is about it; another base is the one that was asked for.

    Args:
        project: as `moved` gives it.

    Raises:
        LockOutdated: this program would install other wheels.
    """
    locked = lock.load(project).targets.get(name)
    if locked is None or locked.triton_image is not None or not project.targets[name].is_embedded:
        return None
    return lock.held(project, name, required=True)


def measure(
    project: Project, found: Built, bases: Bases, locked: LockedTarget | None, folder: Path, console: Console
) -> Under:
    """Asks the new base for its versions; the embedded base is made first.

    Args:
        project: as `moved` gives it.
        locked: as `held` gives it.
        folder: the `workplace`.

    Raises:
        CheckFailed: it has no DALI.
        BuildError, NoBase: the base cannot be made or had.
    """
    name = found.parts.target
    lock.write_packages(locked, recipe.lock_folder(project, name))
    nothing = folder / "nothing"
    for part in ("root-fs", "plugins-fs"):
        (nothing / part / "models").mkdir(parents=True)
    target = _proof(project, name, bases, nothing, folder / "asked")
    target["args"].pop("PLUGIN_LIBS", None)
    targets = {name: target}
    if bases.triton is None:
        embedded = recipe.embedded_name(project, name, bases)
        targets[name + recipe.EMBEDDED_BASE] = recipe.embedded(project, name, bases, embedded)
    onto = project.targets[name].triton_image
    try:
        metadata = _bake(project, targets, console)
    except BuildError as error:
        if _is_of_proof(error):
            raise CheckFailed([rules.without_dali(found.parts, onto, error.detail)]) from None
        raise
    facts = json.loads((folder / "asked" / "facts.json").read_text(encoding="utf-8"))
    machine = runtime_of(project.targets[name], None).machine
    runtime = Runtime(facts["dali"], facts["glibc"], facts["glibcxx"], machine)
    if bases.triton:
        return Under(bases.triton, facts["triton"], runtime)
    digest = Digest(metadata[name + recipe.EMBEDDED_BASE]["containerimage.digest"])
    return Under(Base(embedded, digest), facts["triton"], runtime)


def libraries(project: Project, found: Built) -> list[Library]:
    """The image's libraries, as their files describe them."""
    parts = project.state / found.parts.target / "parts"
    return [elf.read(parts / plugin.path.lstrip("/")) for plugin in found.parts.plugins]


def prove(project: Project, found: Built, bases: Bases, under: Under, folder: Path, console: Console) -> Parts:
    """Loads every library in the new base, as its server will. The parts are on trial, as those of a build.

    Args:
        project: as `moved` gives it.
        folder: the `workplace`.

    Raises:
        CheckFailed: one does not load.
        BuildError: something else fails.
    """
    name = found.parts.target
    trial = recipe.trial(project, name)
    try:
        _bake(project, {name: _proof(project, name, bases, _models(project, name, folder), trial)}, console)
    except BuildError as error:
        if _is_of_proof(error):
            raise CheckFailed([rules.unloadable(found.parts, under.base.name, error.detail)]) from None
        raise
    loaded = json.loads((trial / "facts.json").read_text(encoding="utf-8"))["plugins"]
    assert {each["path"]: each["sha256"] for each in loaded} == {each.path: each.sha256 for each in found.parts.plugins}
    # What compiled them is what it was.
    shutil.copy2(project.state / name / "parts" / "toolchain.json", trial)
    return found.parts.model_copy(
        update={
            "base": under.base.name,
            "base_digest": str(under.base.digest or ""),
            "triton_version": under.triton,
            "glibc": under.runtime.glibc,
            "glibcxx": under.runtime.glibcxx,
            "built_as": project.targets[name],
        }
    )


def base_image(project: Project, engine: Engine, made: Parts) -> BaseImage:
    """What the layers of `made` are to lie on."""
    platform = project.targets[made.target].platform
    return base_images.described(project.state, engine, made.base, Digest(made.base_digest), platform)


def compose(
    project: Project,
    found: Built,
    made: Parts,
    bases: Bases,
    under: BaseImage,
    husk: str,
    folder: Path,
    console: Console,
) -> Layout:
    """Puts the image's own layers on the new base, with a configuration that BuildKit makes from that base's.

    Args:
        project: as `moved` gives it.
        made: as `prove` gives them.
        husk: the context of an image with the configuration of `under` and no layer.
        folder: the `workplace`.

    Raises:
        BuildError: a stage failed, or the Dockerfile makes other layers now.
    """
    name = made.target
    layout = Layout(folder / "oci")
    revision = found.record.revision
    target = recipe.layers(project, name, bases, husk, revision, layout.folder)
    target["contexts"] = {**target["contexts"], **_contexts(folder / "models")}
    _bake(project, {name: target}, console)
    layers = [each["digest"] for each in layout.manifest["layers"]]
    if layers != [each["digest"] for each in found.own]:
        raise BuildError(
            "the Dockerfile makes other layers than those of the last build",
            where=found.image.reference,
            remedy=f"it, or the engine, has changed since: run `python -m builder build --target {name}`, then rebase",
            detail=[f"{each['digest']}, {each['size']} bytes" for each in found.own],
        )
    command = recipe.command(project, recipe.plugins(project, made))
    layout.put_on(under, command=command, labels=_labels(project, found, made, bases, revision))
    return layout


def loaded(engine: Engine, layout: Layout, reference: str) -> contextlib.AbstractContextManager[str]:
    """The image in the engine for the length of a `with`, or for longer where it gets a name of its own.

    Args:
        reference: the name that it is to have once it is proven.
    """
    return images.loaded(engine, layout, reference + _ON_TRIAL)


def to_write(project: Project, proven: Project, name: str) -> tuple[str, ...]:
    """`Moved.to_write`."""
    before, now = (each.targets[name].model_dump(mode="json", exclude_none=True) for each in (project, proven))
    return tuple(tomli_w.dumps({key: value}).strip() for key, value in now.items() if before.get(key) != value)


def to_lock(proven: Project, name: str, bases: Bases) -> bool:
    """`Moved.to_lock`."""
    locked = lock.load(proven).targets.get(name)
    if locked is None:
        return False
    now = record.locked(proven, name, bases, locked.debian)
    moved_debian = bases.triton is None and locked.debian_image != now.debian_image
    return locked.triton_image != now.triton_image or moved_debian


def keep_layout(project: Project, name: str, layout: Layout) -> None:
    """Puts a layout that is proven in the place of the earlier one."""
    kept = Image.layout(project, name)
    shutil.rmtree(kept, ignore_errors=True)
    layout.folder.replace(kept)


def _contexts(files: Path) -> dict[str, str]:
    """What takes the place of the stages that make the image's files."""
    return dict.fromkeys(("models", "plugins"), str(files))


def _models(project: Project, name: str, folder: Path) -> Path:
    """A context that takes the place of `models` and `plugins`, times included: they are in the layer's digest."""
    context = folder / "models"
    kept = project.state / name / "parts" / "models"
    # As the Dockerfile divides them: libraries lie beside the models' folders.
    libraries = {each.name for each in kept.glob("*.so")}
    others = {each.name for each in kept.iterdir()} - libraries
    for part, left_out in ((context / "root-fs", libraries), (context / "plugins-fs", others)):
        shutil.copytree(
            kept, part / "models", symlinks=True, ignore=lambda at, _, out=left_out: out if Path(at) == kept else ()
        )
    return context


def _proof(project: Project, name: str, bases: Bases, models: Path, to: Path) -> dict[str, Any]:
    """The target that loads what is in `models` in the new base, and leaves in `to` what that told."""
    made = recipe.parts(project, name, bases)
    return {
        **made,
        "target": "proof",
        "contexts": {**made["contexts"], **_contexts(models)},
        "args": {key: value for key, value in made["args"].items() if key != "COMPILED_ON"},
        "output": [f"type=local,dest={to}"],
    }


def _bake(project: Project, targets: Mapping[str, Mapping[str, Any]], console: Console) -> dict[str, dict[str, Any]]:
    return bake(targets, context=project.root, definition=project.state / _DEFINITION, view=live.view(console))


def _is_of_proof(error: BuildError) -> bool:
    """Whether it is the new base that failed, not what it is made by."""
    return type(error) is BuildError and error.where.removeprefix("stage ").partition(" ")[0] == "facts"


def _labels(project: Project, found: Built, made: Parts, bases: Bases, revision: Revision) -> dict[str, str]:
    """As a build has them; what the layers were made from is what their build recorded."""
    inventory = json.loads((recipe.trial(project, made.target) / "inventory.json").read_text(encoding="utf-8"))
    moved = found.record.model_copy(
        update={
            "repository": project.repository,
            "source": project.source,
            "built_as": project.targets[made.target],
            "lock": record.locked(project, made.target, bases, lock.packages(inventory)),
            "compiled": found.record.made_on,
        }
    )
    return {**recipe.labels(project, made, bases, revision), record.LABEL: moved.label}
