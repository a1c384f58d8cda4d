"""What each step hands on. Every one is also a JSON file under .builder/TARGET/, where the next command finds it."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from builder import sources
from builder.errors import NothingBuilt, NotVerified
from builder.project import Project, Target


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


class Operator(BaseModel):
    """An operator that a plugin registers."""

    model_config = ConfigDict(frozen=True)

    name: str
    """DALI's, such as CustomCopy."""
    devices: tuple[str, ...]
    """Of "cpu", "gpu" and "mixed"."""


class Plugin(BaseModel):
    """A compiled plugin library, as the image has it."""

    model_config = ConfigDict(frozen=True)

    path: str
    """Where the image has it, such as /models/libcustomcopy.so."""
    sha256: str
    bytes: int
    operators: tuple[Operator, ...]
    """Found by loading it in the image."""
    demands: dict[str, str]
    """The highest version that its symbols need of each family, such as {"DALI": "1.53.0", "GLIBC": "2.34"}."""
    architectures: tuple[str, ...]
    """What its GPU code is for, as nvcc names it: sm_90 is machine code, compute_120 is PTX. Empty without GPU code."""
    cuda: str = ""
    """What that code was compiled with, such as 13.0; empty: none, or unknown."""


class Parts(Artifact):
    """The image's files before there is an image: compiled, serialized, and loaded once."""

    file_name = "parts.json"
    made_by = "build"

    base: str
    """The name of the image that the project's layers lie on."""
    base_digest: str
    """The engine's ID of it, or its digest in its registry."""
    packages: dict[str, str]
    """Debian's packages where the plugins were compiled, the base's own among them: name → version."""
    triton_version: str
    dali_version: str
    dali_cuda: str = ""
    """The major version of the CUDA that DALI was compiled with, such as 12; empty: unknown."""
    glibc: str
    """The C library of the base, such as 2.36."""
    glibcxx: str
    """The newest GLIBCXX that the base's libstdc++ has, such as 3.4.30."""
    plugins: tuple[Plugin, ...]
    plugin_sources: str
    """The digest of plugin/ that they were compiled from, as `builder.sources.digest` gives it."""
    plugin_files: dict[str, str]
    """SHA-256 of each of its files, by names below plugin/."""
    files: str
    """The digest of the folder `models` that was left, as `builder.sources.digest` gives it."""
    built_as: Target
    """What builder.toml said of the target."""

    @property
    def digest(self) -> str:
        """SHA-256 in hexadecimal of all that is told here."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @classmethod
    def current(cls, project: Project, target: str) -> Self | None:
        """As `find`, but None also where plugin/ or the target has changed since, so that a build would make others."""
        parts = cls.find(project, target)
        same = parts and (parts.built_as, parts.plugin_sources) == (
            project.targets.get(target),
            sources.digest(project.plugin_folder),
        )
        return parts if same else None


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
    """Of the manifest, which a registry will give it, too; in Docker's older image store of the configuration."""
    base: str
    base_digest: str
    parts: str
    """`Parts.digest` of what it was made of."""
    inputs: str = ""
    """The digest of all that the build read; empty: unknown."""
    labels: dict[str, str]
    engine: str
    """The version of the engine that built it."""
    in_engine: bool
    """False where the base is not on this machine: the image is pushed by its digest alone, and proven elsewhere."""
    bytes: int
    """Unpacked; of an image that no engine has, of its own compressed layers."""
    layers: tuple[Layer, ...]
    seconds: float

    @staticmethod
    def layout(project: Project, target: str) -> Path:
        """Where the manifest, the configuration and the image's own layers are, as an OCI image layout."""
        return project.state / target / "oci"


class Latency(BaseModel):
    """Milliseconds from request to answer, one request at a time, one sample of 1 KiB."""

    model_config = ConfigDict(frozen=True)

    p50: float
    p99: float
    histogram: tuple[tuple[float, int], ...] = ()
    """As `buckets` gives it; empty in records that were made before there was one."""


BUCKETS_PER_DECADE = 20
"""Each bucket is 12 % wider than the one before: milliseconds and minutes are told equally well."""


def buckets(milliseconds: Iterable[float]) -> tuple[tuple[float, int], ...]:
    """How many of the times fall into which bucket: (its upper edge in ms, how many), without the empty ones.

    The edges are 10**(n/20) ms for whole n, so that the buckets of two images are the same. An edge belongs to its
    bucket; what is below 1 µs is in that of 1 µs.
    """
    numbers = Counter(math.ceil(BUCKETS_PER_DECADE * math.log10(max(each, 1e-3)) - 1e-9) for each in milliseconds)
    return tuple((float(f"{10 ** (number / BUCKETS_PER_DECADE):.5g}"), numbers[number]) for number in sorted(numbers))


class VerifiedModel(BaseModel):
    """What a model was asked, and how fast it answered."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    oracle: str
    """As builder.toml has it."""
    values_compared: bool
    """False where no oracle knew them: types and shapes alone were."""
    rtol: float
    atol: float
    """With rtol, 0 means byte for byte."""
    requests: int
    """All of them answered rightly."""
    left_out: int
    """Further ones that there was no time for."""
    latency_ms: Latency
    requests_per_second: float
    """32 at once, one sample of 1 KiB each where the model leaves that open."""


class NegativeControl(BaseModel):
    """The same image without its plugin: it must fail, or the verification proves nothing."""

    model_config = ConfigDict(frozen=True)

    applicable: bool
    passed: bool
    evidence: str
    """The server's own line."""


class NotRun(BaseModel):
    """A model that was not asked, and so is not verified."""

    model_config = ConfigDict(frozen=True)

    name: str
    why: str


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
    not_run: tuple[NotRun, ...] = ()
    """Where there are any, nothing has passed."""
    negative_control: NegativeControl
    ready_seconds: float
    versions: dict[str, str]
    """Of Triton and DALI, as the image's labels tell them, of this program and of the engine."""
    configuration: dict[str, str]
    """The files that say how to verify, builder.toml among them: SHA-256 by name."""
    server_log_sha256: str
    """Of all that the server wrote."""
    server_log: tuple[str, ...]
    """Its last lines."""

    def keep(self, project: Project) -> Self:
        """Writes it for `of_digest` to find."""
        write_atomically(self._by_digest(project, self.digest), self.model_dump_json(indent=2) + "\n")
        return self

    @classmethod
    def of_digest(cls, project: Project, digest: str) -> Self | None:
        """That of an image, whatever target or registry it comes from; None where there is none to be read."""
        try:
            return cls.model_validate_json(cls._by_digest(project, digest).read_bytes())
        except (OSError, ValidationError):
            return None

    @classmethod
    def forget(cls, project: Project, digest: str) -> None:
        """Takes back what `keep` wrote."""
        cls._by_digest(project, digest).unlink(missing_ok=True)

    @staticmethod
    def _by_digest(project: Project, digest: str) -> Path:
        return project.state / "verified" / f"{digest.removeprefix('sha256:')}.json"


class Pushed(Artifact):
    """An image in a registry, and what it took to get it there."""

    file_name = "pushed.json"
    made_by = "push"

    reference: str
    """repository@sha256:..., the one thing that a deployment should use."""
    tag: str
    """repository:tag; empty as long as it has none."""
    digest: str
    media_type: str
    manifest_bytes: int
    bytes_uploaded: int
    """Of blobs that the registry did not have, as often as they had to be sent."""
    bytes_mounted: int
    """Compressed bytes of the blobs that another repository of the registry had."""
    seconds: float

    @classmethod
    def tagged(cls, project: Project, target: str) -> Self:
        """As `load`, of an image to deploy.

        Raises:
            NotVerified: it was pushed without a tag, to be proven elsewhere.
        """
        pushed = cls.load(project, target)
        if not pushed.tag:
            raise NotVerified(
                "what was pushed last has no tag, as it was not proven here",
                where=pushed.reference,
                remedy="`smoke` and `promote` that reference, or push what was proven",
            )
        return pushed


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
