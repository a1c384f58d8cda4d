"""Every way this program can fail: a stable code each, an exit code for each family."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import ClassVar

from builder.findings import Finding
from builder.findings import errors as wrong


class BuilderError(Exception):
    """Something that the user can mend.

    Args:
        what: what is wrong, one sentence.
        where: the file, image, address or command it was found in.
        remedy: what to do about it.
        detail: lines that show it, such as a compiler's own messages.
    """

    code: str = "failed"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "", detail: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy
        self.detail = tuple(detail)
        self.partial: dict[str, object] = {}
        """What the command's JSON document has besides the error."""

    def as_json(self) -> dict[str, object]:
        return {
            "code": self.code,
            "what": self.what,
            "where": self.where,
            "remedy": self.remedy,
            "detail": list(self.detail),
        }


# The project, or the command line.


class ProjectError(BuilderError):
    """builder.toml, config.pbtxt or an argument is wrong."""

    code = "project-invalid"
    exit_code = 2


class ProjectMissing(ProjectError):
    """There is no project here."""

    code = "project-missing"


class BadReference(ProjectError):
    """Not an image reference."""

    code = "reference-invalid"


class ReferenceNotPinned(ProjectError):
    """An image is named by something that can move, where it must be a digest."""

    code = "reference-not-pinned"


class BadUsage(ProjectError):
    """Arguments that do not go together."""

    code = "usage"


class SigningKeyInvalid(ProjectError):
    """A key that cannot be read, or is of another kind than ECDSA P-256."""

    code = "signing-key-invalid"


class SourcesDiffer(ProjectError):
    """The sources at hand are not those of an image that is to be made again."""

    code = "sources-differ"


class NoRecord(ProjectError):
    """An image does not tell what it was made from."""

    code = "no-record"


class LockInvalid(ProjectError):
    """builder.lock cannot be read."""

    code = "lock-invalid"


class LockMissing(ProjectError):
    """A locked build has no lock."""

    code = "lock-missing"


class LockOutdated(ProjectError):
    """builder.lock holds what a build would no longer get, or `lock --check` found something newer."""

    code = "lock-outdated"


class TagMoved(ProjectError):
    """A base image's name stands for another digest than in builder.lock."""

    code = "tag-moved"


class CheckFailed(ProjectError):
    """`check` found errors; the code, the place and the remedy are those of the first."""

    code = "check-failed"

    def __init__(self, findings: Sequence[Finding]) -> None:
        first, *others = wrong(findings)
        more = f" (and {len(others)} more)" if others else ""
        super().__init__(first.what + more, where=str(first.place), remedy=first.remedy, detail=first.detail)
        self.code = first.code
        self.findings = tuple(findings)
        self.partial = {"findings": [each.as_json() for each in findings]}


class PipelineMissing(ProjectError):
    """A model of DALI's has nothing to run."""

    code = "pipeline-missing"


class SignatureUnknown(ProjectError):
    """A pipeline does not declare what its configuration needs."""

    code = "signature-unknown"


class NothingBuilt(ProjectError):
    """A command needs what an earlier one leaves behind."""

    code = "nothing-built"


class BuildUnknown(ProjectError):
    """No such build is in the journal of this machine."""

    code = "build-unknown"


class GoldenInvalid(ProjectError):
    """A file of golden arrays does not fit its model, or cannot be read."""

    code = "golden-invalid"


class OracleMissing(ProjectError):
    """builder.toml names a file or a function that is not there."""

    code = "oracle-missing"


class OracleModelUnknown(ProjectError):
    """builder.toml says how to verify a model that the server does not have."""

    code = "oracle-model-unknown"


# The machine.


class MachineError(BuilderError):
    """The engine, the disk, a port or a program on this machine is not usable."""

    code = "machine"
    exit_code = 3


class NoEngine(MachineError):
    """No Docker engine answers."""

    code = "no-engine"


class EngineTooOld(MachineError):
    """The engine is older than what the Dockerfile needs."""

    code = "engine-too-old"


class NoBuildx(MachineError):
    """buildx is missing or too old."""

    code = "no-buildx"


class NoBuilder(MachineError):
    """buildx knows no builder of that name."""

    code = "no-builder"


class BuilderUnreachable(MachineError):
    """A builder that buildx knows does not answer."""

    code = "builder-unreachable"


class BuilderUnsuitable(MachineError):
    """A builder's driver, or the engine's image store, does not have what is asked of it."""

    code = "builder-unsuitable"


class NoCompose(MachineError):
    """The compose plugin is missing."""

    code = "no-compose"


class NoProgram(MachineError):
    """A program is not on PATH."""

    code = "no-program"


class NoBase(MachineError):
    """A base image can be neither found, pulled nor made."""

    code = "no-base"


class DiskFull(MachineError):
    """No space is left where the engine writes."""

    code = "disk-full"


class PortInUse(MachineError):
    """A port that a container should publish is taken."""

    code = "port-in-use"


class NoRegistry(MachineError):
    """No registry answers at that address."""

    code = "no-registry"


class BaseElsewhere(MachineError):
    """An image's base is in its registry alone, so nothing can be started from it here."""

    code = "base-elsewhere"


class NoImage(MachineError):
    """The engine has no such image."""

    code = "no-image"


class NoUnpackedImage(MachineError):
    """A folder does not hold an image's files."""

    code = "no-unpacked-image"


class NoNamespaces(MachineError):
    """This user cannot give a process a root and mounts of its own."""

    code = "no-namespaces"


# The build.


class BuildError(BuilderError):
    """A stage of the Dockerfile failed."""

    code = "build-failed"
    exit_code = 4


class CompileError(BuildError):
    """The plugin does not compile."""

    code = "plugin-does-not-compile"


class SerializeError(BuildError):
    """A pipeline cannot be serialized."""

    code = "pipeline-does-not-serialize"


class DownloadError(BuildError):
    """A wheel or a Debian package could not be fetched."""

    code = "download-failed"


class CacheNotWritten(BuildError):
    """The build went through, and its cache could not be left where it should be."""

    code = "cache-not-written"


# Verification.


class VerificationError(BuilderError):
    """The image did not do what it must."""

    code = "verification-failed"
    exit_code = 5


class ServerDied(VerificationError):
    """The server stopped before it was ready."""

    code = "server-died"


class NotReady(VerificationError):
    """The server was not ready in time."""

    code = "server-not-ready"


class ModelNotLoaded(VerificationError):
    """A server that runs refuses to load a model."""

    code = "model-not-loaded"


class WrongAnswer(VerificationError):
    """The server's answer differs from the oracle's."""

    code = "wrong-answer"


class InferenceFailed(VerificationError):
    """The server refused a request that it must serve."""

    code = "inference-failed"


class RequestRefused(InferenceFailed):
    """The server answered a request with an error of its own."""

    code = "request-refused"


class OracleFailed(VerificationError):
    """The user's own function raised, or returned what cannot be an answer."""

    code = "oracle-failed"


class CauseUnknown(VerificationError):
    """The server failed, and nothing in its log is known."""

    code = "cause-unknown"


class NotReproducible(VerificationError):
    """An image that is made again from its record comes out as another."""

    code = "not-reproducible"


class NegativeControlServed(VerificationError):
    """The image serves without its plugin, so the test proves nothing."""

    code = "negative-control-served"


# The push.


class PushError(BuilderError):
    """The registry did not take the image."""

    code = "push-failed"
    exit_code = 6


class NotVerified(PushError):
    """The image's digest has no passed verification."""

    code = "not-verified"


class Unauthorized(PushError):
    """The registry refuses the credentials."""

    code = "unauthorized"


class RegistryReadOnly(PushError):
    """The registry takes no writes."""

    code = "registry-read-only"


class RegistryFull(PushError):
    """The registry has no room, or no quota, for what is pushed."""

    code = "registry-full"


class InsecureRegistry(PushError):
    """Plain HTTP to a host that is not this one."""

    code = "insecure-registry"


class DigestMismatch(PushError):
    """The registry holds something else than what was verified."""

    code = "digest-mismatch"


class ImageMissing(PushError):
    """The registry has no such image."""

    code = "image-missing"


class AttestationMissing(PushError):
    """The image has no provenance or no SBOM in the registry."""

    code = "attestation-missing"


class AttestationMismatch(PushError):
    """What is said of the image in the registry is about another, or contradicts what the image says of itself."""

    code = "attestation-mismatch"


class SignatureInvalid(PushError):
    """The image, or what is said of it, is not signed by the key that was given."""

    code = "signature-invalid"


INTERRUPTED = 130


class Interrupted(BuilderError):
    """Ctrl-C, or a signal that asks to stop."""

    code = "interrupted"
    exit_code = INTERRUPTED


def family(error: type[BuilderError] = BuilderError) -> list[type[BuilderError]]:
    """All error classes below `error`, itself included."""
    return [error, *(each for child in error.__subclasses__() for each in family(child))]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a message, where something known is close to `name`."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""
