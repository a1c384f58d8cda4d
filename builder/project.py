"""builder.toml → a frozen Project, every problem reported at once."""

from __future__ import annotations

import os
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from builder.errors import BadReference, BadUsage, ProjectError, ProjectMissing, did_you_mean
from builder.reference import Reference

FILE_NAME = "builder.toml"
EMBEDDED = "embedded"
AUTO = "auto"


def _reference(text: str) -> str:
    try:
        Reference.parse(text)
    except BadReference as error:
        raise ValueError(f"{error.what}; {error.remedy}") from None
    return text


ReferenceText = Annotated[str, AfterValidator(_reference)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(_Table):
    """One image: which Triton, which DALI, which GPUs."""

    triton_image: ReferenceText = Field(
        EMBEDDED, description="NVIDIA's image, or 'embedded' for the one out of Debian and PyPI"
    )
    dali: str | None = Field(None, pattern=r"^\d+\.\d+\.\d+$", description="DALI's version, of the embedded base only")
    cuda_architectures: tuple[str, ...] = Field((), description="as CMake writes them, such as '90-real'")
    cuda: Literal["AUTO", "ON", "OFF"] = Field("ON", description="OFF compiles operators for the CPU alone")

    @property
    def is_embedded(self) -> bool:
        return self.triton_image == EMBEDDED


class ProjectFile(_Table):
    """The keys of builder.toml."""

    repository: ReferenceText
    tag: str = Field("latest", pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")
    targets: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")], Target] = Field(min_length=1)
    debian_image: ReferenceText = Field(
        AUTO, description="the Debian under the embedded base; 'auto' pulls Docker Hub's or makes one"
    )
    source: str = Field("", description="where the sources are published, for the image's labels")


class Project(ProjectFile):
    """A plugin, its models, and the images that they go into."""

    root: Path

    @cached_property
    def home(self) -> Reference:
        """The repository that images are pushed to."""
        return Reference.parse(self.repository)

    @property
    def state(self) -> Path:
        """Where each step leaves what it hands on."""
        return self.root / ".builder"

    @property
    def models(self) -> Path:
        return self.root / "model_repository"

    def local_name(self, target: str) -> str:
        """The name of the target's image in the engine, before any push."""
        return f"{self.home.path.rsplit('/', 1)[-1]}:{target}"

    def pushed_as(self, target: str) -> Reference:
        """The default reference of a push: the first target gets the plain tag, the others carry their names."""
        tag = self.home.tag or self.tag
        return self.home.with_tag(tag if target == next(iter(self.targets)) else f"{tag}-{target}")

    def select(self, names: tuple[str, ...]) -> dict[str, Target]:
        """The targets of these names; the first one for none, all of them for 'all'.

        Raises:
            BadUsage: there is no target of that name.
        """
        if not names:
            names = (next(iter(self.targets)),)
        if "all" in names:
            return dict(self.targets)
        for name in names:
            if name not in self.targets:
                raise BadUsage(
                    f"there is no target {name!r}{did_you_mean(name, self.targets)}",
                    where=str(self.root / FILE_NAME),
                    remedy=f"choose among {', '.join(self.targets)}, or add [targets.{name}]",
                )
        return {name: self.targets[name] for name in names}


def load(root: Path) -> Project:
    """Reads the project in `root`; DEBIAN_IMAGE in the environment overrides `debian_image`.

    Raises:
        ProjectMissing: there is no builder.toml.
        ProjectError: it is wrong; the detail has a line for each problem.
    """
    path = root / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ProjectMissing(
            f"there is no {FILE_NAME} here",
            where=str(root.resolve()),
            remedy="go to the project, or name it with -C DIR",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"{FILE_NAME} cannot be read: {error}", where=str(path)) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProjectError(f"{FILE_NAME} is not TOML: {error}", where=str(path), remedy="mend that line") from None
    if override := os.environ.get("DEBIAN_IMAGE"):
        values["debian_image"] = override
    try:
        return Project(root=root.resolve(), **dict(ProjectFile.model_validate(values)))
    except ValidationError as error:
        raise ProjectError(
            f"{FILE_NAME} has {error.error_count()} problem{'s' * (error.error_count() > 1)}",
            where=str(path),
            remedy="mend what is listed",
            detail=[_problem(each) for each in error.errors()],
        ) from None


def _problem(error: object) -> str:
    assert isinstance(error, dict)
    place = [str(part) for part in error["loc"] if part != "[key]"]
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = Target.model_fields if place[0] == "targets" else ProjectFile.model_fields
        message = f"no such key{did_you_mean(place[-1], known)}"
    return f"{'.'.join(place)}: {message}"
