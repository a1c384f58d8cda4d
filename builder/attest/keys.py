"""Keys that sign and verify: ECDSA on P-256 with SHA-256, which cosign and every TLS library know.

A private key is a PEM file: PKCS #8 or SEC 1, plain or with a password, or cosign's own kind, PKCS #8 in the form of
https://github.com/secure-systems-lab/go-securesystemslib/tree/main/encrypted (scrypt and NaCl's secretbox).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import nacl.exceptions
import nacl.secret
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    load_pem_public_key,
)

from builder.errors import SigningKeyInvalid

PASSWORD = "COSIGN_PASSWORD"
"""The environment variable that cosign reads it from, too."""
_COSIGN = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
_LARGEST_SCRYPT = 1 << 20
"""Of its parameter N, which makes 1 GiB with r = 8; cosign writes 1 << 16."""


@dataclass(frozen=True)
class PublicKey:
    """Tells whether a signature is one of the key that it belongs to."""

    key: ec.EllipticCurvePublicKey = field(repr=False)

    @property
    def id(self) -> str:
        """SHA-256 of the key in DER (SubjectPublicKeyInfo), in hexadecimal."""
        der = self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        """`signature` is in DER."""
        try:
            self.key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """Signs. Nothing shows what it is."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.key.public_key())

    def sign(self, message: bytes) -> bytes:
        """The signature in DER; by RFC 6979 the same message always has the same one."""
        return self.key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def private_key(path: Path) -> PrivateKey:
    """Reads a private key; the password of one that has any is in COSIGN_PASSWORD.

    Raises:
        SigningKeyInvalid: it cannot be read, is of another kind, or the password is not its own.
    """
    content = _read(path)
    password = os.environ.get(PASSWORD, "").encode()
    try:
        if cosign := _armoured(content):
            key = load_der_private_key(_decrypted(cosign, password), None)
        else:
            # A password for a key that needs none is an error of the library, and none of ours.
            key = load_pem_private_key(content, password if b"ENCRYPTED" in content else None)
    except TypeError:  # of the library, for a password that is missing
        raise _wrong_password(path) from None
    except nacl.exceptions.CryptoError:
        raise _wrong_password(path) from None
    except (ValueError, KeyError, UnsupportedAlgorithm):
        # No word of the library's: none of it is worth the risk that it shows a piece of the key.
        if b"ENCRYPTED" in content:
            raise _wrong_password(path) from None
        raise _invalid("this is no private key", path) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _invalid("this private key is of another kind than ECDSA P-256", path)
    return PrivateKey(key)


def public_key(path: Path) -> PublicKey:
    """Reads a public key, such as cosign.pub.

    Raises:
        SigningKeyInvalid: it cannot be read, or is of another kind.
    """
    content = _read(path)
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        what = "this is a private key; to verify takes the public one" if b"PRIVATE KEY" in content else ""
        raise _invalid(what or "this is no public key", path) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _invalid("this public key is of another kind than ECDSA P-256", path)
    return PublicKey(key)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _invalid(f"the key cannot be read: {error.strerror}", path) from None


def _armoured(content: bytes) -> bytes:
    """What is between the lines of a key of cosign's own kind; empty for others."""
    lines = [line.strip() for line in content.strip().splitlines()]
    if lines and any(lines[0] == f"-----BEGIN {kind}-----".encode() for kind in _COSIGN):
        return b"".join(lines[1:-1])
    return b""


def _decrypted(armoured: bytes, password: bytes) -> bytes:
    """The key in DER (PKCS #8).

    Raises:
        ValueError, KeyError: it is not in the form that it says.
        nacl.exceptions.CryptoError: the password is another.
    """
    try:
        told = json.loads(base64.b64decode(armoured, validate=True))
        kdf, cipher = told["kdf"], told["cipher"]
        parameters = kdf["params"]
        cost, size, lanes = (int(parameters[name]) for name in ("N", "r", "p"))
        salt, nonce, text = (base64.b64decode(each) for each in (kdf["salt"], cipher["nonce"], told["ciphertext"]))
    except (binascii.Error, TypeError):
        raise ValueError("damaged") from None
    if (kdf["name"], cipher["name"]) != ("scrypt", "nacl/secretbox") or cost * size * lanes > 8 * _LARGEST_SCRYPT:
        raise ValueError("encrypted in another way than cosign's")
    secret = Scrypt(salt=salt, length=nacl.secret.SecretBox.KEY_SIZE, n=cost, r=size, p=lanes).derive(password)
    return nacl.secret.SecretBox(secret).decrypt(text, nonce)


def _wrong_password(path: Path) -> SigningKeyInvalid:
    given = "the password in COSIGN_PASSWORD does not open this key" if os.environ.get(PASSWORD) else ""
    return SigningKeyInvalid(
        given or "this key has a password, and none is given",
        where=str(path),
        remedy=f"set {PASSWORD} in the environment to the key's password",
    )


def _invalid(what: str, path: Path) -> SigningKeyInvalid:
    return SigningKeyInvalid(
        what, where=str(path), remedy="`cosign generate-key-pair` makes a pair: cosign.key signs, cosign.pub verifies"
    )
