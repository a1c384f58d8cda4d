from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from builder.docker import brought
from builder.docker.engine import Engine
from builder.errors import MachineError

from . import test_oci

NAME = "triton-dali-builder/embedded:1.53.0-0123456789ab"
FORM = "compression=zstd,oci-mediatypes=true"
TARGETS: dict[str, dict[str, Any]] = {
    "a": {"target": "artifacts", "output": ["type=local,dest=/x"]},
    "a_base": {"target": "embedded", "output": [f"type=image,name={NAME},{FORM}"]},
}


class FakeClient:
    """The SDK's client of an engine that has images: name → ID."""

    def __init__(self, **_: object) -> None:
        self.api = self
        self.there: dict[str, str] = {}
        self.loaded: list[dict[str, bytes]] = []
        self.refuses = ""

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name not in self.there:
            raise docker.errors.ImageNotFound(name)
        return {"Id": self.there[name]}

    def load_image(self, archive: Iterable[bytes]) -> list[dict[str, str]]:
        with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as opened:
            self.loaded.append({each.name: opened.extractfile(each).read() for each in opened})  # type: ignore[union-attr]
        return [{"error": self.refuses}] if self.refuses else []


class BuildKit:
    """Makes one and the same base, where it is asked to leave it."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[Mapping[str, Mapping[str, Any]]] = []
        self.digest = str(test_oci.built(folder / "model", b"base").digest)

    def __call__(self, targets: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        self.asked.append(targets)
        for target in targets.values():
            [output] = target["output"]
            if output.startswith("type=oci,"):
                folder = Path(dict(each.partition("=")[::2] for each in output.split(","))["dest"])
                assert not folder.exists()
                test_oci.built(folder, b"base")
        return {name: {"containerimage.digest": self.digest} if name.endswith("_base") else {} for name in targets}

    @property
    def outputs(self) -> list[list[str]]:
        return [[output for target in call.values() for output in target["output"]] for call in self.asked]


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def buildkit(tmp_path: Path) -> BuildKit:
    return BuildKit(tmp_path)


def bake(client: FakeClient, buildkit: BuildKit, folder: Path) -> dict[str, dict[str, Any]]:
    sdk: Any = client
    return brought.bake(Engine(sdk), TARGETS, folder, buildkit)


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.oci")]


def test_an_image_that_the_engine_lacks_is_brought_to_it(
    client: FakeClient, buildkit: BuildKit, tmp_path: Path
) -> None:
    metadata = bake(client, buildkit, tmp_path)
    assert metadata["a_base"]["containerimage.digest"] == buildkit.digest
    assert buildkit.outputs == [["type=local,dest=/x", f"type=oci,tar=false,dest={tmp_path}/a_base.oci,{FORM}"]]
    [archive] = client.loaded
    [entry] = json.loads(archive["index.json"])["manifests"]
    assert (entry["digest"], entry["annotations"]["io.containerd.image.name"]) == (
        buildkit.digest,
        f"docker.io/{NAME}",
    )
    assert left(tmp_path) == []


def test_of_one_that_is_there_no_layer_travels(client: FakeClient, buildkit: BuildKit, tmp_path: Path) -> None:
    client.there[NAME] = buildkit.digest
    bake(client, buildkit, tmp_path)
    assert buildkit.outputs == [["type=local,dest=/x", f"type=image,store=false,{FORM}"]]
    assert client.loaded == []


def test_one_that_has_changed_takes_its_place(client: FakeClient, buildkit: BuildKit, tmp_path: Path) -> None:
    client.there[NAME] = "sha256:" + "e" * 64
    metadata = bake(client, buildkit, tmp_path)
    assert set(metadata) == {"a", "a_base"}
    assert buildkit.outputs[1:] == [[f"type=oci,tar=false,dest={tmp_path}/a_base.oci,{FORM}"]]
    assert len(client.loaded) == 1


def test_what_a_killed_build_left_is_not_added_to(client: FakeClient, buildkit: BuildKit, tmp_path: Path) -> None:
    (tmp_path / "a_base.oci" / "blobs").mkdir(parents=True)
    bake(client, buildkit, tmp_path)
    assert len(client.loaded) == 1


def test_an_engine_that_takes_nothing_is_told_and_leaves_nothing(
    client: FakeClient, buildkit: BuildKit, tmp_path: Path
) -> None:
    client.refuses = "unexpected EOF"
    with pytest.raises(MachineError):
        bake(client, buildkit, tmp_path)
    assert left(tmp_path) == []
