"""What an image was made from, as its own label tells it: enough to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from builder import __version__, lock, package, recipe, sources
from builder.artifacts import Parts
from builder.errors import NoRecord
from builder.lock import LockedImage, LockedTarget
from builder.project import Project, Target
from builder.recipe import OURS, Base, Bases
from builder.reference import Digest
from builder.revision import Revision

LABEL = OURS + "record"


class Compiled(BaseModel):
    """What the layers of a rebased image were made on."""

    model_config = ConfigDict(frozen=True)

    built_as: Target
    lock: LockedTarget


class Record(BaseModel):
    """The inputs of a build, its sources by their digests."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    builder: str
    """This program's version."""
    program: str
    """The digest of its own files that go into builds: the Dockerfile, the embedded base, the stages' scripts."""
    target: str
    built_as: Target
    repository: str
    plugins: tuple[str, ...]
    server_args: tuple[str, ...]
    source: str
    commit: Annotated[str, Field(pattern=r"^([0-9a-f]+(-dirty)?)?$")]
    epoch: int
    remote: str
    sources: dict[Annotated[str, Field(pattern=r"^(plugin|model_repository|Dockerfile)$")], str]
    """Digests of plugin/ and model_repository/, and of the project's own Dockerfile where it has one."""
    lock: LockedTarget
    compiled: Compiled | None = None
    """None for an image that lies on the base that it was built for."""

    @classmethod
    def of(cls, project: Project, parts: Parts, bases: Bases, revision: Revision) -> Self:
        """Of the image that these make."""
        return cls(
            builder=__version__,
            program=package.digest(),
            target=parts.target,
            built_as=project.targets[parts.target],
            repository=project.repository,
            plugins=project.plugins,
            server_args=project.server_args,
            source=project.source,
            commit=revision.commit,
            epoch=revision.epoch,
            remote=revision.public_remote,
            sources=digests(project),
            lock=locked(project, parts.target, bases, parts.packages),
        )

    @classmethod
    def read(cls, labels: Mapping[str, str], where: str) -> Self:
        """Out of an image's labels.

        Raises:
            NoRecord: they have none, or one of another version of this program.
        """
        try:
            return cls.model_validate_json(labels.get(LABEL, ""))
        except ValidationError:
            raise NoRecord(
                "the image does not tell what it was made from"
                if LABEL not in labels
                else "the image's record is not known",
                where=where,
                remedy="give an image that `python -m builder build` made, with a version of it that knows the record",
            ) from None

    @property
    def revision(self) -> Revision:
        return Revision(self.commit, self.epoch, self.remote)

    @property
    def made_on(self) -> Compiled:
        """What the image's own layers were made on, wherever it lies now."""
        return self.compiled or Compiled(built_as=self.built_as, lock=self.lock)

    @property
    def label(self) -> str:
        """JSON in one form only."""
        return self.model_dump_json(exclude_none=True)


def labels(project: Project, parts: Parts, bases: Bases, revision: Revision) -> dict[str, str]:
    """All labels of an image."""
    record = Record.of(project, parts, bases, revision)
    return {**recipe.labels(project, parts, bases, revision), LABEL: record.label}


def digests(project: Project) -> dict[str, str]:
    """Of the project's sources, as `Record.sources` has them."""
    found = {
        folder.name: sources.digest(folder)
        for folder in (project.plugin_folder, project.repository_folder)
        if folder.is_dir()
    }
    own = package.dockerfile(project.root)
    if own.parent == project.root and own.parent != package.ROOT:
        found[own.name] = sources.of_file(own)
    return found


def locked(project: Project, name: str, bases: Bases, packages: dict[str, str]) -> LockedTarget:
    """The versions of one target."""
    return LockedTarget(
        triton_image=_locked(bases.triton),
        debian_image=_locked(bases.debian),
        wheels=lock.wheels(project.targets[name]),
        debian=packages,
    )


def bases(held: LockedTarget) -> Bases:
    """What a locked build started from."""
    return Bases(triton=_base(held.triton_image), debian=_base(held.debian_image))


def settings(record: Record) -> dict[str, Any]:
    """What builder.toml, the command line and the environment said, for the provenance."""
    return record.model_dump(mode="json", include={"repository", "plugins", "server_args", "source", "built_as"})


def _locked(base: Base | None) -> LockedImage | None:
    return LockedImage(name=base.name, digest=str(base.digest)) if base and base.digest else None


def _base(image: LockedImage | None) -> Base | None:
    return Base(image.name, Digest(image.digest)) if image else None
