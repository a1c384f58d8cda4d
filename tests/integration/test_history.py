"""`history` with a real engine, and with what `build` and `smoke` left."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from builder.journal import Entry, new_id

from .conftest import Project


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A history of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def entry(project: Project, image: dict[str, Any], **changes: Any) -> Entry:
    now = datetime.now(UTC)
    values = {"project": str(project.root), "repository": "localhost:5000/under-test", "when": now.isoformat()}
    told = {name: image[name] for name in ("target", "reference", "digest", "base", "base_digest", "bytes")}
    return Entry.model_validate({"id": new_id(now), "seconds": 1.5, **values, **told, **changes}).save()


def test_a_build_is_told_with_what_became_of_it(home: Path, built_project: Project, image: dict[str, Any]) -> None:
    made = entry(built_project, image)
    gone = entry(built_project, image, digest="sha256:" + "0" * 64, id="20000101T000000-000000")
    failed = entry(built_project, image, digest="", error={"code": "no-base"}, id="19990101T000000-000000")
    told = built_project.builder("history", "--json", "--here").ok().document["builds"]
    assert [(each["id"], each["ended"], each["in_engine"]) for each in told] == [
        (made.id, "verified", True),
        (gone.id, "built", False),
        (failed.id, "failed", False),
    ]
    assert "no-base" in built_project.builder("history", "--failed").ok().stdout
    # Without an engine, or a project that loads, it tells the same of the rest.
    built_project.environment["DOCKER_HOST"] = "unix:///nowhere.sock"
    (built_project.root / "builder.toml").write_text("nonsense")
    told = built_project.builder("history", "--json").ok().document["builds"]
    assert [(each["ended"], each["in_engine"]) for each in told] == [
        ("verified", None),
        ("built", None),
        ("failed", None),
    ]
