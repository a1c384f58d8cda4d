"""Compiles the plugins and serializes the pipelines: the image's files, before there is an image.

One graph for BuildKit, so that all targets share what they can and run at once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from builder import elf, recipe, sources
from builder.artifacts import Parts, Plugin
from builder.docker.bake import bake
from builder.docker.builders import Builder
from builder.docker.progress import View
from builder.lock import LockedTarget, packages, write_packages
from builder.project import Project
from builder.recipe import Base, Bases
from builder.reference import Digest


def run(
    project: Project,
    bases: Mapping[str, Bases],
    locked: Mapping[str, LockedTarget | None],
    view: View,
    *,
    with_base: bool = True,
    layers: Callable[[str, Bases, Base], dict[str, Any] | None] | None = None,
    no_cache: bool = False,
    builder: Builder | None = None,
) -> list[Parts]:
    """The parts of every target in `bases`. They are on trial until `keep`: earlier ones stay as they are.

    Args:
        locked: what each target is held to.
        with_base: whether the embedded base becomes an image of its own, for others to be put on.
        layers: gives the bake target of the image's own layers, for a target and its base, if that is known already, so
            that one call builds both.
        builder: the engine's own by default.

    Raises:
        CompileError, SerializeError, BuildError: a stage failed.
        LockOutdated: Debian's packages are not those of the lock.
    """
    targets = {}
    embedded: dict[str, str] = {}
    """By target, the name of the embedded base."""
    exported: dict[str, str] = {}
    """By that name, the bake target that makes it."""
    for name, base in bases.items():
        shutil.rmtree(recipe.trial(project, name), ignore_errors=True)  # BuildKit would add to what is there
        write_packages(locked[name], recipe.lock_folder(project, name))
        targets[name] = recipe.parts(project, name, base)
        if builder:
            # All stages that cost something are below this one.
            targets[name] |= builder.caches.exports(name)
        if base.triton is None and with_base:
            embedded[name] = image = recipe.embedded_name(project, name, base)
            # Several targets may lie on one; two exports under one name would stand in each other's way.
            if image not in exported:
                exported[image] = name + recipe.EMBEDDED_BASE
                targets[exported[image]] = recipe.embedded(project, name, base, image)
        if layers and (own := layers(name, base, base.triton or Base(embedded.get(name, ""), None))):
            targets[name + recipe.OWN_LAYERS] = own
    metadata = bake(
        targets,
        context=project.root,
        definition=project.state / "parts.bake.json",
        view=view,
        no_cache=no_cache,
        builder=builder,
    )
    return [
        _read(
            project,
            name,
            base.triton
            or _embedded(embedded.get(name, ""), metadata.get(exported.get(embedded.get(name, ""), ""), {})),
        )
        for name, base in bases.items()
    ]


def _embedded(name: str, metadata: Mapping[str, str]) -> Base:
    """The embedded base, as the engine has it now."""
    told = metadata.get("containerimage.digest")
    return Base(name, Digest(told) if told else None)


def keep(project: Project, parts: Parts) -> None:
    """Puts parts that are right in the place of the earlier ones."""
    shutil.rmtree(recipe.kept(project, parts.target), ignore_errors=True)
    recipe.trial(project, parts.target).replace(recipe.kept(project, parts.target))
    parts.save(project)


def _read(project: Project, target: str, base: Base) -> Parts:
    folder = recipe.trial(project, target)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return Parts(
        target=target,
        base=base.name,
        base_digest=str(base.digest or ""),
        packages=packages(json.loads((folder / "toolchain.json").read_text(encoding="utf-8"))),
        triton_version=facts["triton"],
        dali_version=facts["dali"],
        dali_cuda=facts["dali_cuda"],
        glibc=facts["glibc"],
        glibcxx=facts["glibcxx"],
        plugins=tuple(_plugin(folder, told) for told in facts["plugins"]),
        plugin_sources=sources.digest(project.plugin_folder),
        plugin_files=sources.files(project.plugin_folder),
        files=sources.digest(folder / "models"),
        built_as=project.targets[target],
    )


def _plugin(folder: Path, told: Mapping[str, Any]) -> Plugin:
    """What the image told of a library, and what its file does."""
    file = folder / told["path"].lstrip("/")
    library = elf.read(file)
    cuda = elf.cuda(file) if library.gpu else ""
    return Plugin(**told, demands=library.demands, architectures=library.architectures, cuda=cuda)
