"""A base that is not on the machine that builds: its layers stay where they are, and another machine proves the image.

The one that builds is a second engine, which starts empty; the other one is the first engine.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.docker.engine import Engine
from builder.reference import Reference
from builder.registry import Descriptor, Registry
from builder.registry.content import OCI_MANIFEST, as_content

from .conftest import ROOT, Finished, Project, copy_project
from .engines import SecondEngine, second_engine
from .faulty_registry import FaultyRegistry
from .registry_storage import Blob, Storage, registry_on

BASE_BYTES = 5_000_000_000
SENT_AT_MOST = 1_000_000
DISK_AT_MOST = 2_000_000_000
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    folder = tmp_path_factory.mktemp("storage")
    yield Storage(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def proxy(registry_image: str, storage: Storage) -> Iterator[FaultyRegistry]:
    """The registry, behind something that counts."""
    with registry_on(storage, registry_image) as address, FaultyRegistry(address) as proxy:
        yield proxy


def put_image(proxy: FaultyRegistry, repository: str, config: Blob, layers: list[dict[str, Any]]) -> str:
    """Puts the manifest of an image whose blobs are there; gives its name."""
    name = f"{proxy.address}/{repository}:1"
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor(CONFIG, *config).as_json(),
        "layers": layers,
    }
    Registry.connect(Reference.parse(name)).put_manifest(as_content(manifest), OCI_MANIFEST, "1")
    return name


@pytest.fixture(scope="module")
def huge(storage: Storage, proxy: FaultyRegistry) -> str:
    """A base of 5 GB that nobody can start, nor has to."""
    layer = storage.put_zeros(BASE_BYTES, "huge")
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin:/bin"], "Entrypoint": ["/opt/nvidia/nvidia_entrypoint.sh"]},
        "rootfs": {"type": "layers", "diff_ids": [str(layer[0])]},
    }
    config = storage.put(as_content(document), "huge")
    return put_image(proxy, "huge", config, [Descriptor(LAYER, *layer).as_json()])


@pytest.fixture(scope="module")
def small(storage: Storage, proxy: FaultyRegistry, engine: Engine, shipped: Project, image: dict[str, Any]) -> str:
    """The embedded base with one layer more, which no engine has."""
    embedded = json.loads((shipped.root / ".builder/embedded/image.json").read_text())["base"]
    documents = storage.put_saved(embedded, "small")
    manifest = json.loads(documents[engine.image(embedded)["Id"]])
    config = json.loads(documents[manifest["config"]["digest"]])
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("of-another-machine"))
    layer = storage.put(content.getvalue(), "small")
    config["rootfs"]["diff_ids"].append(str(layer[0]))
    layers = [*manifest["layers"], Descriptor(LAYER, *layer).as_json()]
    return put_image(proxy, "small", storage.put(as_content(config), "small"), layers)


@pytest.fixture(scope="module")
def building(tmp_path_factory: pytest.TempPathFactory, debian: str) -> Iterator[SecondEngine]:
    """The engine that builds: it has a Debian, and nothing else."""
    with second_engine(tmp_path_factory.mktemp("second") / "engine") as building:
        building.take(debian)
        yield building


@pytest.fixture(scope="module")
def far(
    tmp_path_factory: pytest.TempPathFactory,
    proxy: FaultyRegistry,
    huge: str,
    small: str,
    building: SecondEngine,
    debian: str,
) -> Project:
    """A project on both bases."""
    project = Project(copy_project(tmp_path_factory.mktemp("far") / "project"), building.environment)
    (project.root / "builder.toml").write_text(
        f"""
repository = "{proxy.address}/under-test/far"
debian_image = "{debian}"

[targets.huge]
triton_image = "{huge}"
dali = "1.53.0"
toolchain = "wheel"

[targets.small]
triton_image = "{small}"
dali = "1.53.0"
toolchain = "wheel"

[models]
mydali = {{ oracle = "identity" }}
"""
    )
    return project


@pytest.fixture(scope="module")
def grown(far: Project, building: SecondEngine) -> int:
    """Bytes on the disk that the first build took, of both targets."""
    before = building.bytes()
    far.builder("build", "--target=all").ok()
    return building.bytes() - before


def push(far: Project, proxy: FaultyRegistry, target: str) -> tuple[dict[str, Any], int]:
    """Pushes by digest; gives what it says, and the bytes that left this machine for the registry."""
    before = len(proxy.log)
    (pushed,) = far.builder("push", "--untagged", f"--target={target}", "--json").ok().document["pushed"]
    return dict(pushed), sum(each.received for each in proxy.log[before:])


def layers_of(name: str) -> list[Descriptor]:
    reference = Reference.parse(name)
    held = Registry.connect(reference).manifest(str(reference.digest or reference.tag))
    assert held
    return list(held.layers)


def moved(proxy: FaultyRegistry, layers: list[Descriptor]) -> int:
    """Bytes of these layers that any client ever got."""
    digests = [str(each.digest) for each in layers]
    return sum(each.sent for each in proxy.log if each.method == "GET" and each.path.rpartition("/")[2] in digests)


def test_a_build_on_a_far_base_fits_on_a_small_disk(grown: int) -> None:
    print(f"the build took {grown / 1e6:.0f} MB")
    assert grown < DISK_AT_MOST


def test_five_gigabytes_stay_where_they_are(far: Project, proxy: FaultyRegistry, huge: str, grown: int) -> None:
    pushed, sent = push(far, proxy, "huge")
    print(f"sent {sent} bytes")
    assert sent < SENT_AT_MOST
    assert 0 < pushed["bytes_uploaded"] <= sent
    assert pushed["bytes_mounted"] > BASE_BYTES
    base = layers_of(huge)
    assert layers_of(pushed["reference"])[: len(base)] == base
    assert moved(proxy, base) == 0
    assert pushed["tag"] == ""


def test_a_changed_line_of_the_plugin_is_all_that_is_sent(
    far: Project, proxy: FaultyRegistry, huge: str, building: SecondEngine, grown: int
) -> None:
    before = building.bytes()
    far.edit("plugin/custom_copy.cc", "Copies the input to the output, on", "Copies what it gets, on")
    far.builder("build", "--target=all").ok()
    print(f"the second build took {(building.bytes() - before) / 1e6:.0f} MB more")
    first = layers_of(json.loads((far.root / ".builder/huge/pushed.json").read_text())["reference"])
    pushed, sent = push(far, proxy, "huge")
    print(f"sent {sent} bytes")
    layers = layers_of(pushed["reference"])
    assert layers[:-1] == first[:-1]
    assert layers[-1] != first[-1]
    assert layers[-1].size <= sent < SENT_AT_MOST
    assert moved(proxy, layers_of(huge)) == 0


def test_the_machine_that_builds_says_that_it_cannot_prove(far: Project, grown: int) -> None:
    far.builder("smoke", "--target=huge", "--json").failed("base-elsewhere", 3)
    far.builder("push", "--target=huge", "--json").failed("not-verified", 6)


def test_another_machine_proves_it_and_gives_it_its_tag(
    far: Project, proxy: FaultyRegistry, small: str, engine: Engine, grown: int, tmp_path: Path
) -> None:
    pushed, sent = push(far, proxy, "small")
    assert sent < SENT_AT_MOST
    tag = Reference.parse(f"{proxy.address}/under-test/far:1.0")
    assert moved(proxy, layers_of(small)) == 0
    there = Project(copy_project(tmp_path / "there"))
    shutil.copy2(far.root / "builder.toml", there.root)

    there.builder("promote", pushed["reference"], "--tag=1.0", "--json").failed("not-verified", 6)
    try:
        smoke = there.builder("smoke", pushed["reference"], "--json").ok().document
    finally:  # by its name with a digest, which the end of all tests would not find
        engine.client.images.remove(pushed["reference"], force=True)
    assert smoke["images"][0]["digest"] == pushed["digest"]
    assert smoke["images"][0]["negative_control"]["applicable"]
    # It has the layers of the embedded base already.
    assert moved(proxy, layers_of(pushed["reference"])) < SENT_AT_MOST
    assert Registry.connect(tag).manifest("1.0") is None

    before = len(proxy.log)
    promoted = there.builder("promote", pushed["reference"], "--tag=1.0").ok()
    assert promoted.stdout == pushed["reference"] + "\n"
    held = Registry.connect(tag).manifest("1.0")
    assert held
    assert str(held.digest) == pushed["digest"]
    assert sum(each.received for each in proxy.log[before:]) < SENT_AT_MOST / 10
    verified = _verify(str(tag), tmp_path).ok().document
    assert verified["digest"] == pushed["digest"]


def _verify(reference: str, folder: Path) -> Finished:
    """In a folder with no project."""
    command = [sys.executable, "-m", "builder", "verify", reference, "--json"]
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    return Finished(done.returncode, done.stdout, done.stderr)
