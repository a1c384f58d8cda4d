"""A push through a registry that breaks: a tag is only ever a verified image, with all that proves it beside it."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.attest.statement import PROVENANCE, SBOM, VERIFICATION
from builder.docker.engine import OWNER, Engine
from builder.reference import Digest, Reference
from builder.registry import Registry
from builder.steps.attest import PREDICATE_TYPE

from .conftest import Finished, Project, copy_project, interrupt
from .faulty_registry import FaultyRegistry
from .registry_storage import Storage, registry_on

MIB = 1 << 20
CONSTANTS = 48 * MIB
PREDICATES = {VERIFICATION, PROVENANCE, SBOM}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    folder = tmp_path_factory.mktemp("storage")
    yield Storage(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def upstream(storage: Storage, registry_image: str) -> Iterator[str]:
    with registry_on(storage, registry_image) as address:
        yield address


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory, verified: dict[str, Any]) -> Project:
    """A project whose own layer has 48 MiB that no compression makes smaller: built, and proven."""
    project = Project(copy_project(tmp_path_factory.mktemp("heavy") / "project"))
    constants = project.root / "model_repository/mydali/1/constants.bin"
    constants.write_bytes(random.Random(7).randbytes(CONSTANTS))
    project.edit("builder.toml", "localhost:5000/under-test", "localhost:5000/under-test-heavy")
    project.builder("build").ok()
    project.builder("smoke").ok()
    return project


@pytest.fixture(scope="module")
def digest(heavy: Project) -> str:
    """The image that was verified."""
    record = json.loads((heavy.root / ".builder/embedded/verification.json").read_text())
    assert record["passed"]
    return str(record["digest"])


@pytest.fixture(scope="module")
def layers(heavy: Project, digest: str, storage: Storage, engine: Engine) -> list[dict[str, Any]]:
    """The layers of the base, which the registry has in some repository; `Run` puts them into its own."""
    base = json.loads((heavy.root / ".builder/embedded/image.json").read_text())["base"]
    documents = storage.put_saved(base, "base")
    return list(json.loads(documents[engine.image(base)["Id"]])["layers"])


class Watcher:
    """Looks at a tag all the time, past the proxy, for what must never be there."""

    def __init__(self, tag: Reference, allowed: set[str]) -> None:
        self.seen = 0
        self.violations: list[str] = []
        self._tag = tag
        self._allowed = allowed
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            self._look()
        except Exception as error:
            self.violations.append(f"the watch ended: {error!r}")

    def _look(self) -> None:
        registry = Registry.connect(self._tag)
        while not self._is_over.wait(0.01):
            held = registry.manifest(str(self._tag.tag))
            self.seen += 1
            if held is None:
                continue
            if str(held.digest) not in self._allowed:
                self.violations.append(f"the tag is {held.digest}")
            elif lacking := PREDICATES - predicates(registry, held.digest):
                self.violations.append(f"the tag is there before its {lacking}")


def predicates(registry: Registry, digest: Digest) -> set[str]:
    """What is attached to an image."""
    return {each.annotations.get(PREDICATE_TYPE, "") for each in registry.referrers(digest)}


class Run:
    """A copy of the project, a repository that has the base's layers, and a proxy before it."""

    def __init__(self, project: Project, proxy: FaultyRegistry, path: str, digest: str) -> None:
        self.project = project
        self.proxy = proxy
        self.digest = digest
        self.to = f"{proxy.address}/{path}:1"
        self.tag = Reference.parse(f"{proxy.upstream}/{path}:1")
        layout = project.root / ".builder/embedded/oci/blobs/sha256"
        self.largest = max(file.stat().st_size for file in layout.iterdir())
        assert self.largest > CONSTANTS

    def push(self, *arguments: str) -> Finished:
        return self.project.builder("push", self.to, "--json", *arguments)

    def start(self) -> subprocess.Popen[str]:
        return self.project.start("push", self.to, "--json")

    @property
    def is_under_way(self) -> bool:
        """Whether a part of the largest layer is there, and more of it on its way."""
        return bool(self.proxy.requests("PATCH")) and self.proxy.uploaded > 20 * MIB

    def assert_nothing_is_tagged(self) -> None:
        assert Registry.connect(self.tag).manifest("1") is None
        assert not (self.project.root / ".builder/embedded/pushed.json").exists()

    def assert_done(self) -> None:
        """All of it is in the registry, and nothing is left over here."""
        registry = Registry.connect(self.tag)
        held = registry.manifest("1")
        assert held
        assert str(held.digest) == self.digest
        for blob in (*held.layers, held.config):
            assert blob
            assert registry.blob_size(blob.digest) == blob.size
        assert predicates(registry, held.digest) == PREDICATES
        assert list((self.project.root / ".builder/uploads").glob("*")) == []
        assert [file for file in (self.project.root / ".builder").rglob(".*") if file.is_file()] == []


@pytest.fixture
def start(
    heavy: Project,
    upstream: str,
    storage: Storage,
    layers: list[dict[str, Any]],
    digest: str,
    tmp_path: Path,
) -> Iterator[Callable[..., Run]]:
    """Starts a `Run` whose tag is watched until the test ends."""
    with contextlib.ExitStack() as resources:
        watchers = []

        def start(also: str = "", **options: Any) -> Run:
            project = Project(tmp_path / "heavy")
            shutil.copytree(heavy.root, project.root)
            path = f"under-test/{tmp_path.name.replace('_', '-').lower()}{time.time_ns():x}"
            for layer in layers:
                storage.link(Digest(layer["digest"]), path)
            proxy = resources.enter_context(FaultyRegistry(upstream, **options))
            run = Run(project, proxy, path, digest)
            watchers.append(resources.enter_context(Watcher(run.tag, {digest, also} - {""})))
            return run

        yield start
        assert all(watcher.seen > 10 for watcher in watchers)
        assert [violation for watcher in watchers for violation in watcher.violations] == []


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(engine: Engine, heavy: Project, upstream: str) -> Iterator[None]:
    """No push leaves a container, a network or a volume."""

    def present() -> set[str]:
        containers = engine.client.containers.list(all=True, filters={"label": OWNER})
        return {
            *(str(each.name) for each in containers),
            *(str(each.name) for each in engine.client.networks.list()),
            *(str(each.name) for each in engine.client.volumes.list()),
        }

    before = present()
    yield
    assert present() <= before


@pytest.mark.parametrize("tenth", range(1, 10))
def test_cut_at_every_tenth_it_arrives(start: Callable[..., Run], tenth: int) -> None:
    run = start()
    run.proxy.cut(run.largest * tenth // 10)
    run.push().ok()
    assert [each.status for each in run.proxy.requests("PATCH") if not each.status] == [0]
    run.assert_done()


def test_cut_again_and_again_behind_a_proxy_no_chunk_is_lost(start: Callable[..., Run]) -> None:
    run = start(buffered=True)
    run.proxy.cut(*(run.largest * fifth // 5 for fifth in range(1, 5)))
    run.push().ok()
    assert sum(not each.status for each in run.proxy.requests("PATCH")) == 4
    run.assert_done()


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_registry_that_stumbles_is_waited_for(start: Callable[..., Run], status: int) -> None:
    run = start()
    run.proxy.answer(status, "PATCH", skip=2, times=2)
    run.proxy.answer(status, "PUT", "/manifests/")
    run.push().ok()
    assert sum(each.repeated for each in run.proxy.requests("PATCH")) == 2
    run.assert_done()


def test_a_token_that_runs_out_is_renewed(start: Callable[..., Run]) -> None:
    run = start()
    run.proxy.require_tokens(uses=3)
    run.push().ok()
    assert any(each.status == 401 for each in run.proxy.requests("PATCH"))
    run.assert_done()


@pytest.mark.parametrize(
    ("method", "part", "skip", "status", "body", "code"),
    [
        ("PATCH", "", 2, 401, "", "unauthorized"),
        ("PATCH", "", 2, 403, '{"errors": [{"code": "DENIED"}]}', "unauthorized"),
        ("PATCH", "", 2, 405, '{"errors": [{"code": "UNSUPPORTED"}]}', "registry-read-only"),
        ("PATCH", "", 2, 507, "", "registry-full"),
        ("PATCH", "", 2, 500, "write /var/lib/registry/data: no space left on device", "registry-full"),
        ("PUT", "/manifests/", 0, 403, '{"errors": [{"code": "DENIED"}]}', "unauthorized"),
        ("PUT", "/manifests/", 0, 507, "", "registry-full"),
    ],
)
def test_a_registry_that_refuses_in_the_middle_has_no_tag_and_the_next_push_finishes(
    start: Callable[..., Run], method: str, part: str, skip: int, status: int, body: str, code: str
) -> None:
    run = start()
    run.proxy.answer(status, method, part, skip=skip, body=body)
    run.push().failed(code, 6)
    run.assert_nothing_is_tagged()
    run.push().ok()
    run.assert_done()


def test_a_refusal_after_the_image_is_there_leaves_it_without_a_tag(start: Callable[..., Run]) -> None:
    """The image itself arrives; what proves it does not."""
    run = start()
    run.proxy.answer(403, "PUT", "/manifests/", skip=2, times=9)
    run.push().failed("unauthorized", 6)
    registry = Registry.connect(run.tag)
    assert registry.manifest(run.digest)
    run.assert_nothing_is_tagged()


def test_a_slow_registry_gets_all_of_it(start: Callable[..., Run]) -> None:
    run = start(bytes_per_second=16 * MIB)
    document = run.push().ok().document["pushed"][0]
    assert document["seconds"] > run.largest / (16 * MIB)
    run.assert_done()


def test_two_pushes_of_one_tag_at_once_both_end_well(start: Callable[..., Run]) -> None:
    run = start(bytes_per_second=64 * MIB)
    both = [run.start() for _ in range(2)]
    for process in both:
        stdout, stderr = process.communicate(timeout=120)
        Finished(process.returncode, stdout, stderr).ok()
    run.assert_done()


def test_two_images_for_one_tag_at_once_leave_one_that_was_verified(
    start: Callable[..., Run], built_project: Project
) -> None:
    other = json.loads((built_project.root / ".builder/embedded/verification.json").read_text())["digest"]
    run = start(also=other)
    both = [run.start(), built_project.start("push", run.to, "--json")]
    ended = [Finished(0, *process.communicate(timeout=120)) for process in both]
    for process, done in zip(both, ended, strict=True):
        if process.returncode:  # the other one took the tag in the moment between giving it and looking
            Finished(process.returncode, done.stdout, done.stderr).failed("digest-mismatch", 6)
    assert not all(process.returncode for process in both)
    registry = Registry.connect(run.tag)
    held = registry.manifest("1")
    assert held
    assert str(held.digest) in (run.digest, other)
    for each in (run.digest, other):
        assert registry.manifest(each)
        assert predicates(registry, Digest(each)) == PREDICATES


def test_a_killed_push_is_gone_on_with(start: Callable[..., Run]) -> None:
    run = start(buffered=True, bytes_per_second=24 * MIB)
    with run.start() as process:
        _wait(lambda: run.is_under_way, process)
        time.sleep(0.2)  # its record is written, and the next chunk is on its way
        process.send_signal(signal.SIGKILL)
    run.assert_nothing_is_tagged()
    (record,) = (run.project.root / ".builder/uploads").glob("*.json")
    location = Path(json.loads(record.read_text())["location"].partition("?")[0]).name
    arrived = sum(each.received for each in run.proxy.requests("PATCH", location) if each.status == 202)
    assert arrived >= 16 * MIB

    run.proxy.bytes_per_second = 0
    document = run.push().ok().document["pushed"][0]
    again = [each for each in run.proxy.requests("PATCH", location) if each.status == 202]
    assert sum(each.received for each in again) == run.largest
    assert document["bytes_uploaded"] < run.largest
    run.assert_done()


def test_ctrl_c_leaves_no_tag_and_the_next_push_finishes(start: Callable[..., Run]) -> None:
    run = start(bytes_per_second=24 * MIB)
    interrupt(run.start(), lambda: run.is_under_way).failed("interrupted", 130)
    run.assert_nothing_is_tagged()
    run.proxy.bytes_per_second = 0
    run.push().ok()
    run.assert_done()


def _wait(until: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
