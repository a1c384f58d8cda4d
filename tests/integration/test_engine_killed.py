"""An engine that dies in the middle, or whose disk is full: a command says so, and the next one finishes the work."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.docker.engine import OWNER
from builder.reference import Reference
from builder.registry import Registry

from .conftest import Finished, Project, copy_project
from .engines import SecondEngine, second_engine
from .faulty_registry import FaultyRegistry

DISK = 12_000_000_000
MIB = 1 << 20


@pytest.fixture(scope="module")
def second(
    tmp_path_factory: pytest.TempPathFactory, debian: str, shipped: Project, image: dict[str, Any]
) -> Iterator[SecondEngine]:
    """An engine that has a Debian and the embedded base, on a disk that can be filled."""
    with second_engine(tmp_path_factory.mktemp("second") / "engine", DISK) as second:
        second.take(debian)
        second.take(json.loads((shipped.root / ".builder/embedded/image.json").read_text())["base"])
        yield second


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, second: SecondEngine, shipped: Project, debian: str) -> Project:
    """A project on the base as if it were somebody else's image, so that only a compiler has to be installed."""
    project = Project(copy_project(tmp_path_factory.mktemp("there") / "project"), second.environment)
    base = json.loads((shipped.root / ".builder/embedded/image.json").read_text())["base"]
    (project.root / "builder.toml").write_text(
        f"""
repository = "localhost:5000/under-test-there"
debian_image = "{debian}"

[targets.there]
triton_image = "{base}"
cuda = "OFF"

[models]
mydali = {{ oracle = "identity" }}
"""
    )
    return project


class Running:
    """A command whose messages are read while it runs."""

    def __init__(self, project: Project, command: str, *arguments: str) -> None:
        self._process = project.start(command, "--json", *arguments)
        self._messages: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            self._messages.append(line)

    def says(self, text: str) -> bool:
        return any(text in line for line in list(self._messages))

    def wait(self, until: Callable[[], bool], timeout: float = 120) -> None:
        deadline = time.monotonic() + timeout
        while not until():
            assert self._process.poll() is None, self.finish()
            assert time.monotonic() < deadline, self._messages
            time.sleep(0.02)

    def finish(self) -> Finished:
        """What it says at the end, which has to come soon."""
        assert self._process.stdout
        stdout = self._process.stdout.read()
        self._process.wait(timeout=60)
        self._reader.join()
        return Finished(self._process.returncode, stdout, "".join(self._messages))


def records(project: Project) -> dict[str, bytes]:
    """What earlier commands left."""
    return {file.name: file.read_bytes() for file in (project.root / ".builder/there").glob("*.json")}


def containers(second: SecondEngine) -> list[str]:
    found = second.connect().client.containers.list(all=True, filters={"label": OWNER})
    return [str(each.name) for each in found]


def left_over(project: Project) -> list[Path]:
    """Files that were to be renamed, and are not."""
    return [file for file in (project.root / ".builder").rglob(".*") if file.is_file()]


def killed(running: Running, second: SecondEngine) -> None:
    """Kills the engine under it, and has it say so; then there is an engine again."""
    try:
        second.kill()
        began = time.monotonic()
        error = running.finish().failed("no-engine", 3)
        assert time.monotonic() - began < 30
        assert "engine" in error["what"]
    finally:
        second.start()


def test_killed_in_the_first_build(there: Project, second: SecondEngine) -> None:
    build = Running(there, "build")
    build.wait(lambda: (there.root / ".builder/parts.bake.json").exists())
    time.sleep(3)  # the compiler is being installed
    killed(build, second)
    assert records(there) == {}
    there.builder("build").ok()
    assert {"image.json", "parts.json"} <= records(there).keys()
    assert left_over(there) == []


def test_killed_while_it_compiles_the_earlier_records_stay(there: Project, second: SecondEngine) -> None:
    before = records(there)
    there.edit("plugin/custom_copy.cc", "Copies the input to the output, on", "Copies what it gets, on")
    build = Running(there, "build")
    build.wait(lambda: build.says("COPY plugi[n]"))
    killed(build, second)
    assert records(there) == before
    there.builder("build").ok()
    assert json.loads(records(there)["image.json"])["digest"] != json.loads(before["image.json"])["digest"]
    assert left_over(there) == []


def test_killed_in_smoke(there: Project, second: SecondEngine) -> None:
    before = records(there)
    smoke = Running(there, "smoke")
    smoke.wait(lambda: bool(containers(second)))  # the server is starting
    killed(smoke, second)
    smoke = Running(there, "smoke")
    smoke.wait(lambda: smoke.says("ready after"))  # it is being asked
    killed(smoke, second)
    assert records(there) == before
    there.builder("smoke").ok()
    assert "verification.json" in records(there)
    assert containers(second) == []


def test_killed_in_a_push(there: Project, second: SecondEngine, registry: str) -> None:
    """While it sends the layers of the base, which only the engine has."""
    before = records(there)
    with FaultyRegistry(registry, buffered=True, bytes_per_second=64 * MIB) as proxy:
        to = f"{proxy.address}/under-test/there{time.time_ns():x}:1"
        push = Running(there, "push", to)
        push.wait(lambda: proxy.uploaded > 40 * MIB)
        killed(push, second)
        assert records(there) == before
        upstream = Registry.connect(Reference.parse(to.replace(proxy.address, registry)))
        assert upstream.manifest("1") is None
        proxy.bytes_per_second = 0
        pushed = there.builder("push", to, "--json").ok().document["pushed"][0]
        held = upstream.manifest("1")
        assert held
        assert str(held.digest) == pushed["digest"]
        assert len(upstream.referrers(held.digest)) == 3
    assert left_over(there) == []


def test_a_full_disk_is_told_of_and_room_mends_it(there: Project, second: SecondEngine) -> None:
    before = records(there)
    constants = there.root / "model_repository/mydali/1/constants.bin"
    constants.write_bytes(bytes(200 * MIB))
    second.fill(free=100 * MIB)
    try:
        there.builder("build", "--json").failed("disk-full", 3)
    finally:
        second.make_room()
    assert records(there) == before
    there.builder("build").ok()
    assert records(there) != before
    assert left_over(there) == []


def test_nothing_is_left_over(there: Project, second: SecondEngine) -> None:
    client = second.connect().client
    assert client.containers.list(all=True) == []
    assert {each.name for each in client.networks.list()} == {"bridge", "host", "none"}
    assert client.volumes.list() == []
