"""Images that are given to a build by their content, as BuildKit's named contexts, whichever BuildKit it is.

One that is not the engine's sees no image of the engine. What a registry has it pulls itself, by digest; of any other
image it is sent an OCI image layout, as far as it does not have the layers.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder import bases, recipe
from builder.docker.engine import Engine
from builder.docker.saved import SavedBlobs
from builder.errors import MachineError, NoBase, PushError
from builder.oci import CONFIG, Layout
from builder.recipe import Bases
from builder.reference import DOCKER_HUB, Digest, Reference
from builder.registry.content import OCI_MANIFEST, Descriptor, as_content, digest_of

_BLOCK = 1 << 20


def name_in_build(image: str) -> str:
    """The name by which `FROM image` looks for a context.

    As github.com/distribution/reference makes names familiar, which is what BuildKit's Dockerfile frontend asks by.
    """
    name = str(Reference.parse(image)).removesuffix(":latest")
    return name.removeprefix(f"{DOCKER_HUB}/library/").removeprefix(f"{DOCKER_HUB}/")


def husk(state: Path, config: Mapping[str, Any]) -> str:
    """The context of an image that has a configuration and no layer.

    Args:
        state: `.builder` of the project that is built.
    """
    content = as_content(config)
    described = Descriptor.of(content, CONFIG).as_json()
    manifest = as_content({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": []})
    folder = _folder(state, digest_of(manifest))
    if not folder.exists():
        state.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=state, prefix=".context.") as temporary:
            _finish(Layout(Path(temporary) / "made"), manifest, content, folder)
    return _context(state, folder, digest_of(manifest))


def of_bases(state: Path, engine: Engine, found: Bases, platform: str) -> dict[str, str]:
    """The contexts of what a target starts from, by the names that `FROM` has.

    Raises:
        NoBase, MachineError: as `of_image`.
    """
    named = {recipe.DEBIAN: found.debian} | ({name_in_build(found.triton.name): found.triton} if found.triton else {})
    return {name: of_image(state, engine, each.name, each.digest, platform) for name, each in named.items() if each}


def of_image(state: Path, engine: Engine, name: str, digest: Digest | None, platform: str) -> str:
    """The context of an image that a build starts from, which a registry or the engine has.

    Raises:
        NoBase, MachineError: the engine has it no longer.
    """
    reference = Reference.parse(name)
    pinned = reference.with_digest(digest) if digest else reference
    if not engine.has_image(name) or _can_be_pulled(pinned):
        return f"docker-image://{pinned}"
    if digest is None:
        raise NoBase("the engine has it without a digest", where=name, remedy="pull it, or import it, again")
    image = bases.described(state, engine, name, digest, platform)
    manifest = digest_of(image.manifest)
    folder = _folder(state, manifest)
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=state, prefix=".context.") as temporary:
            layout = Layout(Path(temporary) / "made")
            layers = sorted({layer["digest"] for layer in json.loads(image.manifest)["layers"]})
            with SavedBlobs(engine, name) as saved:
                for each in layers:
                    with saved.blob(Digest(each)) as blob, _new(layout, each).open("wb") as file:
                        shutil.copyfileobj(blob, file, _BLOCK)
            _finish(layout, image.manifest, image.config, folder)
    return _context(state, folder, manifest)


def _can_be_pulled(pinned: Reference) -> bool:
    """Whether another machine can, as far as this one can tell."""
    if f"{pinned.path}/".startswith(bases.OURS) or pinned.is_loopback:
        return False
    try:
        return bases.digest_in_registry(str(pinned)) is not None
    except (MachineError, PushError):
        return False  # none that answers


def _folder(state: Path, manifest: Digest) -> Path:
    return state / "contexts" / manifest.value.removeprefix("sha256:")


def _context(state: Path, folder: Path, manifest: Digest) -> str:
    # From where bake runs: buildx takes a colon in the path for the beginning of a tag.
    return f"oci-layout://{folder.relative_to(state.parent)}@{manifest}"


def _new(layout: Layout, digest: str) -> Path:
    path = layout.path(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _finish(layout: Layout, manifest: bytes, config: bytes, folder: Path) -> None:
    """Writes what is not layers, and puts the layout where it belongs, whole."""
    for content in (manifest, config):
        _new(layout, str(digest_of(content))).write_bytes(content)
    entry = Descriptor.of(manifest, OCI_MANIFEST).as_json()
    (layout.folder / "index.json").write_bytes(as_content({"schemaVersion": 2, "manifests": [entry]}))
    (layout.folder / "oci-layout").write_bytes(as_content({"imageLayoutVersion": "1.0.0"}))
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        layout.folder.rename(folder)
    except OSError:
        if not folder.exists():  # another build was faster
            raise
