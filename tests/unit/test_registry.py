from __future__ import annotations

import base64
import contextlib
import datetime
import email.utils
import fcntl
import io
import ipaddress
import json
import logging
import os
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from builder.errors import (
    BuilderError,
    DigestMismatch,
    InsecureRegistry,
    MachineError,
    NoRegistry,
    PushError,
    RegistryFull,
    RegistryReadOnly,
    Unauthorized,
)
from builder.reference import Digest, Reference
from builder.registry import Descriptor, Manifest, Registry, connection, sessions
from builder.registry.content import OCI_INDEX, OCI_MANIFEST, digest_of

from .fake_registry import FakeRegistry, Oddities

BLOB = bytes(range(256)) * 4096  # 1 MiB
DIGEST = digest_of(BLOB)
CHUNK = 1 << 18
SUBJECT = Descriptor(OCI_MANIFEST, digest_of(b"the image"), 9)
ABSENT = Digest("sha256:" + "0" * 64)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy, no credentials, and no waiting beyond what a registry asks for."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(connection, "_BACKOFF", lambda _: 0.0)
    monkeypatch.setattr(connection, "_FIRST_WAIT", 0.005)


@pytest.fixture
def start() -> Iterator[Callable[..., FakeRegistry]]:
    running: list[FakeRegistry] = []

    def start(**oddities: Any) -> FakeRegistry:
        running.append(FakeRegistry(Oddities(**oddities)))
        return running[-1]

    yield start
    for each in running:
        each.stop()


def connect(fake: FakeRegistry, patience: float = 0.2) -> Registry:
    return Registry.connect(Reference.parse(f"{fake.host}/team/x"), timeout=5, patience=patience)


def log_in(folder: Path, fake: FakeRegistry, registry: Registry, **more: str) -> None:
    (folder / "config").mkdir(exist_ok=True)
    auth = base64.b64encode(b"ann:correct-horse").decode()
    (folder / "config" / "config.json").write_text(json.dumps({"auths": {fake.host: {"auth": auth, **more}}}))
    registry.log_in()


def source(content: bytes = BLOB) -> Callable[[int], contextlib.AbstractContextManager[BinaryIO]]:
    return lambda offset: io.BytesIO(content[offset:])


def upload(registry: Registry, sessions: Path, content: bytes = BLOB, chunk: int = CHUNK) -> int:
    steps: list[int] = []
    sent = registry.upload(digest_of(content), len(content), source(content), sessions, steps.append, chunk)
    assert sum(steps) == len(content)
    assert list(sessions.iterdir()) == []
    return sent


# Uploads.


@pytest.mark.parametrize("range_form", ["0-{last}", "bytes=0-{last}", "bytes 0-{last}", "0-{size}"])
@pytest.mark.parametrize("status", [204, 202, 200])
def test_an_upload_goes_on_at_the_byte_that_the_registry_names(
    range_form: str, status: int, start: Any, tmp_path: Path
) -> None:
    fake = start(range_form=range_form, status=status, cuts=[CHUNK, 1000])
    if range_form == "0-{size}":
        fake.odd.cuts.clear()  # one that counts the last byte twice is believed as to what it received whole
    upload(connect(fake), tmp_path)
    assert fake.blobs == {str(DIGEST): BLOB}
    assert fake.received == len(BLOB), "no byte arrived twice"


@pytest.mark.parametrize("odd", [{"status": 404}, {"status": 405}, {"range_form": ""}, {"forgets": True}])
def test_where_the_registry_cannot_tell_the_upload_starts_over(odd: dict[str, Any], start: Any, tmp_path: Path) -> None:
    fake = start(**odd, cuts=[CHUNK, 1000])
    upload(connect(fake), tmp_path)
    assert fake.blobs == {str(DIGEST): BLOB}
    assert fake.received == len(BLOB) + CHUNK + 1000
    assert fake.count("POST") == 2


def test_a_registry_that_loses_every_upload_is_given_up(start: Any, tmp_path: Path) -> None:
    fake = start(forgets=True, cuts=[1000] * 100)
    with pytest.raises(PushError, match="loses the upload again and again") as failure:
        upload(connect(fake, patience=10), tmp_path)
    assert "s3cret" not in str(failure.value.as_json())


def test_a_connection_that_always_breaks_is_given_up_and_told_of(start: Any, tmp_path: Path) -> None:
    fake = start(cuts=[0] * 1000)
    with pytest.raises(NoRegistry, match="stopped answering") as failure:
        upload(connect(fake), tmp_path)
    assert "try 2: PATCH" in str(failure.value.detail)
    assert "s3cret" not in str(failure.value.as_json())


def test_an_upload_is_told_where_it_goes_in_whichever_way(start: Any, tmp_path: Path) -> None:
    fake = start()
    # Behind a proxy that ends TLS, a registry may think that it speaks another scheme than it does.
    fake.odd.absolute = f"https://{fake.host}"
    upload(connect(fake), tmp_path)
    assert fake.blobs == {str(DIGEST): BLOB}


def test_another_host_gets_the_upload_and_no_credentials(start: Any, tmp_path: Path) -> None:
    first, store = start(), start()
    first.odd.absolute = f"http://{store.host}"
    store.uploads["u0"] = bytearray()
    registry = connect(first)
    log_in(tmp_path, first, registry)
    first.says("HEAD", "blobs", 401, Www_Authenticate='Basic realm="r"')
    first.says("POST", "uploads", 202, Location=f"http://{store.host}/v2/team/x/blobs/uploads/u0")
    upload(registry, tmp_path / "sessions")
    assert "Authorization" in first.headers("POST")[0]
    assert store.blobs == {str(DIGEST): BLOB}
    assert not any("Authorization" in headers for _, _, headers in store.asked)


def test_no_upload_goes_to_plain_http_elsewhere(start: Any, tmp_path: Path) -> None:
    fake = start(absolute="http://192.0.2.1")
    with pytest.raises(InsecureRegistry, match="sends this machine on to plain HTTP"):
        upload(connect(fake), tmp_path)


def test_a_registry_may_want_larger_chunks(start: Any, tmp_path: Path) -> None:
    fake = start(least=CHUNK * 2)
    upload(connect(fake), tmp_path)
    assert fake.chunks == [CHUNK * 2] * 2


def test_an_empty_blob_is_uploaded_too(start: Any, tmp_path: Path) -> None:
    fake = start()
    registry = connect(fake)
    assert registry.upload(digest_of(b""), 0, source(b""), tmp_path, lambda _: None) == 0
    assert fake.blobs == {str(digest_of(b"")): b""}


def test_a_range_is_not_believed_beyond_what_was_sent(start: Any, tmp_path: Path) -> None:
    fake = start(range_form="0-99999999")
    upload(connect(fake), tmp_path)
    assert fake.blobs == {str(DIGEST): BLOB}


@pytest.mark.parametrize("header", [None, str(DIGEST)])
def test_a_commit_may_tell_the_digest(header: str | None, start: Any, tmp_path: Path) -> None:
    fake = start(digest_header=header)
    assert upload(connect(fake), tmp_path) == len(BLOB)


def test_a_commit_that_tells_another_digest_is_a_mismatch(start: Any, tmp_path: Path) -> None:
    fake = start(digest_header=str(ABSENT))
    with pytest.raises(DigestMismatch, match="stored sha256:0000"):
        upload(connect(fake), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_other_bytes_than_the_digest_s_are_sent_once(start: Any, tmp_path: Path) -> None:
    fake = start()
    with pytest.raises(DigestMismatch):
        connect(fake).upload(DIGEST, len(BLOB), source(bytes(len(BLOB))), tmp_path, lambda _: None)
    assert fake.count("PUT") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_commit_that_the_registry_forgot_the_upload_of_starts_over(start: Any, tmp_path: Path) -> None:
    fake = start()
    fake.says("PUT", "uploads", 404, '{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')
    fake.says("GET", "uploads", 404)
    assert upload(connect(fake), tmp_path) == 2 * len(BLOB)
    assert fake.blobs == {str(DIGEST): BLOB}


def test_a_commit_whose_answer_is_lost_is_found_done(start: Any, tmp_path: Path) -> None:
    fake = start()
    fake.says("PUT", "uploads", 504)
    registry = connect(fake)
    steps: list[int] = []

    def committed_all_the_same(step: int) -> None:
        steps.append(step)
        if sum(steps) == len(BLOB):
            fake.blobs[str(DIGEST)] = BLOB

    assert registry.upload(DIGEST, len(BLOB), source(), tmp_path, committed_all_the_same, CHUNK) == len(BLOB)
    assert fake.count("PUT") == 1


def test_a_registry_that_fails_where_it_should_tell_what_it_has_is_asked_again(start: Any, tmp_path: Path) -> None:
    fake = start(cuts=[1000])
    fake.says("GET", "uploads", 502)
    upload(connect(fake), tmp_path)
    assert fake.received == len(BLOB)


def test_an_upload_that_cannot_be_taken_back_is_left_to_the_registry(start: Any) -> None:
    fake = start(mounts=202)
    fake.says("POST", "uploads", 202, Location="http://localhost:1/gone")
    assert not connect(fake).mount(DIGEST, "library/base")


def test_a_registry_that_fails_and_then_is_gone(start: Any, tmp_path: Path) -> None:
    fake = start(cuts=[0] * 1000)
    fake.says("PATCH", "uploads", 500)
    with pytest.raises(PushError, match="does not get to the end") as failure:
        upload(connect(fake), tmp_path)
    assert failure.value.detail[0] == "try 1: PATCH: HTTP 500"
    assert any(each.endswith(" more") for each in failure.value.detail), "the first and the last are enough"


def test_no_location_is_told_of(start: Any, tmp_path: Path) -> None:
    fake = start()
    fake.says("POST", "uploads", 202)
    with pytest.raises(PushError, match="does not say where to upload"):
        upload(connect(fake), tmp_path)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (507, "", RegistryFull),
        (413, "", RegistryFull),
        (
            403,
            '{"errors":[{"code":"DENIED","message":"will exceed the configured upper limit of 1.0 GiB"}]}',
            RegistryFull,
        ),
        (500, '{"detail":{"Op":"write","Err":28}}', RegistryFull),
        (403, '{"errors":[{"code":"DENIED"}]}', Unauthorized),
        (405, "", RegistryReadOnly),
        (503, "read-only mode", RegistryReadOnly),
        (400, '{"errors":[{"code":"SIZE_INVALID"}]}', PushError),
        (500, "oops", PushError),
        (429, "slow down", PushError),
    ],
)
def test_what_a_refused_chunk_is_told_as(
    status: int, body: str, expected: type[BuilderError], start: Any, tmp_path: Path
) -> None:
    fake = start()
    for _ in range(300):
        fake.says("PATCH", "uploads", status, body)
    with pytest.raises(expected) as failure:
        upload(connect(fake, patience=0.05), tmp_path)
    assert type(failure.value) is expected
    assert failure.value.remedy
    assert "s3cret" not in str(failure.value.as_json())
    waits = status in (429, 503) or body == "oops"
    assert (fake.count("PATCH") > 1) is waits
    assert any("try 1: PATCH: HTTP" in each for each in failure.value.detail) is waits


@pytest.mark.parametrize("date", [False, True])
def test_the_registry_s_waiting_time_is_kept(date: bool, start: Any, tmp_path: Path) -> None:
    fake = start()
    # A date is whole seconds: two ahead are more than one.
    after = email.utils.formatdate(time.time() + 2, usegmt=True) if date else "1"
    fake.says("PATCH", "uploads", 429, Retry_After=after)
    began = time.monotonic()
    upload(connect(fake, patience=10), tmp_path)
    assert time.monotonic() - began > 0.9


def test_a_waiting_time_that_is_none_is_passed_over(start: Any, tmp_path: Path) -> None:
    fake = start()
    fake.says("PATCH", "uploads", 503, Retry_After="soon")
    upload(connect(fake), tmp_path)


def test_a_source_that_ends_early_is_told_of(start: Any, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="ends after 100 bytes of 1048576"):
        connect(start()).upload(DIGEST, len(BLOB), source(BLOB[:100]), tmp_path, lambda _: None)


def test_a_source_that_cannot_be_read_is_told_of(start: Any, tmp_path: Path) -> None:
    def gone(_: int) -> BinaryIO:
        return (tmp_path / "gone").open("rb")

    with pytest.raises(MachineError, match="cannot be read: No such file"):
        connect(start()).upload(DIGEST, len(BLOB), gone, tmp_path, lambda _: None)


def test_the_address_of_an_upload_is_in_no_log(start: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fake = start(cuts=[1000])
    fake.says("PUT", "uploads", 503)
    upload(connect(fake), tmp_path)
    assert "again in" in caplog.text
    assert "s3cret" not in caplog.text


# Uploads that an earlier process began.


def begun(fake: FakeRegistry, sessions: Path) -> Path:
    """Sends the first chunk of the blob; its record."""
    fake.says("PATCH", "s3cret262144", 400)
    with pytest.raises(PushError):
        connect(fake).upload(DIGEST, len(BLOB), source(), sessions, lambda _: None, CHUNK)
    (record,) = sessions.glob("*.json")
    return record


def test_an_unfinished_upload_is_gone_on_with(start: Any, tmp_path: Path) -> None:
    fake = start()
    record = begun(fake, tmp_path)
    assert record.stat().st_mode & 0o777 == 0o600
    assert upload(connect(fake), tmp_path) == len(BLOB) - CHUNK
    assert (fake.received, fake.count("POST")) == (len(BLOB), 1)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"location": "/v2/team/x/blobs/uploads/u7"}', "\xff"])
def test_a_record_that_is_none_is_passed_over(content: str, start: Any, tmp_path: Path) -> None:
    fake = start()
    begun(fake, tmp_path).write_text(content, encoding="latin-1")
    assert upload(connect(fake), tmp_path) == len(BLOB)


def test_an_upload_that_the_registry_forgot_starts_over(start: Any, tmp_path: Path) -> None:
    fake = start()
    begun(fake, tmp_path)
    fake.uploads.clear()
    assert upload(connect(fake), tmp_path) == len(BLOB)


def test_an_upload_that_another_process_is_at_is_not_taken_from_it(start: Any, tmp_path: Path) -> None:
    fake = start()
    record = begun(fake, tmp_path)
    known = record.read_bytes()
    with record.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert connect(fake).upload(DIGEST, len(BLOB), source(), tmp_path, lambda _: None, CHUNK) == len(BLOB)
    assert record.read_bytes() == known


@pytest.mark.parametrize("taken", [True, False])
def test_a_lock_that_was_removed_since_it_was_opened_is_none(
    taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another: list[BinaryIO] = []
    flock = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        """Before we have it: who had it ends, and another, which came later, takes a new one."""
        monkeypatch.setattr(fcntl, "flock", flock)
        (lock,) = tmp_path.glob("*.lock")
        lock.unlink()
        if taken:
            another.append(lock.open("wb"))
            flock(another[0], fcntl.LOCK_EX)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with sessions.claimed(tmp_path, Reference.parse("localhost:1/team/x"), DIGEST) as ours:
        assert isinstance(ours, sessions.Saved) is not taken
        with sessions.claimed(tmp_path, Reference.parse("localhost:1/team/x"), DIGEST) as third:
            assert not isinstance(third, sessions.Saved)
    assert len(list(tmp_path.iterdir())) == len(another), "another's is not removed, ours is"
    for each in another:
        each.close()


def test_a_record_is_written_whole_or_not_at_all(start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = start()

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        upload(connect(fake), tmp_path)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


# Blobs.


def test_a_download_goes_on_where_it_broke(start: Any) -> None:
    fake = start(broken_reads=[CHUNK + 1000, CHUNK + 70000])
    fake.blobs[str(DIGEST)] = BLOB
    assert b"".join(connect(fake).blob(DIGEST)) == BLOB
    assert [each.get("Range") for each in fake.headers("GET", "blobs")] == [None, "bytes=262144-", "bytes=524288-"]


def test_a_download_of_a_registry_without_parts_leaves_out_what_it_has(start: Any) -> None:
    fake = start(broken_reads=[len(BLOB) // 2], ranges=False)
    fake.blobs[str(DIGEST)] = BLOB
    assert b"".join(connect(fake).blob(DIGEST)) == BLOB


def test_bytes_that_are_not_the_digest_s_are_a_mismatch(start: Any) -> None:
    fake = start()
    fake.blobs[str(DIGEST)] = BLOB[:-1] + b"x"
    with pytest.raises(DigestMismatch, match="gives other bytes"):
        b"".join(connect(fake).blob(DIGEST))


def test_a_blob_that_is_not_there(start: Any) -> None:
    registry = connect(start())
    assert registry.blob_size(ABSENT) is None
    with pytest.raises(PushError, match="HTTP 404"):
        b"".join(registry.blob(ABSENT))


def test_a_redirect_to_a_store_takes_no_credentials_along(start: Any, tmp_path: Path) -> None:
    fake, store = start(), start()
    store.blobs[str(DIGEST)] = BLOB
    registry = connect(fake)
    log_in(tmp_path, fake, registry)
    fake.says("GET", "blobs", 401, Www_Authenticate='Basic realm="r"')
    fake.says("GET", "blobs", 307, Location=f"http://{store.host}/v2/team/x/blobs/{DIGEST}")
    assert b"".join(registry.blob(DIGEST)) == BLOB
    assert "Authorization" in fake.headers("GET", "blobs")[1]
    assert "Authorization" not in store.headers("GET", "blobs")[0]


def test_a_redirect_to_plain_http_elsewhere_is_not_followed(start: Any) -> None:
    fake = start()
    fake.says("GET", "blobs", 307, Location="http://192.0.2.1/blob")
    with pytest.raises(InsecureRegistry):
        b"".join(connect(fake).blob(DIGEST))


@pytest.mark.parametrize(("status", "mounted"), [(201, True), (202, False), (403, False), (401, False)])
def test_a_mount_that_is_refused_is_an_upload_to_come(status: int, mounted: bool, start: Any) -> None:
    fake = start(mounts=status)
    if status >= 400:
        fake.says("POST", "uploads", status)
    assert connect(fake).mount(DIGEST, "library/base") is mounted
    assert fake.uploads == {}, "an upload that was begun instead is taken back"
    assert f"mount=sha256%3A{DIGEST.value[7:]}&from=library%2Fbase" in fake.asked[1][1]


def test_a_mount_asks_for_the_right_to_read_the_other_repository(start: Any) -> None:
    fake = start()
    challenge = f'Bearer realm="http://{fake.host}/token",service="r",scope="repository:team/x:pull,push"'
    fake.says("POST", "uploads", 401, Www_Authenticate=challenge)
    fake.says("GET", "/token", 200, '{"access_token": "t0ken"}')
    assert connect(fake).mount(DIGEST, "library/base")
    assert fake.asked[-2][1] == (
        "/token?service=r&scope=repository%3Ateam%2Fx%3Apull%2Cpush&scope=repository%3Alibrary%2Fbase%3Apull"
    )
    assert fake.headers("POST")[1]["Authorization"] == "Bearer t0ken"


def test_an_identity_token_is_exchanged(start: Any, tmp_path: Path) -> None:
    fake = start()
    registry = connect(fake)
    log_in(tmp_path, fake, registry, identitytoken="1dentity")
    fake.says("HEAD", "blobs", 401, Www_Authenticate=f'Bearer realm="http://{fake.host}/token",service="r"')
    fake.says("POST", "/token", 200, '{"token": "t0ken"}')
    assert registry.blob_size(DIGEST) is None
    assert fake.headers("HEAD")[1]["Authorization"] == "Bearer t0ken"


@pytest.mark.parametrize(("status", "body"), [(403, ""), (200, "no JSON"), (200, "[]"), (200, "{}")])
def test_a_token_service_that_gives_none(status: int, body: str, start: Any) -> None:
    fake = start()
    fake.says("HEAD", "blobs", 401, Www_Authenticate=f'Bearer realm="http://{fake.host}/token"')
    fake.says("GET", "/token", status, body)
    with pytest.raises(Unauthorized):
        connect(fake).blob_size(DIGEST)


def test_a_token_service_that_is_busy_is_asked_again(start: Any) -> None:
    fake = start()
    for _ in range(2):
        fake.says("HEAD", "blobs", 401, Www_Authenticate=f'Bearer realm="http://{fake.host}/token"')
    fake.says("GET", "/token", 503)
    fake.says("GET", "/token", 200, '{"token": "t0ken"}')
    assert connect(fake).blob_size(DIGEST) is None


def test_no_password_goes_to_a_token_service_on_plain_http_elsewhere(start: Any, tmp_path: Path) -> None:
    fake = start()
    registry = connect(fake)
    log_in(tmp_path, fake, registry)
    fake.says("HEAD", "blobs", 401, Www_Authenticate='Bearer realm="http://192.0.2.1/token"')
    with pytest.raises(InsecureRegistry):
        registry.blob_size(DIGEST)


# Connecting.


def test_a_registry_that_is_starting_is_waited_for(start: Any) -> None:
    fake = start()
    fake.says("GET", "/v2/", 503)
    assert connect(fake).url == f"http://{fake.host}"


def test_a_busy_registry_is_not_waited_for_without_patience(start: Any) -> None:
    fake = start()
    fake.says("GET", "/v2/", 503)
    with pytest.raises(PushError, match="HTTP 503"):
        connect(fake, patience=0)
    assert fake.count("GET") == 1


def test_nothing_there_is_told_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(NoRegistry, match="no registry answers"):
        Registry.connect(Reference.parse("localhost:1/team/x"))
    assert time.monotonic() - began < 2


def certificate(folder: Path) -> Path:
    """A certificate and its key, for 127.0.0.1, that nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "under-test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form, nothing = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path = folder / "registry.pem"
    path.write_bytes(signed.public_bytes(pem) + key.private_bytes(pem, form, nothing))
    return path


def test_a_certificate_counts_where_this_machine_is_told_to_trust_it(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, path = start(), certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    fake.server.socket = context.wrap_socket(fake.server.socket, server_side=True)
    with pytest.raises(InsecureRegistry, match="certificate is not trusted here") as failure:
        connect(fake)
    assert "certificate verify failed" in failure.value.detail[0]
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    assert connect(fake).url.startswith("https://")


def test_plain_http_elsewhere_is_told_of() -> None:
    error = Exception("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:992)")
    failure = connection._untrusted(error, Reference.parse("registry.example/team/x"))
    assert failure.what == "the registry speaks plain HTTP"


# Manifests.


def test_a_manifest_goes_and_comes_as_it_is(start: Any) -> None:
    registry = connect(start(digest_header=None))
    content = b'{"schemaVersion": 2, "config": {"mediaType": "c", "digest": "%s", "size": 3}}' % str(DIGEST).encode()
    digest = registry.put_manifest(content, OCI_MANIFEST, "1.0")
    for reference in ("1.0", str(digest)):
        held = registry.manifest(reference)
        assert held == Manifest(digest_of(content), OCI_MANIFEST, content)
        assert held.config == Descriptor("c", DIGEST, 3)
        assert held.layers == ()
    assert registry.manifest("2.0") is None


def test_a_manifest_s_own_media_type_counts(start: Any) -> None:
    fake = start()
    fake.manifests["1.0"] = ("application/json; charset=utf-8", json.dumps({"mediaType": OCI_INDEX}).encode())
    held = connect(fake).manifest("1.0")
    assert held
    assert held.media_type == OCI_INDEX


def test_a_manifest_that_is_not_the_digest_s_is_a_mismatch(start: Any) -> None:
    fake = start()
    fake.manifests[str(ABSENT)] = (OCI_MANIFEST, b"{}")
    with pytest.raises(DigestMismatch, match="in the place of sha256:0000"):
        connect(fake).manifest(str(ABSENT))


def test_a_manifest_that_the_registry_changed_is_a_mismatch(start: Any) -> None:
    with pytest.raises(DigestMismatch, match="has sha256:0000"):
        connect(start(digest_header=str(ABSENT))).put_manifest(b"{}", OCI_MANIFEST)


HALF_WRITTEN = json.dumps({"errors": [{"code": "DIGEST_INVALID"}, {"code": "MANIFEST_BLOB_UNKNOWN"}]})


def test_a_manifest_of_what_another_push_is_writing_is_sent_again(start: Any) -> None:
    fake = start()
    for _ in range(2):
        fake.says("PUT", "manifests", 400, HALF_WRITTEN)
    connect(fake).put_manifest(b"{}", OCI_MANIFEST)
    assert fake.count("PUT", "manifests") == 3


def test_a_manifest_of_what_the_registry_never_can_read_is_no_mismatch(start: Any) -> None:
    fake = start()
    for _ in range(999):
        fake.says("PUT", "manifests", 400, HALF_WRITTEN)
    with pytest.raises(PushError, match=r"cannot read what it has of this image, \d+ times") as failure:
        connect(fake, patience=0.05).put_manifest(b"{}", OCI_MANIFEST)
    assert not isinstance(failure.value, DigestMismatch)
    assert "storage is damaged" in failure.value.remedy


@pytest.mark.parametrize(("code", "error"), [("DIGEST_INVALID", DigestMismatch), ("MANIFEST_BLOB_UNKNOWN", PushError)])
def test_a_manifest_that_waiting_does_not_mend_is_sent_once(code: str, error: type[BuilderError], start: Any) -> None:
    fake = start()
    fake.says("PUT", "manifests", 400, json.dumps({"errors": [{"code": code}]}))
    with pytest.raises(error):
        connect(fake).put_manifest(b"{}", OCI_MANIFEST)
    assert fake.count("PUT", "manifests") == 1


@pytest.mark.parametrize("content", [b"no JSON", b"[]", b'{"layers": 1, "config": 2}', b'{"layers": [{}, 3]}'])
def test_a_document_that_is_no_manifest_has_no_layers(content: bytes) -> None:
    held = Manifest(DIGEST, OCI_MANIFEST, content)
    assert (held.config, held.layers) == (None, ())


# Referrers.


@pytest.mark.parametrize("referrers", [True, False])
def test_what_is_attached_is_found(referrers: bool, start: Any) -> None:
    fake = start(referrers=referrers)
    registry = connect(fake)
    assert registry.referrers(SUBJECT.digest) == []
    digests = [registry.attach(SUBJECT, f"type/{name}", b"%d" % name, "a/b", {}) for name in (1, 2, 3, 3)]
    assert digests[2] == digests[3]
    assert [each.digest for each in registry.referrers(SUBJECT.digest)] == digests[:3]
    assert [each.digest for each in registry.referrers(SUBJECT.digest, "type/2")] == digests[1:2]
    tag = SUBJECT.digest.value.replace(":", "-")
    assert (tag in fake.manifests) is not referrers, "the tag is for registries without the interface"


def test_a_referrer_says_what_it_refers_to_and_the_same_each_time(start: Any) -> None:
    fake = start()
    digest = connect(fake).attach(SUBJECT, "a/type", b"[]", "a/b", {"b": "2", "a": "1"})
    kind, content = fake.manifests[str(digest)]
    assert kind == OCI_MANIFEST
    document = json.loads(content)
    assert document["subject"] == {"mediaType": OCI_MANIFEST, "digest": str(SUBJECT.digest), "size": 9}
    assert document["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert document["annotations"] == {"a": "1", "b": "2"}
    assert set(fake.blobs) == {str(digest_of(b"{}")), str(digest_of(b"[]"))}


def test_what_another_attached_meanwhile_stays(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = start()
    registry, tag = connect(fake), SUBJECT.digest.value.replace(":", "-")
    other = Descriptor(OCI_MANIFEST, ABSENT, 5, artifact_type="other")

    def between(_: float) -> None:
        """Another, that read before we wrote, writes after."""
        monkeypatch.setattr("builder.registry.referrers.time.sleep", lambda _: None)
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [other.as_json()]}
        fake.manifests[tag] = (OCI_INDEX, json.dumps(index).encode())

    monkeypatch.setattr("builder.registry.referrers.time.sleep", between)
    ours = registry.attach(SUBJECT, "a/type", b"[]", "a/b", {})
    assert [each.digest for each in registry.referrers(SUBJECT.digest)] == [ABSENT, ours]


def test_what_a_slower_writer_dropped_is_seen_to_be_gone_and_attached_again(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = start()
    registry, tag = connect(fake), SUBJECT.digest.value.replace(":", "-")
    monkeypatch.setattr("builder.registry.referrers.time.sleep", lambda _: None)
    ours = registry.attach(SUBJECT, "a/type", b"[]", "a/b", {})
    assert [each.digest for each in registry.referrers(SUBJECT.digest)] == [ours]
    fake.manifests[tag] = (OCI_INDEX, json.dumps({"mediaType": OCI_INDEX, "manifests": []}).encode())
    assert registry.referrers(SUBJECT.digest) == []
    assert registry.attach(SUBJECT, "a/type", b"[]", "a/b", {}) == ours
    assert [each.digest for each in registry.referrers(SUBJECT.digest)] == [ours]


def test_others_that_never_stop_are_told_of(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = start()
    monkeypatch.setattr(
        "builder.registry.referrers.time.sleep",
        lambda _: fake.manifests.pop(SUBJECT.digest.value.replace(":", "-")),
    )
    with pytest.raises(PushError, match="all the time"):
        connect(fake).attach(SUBJECT, "a/type", b"[]", "a/b", {})


def test_a_list_without_an_end_is_told_of(start: Any) -> None:
    fake = start()
    following = f'</v2/team/x/referrers/{SUBJECT.digest}>; rel="next"'
    for _ in range(100):
        fake.says("GET", "referrers", 200, '{"manifests": []}', Link=following)
    with pytest.raises(PushError, match="has no end"):
        connect(fake).referrers(SUBJECT.digest)


def test_a_page_for_people_is_no_list(start: Any) -> None:
    fake = start()
    fake.says("GET", "referrers", 200, "<html>Welcome</html>")
    assert connect(fake).referrers(SUBJECT.digest) == []


def test_what_is_no_descriptor_is_left_out(start: Any) -> None:
    fake = start()
    good = Descriptor(OCI_MANIFEST, ABSENT, 5, {"a": "b"}, "t")
    listed = [good.as_json(), {"digest": "sha512:00"}, 7, {"mediaType": "m", "digest": str(ABSENT), "size": "many"}]
    fake.says("GET", "referrers", 200, json.dumps({"manifests": listed}))
    assert connect(fake).referrers(SUBJECT.digest) == [good]
