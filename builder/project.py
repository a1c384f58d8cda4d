"""builder.toml → a frozen Project, every problem reported at once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from builder import releases, settings
from builder.errors import BadReference, BadUsage, CheckFailed, did_you_mean
from builder.findings import Finding, Place, ordered
from builder.reference import Reference
from builder.settings import FILE_NAME, Settings

__all__ = ["AUTO", "EMBEDDED", "FILE_NAME", "Model", "Project", "ProjectFile", "Target", "load"]

EMBEDDED = "embedded"
AUTO = "auto"
DEFAULT_DALI = "1.53.0"
PLATFORM: Literal["linux/amd64"] = "linux/amd64"
_OWN_ARGUMENTS = (
    "--model-repository",
    "--model-store",
    "--backend-config=dali,plugin_libs",
    "--http-port",
    "--grpc-port",
    "--metrics-port",
    "--allow-http",
    "--allow-grpc",
)
MODELS = "/models"
"""The model repository in the image; libraries lie beside the models."""


def _target_name(text: str) -> str:
    if text == "all":
        raise ValueError("'all' stands for all targets on the command line; choose another name")
    return text


def _repository(text: str) -> str:
    if Reference.parse(_reference(text)).digest:
        raise ValueError("a push makes the digest; name the repository alone")
    return text


def _library(name: str) -> str:
    if name.startswith("lib") and name.endswith(".so"):
        raise ValueError(f"write {name[3:-3]!r}: NAME stands for libNAME.so")
    return name


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if repeated := next((name for name in names if names.count(name) > 1), ""):
        raise ValueError(f"{repeated!r} is there twice")
    return names


def _server_argument(text: str) -> str:
    if text.startswith(_OWN_ARGUMENTS):
        raise ValueError(f"{text.partition('=')[0]} is given by the image itself")
    return text


def _reference(text: str) -> str:
    try:
        Reference.parse(text)
    except BadReference as error:
        raise ValueError(f"{error.what}; {error.remedy}") from None
    return text


ReferenceText = Annotated[str, AfterValidator(_reference)]
RepositoryText = Annotated[str, AfterValidator(_repository)]
TargetName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$"), AfterValidator(_target_name)]
Tag = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
Library = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$"), AfterValidator(_library)]
ServerArgument = Annotated[str, AfterValidator(_server_argument)]
Architecture = Annotated[str, Field(pattern=r"^\d{2,3}[af]?(-real|-virtual)?$")]
Tolerance = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Version = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(_Table):
    """One image: which Triton, which DALI, which GPUs."""

    triton_image: ReferenceText = Field(
        EMBEDDED, description="the base: NVIDIA's image, or 'embedded' for the one out of Debian and PyPI"
    )
    dali: Version | None = Field(
        None,
        description=f"DALI's version: of the embedded base, which is {DEFAULT_DALI} otherwise; for other bases what "
        "they are known to hold, and only needed where the table of Triton's releases does not have it",
    )
    toolchain: Literal["base", "wheel"] = Field(
        "base",
        description="what plugins are compiled against: the base itself, or 'wheel', the same DALI from PyPI, so that "
        "the base need not be on the machine that builds",
    )
    cuda_architectures: tuple[Architecture, ...] = Field(
        (), description="the GPUs to compile for, as CMake writes them, such as '90-real'; empty for the usual ones"
    )
    cuda: Literal["AUTO", "ON", "OFF"] = Field("ON", description="OFF compiles operators for the CPU alone")
    gpu: bool = Field(True, description="false for images that only ever run without a GPU, so that `check` can tell")
    platform: Literal["linux/amd64", "linux/arm64"] = Field(PLATFORM, description="of the image")

    @property
    def is_embedded(self) -> bool:
        return self.triton_image == EMBEDDED

    @property
    def dali_version(self) -> str | None:
        """The DALI that the plugin will meet; None where nobody knows before the base is there."""
        if self.dali:
            return self.dali
        return DEFAULT_DALI if self.is_embedded else releases.dali_of(Reference.parse(self.triton_image))


class Model(_Table):
    """How a model is verified."""

    oracle: str = Field(
        "signature",
        pattern=r"^(signature|identity|.+\.npz|.+\.py:[A-Za-z_]\w*)$",
        description="what says which answer is right: 'identity' (the output is the input), a file of golden arrays "
        "(FILE.npz), a function (FILE.py:NAME), or 'signature' for nothing but the right names, types and shapes",
    )
    rtol: Tolerance = Field(0.0, description="relative tolerance; with atol, 0 means byte for byte")
    atol: Tolerance = Field(0.0, description="absolute tolerance")


class ProjectFile(_Table):
    """The keys of builder.toml."""

    repository: RepositoryText = Field(description="where images are pushed: HOST/PATH")
    tags: tuple[Tag, ...] = Field(("latest",), min_length=1, description="the tags of the first target's image")
    targets: dict[TargetName, Target] = Field(
        min_length=1,
        description="the images to build",
        json_schema_extra={"additionalProperties": False},  # pydantic's schema takes other names, pydantic does not
    )
    plugins: Annotated[tuple[Library, ...], AfterValidator(_unique)] = Field(
        (),
        description="the libraries that the server loads, in this order: NAME for /models/libNAME.so; "
        "empty for all that plugin/ makes, by name",
    )
    models: dict[str, Model] = Field({}, description="how each model is verified")
    server_args: tuple[ServerArgument, ...] = Field((), description="more arguments for tritonserver")
    debian_image: ReferenceText = Field(
        AUTO, description="the Debian under the embedded base; 'auto' pulls Docker Hub's or makes one"
    )
    source: str = Field("", description="where the sources are published, for the image's labels")


class Project(ProjectFile):
    """Plugins, models, and the images that they go into."""

    root: Path
    _given: Settings = PrivateAttr(default_factory=Settings)

    def place(self, *key: str) -> Place:
        """Where a value was given, or else the table that it would be in."""
        return self._given.place(key)

    @cached_property
    def home(self) -> Reference:
        """The repository that images are pushed to."""
        return Reference.parse(self.repository)

    @property
    def state(self) -> Path:
        """Where each step leaves what it hands on."""
        return self.root / ".builder"

    @property
    def repository_folder(self) -> Path:
        """The models' sources."""
        return self.root / "model_repository"

    @property
    def plugin_folder(self) -> Path:
        """The plugins' sources; a project whose models need none has no such folder."""
        return self.root / "plugin"

    @property
    def name(self) -> str:
        """The last part of the repository."""
        return self.home.path.rsplit("/", 1)[-1]

    def local_name(self, target: str) -> str:
        """The name of the target's image in the engine, before any push."""
        return f"{self.name}:{target}"

    def pushed_as(self, target: str) -> tuple[Reference, ...]:
        """The default references of a push: the first target gets the plain tags, the others carry their names."""
        tags = (self.home.tag,) if self.home.tag else self.tags
        suffix = "" if target == next(iter(self.targets)) else f"-{target}"
        return tuple(self.home.with_tag(tag + suffix) for tag in tags)

    def verification(self, model: str) -> Model:
        """How a model is verified, whether builder.toml has a word about it or not."""
        return self.models.get(model, _UNTOLD)

    @property
    def listed(self) -> tuple[str, ...]:
        """The paths in the image of the libraries that builder.toml names; empty for all that there are."""
        return tuple(f"{MODELS}/lib{name}.so" for name in self.plugins)

    def select(self, names: Sequence[str]) -> dict[str, Target]:
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


_TABLES: dict[str, type[_Table]] = {"targets": Target, "models": Model}
_UNTOLD = Model.model_validate({})


def load(root: Path, given: Sequence[str] = (), environment: Mapping[str, str] = os.environ) -> Project:
    """Reads the project in `root`.

    Args:
        given: `--set` options, each KEY=VALUE.
        environment: its TRITON_DALI_BUILDER_* variables override the file, and `given` overrides both.

    Raises:
        ProjectMissing: there is no builder.toml.
        CheckFailed: it is wrong; a finding for each problem.
        BadUsage: an option is not KEY=VALUE.
    """
    return validated(root, settings.read(root, given, environment))


def validated(root: Path, given: Settings) -> Project:
    """The project that the settings stand for. Raises CheckFailed."""
    try:
        project = Project(root=root.resolve(), **dict(ProjectFile.model_validate(given.values)))
    except ValidationError as error:
        raise CheckFailed(ordered(_findings(error, given))) from None
    if project.home.tag and "tags" in given.values:
        what = f"repository has the tag {project.home.tag!r}, and there are tags too"
        raise CheckFailed([Finding("value-invalid", what, given.place(("tags",)), "leave one of them out")])
    project._given = given
    return project


def _findings(error: ValidationError, given: Settings) -> Iterator[Finding]:
    problems = error.errors()
    meant = {
        (*each["loc"][:-1], *difflib.get_close_matches(str(each["loc"][-1]).lower(), _keys(each["loc"][:-1]), 1))
        for each in problems
        if each["type"] == "extra_forbidden"
    }
    for problem in problems:
        if problem["type"] == "missing" and problem["loc"] in meant:
            continue  # it is there, under a name that is told
        if problem["type"] == "too_short" and any(each["loc"][:-1] == problem["loc"] for each in problems):
            continue  # pydantic does not count the elements that are wrong
        # An invalid name of a table is reported at (…, name, "[key]").
        key = tuple(str(part) for part in problem["loc"] if part != "[key]")
        name, place = ".".join(key), given.place(key)
        if problem["type"] == "extra_forbidden":
            known = list(_keys(key[:-1]))
            hint = did_you_mean(key[-1], known)
            yield Finding("key-unknown", f"{name}: no such key{hint}", place, f"choose among {', '.join(known)}")
        elif problem["type"] == "missing":
            remedy = f"add {key[-1]} = ..., as `builder schema` describes it"
            yield Finding("key-missing", f"{name} is missing", place, remedy)
        else:
            what = f"{name}: {_message(problem)}" if name else _message(problem)
            yield Finding("value-invalid", what, place, _remedy(key))


_WANTED = {
    "tuple_type": 'a list is wanted, such as ["..."]',
    "dict_type": "a table is wanted, such as { ... }",
    "model_type": "a table is wanted, such as { ... }",
    "string_type": "a text is wanted, in quotes",
    "string_pattern_mismatch": "it does not have the form that it must",
}


def _message(problem: Any) -> str:
    """Pydantic's message, in the words of TOML."""
    message = _WANTED.get(problem["type"]) or str(problem["msg"]).removeprefix("Value error, ")
    shown = (
        repr(problem["input"]) if problem["type"] in _WANTED and isinstance(problem["input"], str | int | float) else ""
    )
    return f"{shown}: {message}" if shown else f"{message[:1].lower()}{message[1:]}"


def _remedy(key: tuple[str, ...]) -> str:
    """What the key is for."""
    names = [part for part in key if not part.isdecimal()]
    table: type[_Table] = _TABLES[names[0]] if len(names) == 3 and names[0] in _TABLES else ProjectFile
    field = table.model_fields.get(names[-1]) if names else None
    if len(names) == 2 and names[0] in _TABLES:
        return (
            f"a name in [{names[0]}] has small letters, digits and hyphens"
            if names[0] == "targets"
            else "mend the table"
        )
    return f"it is {field.description}" if field and field.description else "mend the value"


def _keys(table: Sequence[str | int]) -> Sequence[str]:
    """The keys that a table may have."""
    return list((_TABLES[str(table[0])] if table else ProjectFile).model_fields)


def described(given: Settings) -> Iterator[tuple[str, Any, str]]:
    """Every value of the project as (key, value, where it comes from), defaults included."""
    whole = ProjectFile.model_validate(given.values)
    for name in ProjectFile.model_fields:
        value = getattr(whole, name)
        if isinstance(value, dict):
            for entry, table in value.items():
                for key, inner in table.model_dump(mode="json").items():
                    yield f"{name}.{entry}.{key}", inner, _origin((name, entry, key), given)
        else:
            yield name, list(value) if isinstance(value, tuple) else value, _origin((name,), given)


def _origin(key: tuple[str, ...], given: Settings) -> str:
    value: Any = given.values
    for part in key:
        if not isinstance(value, dict) or part not in value:
            return "default"
        value = value[part]
    return str(given.place(key))
