"""Attaches what is said of an image to it, in the registry that has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.attest import envelope, image_signature, statement
from builder.attest.keys import PrivateKey
from builder.attest.statement import Statement
from builder.errors import AttestationMismatch
from builder.reference import Digest
from builder.registry import Descriptor, Registry

PREDICATE_TYPE = "in-toto.io/predicate-type"
"""The annotation that BuildKit gives its own attestations, too."""


@dataclass(frozen=True)
class Attached:
    """What the registry now has beside the image."""

    referrers: dict[str, Digest]
    """The manifest of each statement, by its predicate type."""
    signature: Digest | None
    """The manifest with the image's signatures; None where nothing was signed."""


def run(
    registry: Registry, subject: Descriptor, statements: Sequence[Statement], key: PrivateKey | None, sessions: Path
) -> Attached:
    """Attaches `statements` to the image `subject`; with a key they are signed, and then so is the image.

    The same again changes nothing: the same statement is the same manifest, and a key signs an image once.

    Args:
        sessions: a folder for what an upload needs to go on after it was cut.

    Raises:
        AttestationMismatch: a statement is of another image; nothing is attached then.
        Unauthorized, RegistryReadOnly, NoRegistry, PushError: the registry does not take them.
    """
    for each in statements:
        if not each.is_about(subject.digest):
            raise AttestationMismatch(
                f"the {each.title} is about another image",
                where=str(subject.digest),
                remedy="build, prove and push again",
            )
    attached = {each.predicate_type: _attach(registry, subject, each, key) for each in statements}
    signature = image_signature.sign(registry, subject.digest, key, sessions) if key else None
    return Attached(attached, signature)


def _attach(registry: Registry, subject: Descriptor, said: Statement, key: PrivateKey | None) -> Digest:
    content, media_type = said.content, statement.MEDIA_TYPE
    if key:
        content, media_type = envelope.seal(content, key), envelope.MEDIA_TYPE
    return registry.attach(subject, media_type, content, media_type, {PREDICATE_TYPE: said.predicate_type})
