"""Where an image comes from, as SLSA provenance: https://slsa.dev/spec/v1.0/provenance.

It claims SLSA's build level 1, which is that it exists: the machine that built writes it, and nobody keeps that machine
from writing something else. docs/attestations.md describes the build type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from builder import __version__
from builder.attest.inventory import Inventory
from builder.process import redact
from builder.reference import Digest
from builder.revision import Revision

_NAMES = "https://triton-dali-builder.example"
"""Names alone, as predicates want them. Nothing answers there: the domain can be nobody's (RFC 2606)."""
BUILD_TYPE = f"{_NAMES}/build/v1"
BUILDER_ID = f"{_NAMES}/builder/v1"
BASE = "base"
"""The name of the dependency that is the base image."""
SOURCE = "source"


@dataclass(frozen=True)
class Material:
    """Something that the build took."""

    uri: str = ""
    name: str = ""
    digest: Mapping[str, str] = field(default_factory=dict)
    """Hexadecimal, by algorithm: sha256, gitCommit."""
    annotations: Mapping[str, Any] = field(default_factory=dict)

    @property
    def descriptor(self) -> dict[str, Any]:
        """in-toto's ResourceDescriptor."""
        fields = {"uri": self.uri, "name": self.name, "digest": self.digest, "annotations": self.annotations}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in fields.items() if value}


def base(name: str, digest: Digest | None, role: str = BASE) -> Material:
    """A base image, by the name that builder.toml has for it."""
    return Material(
        uri=f"docker-image://{name}",
        name=role,
        digest={"sha256": str(digest).removeprefix("sha256:")} if digest else {},
    )


def source(revision: Revision) -> list[Material]:
    """The commit; none outside a repository. A work tree that differs from its commit has no digest of git's."""
    commit, dirty, _ = revision.commit.partition("-dirty")
    if not commit:
        return []
    remote = redact(revision.remote).replace("***@", "")
    return [
        Material(
            uri=f"git+{remote}@{commit}" if remote else "",
            name=SOURCE,
            digest={} if dirty else {"gitCommit": commit},
            annotations={"commit": commit, "dirty": True} if dirty else {},
        )
    ]


def files(digests: Mapping[str, str]) -> list[Material]:
    """Files and folders of the project, by name: the SHA-256 of each in hexadecimal."""
    return [Material(name=name, digest={"sha256": sha256}) for name, sha256 in sorted(digests.items())]


def packages(inventory: Inventory, hashes: Mapping[str, str] | None = None) -> list[Material]:
    """An image's packages.

    Args:
        hashes: SHA-256 in hexadecimal of what was installed, by package URL, as far as it is known.
    """
    known = hashes or {}
    urls = {
        *(inventory.purl(package).to_string() for package in inventory.debian),
        *(package.purl.to_string() for package in inventory.python),
    }
    return [Material(uri=url, digest={"sha256": known[url]} if url in known else {}) for url in sorted(urls)]


def predicate(
    target: str, settings: Mapping[str, Any], materials: Iterable[Material], versions: Mapping[str, str]
) -> dict[str, Any]:
    """How the image was built. The same build has the same one: it names no time and no machine.

    Args:
        target: of builder.toml.
        settings: what builder.toml said of it, with all that was given on the command line or in the environment.
        versions: of what built: `buildx`, `engine`.
    """
    found = {_key(each): each.descriptor for each in materials}
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"target": target, "settings": dict(settings)},
            "resolvedDependencies": [found[key] for key in sorted(found)],
        },
        "runDetails": {"builder": {"id": BUILDER_ID, "version": {"triton-dali-builder": __version__, **versions}}},
    }


def _key(material: Material) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """What tells one material from another."""
    return material.name, material.uri, tuple(sorted(material.digest.items()))
