"""What is wrong with a project: before anything is built, and with what was built before there is an image."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from builder import dali_operators, elf, recipe
from builder.artifacts import Parts
from builder.checks import command, libraries, lock, models, plugins, repository, targets, verification
from builder.checks.context import Context
from builder.findings import Finding, Place, errors
from builder.project import Project, Target

# Triton serves ensembles itself.
EMBEDDED_BACKENDS = frozenset({"dali", "python"})
AS_WRITTEN = "--disable-auto-complete-config"
"""With which the server takes config.pbtxt as it is written, and starts a second sooner for each model in Python."""


def before_build(project: Project, chosen: Mapping[str, Target]) -> list[Finding]:
    """What the sources alone tell."""
    nothing: dict[str, Parts | None] = dict.fromkeys(chosen)
    return _merged([*_check(project, chosen, nothing), *libraries.check(project, chosen, nothing)], chosen)


def everything(project: Project, chosen: Mapping[str, Target]) -> list[Finding]:
    """What the sources and the last build tell; the latter counts as far as its sources are still the same."""
    recorded = {name: Parts.current(project, name) for name in chosen}
    return _merged([*_check(project, chosen, recorded), *libraries.check(project, chosen, recorded)], chosen)


def _merged(found: Sequence[Finding], chosen: Collection[str]) -> list[Finding]:
    """What is true of several targets once, with all of their names; of all targets, without any."""
    targets_of: dict[Finding, list[str]] = {}
    for each in found:
        targets_of.setdefault(replace(each, target=""), []).append(each.target)
    return [
        replace(each, target="" if "" in names or set(names) == set(chosen) else ", ".join(dict.fromkeys(names)))
        for each, names in targets_of.items()
    ]


def of_build(project: Project, made: Parts, left: Path) -> list[Finding]:
    """What a target's parts tell, which are in the folder `left`."""
    target = project.targets[made.target]
    folder = left / "models"
    found = list(targets.check_base(project, made))
    found += models.check_models(project.root, project.repository_folder, _built(project, target, made, folder))
    runtime = libraries.runtime_of(target, made)
    for plugin in made.plugins:
        file = folder / Path(plugin.path).name
        place = Place(f"{plugin.path} (target {made.target})")
        library = elf.read(file)
        found += libraries.check_library(library, place, runtime, target.cuda_architectures, made.target)
    return found


def _check(project: Project, chosen: Mapping[str, Target], recorded: Mapping[str, Parts | None]) -> Iterator[Finding]:
    yield from targets.check_targets(project, chosen)
    yield from lock.check_lock(project, chosen)
    cuda = any(target.cuda != "OFF" for target in chosen.values())
    yield from plugins.check_sources(project.root, project.plugin_folder, cuda=cuda)
    folder = project.repository_folder
    names = repository.names(folder)
    if not names:
        yield Finding(
            "models-missing",
            "there is no model",
            Place(folder.name),
            "add model_repository/NAME/config.pbtxt and NAME/1/dali.py, or begin with `builder init`",
        )
        return
    yield from verification.check_oracles(project, names)
    contexts = [_expected(project, name, target, recorded[name]) for name, target in chosen.items()]
    found = [each for context in contexts for each in models.check_models(project.root, folder, context)]
    yield from found
    for context in contexts:
        # A model that is wrong may be the one that uses a plugin.
        used = None if errors(found) else _used(project, context)
        yield from command.check_list(project, context.present, used)


def _expected(project: Project, name: str, target: Target, parts: Parts | None) -> Context:
    """What the target's image will have, by its sources, and by its last build where that still counts."""
    if parts:
        present: tuple[str, ...] | None = tuple(plugin.path for plugin in parts.plugins)
    else:
        present = command.expected(project)
    context = Context(
        target=name,
        libraries=project.listed or present,
        available=present,
        operators=libraries.known_operators(project, name, target, parts),
        recorded=project.state / name / "parts" / "models",  # a pipeline's counts by its own source
        dali=parts.dali_version if parts else target.dali_version,
    )
    return _with_base(context, project, target)


def _built(project: Project, target: Target, made: Parts, folder: Path) -> Context:
    context = Context(
        target=made.target,
        libraries=recipe.plugins(project, made),
        available=tuple(plugin.path for plugin in made.plugins),
        operators={plugin.path: plugin.operators for plugin in made.plugins},
        recorded=folder,
        dali=made.dali_version,
    )
    return _with_base(context, project, target)


def _with_base(context: Context, project: Project, target: Target) -> Context:
    return replace(
        context,
        has_gpu=target.gpu,
        backends=EMBEDDED_BACKENDS if target.is_embedded else None,
        completes=AS_WRITTEN not in project.server_args,
        embedded=target.is_embedded,
    )


def _used(project: Project, context: Context) -> set[str] | None:
    """The libraries with an operator that some pipeline uses; None where a pipeline is not wholly known."""
    keys: set[str] = set()
    found, _ = repository.models(project.root, project.repository_folder)
    for model in found:
        if model.unreadable:
            return None
        for version in model.versions if model.is_dali else ():
            signature = model.pipeline(version, context.recorded).signature
            if signature is None or not signature.complete:
                return None
            keys |= {use.key for use in signature.operators}
    return {
        path
        for path, operators in context.operators.items()
        if operators is None or any(dali_operators.key(each.name) in keys for each in operators)
    }


def expected_libraries(project: Project) -> tuple[str, ...]:
    """The libraries that the server will be told to load: by the sources, or else by the last build."""
    expected = project.listed or command.expected(project)
    if expected is not None:
        return expected
    built = [parts for name in project.targets if (parts := Parts.find(project, name))]
    return recipe.plugins(project, built[0]) if built else ()
