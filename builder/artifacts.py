"""What each step hands on. Every one is also a JSON file under .builder/TARGET/, where the next command finds it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from builder.errors import NothingBuilt
from builder.project import Project


class Artifact(BaseModel):
    """A frozen record with a place of its own."""

    model_config = ConfigDict(frozen=True)
    file_name: ClassVar[str]
    made_by: ClassVar[str]

    target: str

    def save(self, project: Project) -> Self:
        """Writes it whole or not at all."""
        write_atomically(project.state / self.target / self.file_name, self.model_dump_json(indent=2) + "\n")
        return self

    @classmethod
    def load(cls, project: Project, target: str) -> Self:
        """Reads what an earlier command left.

        Raises:
            NothingBuilt: there is none, or one that this version does not understand.
        """
        path = project.state / target / cls.file_name
        remedy = f"run `python -m builder {cls.made_by} --target {target}` first"
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise NothingBuilt(f"target {target!r} has no {cls.file_name}", where=str(path), remedy=remedy) from None
        except (OSError, ValidationError):
            raise NothingBuilt(
                f"{cls.file_name} of target {target!r} is not readable", where=str(path), remedy=remedy
            ) from None

    @classmethod
    def find(cls, project: Project, target: str) -> Self | None:
        """As `load`, but None where there is nothing to read."""
        try:
            return cls.load(project, target)
        except NothingBuilt:
            return None

    @classmethod
    def discard(cls, project: Project, target: str) -> None:
        """Removes the record, so that nobody can go on from it."""
        (project.state / target / cls.file_name).unlink(missing_ok=True)


class Plugin(BaseModel):
    """A compiled plugin library, as the image has it."""

    model_config = ConfigDict(frozen=True)

    path: str
    """Where the image has it, such as /models/libcustomcopy.so."""
    sha256: str
    bytes: int
    gpu: bool
    """Whether it has code for GPUs."""


class Pipeline(BaseModel):
    """What a serialized pipeline says of itself."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: str
    inputs: tuple[str, ...]
    """The names of its external sources."""


class Parts(Artifact):
    """The image's files before there is an image: compiled, serialized, and loaded once."""

    file_name = "parts.json"
    made_by = "build"

    triton_version: str
    dali_version: str
    plugins: tuple[Plugin, ...]
    pipelines: tuple[Pipeline, ...]


class Layer(BaseModel):
    """A layer of the image as the engine unpacked it."""

    model_config = ConfigDict(frozen=True)

    digest: str
    """Of the uncompressed layer (OCI's diff ID)."""
    bytes: int
    """Of its files."""


class Image(Artifact):
    """An image in the engine."""

    file_name = "image.json"
    made_by = "build"

    reference: str
    digest: str
    """The engine's ID of the image: with the containerd image store, the digest that a registry will give it."""
    bytes: int
    layers: tuple[Layer, ...]
    seconds: float


class Latency(BaseModel):
    """Milliseconds from request to answer, one request at a time, one sample of 1 KiB."""

    model_config = ConfigDict(frozen=True)

    p50: float
    p99: float


class VerifiedModel(BaseModel):
    """What a model was asked, and how fast it answered."""

    model_config = ConfigDict(frozen=True)

    name: str
    oracle: str
    requests: int
    """All of them answered, every byte as the oracle has it."""
    latency_ms: Latency
    requests_per_second: float
    """32 at once, of many sizes."""


class NegativeControl(BaseModel):
    """The same image without its plugin: it must fail, or the verification proves nothing."""

    model_config = ConfigDict(frozen=True)

    applicable: bool
    passed: bool
    evidence: str
    """The server's own line."""


class Verification(Artifact):
    """Bound to one image: push takes no other."""

    file_name = "verification.json"
    made_by = "smoke"

    reference: str
    digest: str
    passed: bool
    when: str
    seed: int
    gpus: str
    models: tuple[VerifiedModel, ...]
    negative_control: NegativeControl
    ready_seconds: float


class Pushed(Artifact):
    """An image in a registry, and what it took to get it there."""

    file_name = "pushed.json"
    made_by = "push"

    reference: str
    """repository@sha256:..., the one thing that a deployment should use."""
    tag: str
    digest: str
    bytes_uploaded: int
    """Compressed bytes of the blobs that the registry did not have."""
    seconds: float


def write_atomically(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
