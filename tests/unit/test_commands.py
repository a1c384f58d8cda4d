"""Commands that need no engine, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from builder import catalogue, project, settings
from builder.commands import check as check_command
from builder.errors import CheckFailed
from builder.findings import Finding, Place
from builder.steps import check as check_step

from .conftest import Run, document

EXAMPLE = Path(__file__).resolve().parents[2]
WARNING = Finding("plugin-unused", "no model uses it", Place("plugin/CMakeLists.txt", 3), "remove it")
ERROR = Finding("models-missing", "there is no model", Place("model_repository"), "add one")
PROJECT = """\
repository = "localhost:5000/mydali"
[targets.embedded]
[targets.ngc]
triton_image = "nvcr.io/nvidia/tritonserver:26.06-py3"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project, and nothing but its file."""
    made = tmp_path / "project"
    made.mkdir()
    (made / "builder.toml").write_text(PROJECT)
    return made


# plan


def test_a_plan_needs_no_engine_and_writes_nothing(run: Run, folder: Path) -> None:
    status, out, err = run("plan", "-C", str(folder), "--json")
    told = document(out)
    assert (status, err) == (0, "")
    assert [path.name for path in folder.iterdir()] == ["builder.toml"]
    assert [target["target"] for target in told["targets"]] == ["embedded", "ngc"]
    assert told["targets"][0]["base"] == "docker.io/library/debian:12-slim"
    assert told["targets"][1]["dali"] == "2.1.1"
    assert set(told["bake"]["parts"]["target"]) == {"embedded", "ngc"}
    assert told["bake"]["image"] is None


def test_a_plan_tells_each_value_and_where_it_comes_from(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_DALI_BUILDER_TARGETS__NGC__CUDA", "OFF")
    given = ("--set", "targets.embedded.dali=2.1.1", "--set", 'tags=["1.0"]')
    _, out, _ = run("plan", "-C", str(folder), "--json", *given)
    told = document(out)
    values = {each["key"]: (each["value"], each["from"]) for each in told["values"]}
    assert values["repository"] == ("localhost:5000/mydali", "builder.toml:1")
    assert values["targets.embedded.dali"] == ("2.1.1", "--set targets.embedded.dali")
    assert values["targets.ngc.cuda"] == ("OFF", "the environment variable TRITON_DALI_BUILDER_TARGETS__NGC__CUDA")
    assert values["server_args"] == ([], "default")
    assert told["bake"]["parts"]["target"]["embedded"]["args"]["DALI_VERSION"] == "2.1.1"
    assert told["bake"]["parts"]["target"]["ngc"]["args"]["DALI_PLUGIN_CUDA"] == "OFF"
    assert told["targets"][0]["pushed_as"] == ["localhost:5000/mydali:1.0"]


def test_a_plan_for_people_leaves_stdout_empty(run: Run, folder: Path) -> None:
    status, out, err = run("plan", "-C", str(folder), "--target", "ngc", "--set", "source=[/red]")
    assert (status, out) == (0, "")
    assert "target ngc" in err
    assert "target embedded" not in err
    assert "[/red]" in err
    assert "builder.toml:4" in err


def test_a_plan_of_a_wrong_project_shows_all_findings(run: Run, folder: Path) -> None:
    (folder / "builder.toml").write_text(PROJECT + "dail = 1\ncuda = 3\n")
    status, out, err = run("plan", "-C", str(folder), "--json")
    told = document(out)
    assert (status, told["error"]["code"]) == (2, "key-unknown")
    assert [each["place"]["line"] for each in told["findings"]] == [5, 6]
    assert "builder.toml:5" in err
    assert "builder.toml:6" in err


# check


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What the checks find; to be filled."""
    findings: list[Finding] = []
    monkeypatch.setattr(check_step, "everything", lambda *_: findings)
    return findings


@pytest.mark.parametrize(
    ("findings", "arguments", "status"),
    [
        ([], [], 0),
        ([WARNING], [], 0),
        ([WARNING], ["--strict"], 2),
        ([WARNING, ERROR], [], 2),
        ([], ["--strict"], 0),
    ],
)
def test_errors_fail_a_check_and_warnings_a_strict_one(
    run: Run, folder: Path, found: list[Finding], findings: list[Finding], arguments: list[str], status: int
) -> None:
    found += findings
    got, out, _ = run("check", "-C", str(folder), "--json", *arguments)
    told = document(out)
    assert (got, told["passed"]) == (status, status == 0)
    assert {each["code"] for each in told["findings"]} == {each.code for each in findings}
    assert run("check", "-C", str(folder), *arguments)[:2] == (status, "")


def test_a_check_shows_errors_first_and_how_many_there_are(run: Run, folder: Path, found: list[Finding]) -> None:
    found += [WARNING, ERROR, ERROR]
    _, _, err = run("check", "-C", str(folder))
    assert err.index("models-missing") < err.index("plugin-unused")
    assert "1 error, 1 warning" in err
    assert "plugin/CMakeLists.txt:3" in err


def test_a_wrong_builder_toml_is_findings_like_any_other(run: Run, folder: Path) -> None:
    (folder / "builder.toml").write_text(PROJECT + "dail = 1\n")
    status, out, _ = run("check", "-C", str(folder), "--json")
    told = document(out)
    assert (status, told["passed"], [each["code"] for each in told["findings"]]) == (2, False, ["key-unknown"])
    assert "error" not in told


def test_a_check_as_sarif_is_one_document_also_when_it_fails(run: Run, folder: Path, found: list[Finding]) -> None:
    for findings, status in (([], 0), ([ERROR], 2)):
        found[:] = findings
        got, out, _ = run("check", "-C", str(folder), "--format", "sarif")
        told = document(out)
        assert (got, told["version"], len(told["runs"][0]["results"])) == (status, "2.1.0", len(findings))


def test_json_and_sarif_do_not_go_together(run: Run, folder: Path) -> None:
    assert run("check", "-C", str(folder), "--json", "--format", "sarif")[0] == 2
    assert run("check", "-C", str(folder), "--format", "nope")[0] == 2


def test_a_check_writes_nothing(run: Run, folder: Path) -> None:
    run("check", "-C", str(folder))
    assert [path.name for path in folder.iterdir()] == ["builder.toml"]


def test_a_check_takes_all_targets_or_those_that_are_named(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def everything(_: object, targets: dict[str, Any]) -> list[Finding]:
        asked.append(list(targets))
        return []

    monkeypatch.setattr(check_step, "everything", everything)
    run("check", "-C", str(folder))
    run("check", "-C", str(folder), "--target", "ngc")
    assert asked == [["embedded", "ngc"], ["ngc"]]


def test_a_summary_counts_each_kind() -> None:
    assert check_command._summary([]) == "nothing wrong"
    assert check_command._summary([ERROR, ERROR, WARNING]).startswith("2 errors, 1 warning;")


# explain


@pytest.mark.parametrize("code", catalogue.codes())
def test_every_code_is_explained(run: Run, code: str) -> None:
    status, out, err = run("explain", code)
    assert (status, err) == (0, "")
    assert catalogue.story(code).title in out
    assert "## What to do" in out
    _, out, _ = run("explain", code, "--json")
    assert document(out)["code"] == code


def test_all_codes_are_listed(run: Run) -> None:
    _, out, _ = run("explain")
    assert [line.split()[0] for line in out.splitlines()] == list(catalogue.codes())
    _, out, _ = run("explain", "--json")
    assert [each["code"] for each in document(out)["codes"]] == list(catalogue.codes())


def test_an_unknown_code_is_answered_with_the_one_that_was_meant(run: Run) -> None:
    status, out, err = run("explain", "key-unknwon")
    assert (status, out) == (2, "")
    assert "did you mean key-unknown?" in err


# schema


@pytest.fixture
def schema(run: Run) -> dict[str, Any]:
    status, out, err = run("schema")
    assert (status, err) == (0, "")
    read: dict[str, Any] = json.loads(out)
    return read


def accepts(schema: dict[str, Any], folder: Path) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(settings.read(folder).values))


def test_the_schema_is_one_and_takes_the_shipped_example(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert accepts(schema, EXAMPLE)
    assert schema["$schema"].endswith("2020-12/schema")


def test_editors_are_told_what_each_key_is_for(schema: dict[str, Any]) -> None:
    tables = [schema, schema["$defs"]["Target"], schema["$defs"]["Model"]]
    assert [key for table in tables for key, each in table["properties"].items() if not each.get("description")] == []


@pytest.mark.parametrize(
    "text",
    [
        PROJECT + "dail = '1.53.0'\n",
        "reposiory = 'x'\n" + PROJECT,
        PROJECT + "dali = 'x'\n",
        PROJECT + "[models.m]\noracel = 'identity'\n",
        PROJECT + "[models.m]\noracle = 'x.txt'\n",
        PROJECT + "[models.m]\nrtol = -1\n",
        PROJECT + "[targets.UPPER]\n",
        "plugins = ['a/b']\n" + PROJECT,
        "tags = []\n" + PROJECT,
        "[targets.a]\n",
        "repository = 'x'\n[targets]\n",
    ],
)
def test_the_schema_refuses_what_the_program_does(schema: dict[str, Any], folder: Path, text: str) -> None:
    assert accepts(schema, folder)
    (folder / "builder.toml").write_text(text)
    assert not accepts(schema, folder)
    with pytest.raises(CheckFailed):
        project.load(folder, (), {})


# init and eject


def test_init_starts_a_project_that_can_be_planned(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "my-blur"
    status, out, err = run("init", str(folder), "--json")
    told = document(out)
    assert (status, told["name"], told["folder"]) == (0, "my_blur", str(folder))
    assert all((folder / file).is_file() for file in told["files"])
    assert f"builder check -C {folder}" in err
    status, out, _ = run("plan", "-C", str(folder), "--json")
    assert (status, document(out)["targets"][0]["image"]) == (0, "my-blur:embedded")


def test_init_here_takes_the_folder_s_name(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_blur").mkdir()
    monkeypatch.chdir(tmp_path / "my_blur")
    assert run("init", "--quiet") == (0, "", "")
    assert (tmp_path / "my_blur" / "plugin" / "my_blur.cc").is_file()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--name", "class"), "usage"),
        (("--name", "2d"), "usage"),
        (("--name", "my_blur", "--repository", "UPPER/x"), "reference-invalid"),
    ],
)
def test_init_refuses_before_it_writes(run: Run, tmp_path: Path, arguments: tuple[str, ...], code: str) -> None:
    status, out, _ = run("init", str(tmp_path / "new"), *arguments, "--json")
    assert (status, document(out)["error"]["code"]) == (2, code)
    assert list(tmp_path.iterdir()) == []


def test_eject_leaves_a_project_that_is_built_from_its_own_dockerfile(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "my_blur"
    run("init", str(folder))
    before = project.load(folder, (), {})
    status, out, _ = run("eject", "-C", str(folder), "--json")
    assert (status, document(out)["files"][0]) == (0, "Dockerfile")
    assert project.load(folder, (), {}) == before
    _, out, _ = run("plan", "-C", str(folder), "--json")
    assert document(out)["targets"][0]["dockerfile"] == str(folder / "Dockerfile")
    assert run("eject", "-C", str(folder))[0] == 2
