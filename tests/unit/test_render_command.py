"""`render` as it is typed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

from builder import project
from builder.artifacts import Pushed

from .conftest import Run, document
from .records import pushed

DIGEST = "sha256:" + "c" * 64
PUSHED = f"registry.example.com/team/my_dali@{DIGEST}"
PROJECT = """\
repository = "registry.example.com/team/my_dali"
[targets.embedded]
[targets.arm]
platform = "linux/arm64"
gpu = false
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project whose first target is pushed."""
    made = tmp_path / "project"
    made.mkdir()
    (made / "builder.toml").write_text(PROJECT)
    pushed(PUSHED).save(project.load(made, (), {}))
    return made


@pytest.mark.parametrize("kind", ["kubernetes", "kserve"])
def test_what_was_pushed_is_rendered(run: Run, folder: Path, kind: str) -> None:
    status, out, err = run("render", kind, "-C", str(folder))
    assert (status, err) == (0, "")
    first = next(iter(yaml.safe_load_all(out)))
    assert first["metadata"]["name"] == "my-dali"
    assert f"image: {PUSHED}\n" in out
    assert DIGEST in out.splitlines()[1]


def test_the_command_in_the_head_makes_the_same_manifest(run: Run, folder: Path) -> None:
    given = ("--gpu", "1", "--memory", "8Gi", "--pull-secret", "a", "--pull-secret", "b", "--set", "server_args=['-x']")
    _, out, _ = run("render", "kserve", "-C", str(folder), *given)
    command = shlex.split(out.splitlines()[0].removeprefix("# Made by: "))
    assert command[:4] == ["python", "-m", "builder", "render"]
    Pushed.discard(project.load(folder, (), {}), "embedded")
    assert run(*command[3:], "-C", str(folder)) == (0, out, "")


def test_another_target_has_a_name_a_machine_and_an_image_of_its_own(run: Run, folder: Path) -> None:
    status, out, _ = run("render", "kubernetes", "-C", str(folder), "--target", "arm", "--json")
    assert (status, document(out)["error"]["code"]) == (2, "nothing-built")
    assert "builder push --target arm" in document(out)["error"]["remedy"]
    status, out, _ = run("render", "kubernetes", "-C", str(folder), "--target", "arm", "--image", PUSHED, "--json")
    told = document(out)
    deployment = told["documents"][0]
    assert (status, told["target"], told["image"], told["file"]) == (0, "arm", PUSHED, None)
    assert deployment["metadata"]["name"] == "my-dali-arm"
    assert deployment["spec"]["template"]["spec"]["nodeSelector"] == {"kubernetes.io/arch": "arm64"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--image", "registry.example.com/team/my_dali:1.0"), "reference-not-pinned"),
        (("--image", "registry.example.com/team/my_dali"), "reference-not-pinned"),
        (("--image", "UPPER/x"), "reference-invalid"),
        (("--target", "all"), "usage"),
        (("--target", "arm", "--image", PUSHED, "--gpu", "1"), "usage"),
        (("--name", "My_Dali"), "usage"),
        (("--replicas", "0"), "usage"),
        (("--memory", "much"), "usage"),
        (("--output", "."), "usage"),
    ],
)
def test_what_cannot_be_is_refused(run: Run, folder: Path, arguments: tuple[str, ...], code: str) -> None:
    status, out, _ = run("render", "kubernetes", "-C", str(folder), *arguments, "--json")
    assert (status, document(out)["error"]["code"]) == (2, code)


def test_a_kind_that_nobody_knows_is_refused(run: Run, folder: Path) -> None:
    assert run("render", "nomad", "-C", str(folder))[:2] == (2, "")


def test_a_file_is_written_and_stdout_stays_empty(run: Run, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "deploy" / "vision.yaml"
    status, out, err = run("render", "kubernetes", "-C", str(folder), "--output", str(file))
    assert (status, out) == (0, "")
    assert str(file) in err
    assert run("render", "kubernetes", "-C", str(folder))[1] == file.read_text()
    status, out, _ = run("render", "kubernetes", "-C", str(folder), "--output", str(file), "--json")
    assert (status, document(out)["file"]) == (0, str(file))


def test_a_registry_that_no_cluster_reaches_is_pointed_at(run: Run, folder: Path) -> None:
    status, _, err = run("render", "kubernetes", "-C", str(folder), "--image", f"localhost:5000/x@{DIGEST}")
    assert status == 0
    assert "localhost:5000 is this machine" in err


def test_what_was_pushed_to_be_proven_elsewhere_is_not_deployed(run: Run, folder: Path) -> None:
    record = folder / ".builder" / "embedded" / "pushed.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "tag": ""}))
    status, out, _ = run("render", "kubernetes", "-C", str(folder), "--json")
    assert (status, document(out)["error"]["code"]) == (6, "not-verified")
