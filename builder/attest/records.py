"""The statements that a project's own records stand for."""

from __future__ import annotations

from packageurl import PackageURL

from builder import record as records
from builder import sources
from builder.artifacts import Image, Parts, Verification
from builder.attest import provenance, sbom, verification
from builder.attest.inventory import Inventory
from builder.attest.statement import PROVENANCE, SBOM, VERIFICATION, Statement
from builder.project import Project
from builder.record import Record
from builder.reference import Digest


def of_build(project: Project, image: Image, parts: Parts, name: str, digest: Digest) -> list[Statement]:
    """Provenance and SBOM of an image, known to people as `name`.

    Raises:
        NothingBuilt: what the build left is gone.
        NoRecord: the image does not tell what it was made from.
    """
    record = Record.read(image.labels, image.reference)
    folder = project.state / image.target / "parts"
    toolchain = Inventory.read(folder / "toolchain.json")
    outermost = records.bases(record.lock).outermost
    compiled = records.bases(record.made_on.lock).outermost
    materials = [
        provenance.base(outermost.name, outermost.digest),
        *([provenance.base(compiled.name, compiled.digest, "compiled-on")] if record.compiled else ()),
        *provenance.source(record.revision),
        *provenance.files(record.sources),
        *provenance.packages(toolchain, _hashes(record)),
    ]
    settings = records.settings(record)
    made = provenance.predicate(image.target, settings, materials, {"engine": image.engine})
    listed = sbom.document(
        name,
        digest,
        # A toolchain beside the base knows nothing of the base's packages.
        Inventory() if record.built_as.toolchain == "wheel" else Inventory.read(folder / "inventory.json"),
        triton_version=parts.triton_version,
        dali_version=parts.dali_version,
        plugins=parts.plugins,
        plugin_files=parts.plugin_files,
        model_files=sources.files(folder / "models"),
        epoch=record.epoch,
    )
    return [Statement.about(name, digest, PROVENANCE, made), Statement.about(name, digest, SBOM, listed)]


def of_verification(verified: Verification, name: str, digest: Digest) -> Statement:
    """What was asked of the image, and that every answer was right."""
    predicate = verification.predicate(
        verified,
        configuration=verified.configuration,
        versions=verified.versions,
        server_log_sha256=verified.server_log_sha256,
        server_log=verified.server_log,
    )
    return Statement.about(name, digest, VERIFICATION, predicate)


def _hashes(record: Record) -> dict[str, str]:
    """SHA-256 by package URL, of the wheels that may only be one file."""
    found = {}
    for name, told in record.made_on.lock.wheels.items():
        version, *hashes = told.split()
        if len(hashes) == 1:
            url = PackageURL("pypi", None, name, version).to_string()
            found[url] = hashes[0].removeprefix("sha256:")
    return found
