"""What an image is made of, as a CycloneDX document: https://cyclonedx.org/docs/1.6/json/.

CycloneDX rather than SPDX, as its own project keeps a typed Python library for it, which brings the schema along to
test against; scanners read both. The same image has the same document, byte for byte.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.output.json import JsonV1Dot6

from builder import __version__
from builder.artifacts import Plugin
from builder.attest.inventory import Inventory
from builder.reference import Digest

OURS = "triton-dali-builder:"
"""What the names of this program's properties begin with."""
PATH, FOLDER, OPERATORS = OURS + "path", OURS + "folder", OURS + "operators"
TRITON, DALI, SOURCES = "triton", "dali", "plugin-sources"
"""References of components that every document has, the last one only with plugins."""
_PLUGIN = "plugin:"


def document(
    name: str,
    digest: Digest,
    inventory: Inventory,
    *,
    triton_version: str,
    dali_version: str,
    plugins: Sequence[Plugin],
    plugin_files: Mapping[str, str],
    model_files: Mapping[str, str],
    epoch: int,
) -> dict[str, Any]:
    """The bill of materials of an image.

    Args:
        name: what people call the image.
        inventory: the packages of the base.
        triton_version: such as 24.10; empty where the base does not tell it.
        plugin_files: what the plugins were compiled from: SHA-256 in hexadecimal, by names below plugin/.
        model_files: those of the model repository as the image has them, by names below /models.
        epoch: seconds since 1970 of the revision, which is the document's time.
    """
    subject = Component(
        type=ComponentType.CONTAINER,
        name=name,
        version=str(digest),
        bom_ref=str(digest),
        hashes=[_sha256(str(digest).removeprefix("sha256:"))],
    )
    program = Component(
        type=ComponentType.APPLICATION, name="triton-dali-builder", version=__version__, bom_ref="triton-dali-builder"
    )
    models = _models(model_files)
    packages = [*_debian(inventory), *_python(inventory)]
    bases = [*_system(inventory), *_servers(triton_version, dali_version), *packages]
    libraries = [_plugin(plugin) for plugin in plugins]
    sources = _sources(plugin_files) if libraries else []
    made = [*libraries, *sources, *models]
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{name}@{digest}"),
        metadata=BomMetaData(component=subject, timestamp=datetime.fromtimestamp(epoch, UTC)),
        components=[*bases, *made],
    )
    bom.metadata.tools.components.add(program)
    compiled_from = [each.bom_ref for each in sources] + [each.bom_ref for each in bases if each.bom_ref.value == DALI]
    bom.dependencies = [
        Dependency(subject.bom_ref, [Dependency(each.bom_ref) for each in (*bases, *libraries, *models)]),
        *(Dependency(plugin.bom_ref, [Dependency(each) for each in compiled_from]) for plugin in libraries),
    ]
    written: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    return written


def plugins(document: Mapping[str, Any]) -> dict[str, str]:
    """The plugins that a document has: the SHA-256 of each in hexadecimal, by its path in the image."""
    return {
        str(component["bom-ref"]).removeprefix(_PLUGIN): _digest(component)
        for component in _components(document)
        if str(component.get("bom-ref", "")).startswith(_PLUGIN)
    }


def versions(document: Mapping[str, Any]) -> dict[str, str]:
    """Of Triton and DALI."""
    known = {str(each.get("bom-ref", "")): str(each.get("version", "")) for each in _components(document)}
    return {name: known[name] for name in (TRITON, DALI) if name in known}


def subject(document: Mapping[str, Any]) -> str:
    """The digest of the image that a document is of; empty where it names none."""
    component = _mapping(_mapping(document.get("metadata")).get("component"))
    return f"sha256:{_digest(component)}" if _digest(component) else ""


def count(document: Mapping[str, Any]) -> int:
    """Its components, without the files that they were made from."""
    return len(_components(document))


def _components(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = document.get("components")
    return [_mapping(each) for each in found] if isinstance(found, list) else []


def _digest(component: Mapping[str, Any]) -> str:
    hashes = component.get("hashes")
    for each in hashes if isinstance(hashes, list) else []:
        if _mapping(each).get("alg") == "SHA-256":
            return str(each.get("content", ""))
    return ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _system(inventory: Inventory) -> list[Component]:
    if not inventory.os:
        return []
    name, version = inventory.os.get("ID", "linux"), inventory.os.get("VERSION_ID")
    return [
        Component(
            type=ComponentType.OPERATING_SYSTEM,
            name=name,
            version=version,
            description=inventory.os.get("PRETTY_NAME"),
            bom_ref="operating-system",
        )
    ]


def _servers(triton: str, dali: str) -> list[Component]:
    """What has no package of its own: the server, and DALI also where its wheel is unpacked without metadata."""
    return [
        Component(type=ComponentType.FRAMEWORK, group="nvidia", name=name, version=version, bom_ref=reference)
        for reference, name, version in (
            (TRITON, "tritonserver", triton or None),
            (DALI, "dali", dali),
        )
    ]


def _debian(inventory: Inventory) -> list[Component]:
    return [
        Component(
            name=package.name,
            version=package.version,
            purl=(purl := inventory.purl(package)),
            bom_ref=purl.to_string(),
        )
        for package in inventory.debian
    ]


def _python(inventory: Inventory) -> list[Component]:
    folders: dict[str, list[str]] = {}
    for package in inventory.python:
        folders.setdefault(package.purl.to_string(), []).append(package.folder)
    packages = {package.purl.to_string(): package for package in inventory.python}
    return [
        Component(
            name=package.name,
            version=package.version,
            purl=package.purl,
            bom_ref=purl,
            properties=[Property(name=FOLDER, value=folder) for folder in folders[purl]],
        )
        for purl, package in packages.items()
    ]


def _plugin(plugin: Plugin) -> Component:
    operators = ", ".join(f"{each.name} ({', '.join(each.devices)})" for each in plugin.operators)
    return Component(
        name=Path(plugin.path).name,
        version=f"sha256:{plugin.sha256}",
        hashes=[_sha256(plugin.sha256)],
        properties=[Property(name=PATH, value=plugin.path), Property(name=OPERATORS, value=operators)],
        bom_ref=_PLUGIN + plugin.path,
    )


def _sources(found: Mapping[str, str]) -> list[Component]:
    """plugin/ as one component of files."""
    nested = [_file(f"source:{name}", f"plugin/{name}", sha256) for name, sha256 in found.items()]
    if not nested:
        return []
    return [
        Component(
            name="plugin",
            description="What the plugins were compiled from; not in the image.",
            components=nested,
            bom_ref=SOURCES,
        )
    ]


def _models(found: Mapping[str, str]) -> list[Component]:
    """A component for each model, of its files."""
    by_model: dict[str, dict[str, str]] = {}
    for name, sha256 in found.items():
        model, slash, _ = name.partition("/")
        if slash:
            by_model.setdefault(model, {})[name] = sha256
    return [
        Component(
            type=ComponentType.MACHINE_LEARNING_MODEL,
            name=model,
            components=[_file(f"model:{name}", f"/models/{name}", sha256) for name, sha256 in files.items()],
            properties=[Property(name=PATH, value=f"/models/{model}")],
            bom_ref=f"model:{model}",
        )
        for model, files in by_model.items()
    ]


def _file(reference: str, name: str, sha256: str) -> Component:
    return Component(type=ComponentType.FILE, name=name, hashes=[_sha256(sha256)], bom_ref=reference)


def _sha256(value: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=value)
