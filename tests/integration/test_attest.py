"""What `attest` leaves in a real registry: `verify` takes it, cosign does, and nobody does once it was tampered with.

The image is a configuration with labels and no layer: what is said of an image does not depend on its size.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.attest import envelope, keys
from builder.attest.keys import PrivateKey
from builder.attest.statement import SBOM, Statement
from builder.reference import Digest, Reference
from builder.registry import Descriptor, Registry
from builder.registry.content import OCI_MANIFEST
from builder.steps import attest
from tests.unit import attested

from .conftest import ROOT, Finished

sys.path.insert(0, str(ROOT / "setup"))

import engine_install
from apt_sources import debian_codename, debian_mirrors, machine_sources

PASSWORD = "a planted pass phrase"
Push = Callable[..., "Pushed"]


@pytest.fixture(scope="module")
def cosign(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program itself: the machine's own, or Debian's, fetched as the setup fetches an engine."""
    if found := shutil.which("cosign"):
        return found
    work = tmp_path_factory.mktemp("cosign")
    work.chmod(0o755)
    mirror, *_ = debian_mirrors(machine_sources(), debian_codename())
    config = engine_install.write_apt_config(work, mirror)
    for argv in (
        ["apt-get", "-q", "-c", str(config), "update"],
        ["apt-get", "-q", "-c", str(config), "download", "cosign"],
    ):
        subprocess.run(argv, cwd=work / "packages", check=True, capture_output=True)
    (package,) = (work / "packages").glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(work / "root")], check=True)
    return str(work / "root/usr/bin/cosign")


@dataclass
class Pair:
    """Two files of a key."""

    folder: Path

    @property
    def public(self) -> Path:
        return self.folder / "cosign.pub"

    @property
    def private(self) -> PrivateKey:
        return keys.private_key(self.folder / "cosign.key")


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSIGN_PASSWORD", PASSWORD)


@pytest.fixture(scope="module")
def pairs(cosign: str, tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """Two pairs of keys that cosign made."""
    folders = [tmp_path_factory.mktemp(name) for name in ("ours", "stranger")]
    for folder in folders:
        environment = {**os.environ, "COSIGN_PASSWORD": PASSWORD}
        subprocess.run([cosign, "generate-key-pair"], cwd=folder, env=environment, check=True, capture_output=True)
    return [Pair(folder) for folder in folders]


@dataclass
class Pushed:
    """An image in the registry."""

    registry: Registry
    subject: Descriptor
    manifest: bytes
    sessions: Path

    @property
    def digest(self) -> Digest:
        return self.subject.digest

    @property
    def tag(self) -> str:
        return str(self.registry.repository)

    def attest(self, *statements: Statement, key: PrivateKey | None = None) -> attest.Attached:
        return attest.run(self.registry, self.subject, statements, key, self.sessions)

    def verify(self, *arguments: str) -> Finished:
        """The command, in a folder with no project and with a configuration of Docker's that has nothing."""
        (self.sessions / "none").mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "builder", "verify", self.tag, *arguments],
            cwd=self.sessions / "none",
            env={**os.environ, "PYTHONPATH": str(ROOT), "DOCKER_CONFIG": str(self.sessions / "none")},
            capture_output=True,
            text=True,
        )
        assert PASSWORD not in done.stdout + done.stderr
        assert not any((self.sessions / "none").iterdir())
        return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def push(registry: str, tmp_path: Path, request: pytest.FixtureRequest) -> Push:
    """Pushes an image to a repository of the test's own."""
    path = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower()).strip("-")

    def push(labels: dict[str, str] | None = None) -> Pushed:
        repository = Registry.connect(Reference.parse(f"{registry}/under-test/{path}:1.0"))
        manifest, config = attested.image(labels)
        described = Descriptor.of(config, "")

        def source(offset: int) -> contextlib.AbstractContextManager[io.BytesIO]:
            return io.BytesIO(config[offset:])

        repository.upload(described.digest, described.size, source, tmp_path, lambda _: None)
        repository.put_manifest(manifest, OCI_MANIFEST, "1.0")
        return Pushed(repository, Descriptor.of(manifest, OCI_MANIFEST), manifest, tmp_path)

    return push


def cosign_verifies(cosign: str, key: Path, what: str) -> bool:
    """The transparency log is Sigstore's own, which nobody wrote to."""
    argv = [cosign, "verify", "--key", str(key), "--insecure-ignore-tlog=true", what]
    return subprocess.run(argv, capture_output=True).returncode == 0


def test_what_is_not_signed_is_verified_and_said_not_to_be_signed(push: Push) -> None:
    pushed = push()
    pushed.attest(*attested.statements(pushed.digest))
    document = pushed.verify("--json").ok().document
    assert document["verified"] is True
    assert document["digest"] == str(pushed.digest)
    assert document["key"] == ""
    checks = {each["name"]: each["detail"] for each in document["checks"]}
    assert list(checks) == ["digest", "verification", "provenance", "SBOM", "labels", "signatures"]
    assert checks["signatures"].startswith("none checked, so not signed by anybody you named")


def test_people_get_a_line_for_each_check_and_the_reference(push: Push) -> None:
    pushed = push()
    pushed.attest(*attested.statements(pushed.digest))
    done = pushed.verify().ok()
    assert done.stdout == f"{pushed.tag.removesuffix(':1.0')}@{pushed.digest}\n"
    names = [line.split()[0] for line in done.stderr.splitlines()]
    assert names == ["digest", "verification", "provenance", "SBOM", "labels", "signatures"]


def test_the_wrong_key_and_the_right_one(push: Push, pairs: list[Pair]) -> None:
    pushed = push()
    ours, stranger = pairs
    pushed.attest(*attested.statements(pushed.digest), key=ours.private)
    document = pushed.verify("--key", str(ours.public), "--json").ok().document
    assert document["key"] == ours.private.public.id
    pushed.verify("--key", str(stranger.public), "--json").failed("signature-invalid", 6)
    pushed.verify("--key", str(ours.folder / "cosign.key"), "--json").failed("signing-key-invalid", 2)


def test_cosign_takes_the_image_s_signature(push: Push, pairs: list[Pair], cosign: str) -> None:
    pushed = push()
    ours, stranger = pairs
    assert not cosign_verifies(cosign, ours.public, pushed.tag)
    pushed.attest(*attested.statements(pushed.digest), key=ours.private)
    assert cosign_verifies(cosign, ours.public, pushed.tag)
    assert not cosign_verifies(cosign, stranger.public, pushed.tag)


def test_cosign_takes_the_statements_signatures(push: Push, pairs: list[Pair], cosign: str, tmp_path: Path) -> None:
    pushed = push()
    ours, stranger = pairs
    found = pushed.attest(*attested.statements(pushed.digest), key=ours.private)
    (tmp_path / "manifest.json").write_bytes(pushed.manifest)  # the bytes whose digest is the image's
    for kind, referrer in found.referrers.items():
        held = pushed.registry.manifest(str(referrer))
        assert held is not None
        (layer,) = held.layers
        assert layer.media_type == envelope.MEDIA_TYPE
        (tmp_path / "envelope.json").write_bytes(b"".join(pushed.registry.blob(layer.digest)))
        for key, status in ((ours, 0), (stranger, 1)):
            argv = [cosign, "verify-blob-attestation", "--key", str(key.public), "--type", kind]
            argv += ["--insecure-ignore-tlog=true", "--signature", "envelope.json", "manifest.json"]
            done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
            assert bool(done.returncode) == bool(status), done.stderr


def test_signatures_of_cosign_and_ours_stay_beside_each_other(push: Push, pairs: list[Pair], cosign: str) -> None:
    pushed = push()
    ours, stranger = pairs
    argv = [cosign, "sign", "--yes", "--tlog-upload=false", "--key", str(stranger.folder / "cosign.key")]
    subprocess.run([*argv, f"{pushed.tag.removesuffix(':1.0')}@{pushed.digest}"], check=True, capture_output=True)
    first = pushed.attest(*attested.statements(pushed.digest), key=ours.private)
    again = pushed.attest(*attested.statements(pushed.digest), key=ours.private)
    assert first == again
    for pair in pairs:
        assert cosign_verifies(cosign, pair.public, pushed.tag)
    pushed.verify("--key", str(ours.public)).ok()
    # cosign's signature of the image alone does not make the statements the stranger's.
    pushed.verify("--key", str(stranger.public), "--json").failed("signature-invalid", 6)


def test_unsigned_statements_are_not_enough_where_a_key_is_given(push: Push, pairs: list[Pair], cosign: str) -> None:
    pushed = push()
    ours = pairs[0]
    pushed.attest(*attested.statements(pushed.digest))
    error = pushed.verify("--key", str(ours.public), "--json").failed("signature-invalid", 6)
    assert "not signed by anybody" in error["what"]
    pushed.attest(*attested.statements(pushed.digest), key=ours.private)  # beside them
    pushed.verify("--key", str(ours.public)).ok()
    assert cosign_verifies(cosign, ours.public, pushed.tag)


def test_nothing_is_attached(push: Push) -> None:
    push().verify("--json").failed("not-verified", 6)


def test_no_sbom_is_attached(push: Push) -> None:
    pushed = push()
    pushed.attest(*(each for each in attested.statements(pushed.digest) if each.predicate_type != SBOM))
    done = pushed.verify("--json")
    done.failed("attestation-missing", 6)
    assert [each["name"] for each in done.document["checks"]] == ["digest", "verification", "provenance"]


def test_an_altered_label(push: Push) -> None:
    pushed = push({**attested.LABELS, "triton-dali-builder.plugins": f"/models/libcustomcopy.so@sha256:{'0' * 64}"})
    pushed.attest(*attested.statements(pushed.digest))
    error = pushed.verify("--json").failed("attestation-mismatch", 6)
    assert error["detail"] == [f"/models/libcustomcopy.so: SBOM {'d' * 64}, label {'0' * 64}"]


def test_statements_of_another_image(push: Push) -> None:
    pushed = push()
    for each in attested.statements(Digest("sha256:" + "9" * 64)):
        pushed.registry.attach(
            pushed.subject, "application/vnd.in-toto+json", each.content, "application/vnd.in-toto+json", {}
        )
    pushed.verify("--json").failed("attestation-mismatch", 6)


def test_an_image_that_is_not_there(registry: str, push: Push) -> None:
    pushed = push()
    pushed.registry = Registry.connect(Reference.parse(f"{registry}/under-test/nothing:1.0"))
    pushed.verify("--json").failed("image-missing", 6)
