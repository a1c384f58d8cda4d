"""Statements, the predicates in them and the envelopes around them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from builder.artifacts import NegativeControl
from builder.attest import envelope, provenance
from builder.attest.keys import PrivateKey
from builder.attest.statement import Statement
from builder.reference import Digest
from builder.revision import Revision

from . import attested

DIGEST, OTHER = Digest("sha256:" + "a" * 64), Digest("sha256:" + "9" * 64)
KEY = PrivateKey(ec.generate_private_key(ec.SECP256R1()))


@pytest.mark.parametrize("said", attested.statements(DIGEST), ids=lambda said: said.title)
def test_a_statement_is_read_as_it_was_written(said: Statement) -> None:
    document = json.loads(said.content)
    assert document["_type"] == "https://in-toto.io/Statement/v1"
    assert document["subject"] == [{"name": "mydali", "digest": {"sha256": "a" * 64}}]
    assert Statement.parse(said.content) == said
    assert said.is_about(DIGEST)
    assert not said.is_about(OTHER)


def test_the_same_image_has_the_same_statements_byte_for_byte() -> None:
    once, again = attested.statements(DIGEST), attested.statements(DIGEST)
    assert [each.content for each in once] == [each.content for each in again]
    assert all(said.content != other.content for said, other in zip(once, attested.statements(OTHER), strict=True))


def test_a_statement_about_more_than_the_image_is_not_about_it() -> None:
    document = json.loads(attested.built(DIGEST).content)
    document["subject"] += json.loads(attested.built(OTHER).content)["subject"]
    assert not Statement.parse(json.dumps(document).encode()).is_about(DIGEST)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "JSON"),
        (b"\xff", "JSON"),
        (b"[]", "JSON"),
        (b'{"_type": "https://in-toto.io/Statement/v0.1"}', "_type"),
        (b'{"_type": "https://in-toto.io/Statement/v1", "subject": []}', "subject"),
        (b'{"_type": "https://in-toto.io/Statement/v1", "subject": [{"digest": {"sha256": 1}}]}', "subject.0.digest"),
    ],
)
def test_what_is_no_statement(content: bytes, what: str) -> None:
    with pytest.raises(ValueError, match=what) as failure:
        Statement.parse(content)
    assert "\n" not in str(failure.value)


def details(said: Statement) -> dict[str, Any]:
    return dict(said.predicate["tritonDaliBuilder"])


def test_a_verification_tells_what_was_run() -> None:
    said = attested.verified(DIGEST)
    assert said.predicate_type == "https://in-toto.io/attestation/test-result/v0.1"
    assert said.predicate["result"] == "PASSED"
    assert said.predicate["configuration"] == [{"name": "builder.toml", "digest": {"sha256": "e" * 64}}]
    assert said.predicate["passedTests"] == ["mydali/1", "negative-control"]
    assert said.predicate["warnedTests"] == said.predicate["failedTests"] == []
    told = details(said)
    assert (told["seed"], told["lane"], told["versions"]) == (1, "cpu", attested.VERSIONS)
    assert told["models"][0]["oracle"] == "identity"
    assert told["models"][0]["latencyMilliseconds"] == {"p50": 1, "p99": 2}
    assert told["serverLog"] == {"digest": {"sha256": "f" * 64}, "lastLines": ["one", "two"]}
    assert details(attested.verified(DIGEST, gpus="all"))["lane"] == "gpu"


def test_a_model_whose_values_nobody_compared_is_a_warning() -> None:
    guessed = attested.MODEL.model_copy(update={"name": "other", "values_compared": False})
    said = attested.verified(DIGEST, models=(attested.MODEL, guessed)).predicate
    assert (said["result"], said["warnedTests"]) == ("WARNED", ["other/1"])
    assert said["passedTests"] == ["mydali/1", "negative-control"]


@pytest.mark.parametrize(
    "change",
    [{"passed": False}, {"negative_control": NegativeControl(applicable=True, passed=False, evidence="it served")}],
)
def test_a_verification_that_failed_says_so(change: dict[str, Any]) -> None:
    said = attested.verified(DIGEST, **change).predicate
    assert (said["result"], said["passedTests"]) == ("FAILED", [])
    assert said["failedTests"] == ["mydali/1", "negative-control"]


def test_provenance_names_what_the_build_took() -> None:
    definition = attested.built(DIGEST).predicate["buildDefinition"]
    assert definition["externalParameters"] == {"target": "embedded", "settings": {"cuda": "ON"}}
    found = {each.get("name") or each["uri"]: each for each in definition["resolvedDependencies"]}
    assert found["base"] == {
        "name": "base",
        "uri": "docker-image://docker.io/library/debian:12-slim",
        "digest": {"sha256": "b" * 64},
    }
    assert found["source"]["digest"] == {"gitCommit": attested.COMMIT}
    assert found["plugin"]["digest"] == {"sha256": "a" * 64}
    assert "pkg:pypi/nvidia-dali-cuda120@1.53.0" in found


def test_packages_have_the_hashes_that_are_known() -> None:
    url = "pkg:pypi/nvidia-dali-cuda120@1.53.0"
    materials = provenance.packages(attested.INVENTORY, {url: "7" * 64})
    assert [each.uri for each in materials] == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12&upstream=glibc",
        "pkg:deb/debian/libgcc-s1@12.2.0-14?arch=amd64&distro=debian-12&upstream=gcc-12%4012.2.0-14%2Bx",
        url,
        "pkg:pypi/some-name@1",
    ]
    assert [each.digest for each in materials] == [{}, {}, {"sha256": "7" * 64}, {}]


def test_a_work_tree_that_differs_has_no_digest_of_its_commit() -> None:
    (material,) = provenance.source(Revision(attested.COMMIT + "-dirty", 0, ""))
    assert material.descriptor == {
        "name": "source",
        "annotations": {"commit": attested.COMMIT, "dirty": True},
    }
    assert provenance.source(Revision("", 0, "")) == []


def test_provenance_has_no_password() -> None:
    (material,) = provenance.source(Revision(attested.COMMIT, 0, "https://me:secret@example.com/x.git"))
    assert material.uri == f"git+https://example.com/x.git@{attested.COMMIT}"


def test_an_envelope_is_the_specification_s() -> None:
    content = attested.verified(DIGEST).content
    document = json.loads(envelope.seal(content, KEY))
    assert document["payloadType"] == "application/vnd.in-toto+json"
    assert base64.b64decode(document["payload"]) == content
    # Written here once more, from protocol.md: PAE(type, body).
    message = b" ".join([b"DSSEv1", b"28", b"application/vnd.in-toto+json", str(len(content)).encode(), content])
    signature = base64.b64decode(document["signatures"][0]["sig"])
    KEY.public.key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    assert envelope.seal(content, KEY) == envelope.seal(content, KEY)


def test_an_envelope_is_signed_by_its_key_and_no_other() -> None:
    said = attested.verified(DIGEST)
    sealed = envelope.seal(said.content, KEY)
    other = PrivateKey(ec.generate_private_key(ec.SECP256R1()))
    assert envelope.unseal(sealed, KEY.public) == envelope.Opened(said, signed=True)
    assert not envelope.unseal(sealed, other.public).signed
    assert not envelope.unseal(sealed, None).signed
    both = json.loads(sealed)
    both["signatures"] += json.loads(envelope.seal(said.content, other))["signatures"]
    for key in (KEY, other):
        assert envelope.unseal(json.dumps(both).encode(), key.public).signed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("payload", base64.b64encode(attested.verified(OTHER).content).decode()),
        ("signatures", [{"keyid": KEY.public.id, "sig": base64.b64encode(b"none").decode()}]),
    ],
)
def test_a_changed_envelope_is_not_signed(field: str, value: Any) -> None:
    document = json.loads(envelope.seal(attested.verified(DIGEST).content, KEY)) | {field: value}
    assert not envelope.unseal(json.dumps(document).encode(), KEY.public).signed


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"payloadType": "text/plain"}, "text/plain"),
        ({"payload": "no base64"}, "payload: .*not base64"),
        ({"payload": 1}, "payload: .*not base64"),
        ({"signatures": []}, "signatures"),
        ({"payload": base64.b64encode(b"{}").decode()}, "_type"),
    ],
)
def test_what_is_no_envelope_of_a_statement(change: dict[str, Any], what: str) -> None:
    document = json.loads(envelope.seal(attested.verified(DIGEST).content, KEY)) | change
    with pytest.raises(ValueError, match=what):
        envelope.unseal(json.dumps(document).encode(), KEY.public)
