"""What a build would do, told without building."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder import package, recipe, record, revision
from builder.artifacts import Parts
from builder.docker import secrets
from builder.docker.bake import document
from builder.project import Project, Target
from builder.recipe import Bases


def definitions(project: Project, bases: Mapping[str, Bases]) -> dict[str, Any]:
    """Both bake definitions of a build: `parts`, and `image` for the targets whose plugins were built before.

    The labels of an image tell the digests of its plugins, so its definition cannot be known earlier.
    """
    network = secrets.from_machine()
    known = {name: made for name in bases if (made := Parts.current(project, name))}
    of_parts = {name: recipe.parts(project, name, base) for name, base in bases.items()}
    here = revision.of(project.root)
    of_images = {
        name: recipe.image(project, made, bases[name], here, record.labels(project, made, bases[name], here))
        for name, made in known.items()
    }
    return {"parts": document(of_parts, network), "image": document(of_images, network) if of_images else None}


def target(project: Project, name: str, chosen: Target, bases: Bases) -> dict[str, Any]:
    """What a target comes to."""
    made = Parts.current(project, name)
    plugins = recipe.plugins(project, made) if made else project.listed
    return {
        "target": name,
        "image": project.local_name(name),
        "pushed_as": [str(reference) for reference in project.pushed_as(name)],
        "base": bases.outermost.name,
        "base_digest": str(bases.outermost.digest) if bases.outermost.digest else None,
        "dali": made.dali_version if made else chosen.dali_version,
        "platform": chosen.platform,
        "dockerfile": str(package.dockerfile(project.root)),
        # None: to be seen when the plugins are compiled.
        "command": recipe.command(project, plugins) if made or plugins else None,
    }
