"""An image, and what is said of it: small, and complete."""

from __future__ import annotations

from typing import Any

from builder.artifacts import Latency, VerifiedModel
from builder.attest import provenance, sbom, verification
from builder.attest.inventory import Inventory
from builder.attest.statement import PROVENANCE, SBOM, VERIFICATION, Statement
from builder.reference import Digest
from builder.registry.content import OCI_MANIFEST, Descriptor, as_content
from builder.revision import Revision

from .records import plugin
from .records import verification as record

NAME = "mydali"
BASE = "docker.io/library/debian:12-slim"
BASE_DIGEST = Digest("sha256:" + "b" * 64)
COMMIT = "c" * 40
VERSIONS = {"triton": "24.10", "dali": "1.53.0", "builder": "0.1.0", "engine": "26.1.5"}
LABELS = {
    "org.opencontainers.image.revision": COMMIT,
    "org.opencontainers.image.base.name": BASE,
    "org.opencontainers.image.base.digest": str(BASE_DIGEST),
    "triton-dali-builder.target": "embedded",
    "triton-dali-builder.triton.version": "24.10",
    "triton-dali-builder.dali.version": "1.53.0",
    "triton-dali-builder.plugins": f"/models/libcustomcopy.so@sha256:{'d' * 64}",
}
INVENTORY = Inventory.model_validate(
    {
        "debian": [
            {
                "name": "libc6",
                "version": "2.36-9+deb12u10",
                "architecture": "amd64",
                "source": "glibc",
                "source_version": "2.36-9+deb12u10",
            },
            {
                "name": "libgcc-s1",
                "version": "12.2.0-14",
                "architecture": "amd64",
                "source": "gcc-12",
                "source_version": "12.2.0-14+x",
            },
        ],
        "python": [
            {"name": "nvidia-dali-cuda120", "version": "1.53.0", "folder": "/opt/dali"},
            {"name": "Some_Name", "version": "1", "folder": "/opt/dali"},
            {"name": "Some_Name", "version": "1", "folder": "/opt/other"},
        ],
        "os": {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"},
    }
)
MODEL = VerifiedModel(
    name="mydali",
    version="1",
    oracle="identity",
    values_compared=True,
    rtol=0,
    atol=0,
    requests=1024,
    left_out=0,
    latency_ms=Latency(p50=1, p99=2),
    requests_per_second=100,
)


def image(labels: dict[str, str] | None = None) -> tuple[bytes, bytes]:
    """The manifest and the configuration of an image without layers."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": LABELS if labels is None else labels},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    content = as_content(config)
    described = Descriptor.of(content, "application/vnd.oci.image.config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described.as_json(), "layers": []}
    return as_content(manifest), content


def verified(digest: Digest, **changes: Any) -> Statement:
    """By a verification that passed."""
    passed = record(str(digest)).model_copy(update={"models": (MODEL,), **changes})
    predicate = verification.predicate(
        passed,
        configuration={"builder.toml": "e" * 64},
        versions=VERSIONS,
        server_log_sha256="f" * 64,
        server_log=["one", "two"],
    )
    return Statement.about(NAME, digest, VERIFICATION, predicate)


def built(digest: Digest) -> Statement:
    """By a build of the target `embedded`."""
    materials = [
        provenance.base(BASE, BASE_DIGEST),
        *provenance.source(Revision(COMMIT, 0, "https://example.com/team/mydali.git")),
        *provenance.files({"plugin": "a" * 64}),
        *provenance.packages(INVENTORY),
    ]
    predicate = provenance.predicate("embedded", {"cuda": "ON"}, materials, {"buildx": "0.13.1"})
    return Statement.about(NAME, digest, PROVENANCE, predicate)


def listed(digest: Digest) -> Statement:
    """With one plugin, one model and five packages."""
    document = sbom.document(
        NAME,
        digest,
        INVENTORY,
        triton_version="24.10",
        dali_version="1.53.0",
        plugins=[plugin()],
        plugin_files={"CMakeLists.txt": "1" * 64, "src/copy.cc": "2" * 64},
        model_files={"mydali/config.pbtxt": "3" * 64, "libcustomcopy.so": "d" * 64},
        epoch=1_700_000_000,
    )
    return Statement.about(NAME, digest, SBOM, document)


def statements(digest: Digest) -> list[Statement]:
    """All that an image has."""
    return [verified(digest), built(digest), listed(digest)]
