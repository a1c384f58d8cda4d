"""Manifest and configuration of a base image, wherever the base is; its layers stay there."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from builder.artifacts import write_atomically
from builder.docker.engine import Engine
from builder.docker.saved import base_image, of_platform
from builder.errors import NoBase
from builder.oci import INDEXES, BaseImage
from builder.reference import Digest, Reference
from builder.registry import Registry

OURS = "triton-dali-builder/"
"""What the names of images begin with that are made on this machine alone."""


def described(state: Path, engine: Engine, name: str, digest: Digest, platform: str) -> BaseImage:
    """The base image `name`, which stands for `digest`: as read before, from the engine, or from its registry.

    Args:
        state: the folder that remembers what was read.

    Raises:
        NoBase: the registry does not have it, or not for the platform.
        MachineError, PushError: the engine or the registry cannot be read.
    """
    kept = state / "bases" / f"{digest.value.removeprefix('sha256:')}-{platform.replace('/', '-')}.json"
    if kept.is_file():
        found = json.loads(kept.read_text(encoding="utf-8"))
        return BaseImage(name, digest, base64.b64decode(found["manifest"]), base64.b64decode(found["config"]))
    there = engine.find(name)
    # The engine may have another image under that name by now.
    of_engine = there is not None and there["Id"] == str(digest)
    if of_engine:
        described = base_image(engine, name, platform)
    elif name.startswith(OURS):
        raise NoBase("the engine has lost a base that was made here", where=f"{name} {digest}", remedy="build again")
    else:
        described = in_registry(name, digest, platform)
    content = {
        "manifest": base64.b64encode(described.manifest).decode(),
        "config": base64.b64encode(described.config).decode(),
    }
    write_atomically(kept, json.dumps(content))
    return described


def digest_in_registry(name: str) -> Digest | None:
    """What a name stands for in its registry; None where it has no such image.

    Raises:
        NoRegistry, Unauthorized, PushError: the registry cannot be read.
    """
    reference = Reference.parse(name)
    registry = Registry.connect(reference)
    registry.log_in()
    found = registry.manifest(str(reference.digest or reference.tag or "latest"))
    return found.digest if found else None


def in_registry(name: str, digest: Digest, platform: str) -> BaseImage:
    """As `described`, from the registry: a few kilobytes, whatever the size of the image."""
    registry = Registry.connect(Reference.parse(name))
    registry.log_in()
    found = registry.manifest(str(digest))
    if found and found.document.get("mediaType", found.media_type) in INDEXES:
        inner = of_platform(found.document, platform)
        found = registry.manifest(inner) if inner else None
    if found is None:
        raise NoBase(
            f"the registry has no image {name} for {platform}",
            where=f"{name}@{digest}",
            remedy="name another one in builder.toml, or another platform",
        )
    config = b"".join(registry.blob(Digest(found.document["config"]["digest"])))
    return BaseImage(name, digest, found.content, config)
