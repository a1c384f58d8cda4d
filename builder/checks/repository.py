"""A model repository as Triton will find it: its folders, versions and configurations, and the pipelines in them.

How Triton chooses versions and fills in backends: triton-inference-server/core, src/model_lifecycle.cc (VersionsToLoad)
and src/model_config_utils.cc (AutoCompleteBackendFields). Which file NVIDIA's backend takes:
triton-inference-server/dali_backend, src/dali_model.h (LoadModel).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from builder import pbtxt, pipeline_source
from builder.errors import CheckFailed
from builder.findings import Finding, Place
from builder.signature import Signature, from_serialized

SERIALIZED = "model.dali"
SOURCE = pipeline_source.FILE_NAME
PYTHON = "model.py"
# What Triton recognizes without a `backend`; the rest of a repository is the business of other backends.
_KNOWN_FILES = frozenset(
    {PYTHON, "model.plan", "model.onnx", "model.xml", "model.pt", "model.pt2", "model.savedmodel", "model.graphdef"}
)
# Folders beside the versions that Triton knows, and those that nobody takes for one.
_CACHE = "__pycache__"
_NO_VERSIONS = frozenset({"warmup", "initial_state", "configs", _CACHE})


@dataclass(frozen=True)
class Model:
    """A folder of the repository."""

    root: Path
    folder: Path
    config: pbtxt.Config | None
    """None: it has none, or one that cannot be read."""
    unreadable: bool = False
    """It has a config.pbtxt that cannot be read."""
    _pipelines: dict[Path | None, dict[Path, Pipeline]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def folders(self) -> tuple[Path, ...]:
        """Those below it, but for the ones that are certainly no versions."""
        found = (each for each in sorted(self.folder.iterdir()) if each.is_dir())
        return tuple(each for each in found if each.name not in _NO_VERSIONS and not each.name.startswith("."))

    @cached_property
    def versions(self) -> tuple[Path, ...]:
        """The folders that Triton takes for versions, lowest first."""
        return tuple(sorted((each for each in self.folders if is_version(each.name)), key=lambda each: int(each.name)))

    @cached_property
    def served(self) -> tuple[Path, ...]:
        """The versions that `version_policy` lets Triton load: the last one if it says nothing."""
        policy = self.config.message.version_policy if self.config else None
        if policy is None or not policy.WhichOneof("policy_choice"):
            return self.versions[-1:]
        if policy.HasField("latest"):
            return self.versions[-max(1, policy.latest.num_versions) :]
        if policy.HasField("specific"):
            return tuple(each for each in self.versions if int(each.name) in policy.specific.versions)
        return self.versions

    @cached_property
    def backend(self) -> str:
        """As Triton will have it after it filled in what is missing; empty: none, or one that is not told here."""
        config = self.config.message if self.config else None
        if self.config is not None and (named := named_backend(self.config)) is not None:
            return named
        if config is not None and config.default_model_filename:
            return "python" if config.default_model_filename == PYTHON else ""
        files = self.recognized
        if files:
            return "python" if files == {PYTHON} else ""
        return self.name.partition(".")[2]

    @cached_property
    def recognized(self) -> set[str]:
        """The files of its versions that tell Triton a backend."""
        default = self.config.message.default_model_filename if self.config else ""
        names = {each.name for folder in self.folders for each in folder.iterdir()} | {default}
        return names & _KNOWN_FILES

    @property
    def is_empty(self) -> bool:
        """Whether it has nothing that could be a model; Triton takes it for one all the same, whatever its name is."""
        return (
            self.config is None
            and not self.unreadable
            and (not self.folders or (self.name.startswith(".") and not self.versions))
        )

    @property
    def is_dali(self) -> bool:
        """Whether a DALI backend will serve it."""
        return self.backend == pbtxt.DALI

    @cached_property
    def has_pipeline(self) -> bool:
        return any((each / name).is_file() for each in self.folders for name in (SOURCE, SERIALIZED))

    @property
    def is_ensemble(self) -> bool:
        return self.config is not None and self.config.message.platform == "ensemble"

    @property
    def filename(self) -> str:
        """The file that the backend loads."""
        return (str(self.config.message.default_model_filename) if self.config else "") or SERIALIZED

    def place(self, *steps: str | int) -> Place:
        """Where a field of its config.pbtxt is."""
        if self.config:
            return self.config.place(self.root, *steps)
        return Place.within(self.root, self.folder)

    def within(self, path: Path, line: int = 0, column: int = 0) -> Place:
        return Place.within(self.root, path, line, column)

    def finding(
        self, code: str, what: str, place: Place, remedy: str, detail: tuple[str, ...] = (), target: str = ""
    ) -> Finding:
        return Finding(code, what, place, remedy, detail, self.name, target)

    def pipeline(self, version: Path, recorded: Path | None) -> Pipeline:
        """What is known of the pipeline in a version's folder; read once for each record."""
        known = self._pipelines.setdefault(recorded, {})
        if version not in known:
            known[version] = _pipeline(self, version, recorded)
        return known[version]


@dataclass(frozen=True)
class Pipeline:
    """A version of a model of DALI's."""

    signature: Signature | None
    findings: tuple[Finding, ...] = ()


def named_backend(config: pbtxt.Config) -> str | None:
    """The backend that a configuration decides on, empty for none that has such a name; None: it leaves that open."""
    message = config.message
    decides = message.backend or message.platform or message.HasField("ensemble_scheduling")
    return str(message.backend) if decides else None


def is_version(name: str) -> bool:
    return name.isascii() and name.isdecimal() and (name == "0" or not name.startswith("0"))


def names(repository: Path) -> list[str]:
    """The folders of a repository that are models to Triton, hidden ones included, and that the build keeps."""
    folders = repository.iterdir() if repository.is_dir() else ()
    return sorted(each.name for each in folders if each.is_dir() and each.name != _CACHE)


def models(root: Path, repository: Path) -> tuple[list[Model], list[Finding]]:
    """Every folder of a repository, and the configurations that cannot be read."""
    found: list[Model] = []
    findings: list[Finding] = []
    for folder in (repository / name for name in names(repository)):
        path = folder / pbtxt.FILE_NAME
        if not path.exists() and not path.is_symlink():
            found.append(Model(root, folder, None))
            continue
        try:
            found.append(Model(root, folder, pbtxt.read(path, root)))
        except CheckFailed as failure:
            findings.extend(failure.findings)
            found.append(Model(root, folder, None, unreadable=True))
    return found, findings


def _pipeline(model: Model, version: Path, recorded: Path | None) -> Pipeline:
    """From what the last build made of its source; else from the source, as it can be read; without a source from the
    file that the server will load."""
    path, source = version / model.filename, version / SOURCE
    if model.filename.endswith(".py"):
        source = path
    elif model.filename != SERIALIZED or not source.is_file():  # the build makes a model.dali of every dali.py
        try:
            return Pipeline(from_serialized(path.read_bytes(), path)) if path.is_file() else Pipeline(None)
        except (OSError, ValueError) as error:
            return Pipeline(None, (_not_a_pipeline(model, path, error),))
    if not source.is_file():
        return Pipeline(None)
    reading = pipeline_source.read(source, model.root, model.name)
    if serialized := _recorded(model, version, source, recorded):
        plugins = reading.signature.plugins if reading.signature else ()
        return Pipeline(replace(serialized, origin=source, plugins=plugins), tuple(reading.findings))
    return Pipeline(reading.signature, tuple(reading.findings))


def _recorded(model: Model, version: Path, source: Path, recorded: Path | None) -> Signature | None:
    """What the last build made of the very same source."""
    if recorded is None or source.name != SOURCE:
        return None
    built = recorded / model.name / version.name
    try:
        if (built / SOURCE).read_bytes() != source.read_bytes():
            return None
        return from_serialized((built / SERIALIZED).read_bytes(), built / SERIALIZED)
    except (OSError, ValueError):
        return None


def _not_a_pipeline(model: Model, path: Path, error: Exception) -> Finding:
    empty = path.is_file() and not path.stat().st_size
    why = "is empty" if empty else f"is {error}" if isinstance(error, ValueError) else f"cannot be read: {error}"
    return model.finding(
        "model-file-invalid",
        f"{path.name} {why}",
        model.within(path),
        f"serialize the pipeline again, or put its source beside it as {SOURCE}: the build serializes that",
    )


def check_structure(model: Model) -> Iterator[Finding]:
    """Folders and names, which matter to Triton whatever the backend is."""
    config = model.config.message if model.config else None
    if config is not None and config.name and config.name != model.name:
        yield model.finding(
            "config-name-mismatch",
            f"name is {config.name!r}, but the folder is {model.name!r}",
            model.place("name"),
            f'write name: "{model.name}", or leave the line out: Triton takes the name from the folder',
        )
    if model.is_empty:
        hidden = model.name.startswith(".")
        yield model.finding(
            "model-empty",
            f"the folder of model {model.name!r} has neither a {pbtxt.FILE_NAME} nor a version",
            model.place(),
            "remove the folder, or keep it elsewhere: Triton takes hidden folders for models, too"
            if hidden
            else f"add {model.name}/{pbtxt.FILE_NAME} and {model.name}/1/{SOURCE}, or remove the folder",
        )
        return
    for folder in model.folders:
        if not is_version(folder.name) and _looks_like_version(folder):
            yield model.finding(
                "version-not-a-number",
                f"{folder.name!r} is not a version, so Triton passes it over",
                model.within(folder),
                "name the folder by a whole number without leading zeros, such as 1",
            )
    if not model.served:
        specific = bool(model.versions)
        yield model.finding(
            "version-missing",
            f"model {model.name!r} has no version that Triton would load"
            + (" (version_policy names none of those that are there)" if specific else ""),
            model.place("version_policy") if specific else model.within(model.folder),
            f"name one of {', '.join(each.name for each in model.versions)}"
            if specific
            else f"add the folder {model.name}/1; that of an ensemble has nothing in it but a placeholder for git",
        )


def _looks_like_version(folder: Path) -> bool:
    return folder.name.lstrip("vV")[:1].isdigit() or any(
        each.name in _KNOWN_FILES | {SOURCE, SERIALIZED} for each in folder.iterdir()
    )
