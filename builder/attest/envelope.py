"""DSSE envelopes: a statement and signatures of it.

https://github.com/secure-systems-lab/dsse/blob/master/envelope.md, and protocol.md beside it for what is signed.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from builder.attest import statement
from builder.attest.keys import PrivateKey, PublicKey
from builder.attest.statement import Statement
from builder.registry.content import as_content

MEDIA_TYPE = "application/vnd.dsse.envelope.v1+json"


def _decoded(value: object) -> bytes:
    """From base64 of either alphabet, as the specification has it, and nothing else."""
    try:
        return base64.b64decode(str(value).translate(str.maketrans("-_", "+/")), validate=True)
    except ValueError:
        raise ValueError("not base64") from None


_Bytes = Annotated[bytes, BeforeValidator(_decoded)]


class _Signature(BaseModel):
    """Its `keyid` is a hint that nobody has signed, so nothing is made of it."""

    sig: _Bytes


class _Envelope(BaseModel):
    model_config = ConfigDict(frozen=True)

    payload_type: str = Field(alias="payloadType")
    payload: _Bytes
    signatures: tuple[_Signature, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Opened:
    """An envelope's statement."""

    statement: Statement
    signed: bool
    """By the key that was asked for; False where none was."""


def seal(content: bytes, key: PrivateKey) -> bytes:
    """The envelope of a statement. The same one each time, since the signature is."""
    signature = key.sign(_encoded(statement.MEDIA_TYPE, content))
    return as_content(
        {
            "payloadType": statement.MEDIA_TYPE,
            "payload": base64.b64encode(content).decode(),
            "signatures": [{"keyid": key.public.id, "sig": base64.b64encode(signature).decode()}],
        }
    )


def unseal(content: bytes, key: PublicKey | None) -> Opened:
    """The statement in an envelope.

    Raises:
        ValueError: it is no envelope, or one of something else.
    """
    try:
        envelope = _Envelope.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}") from None
    if envelope.payload_type != statement.MEDIA_TYPE:
        raise ValueError(f"an envelope of {envelope.payload_type!r}")
    message = _encoded(envelope.payload_type, envelope.payload)
    signed = key is not None and any(key.has_signed(message, each.sig) for each in envelope.signatures)
    return Opened(Statement.parse(envelope.payload), signed)


def _encoded(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding, which keeps a payload of one type from passing for another's."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)
