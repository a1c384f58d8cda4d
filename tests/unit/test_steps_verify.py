"""What `verify` takes and what it refuses, and that `attest` leaves what it takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from builder.artifacts import NegativeControl
from builder.attest import envelope, image_signature, statement
from builder.attest.keys import PrivateKey, PublicKey
from builder.attest.statement import PROVENANCE, SBOM, VERIFICATION, Statement
from builder.errors import (
    AttestationMismatch,
    AttestationMissing,
    BuilderError,
    DigestMismatch,
    ImageMissing,
    NoRegistry,
    NotVerified,
    SignatureInvalid,
    Unauthorized,
)
from builder.reference import Digest
from builder.registry import Descriptor, Registry
from builder.registry.content import OCI_INDEX, OCI_MANIFEST, as_content, digest_of
from builder.steps import attest, verify

from . import attested
from .registry_in_memory import RegistryInMemory

KEY, STRANGER = (PrivateKey(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
OTHER = Digest("sha256:" + "9" * 64)
TAG = "1.0"
Check = Callable[..., verify.Verified]


class Pushed:
    """An image in a registry, and what a test does to it."""

    def __init__(self, memory: RegistryInMemory, sessions: Path, labels: dict[str, str] | None = None) -> None:
        self.memory = memory
        self.registry: Registry = memory  # type: ignore[assignment]
        self.sessions = sessions
        manifest, config = attested.image(labels)
        memory.put(config, "")
        self.digest = memory.put_manifest(manifest, OCI_MANIFEST, TAG)
        self.subject = Descriptor.of(manifest, OCI_MANIFEST)

    def attest(self, *statements: Statement, key: PrivateKey | None = None) -> attest.Attached:
        return attest.run(self.registry, self.subject, statements, key, self.sessions)

    def plant(self, said: Statement, key: PrivateKey | None = None) -> None:
        """Attaches what `attest` would not."""
        content = envelope.seal(said.content, key) if key else said.content
        media_type = envelope.MEDIA_TYPE if key else statement.MEDIA_TYPE
        self.registry.attach(self.subject, media_type, content, media_type, {})

    def verify(self, key: PublicKey | None = None, reference: str = f":{TAG}") -> verify.Verified:
        repository = self.memory.repository
        where = repository.parse(f"{repository}{reference}")
        told: list[verify.Check] = []
        try:
            found = verify.run(self.registry, where, key, told.append)
        except BuilderError as error:
            is_told = bool(error.where and error.remedy)
            is_told &= error.partial == {"verified": False, "checks": [vars(each) for each in told]}
            if not is_told:
                raise AssertionError(f"this does not tell all: {error.as_json()} {error.partial}") from error
            raise
        assert found.checks == tuple(told)
        return found

    def detach(self, kind: str) -> None:
        listed = self.memory.attached[str(self.digest)]
        self.memory.attached[str(self.digest)] = [
            each for each in listed if each.annotations.get(attest.PREDICATE_TYPE) != kind
        ]


@pytest.fixture
def pushed(tmp_path: Path) -> Pushed:
    return Pushed(RegistryInMemory(), tmp_path)


@pytest.fixture
def good(pushed: Pushed) -> Pushed:
    pushed.attest(*attested.statements(pushed.digest))
    return pushed


@pytest.fixture
def signed(pushed: Pushed) -> Pushed:
    pushed.attest(*attested.statements(pushed.digest), key=KEY)
    return pushed


def changed(said: Statement, path: str, value: Any) -> Statement:
    """The statement with one value of its predicate, at KEY.KEY or KEY.NUMBER, replaced."""
    predicate = json.loads(json.dumps(said.predicate))
    *above, last = [int(each) if each.isdigit() else each for each in path.split("/")]
    place = predicate
    for each in above:
        place = place[each]
    place[last] = value
    return said.model_copy(update={"predicate": predicate})


def test_an_image_that_is_what_it_is_said_to_be(good: Pushed) -> None:
    found = good.verify()
    assert found.reference == f"registry.example.com/team/mydali@{good.digest}"
    assert (found.digest, found.key) == (str(good.digest), "")
    assert [(each.name, each.detail) for each in found.checks] == [
        ("digest", found.reference),
        (
            "verification",
            "passed on 2026-01-02T03:04:05+00:00 (CPU): 1 model, 1024 requests answered rightly, "
            "and without its plugins it failed",
        ),
        (
            "provenance",
            f"commit {attested.COMMIT}, base {attested.BASE}@{attested.BASE_DIGEST}, 7 dependencies",
        ),
        ("SBOM", "10 components, 1 plugin"),
        ("labels", "agree with these: target embedded, Triton 24.10, DALI 1.53.0, /models/libcustomcopy.so"),
        ("signatures", "none checked, so not signed by anybody you named (--key FILE)"),
    ]
    assert good.verify(reference=f"@{good.digest}") == found


def test_an_image_that_is_signed(signed: Pushed) -> None:
    found = signed.verify(KEY.public)
    assert found.key == KEY.public.id
    assert found.checks[-1].detail == f"of the image and of all these statements, by the key sha256:{KEY.public.id}"
    assert signed.verify().checks[-1].detail.endswith(": 4 signatures by keys that you did not name")


def test_attaching_again_changes_nothing(signed: Pushed) -> None:
    written = signed.memory.written
    again = signed.attest(*attested.statements(signed.digest), key=KEY)
    assert signed.memory.written == written
    assert set(again.referrers) == {VERIFICATION, PROVENANCE, SBOM}
    assert again.signature == signed.memory.manifests[image_signature.tag(signed.digest)].digest
    assert len(signed.memory.attached[str(signed.digest)]) == 3


def test_a_statement_of_another_image_is_not_attached(pushed: Pushed) -> None:
    with pytest.raises(AttestationMismatch, match="the SBOM is about another image"):
        pushed.attest(attested.verified(pushed.digest), attested.listed(OTHER))
    assert pushed.memory.attached == {}


@pytest.mark.parametrize("name", [":2.0", f"@{OTHER}", ""])
def test_an_image_that_is_not_there(good: Pushed, name: str) -> None:
    with pytest.raises(ImageMissing):
        good.verify(reference=name)


def test_several_platforms_are_asked_for_one_by_one(good: Pushed) -> None:
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [good.subject.as_json()]}
    good.memory.put_manifest(as_content(index), OCI_INDEX, "all")
    with pytest.raises(ImageMissing, match="several images") as failure:
        good.verify(reference=":all")
    assert failure.value.detail == (str(good.digest),)


@pytest.mark.parametrize("config", [b"", b"[]", b"{}", b'{"config": {"Labels": 1}}'])
def test_what_is_no_image(good: Pushed, config: bytes) -> None:
    manifest = {"config": good.memory.put(config, ""), "layers": []}
    good.memory.put_manifest(as_content(manifest), OCI_MANIFEST, "artifact")
    with pytest.raises(ImageMissing, match="no image"):
        good.verify(reference=":artifact")


def test_what_is_too_large_for_a_configuration_is_no_image(good: Pushed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_LARGEST", 100)
    with pytest.raises(ImageMissing, match="no image"):
        good.verify()


def test_a_registry_that_gives_another_image(good: Pushed) -> None:
    good.memory.manifests[str(OTHER)] = good.memory.manifests[TAG]
    with pytest.raises(DigestMismatch):
        good.verify(reference=f"@{OTHER}")


@pytest.mark.parametrize(
    ("kind", "error"), [(VERIFICATION, NotVerified), (PROVENANCE, AttestationMissing), (SBOM, AttestationMissing)]
)
@pytest.mark.parametrize("key", [None, KEY])
def test_a_removed_referrer(pushed: Pushed, kind: str, error: type[BuilderError], key: PrivateKey | None) -> None:
    pushed.attest(*attested.statements(pushed.digest), key=key)
    pushed.detach(kind)
    with pytest.raises(error, match=statement.KINDS[kind]):
        pushed.verify(key.public if key else None)


def test_a_referrer_whose_manifest_is_gone(good: Pushed) -> None:
    for each in good.memory.attached[str(good.digest)]:
        if each.annotations[attest.PREDICATE_TYPE] == SBOM:
            del good.memory.manifests[str(each.digest)]
    with pytest.raises(AttestationMismatch, match="cannot be read"):
        good.verify()


@pytest.mark.parametrize("kind", [VERIFICATION, PROVENANCE, SBOM])
@pytest.mark.parametrize("key", [None, KEY])
def test_a_statement_of_another_digest(pushed: Pushed, kind: str, key: PrivateKey | None) -> None:
    here, elsewhere = attested.statements(pushed.digest), attested.statements(OTHER)
    for right, wrong in zip(here, elsewhere, strict=True):
        pushed.plant(wrong if right.predicate_type == kind else right, key)
    if key:
        image_signature.sign(pushed.registry, pushed.digest, key, pushed.sessions)
    with pytest.raises(AttestationMismatch, match=f"the {statement.KINDS[kind]} is about another image"):
        pushed.verify(key.public if key else None)


@pytest.mark.parametrize(
    ("kind", "path", "value", "what"),
    [
        (VERIFICATION, "tritonDaliBuilder/versions/dali", "2.1.1", "version of DALI"),
        (VERIFICATION, "tritonDaliBuilder/versions/triton", None, "version of Triton"),
        (VERIFICATION, "tritonDaliBuilder/target", "ngc", "target"),
        (PROVENANCE, "buildDefinition/externalParameters/target", "ngc", "target"),
        (PROVENANCE, "buildDefinition/resolvedDependencies", [], "base image"),
        (PROVENANCE, "buildDefinition/buildType", "https://example.com/other", "another program"),
        (SBOM, "metadata/component/hashes/0/content", "9" * 64, "another image"),
        (SBOM, "components", [], "version of Triton"),
    ],
)
def test_a_statement_that_contradicts_the_image(good: Pushed, kind: str, path: str, value: Any, what: str) -> None:
    (right,) = [each for each in attested.statements(good.digest) if each.predicate_type == kind]
    good.detach(kind)
    good.plant(changed(right, path, value))
    with pytest.raises(AttestationMismatch, match=what):
        good.verify()


def test_another_commit_is_a_contradiction(good: Pushed) -> None:
    said = attested.built(good.digest)
    found = said.predicate["buildDefinition"]["resolvedDependencies"]
    number = next(place for place, each in enumerate(found) if each.get("name") == "source")
    good.detach(PROVENANCE)
    good.plant(changed(said, f"buildDefinition/resolvedDependencies/{number}/digest/gitCommit", "0" * 40))
    with pytest.raises(AttestationMismatch, match="commit"):
        good.verify()


def test_an_altered_sbom(good: Pushed) -> None:
    said = attested.listed(good.digest)
    place = [each["bom-ref"] for each in said.predicate["components"]].index("plugin:/models/libcustomcopy.so")
    good.detach(SBOM)
    good.plant(changed(said, f"components/{place}/hashes/0/content", "0" * 64))
    with pytest.raises(AttestationMismatch, match="other plugins") as failure:
        good.verify()
    assert failure.value.detail == (f"/models/libcustomcopy.so: SBOM {'0' * 64}, label {'d' * 64}",)


def test_an_altered_blob(good: Pushed) -> None:
    content = attested.listed(good.digest).content
    good.memory.blobs[str(digest_of(content))] = content.replace(b"nvidia", b"nvidla")
    with pytest.raises(AttestationMismatch, match="no SBOM, and something attached to it cannot be read") as failure:
        good.verify()
    assert "other bytes" in failure.value.detail[0]


@pytest.mark.parametrize("content", [None, b"no statement any more"], ids=["gone", "damaged"])
def test_a_damaged_referrer_does_no_harm_to_good_ones(good: Pushed, content: bytes | None) -> None:
    found = good.verify()
    for kind in statement.KINDS:
        bad = b"a statement by another, %r" % kind
        good.registry.attach(good.subject, statement.MEDIA_TYPE, bad, statement.MEDIA_TYPE, {})
        if content is None:
            del good.memory.blobs[str(digest_of(bad))]
        else:
            good.memory.blobs[str(digest_of(bad))] = content
    assert good.verify() == found


@pytest.mark.parametrize("error", [Unauthorized, NoRegistry])
def test_a_registry_that_no_longer_answers_is_no_damaged_referrer(
    good: Pushed, monkeypatch: pytest.MonkeyPatch, error: type[BuilderError]
) -> None:
    known = good.memory.blob

    def blob(digest: Digest) -> Iterator[bytes]:
        if digest == digest_of(attested.listed(good.digest).content):
            raise error("no more", where="registry.example.com", remedy="wait")
        return known(digest)

    monkeypatch.setattr(good.memory, "blob", blob)
    with pytest.raises(error):
        good.verify()


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("triton-dali-builder.plugins", f"/models/libcustomcopy.so@sha256:{'0' * 64}", "other plugins"),
        ("triton-dali-builder.plugins", "", "other plugins"),
        ("triton-dali-builder.dali.version", "2.1.1", "version of DALI"),
        ("triton-dali-builder.triton.version", "26.06", "version of Triton"),
        ("triton-dali-builder.target", "ngc", "target"),
        ("org.opencontainers.image.base.digest", str(OTHER), "base image"),
        ("org.opencontainers.image.revision", "0" * 40, "commit"),
    ],
)
def test_an_altered_label(tmp_path: Path, name: str, value: str, what: str) -> None:
    pushed = Pushed(RegistryInMemory(), tmp_path, {**attested.LABELS, name: value})
    pushed.attest(*attested.statements(pushed.digest))
    with pytest.raises(AttestationMismatch, match=what):
        pushed.verify()


def test_an_image_of_another_program(tmp_path: Path) -> None:
    pushed = Pushed(RegistryInMemory(), tmp_path, {"org.opencontainers.image.title": "other"})
    pushed.attest(*attested.statements(pushed.digest))
    with pytest.raises(NotVerified, match="was not built by this program"):
        pushed.verify()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("result", "FAILED"),
        ("result", None),
        ("failedTests", ["mydali/1"]),
        ("tritonDaliBuilder/negativeControl", {}),
        ("tritonDaliBuilder/negativeControl/applicable", False),
        ("tritonDaliBuilder/models", []),
    ],
)
def test_a_verification_that_did_not_pass(good: Pushed, path: str, value: Any) -> None:
    good.detach(VERIFICATION)
    good.plant(changed(attested.verified(good.digest), path, value))
    with pytest.raises(NotVerified):
        good.verify()


def test_a_model_without_an_oracle_is_told(pushed: Pushed) -> None:
    guessed = attested.MODEL.model_copy(update={"values_compared": False})
    pushed.attest(
        attested.verified(pushed.digest, models=(guessed,)),
        attested.built(pushed.digest),
        attested.listed(pushed.digest),
    )
    assert "1 without an oracle, so by types and shapes alone" in pushed.verify().checks[1].detail


def test_unsigned_statements_do_not_count_where_a_key_is_given(good: Pushed) -> None:
    image_signature.sign(good.registry, good.digest, KEY, good.sessions)
    with pytest.raises(SignatureInvalid, match="the verification is not signed by anybody"):
        good.verify(KEY.public)


@pytest.mark.parametrize("kind", [VERIFICATION, PROVENANCE, SBOM])
def test_one_unsigned_statement_is_one_too_many(signed: Pushed, kind: str) -> None:
    (said,) = [each for each in attested.statements(signed.digest) if each.predicate_type == kind]
    signed.detach(kind)
    signed.plant(said)
    with pytest.raises(SignatureInvalid, match=statement.KINDS[kind]):
        signed.verify(KEY.public)


def test_the_wrong_key(signed: Pushed) -> None:
    with pytest.raises(SignatureInvalid, match="signed by other keys"):
        signed.verify(STRANGER.public)


def test_an_image_whose_statements_alone_are_signed(pushed: Pushed) -> None:
    for each in attested.statements(pushed.digest):
        pushed.plant(each, KEY)
    with pytest.raises(SignatureInvalid, match="the image is not signed"):
        pushed.verify(KEY.public)
    image_signature.sign(pushed.registry, pushed.digest, STRANGER, pushed.sessions)
    with pytest.raises(SignatureInvalid, match="none of them by this key"):
        pushed.verify(KEY.public)


def test_what_others_attach_does_no_harm(signed: Pushed) -> None:
    for key in (None, STRANGER):
        signed.plant(attested.verified(OTHER), key)
        signed.plant(changed(attested.listed(signed.digest), "components", []), key)
    signed.registry.attach(signed.subject, statement.MEDIA_TYPE, b"no statement", statement.MEDIA_TYPE, {})
    signed.registry.attach(signed.subject, "text/plain", b"a note", "text/plain", {})
    found = signed.verify(KEY.public)
    assert found.checks[1].detail.endswith(" (and 2 more, not looked at or not right)")
    assert signed.verify().checks[3].detail.startswith("10 components")


def test_a_statement_that_is_too_large_is_not_read(good: Pushed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_LARGEST", 2000)
    with pytest.raises(AttestationMismatch, match="no SBOM") as failure:
        good.verify()
    assert "larger than 2000 bytes" in failure.value.detail[0]


def test_an_image_without_plugins_needs_no_negative_control(tmp_path: Path) -> None:
    labels = {name: value for name, value in attested.LABELS.items() if not name.endswith(".plugins")}
    pushed = Pushed(RegistryInMemory(), tmp_path, labels)
    said = attested.verified(
        pushed.digest, negative_control=NegativeControl(applicable=False, passed=True, evidence="no plugin")
    )
    document = attested.listed(pushed.digest)
    others = [each for each in document.predicate["components"] if not each["bom-ref"].startswith("plugin:")]
    pushed.attest(said, attested.built(pushed.digest), changed(document, "components", others))
    assert pushed.verify().checks[4].detail == "agree with these: target embedded, Triton 24.10, DALI 1.53.0"
