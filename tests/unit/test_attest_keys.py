from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import nacl.secret
import nacl.utils
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from builder.attest import keys
from builder.errors import SigningKeyInvalid

PASSWORD = "correct horse"
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COSIGN_PASSWORD", raising=False)


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: bytes) -> Path:
        (tmp_path / "key").write_bytes(content)
        return tmp_path / "key"

    return write


def pem(key: ec.EllipticCurvePrivateKey, form: PrivateFormat = PrivateFormat.PKCS8, password: str = "") -> bytes:
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, form, encryption)


def cosigns(key: ec.EllipticCurvePrivateKey, title: str = "SIGSTORE", cost: int = 1024) -> bytes:
    """As the specification of cosign's own keys has it."""
    salt, nonce = nacl.utils.random(32), nacl.utils.random(24)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    secret = Scrypt(salt=salt, length=32, n=cost, r=8, p=1).derive(PASSWORD.encode())
    text = nacl.secret.SecretBox(secret).encrypt(der, nonce).ciphertext
    told = {
        "kdf": {"name": "scrypt", "params": {"N": cost, "r": 8, "p": 1}, "salt": base64.b64encode(salt).decode()},
        "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(nonce).decode()},
        "ciphertext": base64.b64encode(text).decode(),
    }
    lines = base64.encodebytes(json.dumps(told).encode()).decode()
    kind = f"ENCRYPTED {title} PRIVATE KEY"
    return f"-----BEGIN {kind}-----\n{lines}-----END {kind}-----\n".encode()


def same(found: keys.PrivateKey, key: ec.EllipticCurvePrivateKey) -> bool:
    return found.key.private_numbers() == key.private_numbers()


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("password", ["", PASSWORD])
def test_pem_keys_of_every_form(
    key: ec.EllipticCurvePrivateKey, write: Write, form: PrivateFormat, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSIGN_PASSWORD", PASSWORD)  # also where the key needs none
    assert same(keys.private_key(write(pem(key, form, password))), key)


@pytest.mark.parametrize("title", ["SIGSTORE", "COSIGN"])
def test_keys_of_cosign(
    key: ec.EllipticCurvePrivateKey, write: Write, title: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSIGN_PASSWORD", PASSWORD)
    assert same(keys.private_key(write(cosigns(key, title))), key)


@pytest.mark.parametrize(("given", "what"), [("", "none is given"), ("wrong guess", "does not open this key")])
def test_a_password_that_is_not_the_key_s(
    key: ec.EllipticCurvePrivateKey, write: Write, given: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSIGN_PASSWORD", given)
    for content in (cosigns(key), pem(key, password=PASSWORD), pem(key, PrivateFormat.TraditionalOpenSSL, PASSWORD)):
        with pytest.raises(SigningKeyInvalid, match=what) as failure:
            keys.private_key(write(content))
        told = json.dumps(failure.value.as_json())
        assert "wrong guess" not in told
        assert not any(line in told for line in content.decode().split() if len(line) > 20)


def test_what_is_no_private_key(key: ec.EllipticCurvePrivateKey, write: Write, tmp_path: Path) -> None:
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    larger = pem(ec.generate_private_key(ec.SECP384R1()))
    for content, what in (
        (b"", "no private key"),
        (b"\xff\xfe", "no private key"),
        (public, "no private key"),
        (pem(key).replace(b"M", b"N"), "no private key"),
        (other, "another kind"),
        (larger, "another kind"),
    ):
        with pytest.raises(SigningKeyInvalid, match=what):
            keys.private_key(write(content))
    with pytest.raises(SigningKeyInvalid, match="No such file"):
        keys.private_key(tmp_path / "none")
    with pytest.raises(SigningKeyInvalid, match="Is a directory"):
        keys.private_key(tmp_path)


@pytest.mark.parametrize("cut", range(0, 400, 40))
def test_a_damaged_key_of_cosign_is_told_as_one(key: ec.EllipticCurvePrivateKey, write: Write, cut: int) -> None:
    whole = cosigns(key)
    with pytest.raises(SigningKeyInvalid):
        keys.private_key(write(whole[:cut] + whole[cut + 41 :]))


def test_a_key_that_would_take_all_memory_is_refused(
    key: ec.EllipticCurvePrivateKey, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSIGN_PASSWORD", PASSWORD)
    armoured = cosigns(key).decode().splitlines()
    told = json.loads(base64.b64decode("".join(armoured[1:-1])))
    told["kdf"]["params"]["N"] = 1 << 40
    content = "\n".join([armoured[0], base64.b64encode(json.dumps(told).encode()).decode(), armoured[-1]])
    with pytest.raises(SigningKeyInvalid):
        keys.private_key(write(content.encode()))


def test_public_keys(key: ec.EllipticCurvePrivateKey, write: Write) -> None:
    content = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    found = keys.public_key(write(content))
    assert found == keys.PrivateKey(key).public
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"], input=content, capture_output=True, check=True
    )
    digest = subprocess.run(["openssl", "dgst", "-sha256", "-r"], input=der.stdout, capture_output=True, check=True)
    assert digest.stdout.decode().split()[0] == found.id
    with pytest.raises(SigningKeyInvalid, match="this is a private key"):
        keys.public_key(write(pem(key)))
    with pytest.raises(SigningKeyInvalid, match="no public key"):
        keys.public_key(write(b"hello"))
    larger = ec.generate_private_key(ec.SECP384R1()).public_key()
    with pytest.raises(SigningKeyInvalid, match="another kind"):
        keys.public_key(write(larger.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)))


def test_a_signature_is_the_same_each_time_and_openssl_s_too(key: ec.EllipticCurvePrivateKey, tmp_path: Path) -> None:
    private, message = keys.PrivateKey(key), b"what was said"
    signature = private.sign(message)
    assert private.sign(message) == signature
    assert private.public.has_signed(message, signature)
    assert not private.public.has_signed(message + b"!", signature)
    assert not private.public.has_signed(message, signature[:-1])
    assert not private.public.has_signed(message, b"")
    assert not keys.PrivateKey(ec.generate_private_key(ec.SECP256R1())).public.has_signed(message, signature)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for name, content in (("pub", public), ("sig", signature), ("msg", message)):
        (tmp_path / name).write_bytes(content)
    subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", "pub", "-signature", "sig", "msg"], cwd=tmp_path, check=True
    )


def test_nothing_shows_a_key(key: ec.EllipticCurvePrivateKey) -> None:
    assert repr(keys.PrivateKey(key)) == "PrivateKey()"
