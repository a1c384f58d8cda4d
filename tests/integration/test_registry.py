"""The registry's client against a real registry, behind a proxy that breaks what networks and registries break."""

from __future__ import annotations

import contextlib
import io
import json
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from builder.errors import (
    BuilderError,
    DigestMismatch,
    NoRegistry,
    PushError,
    RegistryFull,
    RegistryReadOnly,
    Unauthorized,
)
from builder.reference import Digest, Reference
from builder.registry import Descriptor, Registry
from builder.registry.content import OCI_MANIFEST, as_content, digest_of

from .conftest import ROOT, DockerContainer, HttpWaitStrategy, on_ipv4
from .faulty_registry import FaultyRegistry
from .registry_storage import Storage, registry_on

MIB = 1 << 20
SIZE, CHUNK = 48 * MIB, 4 * MIB
BLOB = random.Random(5).randbytes(SIZE)
DIGEST = digest_of(BLOB)
SMALL = BLOB[: 2 * MIB]
CUTS = [SIZE * tenth // 10 for tenth in range(1, 10)]
STATEMENT = "application/vnd.in-toto+json"


@pytest.fixture(scope="module")
def upstream(start_registry: Callable[..., str]) -> str:
    return start_registry()


@pytest.fixture
def proxy(upstream: str) -> Iterator[FaultyRegistry]:
    with FaultyRegistry(upstream) as proxy:
        yield proxy


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """One that no other test has written to."""
    return f"under-test/r{abs(hash(request.node.name)):x}{time.time_ns():x}"


def connect(address: str, repository: str, patience: float = 20.0, timeout: float = 30.0) -> Registry:
    return Registry.connect(Reference.parse(f"{address}/{repository}"), timeout, patience)


def source(content: bytes) -> Callable[[int], contextlib.AbstractContextManager[BinaryIO]]:
    return lambda offset: io.BytesIO(content[offset:])


def upload(registry: Registry, sessions: Path, content: bytes = BLOB, chunk: int = CHUNK) -> int:
    """Uploads it, reads it back from the registry, and gives the bytes that were sent."""
    steps: list[int] = []
    digest = digest_of(content)
    sent = registry.upload(digest, len(content), source(content), sessions, steps.append, chunk)
    assert sum(steps) == len(content)
    assert min(steps) > 0
    assert registry.blob_size(digest) == len(content)
    assert list(sessions.iterdir()) == [], "nothing is left of an upload that is done"
    return sent


def test_a_blob_goes_in_chunks_and_is_not_sent_twice(proxy: FaultyRegistry, repository: str, sessions: Path) -> None:
    registry = connect(proxy.address, repository)
    assert registry.blob_size(DIGEST) is None
    assert upload(registry, sessions) == SIZE
    patches = proxy.requests("PATCH")
    assert [each.received for each in patches] == [CHUNK] * 12
    assert upload(registry, sessions) == 0
    assert proxy.requests("PATCH") == patches
    assert b"".join(registry.blob(DIGEST)) == BLOB


def test_cut_at_every_tenth_it_goes_on_from_the_last_chunk(upstream: str, repository: str, sessions: Path) -> None:
    """The proxy takes chunks in whole: nothing of one that is cut reaches the registry."""
    with FaultyRegistry(upstream, buffered=True) as proxy:
        registry = connect(proxy.address, repository)
        proxy.cut(*CUTS)
        sent = upload(registry, sessions)
        assert sum(not each.status for each in proxy.requests("PATCH")) == len(CUTS)
        assert len(proxy.requests("POST")) == 1, "one upload all along"
        assert SIZE < sent <= SIZE + CHUNK * len(CUTS)


def test_cut_at_every_tenth_without_a_proxy_that_buffers_it_arrives_all_the_same(
    proxy: FaultyRegistry, repository: str, sessions: Path
) -> None:
    """This registry then throws away what it has, so the upload starts over."""
    registry = connect(proxy.address, repository)
    proxy.cut(*CUTS)
    upload(registry, sessions)
    assert sum(not each.status for each in proxy.requests("PATCH")) == len(CUTS)
    assert sum(each.received for each in proxy.requests("PATCH")) <= SIZE + CUTS[-1]


@pytest.mark.parametrize("tenth", [1, 5, 9])
def test_one_cut_costs_no_more_than_what_was_sent_before_it(
    tenth: int, proxy: FaultyRegistry, repository: str, sessions: Path
) -> None:
    registry = connect(proxy.address, repository)
    proxy.cut(CUTS[tenth - 1])
    upload(registry, sessions)
    assert sum(each.received for each in proxy.requests("PATCH")) == SIZE + CUTS[tenth - 1]


CHILD = """
import sys
from pathlib import Path
from builder.reference import Reference
from builder.registry import Registry
from builder.registry.content import digest_of

reference, blob, sessions, chunk = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])

def source(offset):
    stream = blob.open("rb")
    stream.seek(offset)
    return stream

registry = Registry.connect(Reference.parse(reference))
content = blob.read_bytes()
registry.upload(digest_of(content), len(content), source, sessions, lambda _: None, chunk)
"""


def test_a_killed_process_s_upload_is_gone_on_with(
    upstream: str, repository: str, sessions: Path, tmp_path: Path
) -> None:
    (tmp_path / "blob").write_bytes(BLOB)
    # Chunks that no socket's buffers hold: of one that is under way, a part is then lost with the process.
    chunk = 16 * MIB
    with FaultyRegistry(upstream, buffered=True, bytes_per_second=12 * MIB) as proxy:
        arguments = [f"{proxy.address}/{repository}", tmp_path / "blob", sessions, str(chunk)]
        with subprocess.Popen([sys.executable, "-c", CHILD, *arguments], cwd=ROOT) as child:
            deadline = time.monotonic() + 30
            while not proxy.requests("PATCH"):
                assert child.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(0.1)  # its record is written, and the next chunk is on its way
            child.send_signal(signal.SIGKILL)
        (record,) = sessions.glob("*.json")
        assert stat.S_IMODE(record.stat().st_mode) == 0o600
        assert json.loads(record.read_text())["digest"] == str(DIGEST)

        proxy.bytes_per_second = 0
        arrived = sum(each.received for each in proxy.requests("PATCH") if each.status == 202)
        assert upload(connect(proxy.address, repository), sessions) == SIZE - arrived
        assert arrived == chunk
        assert len(proxy.requests("POST")) == 1


def test_a_record_of_an_upload_that_the_registry_forgot_starts_over(
    proxy: FaultyRegistry, repository: str, sessions: Path
) -> None:
    registry = connect(proxy.address, repository)
    proxy.answer(405, "PATCH", skip=1)
    with pytest.raises(RegistryReadOnly):
        registry.upload(DIGEST, SIZE, source(BLOB), sessions, lambda _: None, CHUNK)
    (record,) = sessions.glob("*.json")
    registry._connection.once("DELETE", json.loads(record.read_text())["location"])
    assert upload(registry, sessions) == SIZE
    assert len(proxy.requests("POST")) == 2


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT"])
def test_what_passes_is_waited_for(
    status: int, method: str, proxy: FaultyRegistry, repository: str, sessions: Path
) -> None:
    registry = connect(proxy.address, repository)
    proxy.answer(status, method, times=2)
    assert upload(registry, sessions, SMALL, MIB) <= len(SMALL) + 2 * MIB
    assert sum(each.repeated for each in proxy.requests(method)) == 2


def test_a_registry_s_own_waiting_time_is_kept(proxy: FaultyRegistry, repository: str, sessions: Path) -> None:
    registry = connect(proxy.address, repository)
    proxy.answer(429, "PATCH", headers={"Retry-After": "2"})
    began = time.monotonic()
    upload(registry, sessions, SMALL, MIB)
    assert time.monotonic() - began >= 2


def test_a_waiting_time_beyond_all_patience_is_told_of_at_once(
    proxy: FaultyRegistry, repository: str, sessions: Path
) -> None:
    registry = connect(proxy.address, repository)
    proxy.answer(429, "PATCH", headers={"Retry-After": "3600"}, times=9)
    began = time.monotonic()
    with pytest.raises(PushError, match="HTTP 429") as failure:
        upload(registry, sessions, SMALL)
    assert time.monotonic() - began < 5
    assert "it asks to be left alone for 3600 s" in failure.value.detail


@pytest.mark.parametrize(("status", "method", "part"), [(500, "PATCH", ""), (502, "PUT", "blobs"), (500, "HEAD", "")])
def test_what_does_not_pass_is_given_up_and_told_of(
    status: int, method: str, part: str, proxy: FaultyRegistry, repository: str, sessions: Path
) -> None:
    registry = connect(proxy.address, repository, patience=1.5)
    proxy.answer(status, method, part, times=1000)
    with pytest.raises(PushError, match=rf"{method} with HTTP {status}, \d+ times in a row") as failure:
        upload(registry, sessions, SMALL)
    assert f"try 1: {method}: HTTP {status}" in failure.value.detail
    assert "_state" not in str(failure.value.as_json())


def test_a_token_that_runs_out_is_renewed(proxy: FaultyRegistry, repository: str, sessions: Path) -> None:
    proxy.require_tokens(uses=3)
    upload(connect(proxy.address, repository), sessions, BLOB[: 8 * MIB], MIB)
    assert len(proxy.requests("GET", "/token")) >= 4
    assert {each.status for each in proxy.requests("PATCH")} == {202, 401}


def test_a_registry_that_lets_nobody_in(proxy: FaultyRegistry, repository: str, sessions: Path) -> None:
    proxy.answer(401, "POST", times=9)
    with pytest.raises(Unauthorized):
        upload(connect(proxy.address, repository), sessions, SMALL)
    assert len(proxy.requests("POST")) == 1


def test_a_registry_that_goes_away(start_registry: Callable[..., str], upstream: str, repository: str) -> None:
    with FaultyRegistry(upstream) as proxy:
        registry = connect(proxy.address, repository, patience=1.0)
    registry._connection._session.close()
    with pytest.raises(NoRegistry, match="stopped answering"):
        registry.manifest("latest")


def test_a_slow_commit_is_waited_for(proxy: FaultyRegistry, repository: str, sessions: Path) -> None:
    registry = connect(proxy.address, repository, timeout=1.0)
    proxy.delay(4, "PUT", "blobs")
    proxy.delay(4, "PUT", "manifests")
    upload(registry, sessions, SMALL)
    registry.put_manifest(image(registry, SMALL, sessions), OCI_MANIFEST)
    assert [each.status for each in proxy.requests("PUT", "uploads")][:1] == [201]
    assert [each.status for each in proxy.requests("PUT", "manifests")] == [201]


def test_a_commit_whose_answer_is_lost_is_found_done(proxy: FaultyRegistry, repository: str, sessions: Path) -> None:
    registry = connect(proxy.address, repository)
    # The registry committed; a proxy between lost its patience.
    proxy.answer(504, "PUT", "blobs")
    other = connect(proxy.upstream, repository)
    steps = []

    def meanwhile(step: int) -> None:
        steps.append(step)
        if sum(steps) == len(SMALL):
            upload(other, sessions.parent / "other", SMALL)

    assert registry.upload(digest_of(SMALL), len(SMALL), source(SMALL), sessions, meanwhile, MIB) == len(SMALL)
    assert [each.status for each in proxy.requests("PUT")] == [504]


def test_other_bytes_than_the_digest_s_are_refused_at_once(
    proxy: FaultyRegistry, repository: str, sessions: Path
) -> None:
    registry = connect(proxy.address, repository)
    wrong = bytes(len(SMALL))
    with pytest.raises(DigestMismatch):
        registry.upload(digest_of(SMALL), len(SMALL), source(wrong), sessions, lambda _: None)
    assert len(proxy.requests("PUT")) == 1
    assert registry.blob_size(digest_of(SMALL)) is None
    assert list(sessions.iterdir()) == [], "the next push does not go on with it"
    upload(registry, sessions, SMALL)


def test_a_registry_that_is_read_only(start_registry: Callable[..., str], repository: str, sessions: Path) -> None:
    address = start_registry({"REGISTRY_STORAGE_MAINTENANCE_READONLY": "{enabled: true}"})
    registry = connect(address, repository)
    began = time.monotonic()
    with pytest.raises(RegistryReadOnly):
        upload(registry, sessions, SMALL)
    with pytest.raises(RegistryReadOnly):
        registry.put_manifest(b"{}", OCI_MANIFEST)
    assert time.monotonic() - began < 5
    assert registry.manifest("latest") is None


def test_a_registry_that_says_503_to_all_writes(proxy: FaultyRegistry, repository: str, sessions: Path) -> None:
    proxy.answer(503, "POST", times=1000, body="down for maintenance")
    with pytest.raises(RegistryReadOnly) as failure:
        upload(connect(proxy.address, repository, patience=1.0), sessions, SMALL)
    assert len(proxy.requests("POST")) > 1
    assert "down for maintenance" in failure.value.detail


@pytest.fixture(scope="module")
def full(registry_image: str) -> Iterator[str]:
    """A registry whose disk has 8 MB."""
    container = on_ipv4(DockerContainer(registry_image), 5000)
    container.with_tmpfs_mount("/var/lib/registry", "size=8m,mode=1777")
    container.waiting_for(HttpWaitStrategy(5000, "/v2/").for_status_code(200))
    with container:
        yield f"localhost:{container.get_exposed_port(5000)}"


@pytest.mark.parametrize("chunk", [CHUNK, 16 * MIB])
def test_a_registry_whose_disk_is_full(full: str, repository: str, sessions: Path, chunk: int) -> None:
    with pytest.raises(RegistryFull) as failure:
        upload(connect(full, repository), sessions, BLOB[: 20 * MIB], chunk)
    assert "_state" not in str(failure.value.as_json())


@pytest.mark.parametrize(
    ("status", "body"),
    [(507, ""), (413, "<html>Request Entity Too Large</html>"), (500, "write: no space left on device")],
)
def test_a_registry_that_says_that_it_is_full(
    status: int, body: str, proxy: FaultyRegistry, repository: str, sessions: Path
) -> None:
    proxy.answer(status, "PATCH", body=body, times=9)
    with pytest.raises(RegistryFull):
        upload(connect(proxy.address, repository), sessions, SMALL)
    assert len(proxy.requests("PATCH")) == 1, "waiting does not mend it"


def test_two_uploads_of_one_blob_at_once(upstream: str, repository: str, sessions: Path) -> None:
    failures: list[BaseException] = []
    with FaultyRegistry(upstream, bytes_per_second=24 * MIB) as proxy:
        registry = connect(proxy.address, repository)

        def one() -> None:
            try:
                registry.upload(DIGEST, SIZE, source(BLOB), sessions, lambda _: None, CHUNK)
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=one) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(proxy.requests("POST")) == 2, "neither took the other's upload"
        assert {each.status for each in proxy.requests("PATCH")} == {202}
    assert registry.repository.path == repository
    assert connect(upstream, repository).blob_size(DIGEST) == SIZE
    assert list(sessions.iterdir()) == []


def test_a_blob_of_another_repository_is_mounted_and_no_byte_moves(
    proxy: FaultyRegistry, repository: str, sessions: Path
) -> None:
    upload(connect(proxy.upstream, f"{repository}-base"), sessions, SMALL)
    registry = connect(proxy.address, repository)
    assert registry.mount(digest_of(SMALL), f"{repository}-base")
    assert registry.blob_size(digest_of(SMALL)) == len(SMALL)
    assert not registry.mount(DIGEST, f"{repository}-base")
    assert sum(each.received + each.sent for each in proxy.log if each.path != "/v2/") == 0
    assert [each.status for each in proxy.requests("DELETE")] == [204], "an upload that nobody wants is taken back"


def image(registry: Registry, layer: bytes, sessions: Path) -> bytes:
    """The manifest of an image of one layer; its configuration is uploaded."""
    upload(registry, sessions, b"{}")
    return image_of(layer)


def image_of(layer: bytes) -> bytes:
    """The manifest of an image of one layer, whose configuration is an empty object."""
    config = Descriptor.of(b"{}", "application/vnd.oci.image.config.v1+json")
    return as_content(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config.as_json(),
            "layers": [Descriptor.of(layer, "application/vnd.oci.image.layer.v1.tar").as_json()],
        }
    )


@pytest.fixture
def pushed(upstream: str, repository: str, sessions: Path) -> Descriptor:
    registry = connect(upstream, repository)
    upload(registry, sessions, SMALL)
    content = image(registry, SMALL, sessions)
    registry.put_manifest(content, OCI_MANIFEST)
    return Descriptor.of(content, OCI_MANIFEST)


def test_a_manifest_is_there_by_digest_before_it_has_a_tag(
    proxy: FaultyRegistry, repository: str, pushed: Descriptor
) -> None:
    registry = connect(proxy.address, repository)
    held = registry.manifest(str(pushed.digest))
    assert held
    assert Descriptor(held.media_type, held.digest, len(held.content)) == pushed
    assert [each.digest for each in held.layers] == [digest_of(SMALL)]
    assert held.config
    assert held.config.digest == digest_of(b"{}")
    assert registry.manifest("1.0") is None
    assert registry.put_manifest(held.content, OCI_MANIFEST, "1.0") == pushed.digest
    tagged = registry.manifest("1.0")
    assert tagged
    assert tagged.content == held.content


def test_a_manifest_whose_layers_are_missing_is_refused_with_the_registry_s_words(
    proxy: FaultyRegistry, repository: str, sessions: Path
) -> None:
    registry = connect(proxy.address, repository)
    with pytest.raises(PushError, match="PUT with HTTP 40") as failure:
        registry.put_manifest(image(registry, b"never uploaded", sessions), OCI_MANIFEST, "1.0")
    assert "MANIFEST_BLOB_UNKNOWN" in str(failure.value.detail)


def test_a_layer_that_the_registry_is_writing_a_second_time_is_waited_for(
    tmp_path: Path, repository: str, registry_image: str
) -> None:
    """It empties the file that says that it has the layer before it fills it: what two pushes at once may see."""
    storage = Storage(tmp_path / "storage")
    with registry_on(storage, registry_image) as address, FaultyRegistry(address) as proxy:
        registry = connect(proxy.address, repository)
        layer, _ = storage.put(SMALL, repository)
        storage.put(b"{}", repository)
        content = image_of(SMALL)
        link = storage.link_file(layer, repository)
        link.write_text("")
        later = threading.Timer(1.0, link.write_text, [str(layer)])
        later.start()
        try:
            assert registry.put_manifest(content, OCI_MANIFEST, "1.0") == digest_of(content)
        finally:
            later.join()
        statuses = [each.status for each in proxy.requests("PUT", "/manifests/")]
    assert len(statuses) > 1
    assert statuses == [400] * (len(statuses) - 1) + [201]


def test_what_is_attached_is_found_once(proxy: FaultyRegistry, repository: str, pushed: Descriptor) -> None:
    registry = connect(proxy.address, repository)
    assert registry.referrers(pushed.digest) == []
    first = registry.attach(pushed, STATEMENT, b'{"a": 1}', STATEMENT, {"predicate": "a"})
    assert registry.attach(pushed, STATEMENT, b'{"a": 1}', STATEMENT, {"predicate": "a"}) == first
    second = registry.attach(pushed, "application/spdx+json", b'{"b": 2}', "application/spdx+json", {})
    found = registry.referrers(pushed.digest)
    assert [each.digest for each in found] == [first, second]
    assert found[0].annotations == {"predicate": "a"}
    assert registry.referrers(pushed.digest, STATEMENT) == found[:1]
    held = registry.manifest(str(first))
    assert held
    assert held.document["subject"]["digest"] == str(pushed.digest)
    assert held.document["artifactType"] == STATEMENT
    assert b"".join(registry.blob(held.layers[0].digest)) == b'{"a": 1}'
    assert registry.manifest(pushed.digest.value.replace(":", "-")), "the tag of registries without the interface"


def test_referrers_that_are_attached_at_once_are_all_there(upstream: str, repository: str, pushed: Descriptor) -> None:
    failures: list[BuilderError] = []

    def one(number: int) -> None:
        try:
            connect(upstream, repository).attach(pushed, STATEMENT, b"%d" % number, STATEMENT, {})
        except BuilderError as failure:
            failures.append(failure)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(connect(upstream, repository).referrers(pushed.digest)) == 3


def test_a_blob_whose_download_breaks_is_read_on(proxy: FaultyRegistry, repository: str, sessions: Path) -> None:
    registry = connect(proxy.address, repository)
    upload(registry, sessions, SMALL)
    proxy.answer(503, "GET", "blobs/sha256")
    assert b"".join(registry.blob(digest_of(SMALL))) == SMALL
    with pytest.raises(PushError, match="GET with HTTP 404"):
        b"".join(registry.blob(Digest("sha256:" + "0" * 64)))


def test_the_engine_pushes_through_the_proxy_and_its_log_counts_the_bytes(
    proxy: FaultyRegistry, engine: Any, registry_image: str, repository: str
) -> None:
    name = f"{proxy.address}/{repository}"
    engine.client.api.tag(registry_image, name, "1", force=True)
    for event in engine.client.api.push(name, "1", stream=True, decode=True):
        assert "error" not in event, event
    registry = connect(proxy.upstream, repository)
    known = [registry.manifest("1")]
    index = known[0].document.get("manifests", []) if known[0] else []
    known += [registry.manifest(each["digest"]) for each in index]
    blobs = {blob.digest: blob.size for each in known if each for blob in (*each.layers, each.config) if blob}
    assert sum(blobs.values()) > 10 * MIB
    assert sum(each.received for each in proxy.log if "/blobs/" in each.path) == sum(blobs.values())
