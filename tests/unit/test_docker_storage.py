from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest
import requests.exceptions

from builder.docker import storage
from builder.docker.engine import Engine
from builder.errors import MachineError

ONE, TWO, THREE = ("sha256:" + each * 64 for each in "123")
IMAGE = "sha256:" + "a" * 64


class FakeApi:
    """The SDK's client of an engine with one image of two layers, compressed 30 bytes, unpacked 100."""

    def __init__(self) -> None:
        self.api = self
        self.timeout: int | None = 60
        self.timeouts: list[int | None] = []
        self.tags = ["mydali:embedded"]
        self.removed: list[tuple[str, bool]] = []
        self.refusal: Exception | None = None
        self.filters: Any = None

    def df(self) -> dict[str, Any]:
        self.timeouts.append(self.timeout)
        records = [
            {"Size": 5, "Shared": False, "InUse": False, "Description": "[embedded 1/2] COPY"},
            {"Size": 7, "Shared": False, "InUse": True, "Description": "[theirs 1/2] RUN"},
            {"Size": 11, "Shared": True, "InUse": False, "Description": "[embedded 2/2] COPY"},
        ]
        records = [
            {**each, "Type": "regular", "CreatedAt": "2026-11-01T00:00:00Z", "LastUsedAt": "2026-11-20T00:00:00.5Z"}
            for each in records
        ]
        return {"LayersSize": 100, "Images": [{"Id": IMAGE, "Size": 130}], "BuildCache": records}

    def containers(self, **_: Any) -> list[dict[str, Any]]:
        return [{"ImageID": IMAGE, "Names": ["/serving"], "Id": "f" * 64}]

    def images(self, **_: Any) -> list[dict[str, Any]]:
        return [{"Id": IMAGE, "Size": 130}, {"Id": "sha256:" + "0" * 64, "Size": 1}]

    def inspect_image(self, image: str) -> dict[str, Any]:
        if image != IMAGE:
            raise docker.errors.ImageNotFound("gone in the meantime")
        return {
            "Id": IMAGE,
            "RepoTags": self.tags,
            "RepoDigests": ["mydali@" + IMAGE],
            "Config": {"Labels": None},
            "RootFS": {"Layers": [ONE, TWO]},
            "Created": "2026-11-21T00:00:00Z",
            "Metadata": {"LastTagTime": "2026-11-22T20:50:36.745690044Z"},
        }

    def history(self, _: str) -> list[dict[str, Any]]:
        return [{"Size": 0}, {"Size": 60}, {"Size": 0}, {"Size": 40}]

    def remove_image(self, name: str, force: bool) -> None:
        self.timeouts.append(self.timeout)
        if self.refusal:
            raise self.refusal
        self.removed.append((name, force))

    def prune_builds(self, filters: Any) -> dict[str, Any]:
        self.filters = filters
        self.timeouts.append(self.timeout)
        return {"SpaceReclaimed": 12}


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


def engine(api: FakeApi) -> Engine:
    client: Any = api
    return Engine(client)


def test_an_image_s_layers_are_told_by_all_that_is_below_them(api: FakeApi) -> None:
    found = storage.read(engine(api), ["embedded"])
    [image] = found.images
    chain = "sha256:" + hashlib.sha256(f"{ONE} {TWO}".encode()).hexdigest()
    assert image.layers == {ONE: 40 + 12, chain: 60 + 18}
    assert image.bytes == 130
    assert image.names == ("mydali:embedded", "mydali@" + IMAGE)
    assert image.containers == ("serving",)
    assert image.tagged == datetime(2026, 11, 22, 20, 50, 36, 745690, UTC)
    assert image.created == datetime(2026, 11, 21, tzinfo=UTC)
    assert found.layers_bytes == 100
    assert found.cache == storage.BuildCache(records=3, bytes=12, unused=5, ours=5)


def test_layers_that_cannot_be_told_apart_share_their_bytes() -> None:
    found = storage.layers_of([ONE, TWO, THREE], [{"Size": 60}, {"Size": 30}], 90)
    assert list(found.values()) == [30, 30, 30]
    assert storage.layers_of([], [], 700) == {}
    assert set(storage.layers_of([ONE], [{"Size": 0}], 5).values()) == {0}


def test_a_layer_on_another_one_is_another() -> None:
    assert storage.chain_ids([ONE, TWO])[0] == storage.chain_ids([ONE, THREE])[0]
    assert storage.chain_ids([ONE, THREE])[1] != storage.chain_ids([TWO, THREE])[1]


@pytest.mark.parametrize("text", ["", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "x"])
def test_no_moment_is_taken_for_one(text: str) -> None:
    assert storage.moment(text) is None


def test_an_image_goes_by_all_its_names_and_never_by_force(api: FakeApi) -> None:
    api.tags = ["mydali:embedded", "localhost:5000/mydali:1.0"]
    assert storage.remove(engine(api), IMAGE, lambda names, _: list(names) == api.tags) == ""
    assert api.removed == [("mydali:embedded", False), ("localhost:5000/mydali:1.0", False)]


def test_one_without_a_name_goes_by_its_id(api: FakeApi) -> None:
    api.tags = []
    assert storage.remove(engine(api), IMAGE, lambda *_: True) == ""
    assert api.removed == [(IMAGE, False)]


def test_an_image_that_got_another_name_meanwhile_stays(api: FakeApi) -> None:
    assert "another name" in storage.remove(engine(api), IMAGE, lambda *_: False)
    assert api.removed == []


def test_what_the_engine_refuses_to_remove_is_told(api: FakeApi) -> None:
    api.refusal = docker.errors.APIError("409", explanation="a container uses it")
    assert storage.remove(engine(api), IMAGE, lambda *_: True) == "a container uses it"
    api.refusal = docker.errors.ImageNotFound("gone")
    assert storage.remove(engine(api), IMAGE, lambda *_: True) == ""
    assert storage.remove(engine(api), "sha256:" + "0" * 64, lambda *_: True) == ""


def test_an_engine_that_stops_answering_in_a_removal_is_told_of_it(api: FakeApi) -> None:
    api.refusal = requests.exceptions.ReadTimeout("60")
    assert storage.remove(engine(api), IMAGE, lambda *_: True) == "the engine stopped answering: ReadTimeout"


def test_a_slow_disk_has_the_time_it_needs(api: FakeApi) -> None:
    storage.read(engine(api))
    storage.layers_bytes(engine(api))
    storage.prune_cache(engine(api), 0)
    storage.remove(engine(api), IMAGE, lambda *_: True)
    assert api.timeouts == [None] * 4
    assert api.timeout == 60


def test_of_the_cache_that_would_go_which_is_not_younger(api: FakeApi) -> None:
    cache = storage.read(engine(api)).cache
    assert cache.unused_since() == 5
    assert cache.unused_since(datetime(2026, 11, 21, tzinfo=UTC)) == 5
    assert cache.unused_since(datetime(2026, 11, 19, tzinfo=UTC)) == 0


def test_the_cache_is_pruned_of_what_was_not_used_for_so_long(api: FakeApi) -> None:
    assert storage.prune_cache(engine(api), 7 * 86400.0) == 12
    assert api.filters == {"until": "604800s"}
    storage.prune_cache(engine(api), 0)
    assert api.filters == {}


def test_an_engine_that_does_not_tell_is_an_error_of_the_machine() -> None:
    def refuse() -> None:
        raise docker.errors.APIError("500", explanation="broken")

    client: Any = SimpleNamespace(df=refuse, api=SimpleNamespace(timeout=60))
    with pytest.raises(MachineError):
        storage.layers_bytes(Engine(client))


def test_stages_are_those_of_the_dockerfile(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("ARG A\nFROM ${A} AS one\nRUN x\nfrom one as two\nFROM two\n")
    assert storage.stages(file) == ("one", "two")
    assert storage.stages(tmp_path / "none") == ()
