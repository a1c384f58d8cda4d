from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import BadUsage, ProjectError, ProjectMissing
from builder.project import Project, load

EXAMPLE = Path(__file__).resolve().parents[2]
GOOD = 'repository = "localhost:5000/mydali"\n[targets.embedded]\n[targets.ngc]\ntriton_image = "nvcr.io/x/y:1"\n'


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEBIAN_IMAGE", raising=False)


def written(folder: Path, text: str) -> Path:
    (folder / "builder.toml").write_text(text, encoding="utf-8")
    return folder


def problems(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ProjectError) as failure:
        load(written(folder, text))
    assert failure.value.exit_code == 2
    assert failure.value.where == str(folder / "builder.toml")
    return failure.value.detail


def test_the_shipped_example_loads() -> None:
    example = load(EXAMPLE)
    assert next(iter(example.targets.values())).is_embedded
    assert example.home.is_loopback


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("reposiory = 1\n" + GOOD, "reposiory: no such key; did you mean repository?"),
        (GOOD + "triton_imag = 1\n", "targets.ngc.triton_imag: no such key; did you mean triton_image?"),
        (GOOD + "zzz = 1\n", "targets.ngc.zzz: no such key"),
        ("root = '/'\n" + GOOD, "root: no such key"),
    ],
)
def test_an_unknown_key_is_named_with_the_one_that_was_meant(tmp_path: Path, text: str, problem: str) -> None:
    assert problems(tmp_path, text) == (problem,)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[targets.a]\n", "repository"),
        ('repository = "localhost:5000/mydali"\n', "targets"),
        ('repository = "localhost:5000/mydali"\n[targets]\n', "targets"),
        ('repository = "localhost:5000/mydali"\n[targets.Upper]\n', "targets.Upper"),
        ('repository = "UPPER"\n[targets.a]\n', "repository"),
        ('tag = "a b"\n' + GOOD, "tag"),
        ('tag = "ünï"\n' + GOOD, "tag"),
        (GOOD + 'dali = "1.53"\n', "targets.ngc.dali"),
        (GOOD + 'cuda = "MAYBE"\n', "targets.ngc.cuda"),
        ('debian_image = "a b"\n' + GOOD, "debian_image"),
        ('repository = "x"\n[targets.a]\ntriton_image = "a b"\n', "targets.a.triton_image"),
    ],
)
def test_a_wrong_value_is_one_problem_with_its_place(tmp_path: Path, text: str, place: str) -> None:
    assert [problem.partition(":")[0] for problem in problems(tmp_path, text)] == [place]


def test_several_problems_are_reported_at_once(tmp_path: Path) -> None:
    text = 'repository = "UPPER"\ntga = "1"\n[targets.a]\ndali = "x"\n'
    assert {problem.partition(":")[0] for problem in problems(tmp_path, text)} == {
        "repository",
        "tga",
        "targets.a.dali",
    }


def test_a_folder_without_a_project_file_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(ProjectMissing) as failure:
        load(tmp_path)
    assert failure.value.exit_code == 2
    assert failure.value.where == str(tmp_path)


def test_bad_toml_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"not TOML.*line 2"):
        load(written(tmp_path, 'repository = "x"\ntag = \n'))


def test_a_file_that_is_not_utf_8_is_a_wrong_project(tmp_path: Path) -> None:
    (tmp_path / "builder.toml").write_bytes(b'repository = "\xff"')
    with pytest.raises(ProjectError, match="cannot be read"):
        load(tmp_path)


def test_the_environment_overrides_the_debian_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBIAN_IMAGE", "mirror.example.com/debian:12")
    assert load(written(tmp_path, 'debian_image = "debian:12"\n' + GOOD)).debian_image == "mirror.example.com/debian:12"


@pytest.mark.parametrize(
    ("names", "selected"),
    [
        ((), ["embedded"]),
        (("ngc",), ["ngc"]),
        (("ngc", "embedded"), ["ngc", "embedded"]),
        (("all",), ["embedded", "ngc"]),
        (("ngc", "all"), ["embedded", "ngc"]),
    ],
)
def test_targets_are_selected_by_name(project: Project, names: tuple[str, ...], selected: list[str]) -> None:
    assert list(project.select(names)) == selected


def test_an_unknown_target_is_answered_with_the_known_ones(project: Project) -> None:
    with pytest.raises(BadUsage, match=r"did you mean embedded\?") as failure:
        project.select(("embeded",))
    assert "embedded, ngc" in failure.value.remedy


@pytest.mark.parametrize(
    ("repository", "tag", "target", "pushed"),
    [
        ("localhost:5000/mydali", "latest", "embedded", "localhost:5000/mydali:latest"),
        ("localhost:5000/mydali", "1.0", "ngc", "localhost:5000/mydali:1.0-ngc"),
        ("localhost:5000/mydali:2.0", "1.0", "embedded", "localhost:5000/mydali:2.0"),
        ("localhost:5000/mydali:2.0", "1.0", "ngc", "localhost:5000/mydali:2.0-ngc"),
    ],
)
def test_the_first_target_is_pushed_under_the_plain_tag(
    project: Project, repository: str, tag: str, target: str, pushed: str
) -> None:
    changed = Project.model_validate({**dict(project), "repository": repository, "tag": tag})
    assert str(changed.pushed_as(target)) == pushed


def test_an_image_is_named_after_the_repository_s_last_part(project: Project) -> None:
    assert project.local_name("ngc") == "mydali:ngc"
