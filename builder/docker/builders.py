"""The BuildKits that buildx knows: the engine's own, and others, which see none of its images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from builder.docker.caches import Caches
from builder.docker.engine import CONTAINERD, Engine, engine_builder, require_buildx
from builder.errors import BuilderUnreachable, BuilderUnsuitable, NoBuilder
from builder.process import run

VARIABLE = "BUILDX_BUILDER"
"""buildx's own: https://docs.docker.com/build/building/variables/#buildx_builder."""
_KNOWN = "`docker buildx ls` shows those that there are"
_STARTED_AT_NEED = ("docker-container", "kubernetes")
_CONTAINERD = f"the containerd image store: {CONTAINERD}"


@dataclass(frozen=True)
class Builder:
    """What builds, and what it is to be told besides the targets."""

    name: str
    driver: str = "docker"
    caches: Caches = field(default_factory=Caches)
    images: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By target: the contexts of those that it starts from, by the names that `FROM` has."""
    engine: Engine | None = None
    """Of another one: where its images are to be. None for the engine's own, which sees all that the engine has."""

    @property
    def is_engine(self) -> bool:
        """Whether it is the engine's own."""
        return self.engine is None

    def given(self, images: Mapping[str, Mapping[str, str]]) -> Builder:
        """The builder, with `images`."""
        return replace(self, images=images)

    def told(self, name: str, target: Mapping[str, Any]) -> dict[str, Any]:
        """A bake target, with what this builder needs for it."""
        name = name.partition("_")[0]  # NAME_base and such belong to the target NAME, in which there is no underscore
        contexts = {**target.get("contexts", {}), **self.images.get(name, {})}
        return {**target, **self.caches.imports(name), **({"contexts": contexts} if contexts else {})}


def chosen(engine: Engine, name: str = "", caches: Caches | None = None) -> Builder:
    """The builder of that name; without one the engine's own, whatever `docker buildx use` says.

    What `use` chose is chosen for all of this user's projects, and nothing shows it.

    Raises:
        NoBuilder: buildx knows none of that name.
        BuilderUnreachable: it does not answer.
        BuilderUnsuitable: it, or the engine, cannot do what is asked of it.
        NoBuildx: there is no buildx to ask.
    """
    caches = caches or Caches()
    if name in ("", engine_builder()):
        if caches != Caches():
            engine.require_manifests(
                "Docker's older image store keeps no build cache elsewhere",
                where="--cache-to, --cache-from",
                remedy=f"switch on {_CONTAINERD}",
                failure=BuilderUnsuitable,
            )
        return Builder(engine_builder(), caches=caches)
    engine.require_manifests(
        "Docker's older image store takes no image that another builder made",
        where=f"--builder {name}",
        remedy=f"switch on {_CONTAINERD}; or build with the engine itself",
        failure=BuilderUnsuitable,
    )
    return Builder(name, _driver(name), caches=caches, engine=engine)


def _driver(name: str) -> str:
    """What buildx reaches it by; nothing is started."""
    require_buildx()
    found = run(["docker", "buildx", "inspect", name])
    told = dict(re.findall(r"^(\w+):[ \t]+(.+)$", found.stdout, re.MULTILINE))
    if found.returncode or "Name" not in told:
        raise NoBuilder(
            f"buildx has no builder {name!r}",
            where="--builder, or the environment variable BUILDX_BUILDER",
            remedy=f"{_KNOWN}; `docker buildx create --name {name} --driver remote tcp://HOST:PORT` adds one",
            detail=found.stderr[-3:],
        )
    nodes = re.findall(r"^Status:[ \t]+(.+)$", found.stdout, re.MULTILINE)
    # A driver that starts a BuildKit of its own does so for the first build.
    if "running" not in nodes and told.get("Driver") not in _STARTED_AT_NEED:
        raise unreachable(name, told.get("Error", f"its status is {', '.join(nodes) or 'unknown'}"))
    if told.get("Driver") == "docker":
        # buildx itself: "use `docker --context=NAME buildx`".
        raise BuilderUnsuitable(
            f"{name} is another engine, and buildx builds on that for nobody else",
            where=f"--builder {name}",
            remedy=f"build and smoke there (DOCKER_CONTEXT={name}), or start a BuildKit in it: "
            f"`docker buildx create --name NAME {name}`",
        )
    return str(told.get("Driver", ""))


def unreachable(name: str, told: str) -> BuilderUnreachable:
    """The error for a builder that does not answer, or not any more."""
    return BuilderUnreachable(
        f"the builder {name} does not answer",
        where=f"docker buildx inspect {name}",
        remedy=f"see that its BuildKit runs and can be reached from here, or leave --builder {name} out "
        "(and BUILDX_BUILDER unset)",
        detail=[told],
    )


def unsuitable(name: str, told: str) -> BuilderUnsuitable:
    """The error for a driver that does not have what is asked of it."""
    return BuilderUnsuitable(
        f"the builder {name} cannot do what is asked of it",
        where="docker buildx bake",
        remedy=f"use one with the driver remote, kubernetes or docker-container; the driver docker needs {_CONTAINERD}",
        detail=[told],
    )
