"""Images that another BuildKit makes for the engine: they travel only where the engine lacks them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from builder.docker.engine import Engine
from builder.oci import Layout
from builder.reference import Reference

Targets = Mapping[str, Mapping[str, Any]]
Metadata = dict[str, dict[str, Any]]
_NAMED = re.compile(r"type=image,name=(?P<name>[^,]+),(?P<form>.+)")


def bake(engine: Engine, targets: Targets, folder: Path, build: Callable[[Targets], Metadata]) -> Metadata:
    """Builds all targets; what would be an image in the builder's engine is one in `engine` afterwards.

    Args:
        folder: where image layouts are until the engine has them.
        build: has a builder build targets, and gives their metadata.

    Raises:
        MachineError, DiskFull: the engine does not take an image.
    """
    named = {name: match for name, each in targets.items() if (match := _NAMED.fullmatch("".join(each["output"])))}
    missing = {name for name, match in named.items() if not engine.has_image(match["name"])}
    layouts = {name: Layout(folder / f"{name}.oci") for name in named}
    asked = dict(targets)
    for name, match in named.items():
        # Of one that is there nothing but the digest is asked for, which takes no layer along.
        asked[name] = _sent(targets[name], layouts[name], match) if name in missing else _told(targets[name], match)
    try:
        metadata = build(asked)
        changed = {
            name
            for name in named.keys() - missing
            if engine.image(named[name]["name"])["Id"] != metadata[name]["containerimage.digest"]
        }
        if changed:
            metadata |= build({name: _sent(targets[name], layouts[name], named[name]) for name in sorted(changed)})
        for name in sorted(missing | changed):
            image = named[name]["name"]
            engine.load(layouts[name].archive(str(Reference.parse(image))), image)
    finally:
        for layout in layouts.values():
            shutil.rmtree(layout.folder, ignore_errors=True)
    return metadata


def _sent(target: Mapping[str, Any], layout: Layout, match: re.Match[str]) -> dict[str, Any]:
    shutil.rmtree(layout.folder, ignore_errors=True)  # of a build that was killed
    return {**target, "output": [f"type=oci,tar=false,dest={layout.folder},{match['form']}"]}


def _told(target: Mapping[str, Any], match: re.Match[str]) -> dict[str, Any]:
    return {**target, "output": [f"type=image,store=false,{match['form']}"]}
