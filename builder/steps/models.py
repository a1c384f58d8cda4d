"""Checks each model's config.pbtxt against the plugins and pipelines that it will find in the image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder import pbtxt
from builder.artifacts import Parts
from builder.errors import NameMismatch, PipelineMissing, PluginMissing, ProjectError, did_you_mean
from builder.project import FILE_NAME, Project, Target


def configurations(project: Project) -> dict[str, Any]:
    """Every model's ModelConfig, by the name of its folder.

    Raises:
        ProjectError: there is no model.
        BadConfig: one cannot be read.
    """
    files = sorted(project.models.glob("*/config.pbtxt"))
    if not files:
        raise ProjectError(
            "there is no model",
            where=str(project.models),
            remedy="add model_repository/NAME/config.pbtxt and NAME/1/dali.py",
        )
    return {path.parent.name: pbtxt.read(path) for path in files}


def check_sources(project: Project, targets: Mapping[str, Target]) -> dict[str, Any]:
    """What can be known before anything is compiled; every model's ModelConfig.

    Raises:
        ProjectError: a folder, a model, or the wheels of a target's DALI are missing.
        BadConfig: a config.pbtxt cannot be read.
    """
    for folder in ("plugin", "model_repository"):
        if not (project.root / folder).is_dir():
            raise ProjectError(
                f"there is no {folder}/", where=str(project.root), remedy=f"add {folder}/, as the README shows it"
            )
    if not (project.root / "Dockerfile").is_file():
        raise ProjectError("there is no Dockerfile", where=str(project.root), remedy="copy it from the shipped example")
    locks = {path.stem.removeprefix("dali-") for path in project.root.glob("embedded/requirements/dali-*.txt")}
    for name, target in targets.items():
        if target.is_embedded and target.dali and target.dali not in locks:
            raise ProjectError(
                f"the embedded base has no DALI {target.dali}{did_you_mean(target.dali, locks)}",
                where=f"{project.root / FILE_NAME}: targets.{name}.dali",
                remedy=f"choose among {', '.join(sorted(locks))}",
            )
    return configurations(project)


def plugins(configs: dict[str, Any]) -> tuple[str, ...]:
    """Every library that a model asks for, once, in the order of the models."""
    return tuple(dict.fromkeys(path for config in configs.values() for path in pbtxt.plugin_libs(config)))


def check_parts(project: Project, configs: dict[str, Any], parts: Parts) -> None:
    """Compares what the models ask for with what was built.

    Raises:
        PipelineMissing: a model of DALI's has nothing to run.
        PluginMissing: a plugin_libs names a file that the image will not have.
        NameMismatch: an input's name is not an external_source's.
    """
    present = [plugin.path for plugin in parts.plugins]
    for name, config in configs.items():
        place = str(project.models / name / "config.pbtxt")
        if pbtxt.is_dali(config) and name not in {pipeline.model for pipeline in parts.pipelines}:
            raise PipelineMissing(
                f"model {name!r} has no pipeline",
                where=str(project.models / name),
                remedy=f"add {name}/1/dali.py with a function under @autoserialize, or {name}/1/model.dali",
            )
        for library in pbtxt.plugin_libs(config):
            if library not in present:
                raise PluginMissing(
                    f"plugin_libs names {library}, which the image does not have{did_you_mean(library, present)}",
                    where=place,
                    remedy=f"the image has {', '.join(present) or 'no plugin'}; name one of these, "
                    "or add the library to plugin/CMakeLists.txt",
                )
        for pipeline in parts.pipelines:
            if pipeline.model == name and pbtxt.is_dali(config) and config.input:
                _check_inputs(
                    place, [tensor.name for tensor in config.input], pipeline.inputs, Path(name) / pipeline.version
                )


def _check_inputs(place: str, configured: list[str], sources: tuple[str, ...], folder: Path) -> None:
    for tensor in configured:
        if tensor not in sources:
            raise NameMismatch(
                f"input {tensor!r} is not an external_source of the pipeline{did_you_mean(tensor, list(sources))}",
                where=place,
                remedy=f"{folder}/dali.py has {', '.join(map(repr, sources)) or 'none'}; give both the same name",
            )
    for source in sources:
        if source not in configured:
            raise NameMismatch(
                f"the pipeline's external_source {source!r} is not an input of the model",
                where=place,
                remedy="add it as an input, or remove it from the pipeline",
            )
