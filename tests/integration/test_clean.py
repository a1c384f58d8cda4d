"""`clean` with real images: what goes, what survives, and what is left on the disk afterwards.

All that is removed is in an engine of its own, as the machine's may have somebody's work.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from builder import project as projects
from builder.docker import storage
from builder.docker.engine import Engine
from builder.lock import LockedTarget
from builder.project import Target
from builder.record import LABEL, Record
from builder.steps import clean
from builder.steps.clean import Rules

from .conftest import REPOSITORY, Project
from .engines import SecondEngine, second_engine

NAME = f"{REPOSITORY}-clean"
RECORD = Record(
    builder="0.1.0",
    program="0",
    target="embedded",
    built_as=Target(),
    repository=f"localhost:5000/{NAME}",
    plugins=(),
    server_args=(),
    source="",
    commit="",
    epoch=0,
    remote="",
    sources={},
    lock=LockedTarget(wheels={}, debian={}),
)
LABELS = {LABEL: RECORD.label}
MB = 1_000_000

Load = Callable[..., str]


def layer(content: bytes) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        member = tarfile.TarInfo("file-" + content[:4].hex())
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondEngine]:
    """An engine that nobody else uses."""
    with second_engine(tmp_path_factory.mktemp("second")) as made:
        yield made


@pytest.fixture
def own(second: SecondEngine) -> Iterator[Engine]:
    """That engine, empty."""
    made = second.connect()
    yield made
    for each in made.client.api.images(all=True):
        for name in each["RepoTags"] or [each["Id"]]:
            made.client.images.remove(name, force=True)


@pytest.fixture
def load(own: Engine) -> Load:
    """Brings an image of such layers into the engine, which no build cache shares; gives its ID."""

    def bring(name: str, *layers: bytes, labels: dict[str, str] | None = None) -> str:
        digests = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in layers]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": labels or {}, "Cmd": ["x"]},
            "rootfs": {"type": "layers", "diff_ids": digests},
            "history": [{"created_by": "x"} for _ in layers],
        }
        names = [f"{number}.tar" for number in range(len(layers))]
        manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": names}]
        members = {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w") as archive:
            for path, content in {**members, **dict(zip(names, layers, strict=True))}.items():
                member = tarfile.TarInfo(path)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        own.load([written.getvalue()], name)
        return str(own.image(name)["Id"])

    return bring


@pytest.fixture
def here(tmp_path: Path, second: SecondEngine, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with that name, and a history of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    (tmp_path / "project").mkdir()
    text = f'repository = "localhost:5000/{NAME}"\n[targets.embedded]\n'
    (tmp_path / "project" / "builder.toml").write_text(text)
    return Project(tmp_path / "project", second.environment)


def cleaned(project: Project, *rules: str) -> dict[str, Any]:
    return dict(project.builder("clean", *rules, "--yes", "--json").ok().document)


def test_what_is_told_to_get_free_does(second: SecondEngine, own: Engine, here: Project, load: Load) -> None:
    shared, first, last = (layer(os.urandom(size * MB)) for size in (20, 30, 10))
    old = load(f"localhost:5000/{NAME}:1", shared, first, labels=LABELS)
    new = load(f"{NAME}:embedded", shared, last, labels=LABELS)
    layers, disk = storage.layers_bytes(own), second.bytes()
    told = cleaned(here, "--to", "0")
    assert [each["key"] for each in told["goes"]] == told["removed"] == [old]
    assert [(each["key"], each["why"]) for each in told["stays"]] == [(new, "the last build of target embedded")]
    assert not own.has_image(old)
    assert own.has_image(new)
    # Unpacked, and as it was loaded: random bytes cannot be compressed.
    assert 60 * MB <= told["frees"] < 61 * MB
    _until(lambda: abs(layers - storage.layers_bytes(own) - 30 * MB) < MB)
    _until(lambda: abs(disk - second.bytes() - told["frees"]) < 2 * MB)


def test_down_to_a_size_the_oldest_goes_first(own: Engine, here: Project, load: Load) -> None:
    images = [load(f"localhost:5000/{NAME}:{each}", layer(os.urandom(5 * MB)), labels=LABELS) for each in range(3)]
    told = cleaned(here, "--to", "25MB")
    assert told["removed"] == images[:1]
    assert [own.has_image(each) for each in images] == [False, True, True]
    assert cleaned(here, "--older-than", "1h")["removed"] == []


def test_images_of_others_survive_everything(own: Engine, here: Project, load: Load) -> None:
    foreign = {
        load("triton-dali-builder/embedded:mine", layer(b"1")),
        load(f"{NAME}:mine", layer(b"2")),
        load(f"{NAME}-2:embedded", layer(b"3"), labels={"org.opencontainers.image.title": NAME}),
    }
    named = load(f"{NAME}:embedded_load", layer(b"4"), labels=LABELS)
    own.tag(named, f"{NAME}-customer:1")
    told = cleaned(here, "--to", "0", "--all")
    assert told["removed"] == []
    assert [(each["key"], each["why"]) for each in told["stays"]] == [(named, f"it is also {NAME}-customer:1")]
    assert all(own.has_image(each) for each in (*foreign, named))


def test_an_image_that_a_container_uses_stays(own: Engine, here: Project, load: Load) -> None:
    used = load(f"localhost:5000/{NAME}:1", layer(b"5"), labels=LABELS)
    with own.created(used) as container:
        [stays] = cleaned(here, "--to", "0", "--all")["stays"]
        assert stays["why"] == f"the container {container.name} is made of it"
        assert own.has_image(used)
    assert cleaned(here, "--to", "0")["removed"] == [used]
    assert not own.has_image(used)


def planned(own: Engine, here: Project) -> tuple[clean.Found, clean.Plan]:
    now = datetime.now(UTC) + timedelta(hours=2)  # what is younger may belong to a command that is running
    found = clean.look(projects.load(here.root), own, (), now)
    return found, clean.plan(found.items, Rules(to=0), now, found.pinned)


def test_what_somebody_began_to_use_after_the_plan_stays(own: Engine, here: Project, load: Load) -> None:
    used, named = (load(f"{NAME}:embedded{each}", layer(each.encode()), labels=LABELS) for each in ("_load", "_rebase"))
    found, plan = planned(own, here)
    assert {each.key for each in plan.goes} == {used, named}
    own.tag(named, f"{NAME}-customer:1")
    with own.created(used):
        removed = clean.carry_out(plan, own, found.layers_bytes)
    assert removed.items == ()
    assert {each.key: why for each, why in removed.left}[named] == "it has another name by now"
    assert all(own.has_image(each) for each in (used, named))
    assert set(own.image(named)["RepoTags"]) == {f"{NAME}:embedded_rebase", f"{NAME}-customer:1"}


def test_what_env_deploys_stays(own: Engine, here: Project, load: Load) -> None:
    image = load(f"{NAME}:embedded_load", layer(b"7"), labels=LABELS)
    (here.root / ".env").write_text(f"IMAGE=localhost:5000/{NAME}@{image}\n")
    told = cleaned(here, "--to", "0")
    assert [each["why"] for each in told["stays"]] == [f"localhost:5000/{NAME} deploys it"]
    assert own.has_image(image)


def test_the_build_cache_goes_when_it_is_named_and_not_before(own: Engine, here: Project, tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text("FROM scratch AS served\nCOPY data /\nCOPY data /again\n")
    (tmp_path / "context" / "data").write_bytes(os.urandom(5 * MB))
    here.docker("build", "--quiet", "--output=type=cacheonly", str(tmp_path / "context")).ok()
    told = cleaned(here, "--to", "0", "--all")
    assert told["build_cache"]["bytes"] >= 10 * MB
    assert told["freed_of_cache"] == 0
    # Used a moment ago.
    assert cleaned(here, "--cache", "--older-than", "1h")["freed_of_cache"] == 0
    assert cleaned(here, "--cache")["freed_of_cache"] >= 10 * MB
    assert cleaned(here, "--to", "0")["build_cache"]["bytes"] < MB


def test_the_shipped_project_s_image_and_its_base_stay(engine: Engine, shipped: Project, image: dict[str, Any]) -> None:
    told = shipped.builder("clean", "--to", "0", "--dry-run", "--json").ok().document
    stays = {each["key"]: each["why"] for each in told["stays"]}
    assert stays[image["digest"]] == "the last build of target embedded"
    assert "base of" in stays[image["base_digest"]]
    assert engine.has_image(image["digest"])
    assert told["removed"] == []


def test_without_a_wish_it_shows_what_there_is(engine: Engine, shipped: Project, image: dict[str, Any]) -> None:
    shown = shipped.builder("clean").ok().stdout
    assert "images of this project" in shown
    assert "BuildKit's cache" in shown
    assert engine.has_image(image["digest"])


def _until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """The engine collects what nothing needs any more a moment after the image is gone."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)
