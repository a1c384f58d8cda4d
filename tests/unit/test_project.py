from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from builder import project as module
from builder import settings
from builder.errors import BadUsage, CheckFailed, ProjectMissing
from builder.findings import Finding, Place
from builder.project import Project, load

EXAMPLE = Path(__file__).resolve().parents[2]
GOOD = 'repository = "localhost:5000/mydali"\n[targets.embedded]\n[targets.ngc]\ntriton_image = "nvcr.io/x/y:1"\n'


def written(folder: Path, text: str) -> Path:
    (folder / "builder.toml").write_text(text, encoding="utf-8")
    return folder


def problems(folder: Path, text: str, *given: str) -> tuple[Finding, ...]:
    with pytest.raises(CheckFailed) as failure:
        load(written(folder, text), given, {})
    assert failure.value.exit_code == 2
    return failure.value.findings


def read(folder: Path, text: str = GOOD, *given: str, **environment: str) -> Project:
    return load(written(folder, text), given, environment)


def test_the_shipped_example_loads() -> None:
    example = load(EXAMPLE, (), {})
    assert next(iter(example.targets.values())).is_embedded
    assert example.home.is_loopback
    assert len((EXAMPLE / "builder.toml").read_text().splitlines()) < 16


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ("reposiory = 1\n" + GOOD, "reposiory: no such key; did you mean repository?", 1),
        (GOOD + "triton_imag = 1\n", "targets.ngc.triton_imag: no such key; did you mean triton_image?", 5),
        (GOOD + "zzz = 1\n", "targets.ngc.zzz: no such key", 5),
        ("root = '/'\n" + GOOD, "root: no such key", 1),
        (GOOD + "[models]\nm = { orcale = 'identity' }\n", "models.m.orcale: no such key; did you mean oracle?", 6),
        (GOOD + "[model.m]\n", "model: no such key; did you mean models?", 5),
    ],
)
def test_an_unknown_key_is_named_with_the_one_that_was_meant(tmp_path: Path, text: str, what: str, line: int) -> None:
    [found] = problems(tmp_path, text)
    assert (found.code, found.what, found.place) == ("key-unknown", what, Place("builder.toml", line))
    assert found.remedy.startswith("choose among ")


@pytest.mark.parametrize(
    ("text", "code", "key", "line"),
    [
        ("[targets.a]\n", "key-missing", "repository", 0),
        ('repository = "localhost:5000/mydali"\n', "key-missing", "targets", 0),
        ('repository = "localhost:5000/mydali"\n[targets]\n', "value-invalid", "targets", 2),
        ('repository = "localhost:5000/mydali"\n[targets.Upper]\n', "value-invalid", "targets.Upper", 2),
        ('repository = "UPPER"\n[targets.a]\n', "value-invalid", "repository", 1),
        ("repository = 3\n[targets.a]\n", "value-invalid", "repository", 1),
        ("targets = 3\nrepository = 'x'\n", "value-invalid", "targets", 1),
        ("targets = { a = 3 }\nrepository = 'x'\n", "value-invalid", "targets.a", 1),
        ("tags = []\n" + GOOD, "value-invalid", "tags", 1),
        ('tags = [\n"1",\n"a b"]\n' + GOOD, "value-invalid", "tags.1", 3),
        ('tags = "latest"\n' + GOOD, "value-invalid", "tags", 1),
        ('plugins = ["../x"]\n' + GOOD, "value-invalid", "plugins.0", 1),
        ('plugins = ["a:b"]\n' + GOOD, "value-invalid", "plugins.0", 1),
        (GOOD + 'dali = "1.53"\n', "value-invalid", "targets.ngc.dali", 5),
        (GOOD + "dali = 1.53\n", "value-invalid", "targets.ngc.dali", 5),
        (GOOD + 'cuda = "MAYBE"\n', "value-invalid", "targets.ngc.cuda", 5),
        (GOOD + 'platform = "linux/arm"\n', "value-invalid", "targets.ngc.platform", 5),
        (GOOD + 'cuda_architectures = ["sm_90"]\n', "value-invalid", "targets.ngc.cuda_architectures.0", 5),
        (GOOD + '[models.m]\noracle = "golden.txt"\n', "value-invalid", "models.m.oracle", 6),
        (GOOD + "[models.m]\nrtol = -1\n", "value-invalid", "models.m.rtol", 6),
        (GOOD + "[models.m]\natol = nan\n", "value-invalid", "models.m.atol", 6),
        ('debian_image = "a b"\n' + GOOD, "value-invalid", "debian_image", 1),
        ('repository = "x"\n[targets.a]\ntriton_image = "a b"\n', "value-invalid", "targets.a.triton_image", 3),
    ],
)
def test_a_wrong_value_is_one_finding_on_its_line(tmp_path: Path, text: str, code: str, key: str, line: int) -> None:
    [found] = problems(tmp_path, text)
    assert (found.code, found.place) == (code, Place("builder.toml", line))
    assert found.what.startswith((f"{key}:", f"{key} is"))
    assert found.remedy


def test_several_problems_are_reported_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, 'repository = "UPPER"\ntga = "1"\n[targets.a]\ndali = "x"\n')
    assert {(each.code, each.place.line) for each in found} == {
        ("value-invalid", 1),
        ("key-unknown", 2),
        ("value-invalid", 4),
    }


def test_a_wrong_value_from_elsewhere_is_placed_there(tmp_path: Path) -> None:
    [found] = problems(tmp_path, GOOD, "targets.ngc.cuda=MAYBE")
    assert str(found.place) == "--set targets.ngc.cuda"
    with pytest.raises(CheckFailed) as failure:
        read(tmp_path, GOOD, TRITON_DALI_BUILDER_TARGETS__NGC__CUDDA="ON")
    [found] = failure.value.findings
    assert "did you mean cuda?" in found.what
    assert found.place.file == "the environment variable TRITON_DALI_BUILDER_TARGETS__NGC__CUDDA"


def test_a_value_from_elsewhere_mends_the_file(tmp_path: Path) -> None:
    assert read(tmp_path, "[targets.a]\n", "repository=localhost:5000/x").name == "x"


def test_a_folder_without_a_project_file_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(ProjectMissing) as failure:
        load(tmp_path)
    assert failure.value.exit_code == 2
    assert failure.value.where == str(tmp_path)


def test_the_process_s_own_environment_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBIAN_IMAGE", "mirror.example.com/debian:12")
    assert load(written(tmp_path, 'debian_image = "debian:12"\n' + GOOD)).debian_image == "mirror.example.com/debian:12"


def test_the_root_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(written(Path(), GOOD)).root == tmp_path.resolve()


@pytest.mark.parametrize(
    ("names", "selected"),
    [
        ((), ["embedded"]),
        (("ngc",), ["ngc"]),
        (("ngc", "embedded"), ["ngc", "embedded"]),
        (("ngc", "ngc"), ["ngc"]),
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
    ("repository", "tags", "target", "pushed"),
    [
        ("localhost:5000/mydali", ["latest"], "embedded", ["localhost:5000/mydali:latest"]),
        ("localhost:5000/mydali", ["1.0"], "ngc", ["localhost:5000/mydali:1.0-ngc"]),
        (
            "localhost:5000/mydali",
            ["1.0", "1"],
            "ngc",
            ["localhost:5000/mydali:1.0-ngc", "localhost:5000/mydali:1-ngc"],
        ),
        ("localhost:5000/mydali:2.0", ["latest"], "embedded", ["localhost:5000/mydali:2.0"]),
        ("localhost:5000/mydali:2.0", ["latest"], "ngc", ["localhost:5000/mydali:2.0-ngc"]),
    ],
)
def test_the_first_target_is_pushed_under_the_plain_tags(
    project: Project, repository: str, tags: list[str], target: str, pushed: list[str]
) -> None:
    changed = Project.model_validate({**dict(project), "repository": repository, "tags": tags})
    assert [str(reference) for reference in changed.pushed_as(target)] == pushed


def test_an_image_is_named_after_the_repository_s_last_part(project: Project) -> None:
    assert project.local_name("ngc") == "mydali:ngc"


def test_libraries_that_are_named_are_listed_in_their_order(tmp_path: Path) -> None:
    assert read(tmp_path).listed == ()
    named = read(tmp_path, 'plugins = ["second", "first"]\n' + GOOD)
    assert named.listed == ("/models/libsecond.so", "/models/libfirst.so")


def test_a_model_is_verified_as_told_or_by_its_signature(tmp_path: Path) -> None:
    told = read(tmp_path, GOOD + '[models]\nm = { oracle = "golden/m.npz", rtol = 0.1 }\n')
    assert (told.verification("m").oracle, told.verification("m").rtol) == ("golden/m.npz", 0.1)
    assert (told.verification("other").oracle, told.verification("other").rtol) == ("signature", 0)


@pytest.mark.parametrize("oracle", ["signature", "identity", "golden/a.npz", "oracles/a.py:reverse", "a.py:_x1"])
def test_every_kind_of_oracle_is_taken(tmp_path: Path, oracle: str) -> None:
    assert read(tmp_path, f'{GOOD}[models.m]\noracle = "{oracle}"\n').verification("m").oracle == oracle


@pytest.mark.parametrize(
    ("target", "version"),
    [
        ("", "1.53.0"),
        ('dali = "2.1.1"', "2.1.1"),
        ('triton_image = "nvcr.io/nvidia/tritonserver:26.06-py3"', "2.1.1"),
        ('triton_image = "nvcr.io/nvidia/tritonserver:22.07-py3"', "1.14.0"),
        ('triton_image = "mirror.example.com/tritonserver:26.06-py3"\ndali = "2.1.0"', "2.1.0"),
        ('triton_image = "example.com/own:1"', None),
    ],
)
def test_dali_is_the_one_that_is_told_or_known(tmp_path: Path, target: str, version: str | None) -> None:
    text = f'repository = "localhost:5000/x"\n[targets.a]\n{target}\n'
    assert read(tmp_path, text).targets["a"].dali_version == version


def test_every_value_is_described_with_where_it_comes_from(tmp_path: Path) -> None:
    written(tmp_path, GOOD + "[models.m]\nrtol = 0.5\n")
    environment = {"TRITON_DALI_BUILDER_SOURCE": "https://example.com/x"}
    told = {
        key: (value, origin)
        for key, value, origin in module.described(settings.read(tmp_path, ["targets.ngc.dali=2.1.1"], environment))
    }
    assert told["repository"] == ("localhost:5000/mydali", "builder.toml:1")
    assert told["targets.ngc.triton_image"] == ("nvcr.io/x/y:1", "builder.toml:4")
    assert told["targets.ngc.dali"] == ("2.1.1", "--set targets.ngc.dali")
    assert told["targets.embedded.dali"] == (None, "default")
    assert told["source"] == ("https://example.com/x", "the environment variable TRITON_DALI_BUILDER_SOURCE")
    assert told["models.m.rtol"] == (0.5, "builder.toml:6")
    assert told["tags"] == (["latest"], "default")


WORDS = some.sampled_from(
    ["repository", "tags", "targets", "models", "embedded", "dali", "oracle", "rtol", "x", "1", ""]
)
ANYTHING = some.recursive(
    some.one_of(WORDS, some.none(), some.booleans(), some.integers(), some.floats(), some.text(max_size=3)),
    lambda inner: some.one_of(some.lists(inner, max_size=3), some.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=10,
)


@given(some.dictionaries(WORDS, ANYTHING, max_size=5))
def test_whatever_is_in_the_file_is_a_project_or_findings(values: dict[str, object]) -> None:
    found: tuple[Finding, ...] = ()
    try:
        module.validated(Path(), settings.Settings(values))
    except CheckFailed as error:
        found = error.findings
    assert all(each.what and each.remedy and each.place.file == "builder.toml" for each in found)
