"""Whether a build would make the very image that is there: then nobody has to ask BuildKit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from builder import __version__, package, recipe, sources
from builder.artifacts import Image, Parts
from builder.docker.engine import Engine
from builder.lock import LockedTarget
from builder.oci import Layout
from builder.project import Project
from builder.recipe import Bases
from builder.revision import Revision

_OF_THE_PROJECT = {"repository", "plugins", "server_args", "source"}


def inputs(
    project: Project, bases: Mapping[str, Bases], held: Mapping[str, LockedTarget | None], revision: Revision
) -> dict[str, str]:
    """SHA-256 in hexadecimal over all that the build of each target in `bases` reads; empty where that cannot be told.

    A Dockerfile that the project has changed may read any of its files.
    """
    if sources.of_file(package.dockerfile(project.root)) != sources.of_file(package.ROOT / "Dockerfile"):
        return dict.fromkeys(bases, "")
    ignored = project.root / ".dockerignore"
    # Read once for all targets; never kept for longer, as a build asks again whether they changed under its hands.
    files = [
        [sources.exactly(package.ROOT / each) for each in package.FOLDERS],
        sources.of_file(package.ROOT / package.PARSER),
        [sources.exactly(each) for each in (project.plugin_folder, project.repository_folder)],
        sources.of_file(ignored) if ignored.is_file() else "",
    ]
    told = {
        name: [
            __version__,
            recipe.parts(project, name, of),
            project.model_dump(mode="json", include=_OF_THE_PROJECT),
            project.targets[name].model_dump(mode="json"),
            of,
            held[name],
            revision,
            *files,
        ]
        for name, of in bases.items()
    }
    return {name: hashlib.sha256(repr(read).encode()).hexdigest() for name, read in told.items()}


def images(project: Project, engine: Engine, now: Mapping[str, str]) -> list[tuple[Image, Parts]]:
    """What an earlier build left of all targets; nothing where some target has to be built.

    Args:
        now: what `inputs` gives.
    """
    found = [each for name, digest in now.items() if (each := _image(project, engine, name, digest))]
    return found if len(found) == len(now) else []


def _image(project: Project, engine: Engine, name: str, now: str) -> tuple[Image, Parts] | None:
    image, parts = Image.find(project, name), Parts.find(project, name)
    if not now or image is None or parts is None or (image.inputs, image.parts) != (now, parts.digest):
        return None
    layout = Layout(Image.layout(project, name))
    if engine.keeps_manifests and not (layout.exists and str(layout.digest) == image.digest):
        return None
    if not (recipe.kept(project, name) / "models").is_dir() or _has_base(engine, parts) != image.in_engine:
        return None
    if image.in_engine and ((named := engine.find(image.reference)) is None or named["Id"] != image.digest):
        if not engine.has_image(image.digest):
            return None
        engine.tag(image.digest, image.reference)
    return image, parts


def _has_base(engine: Engine, parts: Parts) -> bool:
    """In the older image store the embedded base is no image of its own."""
    return not parts.base or engine.has_image(parts.base)
