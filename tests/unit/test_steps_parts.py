from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from builder import dali_proto
from builder.artifacts import Parts
from builder.errors import CompileError, SerializeError
from builder.project import Project
from builder.recipe import Base
from builder.steps import parts

BASES = {"embedded": Base("debian:12", None)}
PLUGIN = {"path": "/models/libcustomcopy.so", "sha256": "a" * 64, "bytes": 1, "gpu": True}


def pipeline(*inputs: str) -> bytes:
    made = dali_proto._message_class()()
    for name in inputs:
        made.op.add(name="ExternalSource", inst_name=name)
    made.pipe_outputs.add(name="OUT")
    return bytes(made.SerializeToString())


class Bake:
    """In place of `bake`: leaves files where a definition sends them."""

    def __init__(self, **files: bytes) -> None:
        self.files = files
        self.failure: Exception | None = None

    def __call__(self, targets: Mapping[str, Mapping[str, Any]], **_: object) -> None:
        for target in targets.values():
            folder = Path(target["output"][0].removeprefix("type=local,dest="))
            assert not folder.exists()
            for name, content in self.files.items():
                path = folder / "models" / name / "1" / "model.dali"
                path.parent.mkdir(parents=True)
                path.write_bytes(content)
            (folder / "facts.json").write_text(json.dumps({"triton": "24.10", "dali": "1.53.0", "plugins": [PLUGIN]}))
        if self.failure:
            raise self.failure


@pytest.fixture
def bake(monkeypatch: pytest.MonkeyPatch) -> Bake:
    monkeypatch.setattr(parts, "bake", made := Bake(mydali=pipeline("IN", "OTHER")))
    return made


def kept(project: Project) -> list[str]:
    return sorted(path.name for path in project.state.glob("embedded/parts/models/*"))


def test_parts_are_what_the_files_say(project: Project, console: Console, bake: Bake) -> None:
    [made] = parts.run(project, BASES, console)
    assert (made.target, made.triton_version, made.dali_version) == ("embedded", "24.10", "1.53.0")
    assert [plugin.model_dump() for plugin in made.plugins] == [PLUGIN]
    assert [(each.model, each.version, each.inputs) for each in made.pipelines] == [("mydali", "1", ("IN", "OTHER"))]


def test_parts_are_on_trial_until_they_are_kept(project: Project, console: Console, bake: Bake) -> None:
    [first] = parts.run(project, BASES, console)
    assert (kept(project), Parts.find(project, "embedded")) == ([], None)
    parts.keep(project, first)
    assert (kept(project), Parts.find(project, "embedded")) == (["mydali"], first)
    bake.files = {"other": pipeline("IN")}
    [second] = parts.run(project, BASES, console)
    assert (kept(project), Parts.find(project, "embedded")) == (["mydali"], first)
    parts.keep(project, second)
    assert (kept(project), Parts.find(project, "embedded")) == (["other"], second)


def test_what_a_failed_build_leaves_is_no_part_of_the_next(project: Project, console: Console, bake: Bake) -> None:
    bake.files, bake.failure = {"stale": pipeline()}, CompileError("the plugin does not compile")
    with pytest.raises(CompileError):
        parts.run(project, BASES, console)
    bake.files, bake.failure = {"mydali": pipeline()}, None
    [made] = parts.run(project, BASES, console)
    assert [each.model for each in made.pipelines] == ["mydali"]


def test_a_file_that_is_no_pipeline_is_named(project: Project, console: Console, bake: Bake) -> None:
    bake.files = {"mydali": b"garbage"}
    with pytest.raises(SerializeError, match=r"mydali/1/model\.dali is not a serialized DALI pipeline"):
        parts.run(project, BASES, console)
