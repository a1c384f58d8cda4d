"""Checks an image from the registry alone: that it is what was built, proven and, where a key is given, signed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from builder.attest import agreement, envelope, image_signature, statement
from builder.attest.keys import PublicKey
from builder.attest.reading import read
from builder.attest.statement import VERIFICATION, Statement
from builder.errors import (
    AttestationMismatch,
    AttestationMissing,
    BuilderError,
    DigestMismatch,
    ImageMissing,
    NotVerified,
    PushError,
    SignatureInvalid,
    Unauthorized,
)
from builder.oci import INDEXES
from builder.recipe import OURS
from builder.reference import Digest, Reference
from builder.registry import Descriptor, Manifest, Registry

_LARGEST = 64 << 20
"""Bytes of a statement or an image's configuration. The SBOM is the largest: 63 kB for the embedded base."""


@dataclass(frozen=True)
class Check:
    """Something that was looked at and found right."""

    name: str
    detail: str


@dataclass(frozen=True)
class Verified:
    """An image that is what it is said to be."""

    reference: str
    """repository@sha256:..."""
    digest: str
    checks: tuple[Check, ...]
    key: str
    """SHA-256 of the key that signed it, in hexadecimal; empty where none was given."""


@dataclass(frozen=True)
class _Attached:
    """A statement that is attached to the image."""

    statement: Statement
    sealed: bool
    """In an envelope, so signed by somebody."""
    signed: bool
    """By the key that was given."""


def run(registry: Registry, reference: Reference, key: PublicKey | None, tell: Callable[[Check], None]) -> Verified:
    """Verifies the image `reference`.

    Args:
        key: nothing counts that it has not signed; None where nobody has to have signed.
        tell: gets each check as it is passed.

    Raises:
        ImageMissing: it is not there.
        NotVerified: no passed verification is attached to it.
        AttestationMissing: no provenance or no SBOM is.
        AttestationMismatch: what is attached is about another image, or contradicts the image's labels.
        SignatureInvalid: `key` has not signed the image, or what is attached to it.
        DigestMismatch: the registry gives something else than it was asked for.
    """
    passed: list[Check] = []

    def check(name: str, detail: str) -> None:
        passed.append(Check(name, detail))
        tell(passed[-1])

    try:
        digest = _verify(registry, reference, key, check)
    except BuilderError as error:
        error.partial = {"verified": False, "checks": [vars(each) for each in passed]}
        raise
    by = key.id if key else ""
    return Verified(str(reference.with_digest(digest)), str(digest), tuple(passed), by)


def _verify(
    registry: Registry, reference: Reference, key: PublicKey | None, check: Callable[[str, str], None]
) -> Digest:
    digest, labels = _image(registry, reference)
    where = str(reference.with_digest(digest))
    check("digest", where)
    attached, unreadable = _attached(registry, digest, key)
    for kind in statement.KINDS:
        found = [each for each in attached if each.statement.predicate_type == kind]
        if not found:
            raise _missing(kind, where, unreadable)
        check(statement.KINDS[kind], _first_right(found, digest, labels, where, key))
    check("labels", agreement.shown(labels))
    _check_signature(registry, digest, where, key, attached, check)
    return digest


def _image(registry: Registry, reference: Reference) -> tuple[Digest, dict[str, str]]:
    """The image's digest, and its labels."""
    wanted = str(reference.digest or reference.tag or "latest")
    held = registry.manifest(wanted)
    if held is None:
        raise ImageMissing(
            "the registry has no such image",
            where=str(reference),
            remedy="see that it was pushed under that name; `push` prints the reference to use",
        )
    if reference.digest and held.digest != reference.digest:
        raise DigestMismatch(
            f"the registry gives {held.digest} for another digest", where=str(reference), remedy="use another registry"
        )
    if held.media_type in INDEXES:
        each = [str(entry.get("digest", "")) for entry in held.document.get("manifests", ())]
        raise ImageMissing(
            "this names several images, one for each platform",
            where=str(reference),
            remedy="give the digest of one of them",
            detail=each,
        )
    labels = _labels(registry, held)
    if labels is None:
        raise ImageMissing(
            "what is there is no image", where=str(reference), remedy="give the reference that `push` printed"
        )
    lacking = [name for name in ("target", "dali.version") if OURS + name not in labels]
    if lacking:
        raise NotVerified(
            f"the image has no label {OURS}{lacking[0]}, so it was not built by this program",
            where=str(reference),
            remedy="give the reference that `push` printed",
        )
    return held.digest, labels


def _labels(registry: Registry, held: Manifest) -> dict[str, str] | None:
    """Those of an image's configuration; None where it is none, or too large for one."""
    try:
        config = read(registry, held.config.digest, _LARGEST) if held.config else b""
        labels = json.loads(config)["config"].get("Labels") or {}
        return {str(name): str(value) for name, value in labels.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _attached(registry: Registry, digest: Digest, key: PublicKey | None) -> tuple[list[_Attached], list[str]]:
    """The statements that are attached to the image, and what could not be read, one line each."""
    found, unreadable = [], []
    for referrer in registry.referrers(digest):
        if referrer.artifact_type in (statement.MEDIA_TYPE, envelope.MEDIA_TYPE):
            try:
                found.append(_read(registry, referrer, key))
            except Unauthorized:
                raise
            except (PushError, ValueError) as error:  # a blob that is gone or damaged: others may be whole
                unreadable.append(f"{referrer.digest}: {error}")
    return found, unreadable


def _read(registry: Registry, referrer: Descriptor, key: PublicKey | None) -> _Attached:
    """A statement, from the manifest that refers to the image.

    Raises:
        ValueError: it is none.
    """
    held = registry.manifest(str(referrer.digest))
    if held is None:
        raise ValueError("the registry lists it, and does not have it")
    (layer,) = held.layers
    content = read(registry, layer.digest, _LARGEST)
    if layer.media_type == envelope.MEDIA_TYPE:
        opened = envelope.unseal(content, key)
        return _Attached(opened.statement, sealed=True, signed=opened.signed)
    return _Attached(Statement.parse(content), sealed=False, signed=False)


def _missing(kind: str, where: str, unreadable: Sequence[str]) -> PushError:
    if unreadable:
        return AttestationMismatch(
            f"the image has no {statement.KINDS[kind]}, and something attached to it cannot be read",
            where=where,
            remedy=agreement.DAMAGED,
            detail=unreadable,
        )
    if kind == VERIFICATION:
        return NotVerified("no verification is attached to the image", where=where, remedy="run `smoke`, then `push`")
    return AttestationMissing(
        f"no {statement.KINDS[kind]} is attached to the image", where=where, remedy="push it again with `push`"
    )


def _first_right(
    found: Sequence[_Attached], digest: Digest, labels: Mapping[str, str], where: str, key: PublicKey | None
) -> str:
    """What is to be told of the first statement that holds. Others can attach theirs, so that one more, which does not,
    must not make the image a bad one."""
    title = found[0].statement.title
    counting = [each for each in found if each.signed] if key else list(found)
    if not counting:
        said = "signed by other keys" if any(each.sealed for each in found) else "not signed by anybody"
        raise SignatureInvalid(
            f"the {title} is {said}", where=where, remedy="give the key that `push --sign` had, or sign with this one"
        )
    failures: list[PushError] = []
    for each in counting:
        try:
            told = agreement.check(each.statement, digest, labels)
        except PushError as failure:
            failures.append(failure)
            continue
        more = len(found) - 1
        return told + (f" (and {more} more, not looked at or not right)" if more else "")
    failures[0].where = where
    raise failures[0]


def _check_signature(
    registry: Registry,
    digest: Digest,
    where: str,
    key: PublicKey | None,
    attached: Sequence[_Attached],
    check: Callable[[str, str], None],
) -> None:
    signatures = [each for each in image_signature.signatures(registry, digest) if each.is_of(digest)]
    if key is None:
        there = len(signatures) + sum(each.sealed for each in attached)
        unknown = f": {there} signature{'' if there == 1 else 's'} by keys that you did not name" if there else ""
        check("signatures", f"none checked, so not signed by anybody you named (--key FILE){unknown}")
        return
    if not any(each.is_by(key) for each in signatures):
        raise SignatureInvalid(
            "the image has signatures, none of them by this key" if signatures else "the image is not signed",
            where=where,
            remedy="give the key that `push --sign` had, or sign with this one",
        )
    check("signatures", f"of the image and of all these statements, by the key sha256:{key.id}")
