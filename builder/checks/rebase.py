"""May an image's own layers lie on another base as they are? What they need, held against what that base has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from builder import releases
from builder.artifacts import Parts
from builder.checks import libraries, targets
from builder.checks.libraries import Runtime
from builder.elf import Library, number_of
from builder.findings import Finding, Place
from builder.project import EMBEDDED, Project
from builder.reference import Reference

_FAMILIES = ("GLIBC", "GLIBCXX")


@dataclass(frozen=True)
class Need:
    """A version that the layers need of their base."""

    what: str
    """DALI, GLIBC or GLIBCXX."""
    needs: str
    """DALI's is exact, the others the lowest that will do; empty where no library needs any."""
    has: str


def needs(parts: Parts, runtime: Runtime) -> tuple[Need, ...]:
    """What the parts of an image need, and what a base has of it."""
    has = {"GLIBC": runtime.glibc or "", "GLIBCXX": runtime.glibcxx or ""}
    highest = {
        family: max((plugin.demands.get(family, "") for plugin in parts.plugins), key=number_of, default="")
        for family in _FAMILIES
    }
    dali = Need("DALI", parts.dali_version, runtime.dali or "")
    return (dali, *(Need(family, highest[family], has[family]) for family in _FAMILIES))


def check_embedded(project: Project, name: str) -> list[Finding]:
    """Whether the embedded base can be made for a target that is to lie on it."""
    target = project.targets[name]
    return list(targets.check_targets(project, {name: target})) if target.is_embedded else []


def check_release(parts: Parts, base: str) -> Iterator[Finding]:
    """What the table of Triton's releases tells of a base that need not be here."""
    known = None if base == EMBEDDED else releases.dali_of(Reference.parse(base))
    if known and known != parts.dali_version:
        yield _other_dali(parts, known, base)


def check_base(parts: Parts, found: Iterable[Library], runtime: Runtime, base: str) -> Iterator[Finding]:
    """Why a base cannot serve the parts of an image; nothing where it can, as far as versions tell.

    Args:
        found: the image's libraries, as their files describe them.
        runtime: what the base has.
    """
    if runtime.dali != parts.dali_version:
        yield _other_dali(parts, runtime.dali or "", base)
    for library in found:
        # Of DALI the finding above tells, and no base changes what a library has for GPUs.
        for each in libraries.check_library(library, Place(base), replace(runtime, dali=None), (), parts.target):
            yield replace(each, remedy=_build(parts, base))


def without_dali(parts: Parts, base: str, said: Sequence[str]) -> Finding:
    """The finding for a base in which DALI cannot be imported.

    Args:
        said: what trying it said.
    """
    return Finding(
        "base-without-dali",
        f"DALI {parts.dali_version} is needed, and {base} has none that can be imported",
        Place(base),
        "name a Triton image in NVIDIA's layout that serves DALI, such as nvcr.io/nvidia/tritonserver:YY.MM-py3",
        tuple(said),
        target=parts.target,
    )


def unloadable(parts: Parts, base: str, said: Sequence[str]) -> Finding:
    """The finding for a base whose versions fit, and whose loader refuses a library all the same.

    Args:
        said: the loader's own words.
    """
    return Finding(
        "library-unloadable",
        f"a library does not load on {base}",
        Place(base),
        _build(parts, base),
        tuple(said),
        target=parts.target,
    )


def _other_dali(parts: Parts, has: str, base: str) -> Finding:
    return Finding(
        "rebase-dali-differs",
        f"DALI {parts.dali_version} is needed, and {base} has {has}",
        Place(base),
        _build(parts, base),
        (
            f"the pipelines were serialized with DALI {parts.dali_version}",
            *(
                f"{plugin.path} needs DALI_{plugin.demands['DALI']}"
                for plugin in parts.plugins
                if "DALI" in plugin.demands
            ),
        ),
        target=parts.target,
    )


def _build(parts: Parts, base: str) -> str:
    # Such a line is about the base that the target has now.
    instead = f' in the place of dali = "{parts.built_as.dali}"' if parts.built_as.dali else ""
    return (
        f'build for that base: triton_image = "{base}"{instead} in [targets.{parts.target}] of builder.toml, then '
        f"`python -m builder build --target {parts.target}`"
    )
