"""A project as `build` leaves it: records, parts and an image layout."""

from __future__ import annotations

import json

from builder import record, sources
from builder.artifacts import Image, Parts
from builder.project import Project
from builder.recipe import Base, Bases
from builder.reference import Digest
from builder.revision import Revision

from . import attested, test_oci
from .records import image, parts, plugin

DEBIAN = Base("docker.io/library/debian:12-slim", Digest("sha256:" + "b" * 64))
HERE = Revision("c" * 40, 1_700_000_000, "https://example.com/team/x.git")
TOOLCHAIN = {
    "debian": [],
    "python": [
        {"name": "cmake", "version": "4.0", "folder": "/opt/toolchain"},
        {"name": "nobody-s", "version": "1", "folder": "/opt/toolchain"},
    ],
    "os": {},
}
BASE_LAYERS = b"base one", b"base two, which is longer"
OURS = b"ours"


def labels(
    project: Project, made: Parts, bases: Bases | None = None, wheels: dict[str, str] | None = None
) -> dict[str, str]:
    """Those of an image whose record names two wheels: cmake, which is one file, and `two`, which may be either."""
    found = record.labels(project, made, bases or Bases(debian=DEBIAN), HERE)
    told = json.loads(found[record.LABEL])
    told["lock"]["wheels"] = wheels or {"cmake": "4.0 sha256:" + "4" * 64, "two": "1 sha256:1 sha256:2"}
    return {**found, record.LABEL: json.dumps(told)}


def parts_of(project: Project, target: str = "embedded") -> Parts:
    """With a plugin, a model, and the lists of packages."""
    project.plugin_folder.mkdir(exist_ok=True)
    (project.plugin_folder / "CMakeLists.txt").write_text("project(x)\n")
    folder = project.state / target / "parts"
    (folder / "models" / "mydali").mkdir(parents=True)
    (folder / "models" / "mydali" / "config.pbtxt").write_text("max_batch_size: 8\n")
    (folder / "toolchain.json").write_text(json.dumps(TOOLCHAIN))
    (folder / "inventory.json").write_text(attested.INVENTORY.model_dump_json())
    left = {"plugin_files": {"CMakeLists.txt": "1" * 64}, "files": sources.digest(folder / "models")}
    return parts(plugin()).model_copy(update={"target": target, **left}).save(project)


def image_of(project: Project, made: Parts, own: bytes = OURS) -> Image:
    """Of two layers of the base's, and `own`."""
    base = test_oci.base(f"{test_oci.LAYER}+gzip", *BASE_LAYERS)
    layout = test_oci.built(Image.layout(project, made.target), own, on=base)
    reference = project.local_name(made.target)
    found = image(str(layout.put_on(base)), target=made.target, reference=reference, labels=labels(project, made))
    return found.model_copy(update={"parts": made.digest}).save(project)
