from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builder.artifacts import Parts, Pipeline, Plugin
from builder.errors import BadConfig, BuilderError, NameMismatch, PipelineMissing, PluginMissing, ProjectError
from builder.project import Project, Target
from builder.steps.models import check_parts, check_sources, configurations, plugins

PLUGIN = 'parameters [ { key: "plugin_libs" value: { string_value: "/models/libcustomcopy.so" } } ]\n'


def config(*inputs: str, backend: str = "dali", rest: str = PLUGIN) -> str:
    tensors = "".join(f'input [ {{ name: "{name}" data_type: TYPE_UINT8 dims: [ -1 ] }} ]\n' for name in inputs)
    return f'name: "mydali"\nbackend: "{backend}"\n{tensors}{rest}'


def add_model(project: Project, text: str) -> dict[str, Any]:
    folder = project.models / "mydali"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(text)
    (project.root / "plugin").mkdir()
    (project.root / "Dockerfile").touch()
    return check_sources(project, project.targets)


def parts(*sources: str, plugin: str = "/models/libcustomcopy.so") -> Parts:
    return Parts(
        target="embedded",
        triton_version="2.51.0",
        dali_version="1.53.0",
        plugins=(Plugin(path=plugin, sha256="a" * 64, bytes=1, gpu=True),),
        pipelines=(Pipeline(model="mydali", version="1", inputs=sources),),
    )


@pytest.mark.parametrize(
    "text",
    [
        config("IN", "OTHER"),
        config("IN", "OTHER", rest=""),
        config(),  # completed by the server
        config("ANY", backend="python", rest=""),
    ],
)
def test_parts_that_a_model_asks_for_are_taken(project: Project, text: str) -> None:
    check_parts(project, add_model(project, text), parts("IN", "OTHER"))


@pytest.mark.parametrize(
    ("configured", "built", "expected", "words"),
    [
        (("IN",), parts("IN", plugin="/models/libcustomcopi.so"), PluginMissing, "did you mean /models/libcustomcopi"),
        (("IN",), parts("IN", plugin="/models/zzz.so"), PluginMissing, "names /models/libcustomcopy.so"),
        (("INPUT_O",), parts("INPUT_0"), NameMismatch, "'INPUT_O' is not an external_source.*did you mean INPUT_0"),
        (("IN",), parts("IN", "MORE"), NameMismatch, "external_source 'MORE' is not an input"),
        (("IN",), parts(), NameMismatch, "'IN' is not an external_source"),
    ],
)
def test_a_model_that_would_not_load_is_refused_with_its_file(
    project: Project, configured: tuple[str, ...], built: Parts, expected: type[BuilderError], words: str
) -> None:
    configs = add_model(project, config(*configured))
    with pytest.raises(expected, match=words) as failure:
        check_parts(project, configs, built)
    assert failure.value.where == str(project.models / "mydali" / "config.pbtxt")
    assert failure.value.exit_code == 2


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("plugin", "there is no plugin/"),
        ("model_repository", "there is no model_repository/"),
        ("Dockerfile", "there is no Dockerfile"),
        ("model_repository/mydali/config.pbtxt", "there is no model"),
    ],
)
def test_a_project_that_lacks_a_source_is_refused(project: Project, missing: str, words: str) -> None:
    add_model(project, config("IN"))
    place: Path = project.root / missing
    place.rename(place.with_name("elsewhere"))
    with pytest.raises(ProjectError, match=words) as failure:
        check_sources(project, project.targets)
    assert failure.value.remedy


def test_a_config_that_cannot_be_read_stops_a_build_before_it_starts(project: Project) -> None:
    with pytest.raises(BadConfig):
        add_model(project, "name: mydali")


@pytest.mark.parametrize(
    ("target", "refused"),
    [
        ({"dali": "1.53.0"}, False),
        ({}, False),
        ({"triton_image": "nvcr.io/x/y:1", "dali": "9.9.9"}, False),
        ({"dali": "1.53.1"}, True),
    ],
)
def test_a_dali_without_wheels_is_refused_with_those_that_have_them(
    project: Project, target: dict[str, str], refused: bool
) -> None:
    add_model(project, config("IN"))
    locks = project.root / "embedded" / "requirements"
    locks.mkdir(parents=True)
    for name in ("dali-2.1.1.txt", "dali-1.53.0.txt", "triton.txt"):
        (locks / name).touch()
    targets = {"mine": Target.model_validate(target)}
    if not refused:
        assert list(check_sources(project, targets)) == ["mydali"]
        return
    with pytest.raises(ProjectError, match=r"no DALI 1\.53\.1; did you mean 1\.53\.0\?") as failure:
        check_sources(project, targets)
    assert failure.value.where.endswith("builder.toml: targets.mine.dali")
    assert "1.53.0, 2.1.1" in failure.value.remedy


def test_a_model_of_dali_s_without_a_pipeline_is_refused(project: Project) -> None:
    built = parts("IN").model_copy(update={"pipelines": ()})
    configs = add_model(project, config("IN"))
    with pytest.raises(PipelineMissing, match="'mydali' has no pipeline") as failure:
        check_parts(project, configs, built)
    assert failure.value.where == str(project.models / "mydali")


def test_a_library_that_several_models_ask_for_is_one_plugin(project: Project) -> None:
    [one] = add_model(project, config("IN", rest=PLUGIN.replace(".so", ".so:/models/libother.so"))).values()
    [two] = configurations(project).values()
    two.parameters["plugin_libs"].string_value = "/models/libthird.so:/models/libother.so"
    assert plugins({"one": one, "two": two}) == (
        "/models/libcustomcopy.so",
        "/models/libother.so",
        "/models/libthird.so",
    )
