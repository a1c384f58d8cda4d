"""builder.lock: the very versions that a build is made of, so that the next one is made of the same.

Base images by digest, Debian's packages by version, wheels by hash. What is in it holds for every build;
`build --locked` does not build without it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from builder import package
from builder.artifacts import write_atomically
from builder.errors import LockInvalid, LockMissing, LockOutdated
from builder.project import AUTO, DEFAULT_DALI, Project, Target

FILE_NAME = "builder.lock"
_HEADER = """\
# What `python -m builder lock` found, and what builds are held to. `lock --check` tells what is out of date.
"""
_REQUIREMENTS = Path("embedded", "requirements")
_COMPILER = "g++-"
"""What Debian's package of the compiler itself is named, with a number after it."""
_TOOLS = ("nvidia-cuda-nvcc", "cmake", "ninja")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LockedImage(_Table):
    """A base image."""

    name: str
    digest: str


class LockedTarget(_Table):
    """All that a target's image is made of, besides the project's own sources."""

    triton_image: LockedImage | None = None
    """None for the embedded base."""
    debian_image: LockedImage | None = None
    """None where nothing starts from it."""
    wheels: dict[str, str]
    """Name → version and the hashes that it may have, separated by spaces."""
    debian: dict[str, str]
    """Name → version of every package where the plugins are compiled; the base's own are among them."""

    @property
    def toolchain(self) -> dict[str, str]:
        """The compilers' versions."""
        compilers = {name: version for name, version in self.debian.items() if name.startswith(_COMPILER)}
        return compilers | {tool: self.wheels[tool].split()[0] for tool in _TOOLS if tool in self.wheels}


class Lock(_Table):
    """The locked targets."""

    version: int = 1
    targets: dict[str, LockedTarget] = {}


def load(project: Project) -> Lock:
    """The project's lock; one without targets where it has none.

    Raises:
        LockInvalid: it cannot be read.
    """
    path = project.root / FILE_NAME
    try:
        return Lock.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Lock()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise LockInvalid(
            f"{FILE_NAME} cannot be read",
            where=str(path),
            remedy="take it back from version control, or remove it and write it anew: python -m builder lock",
            detail=str(error).splitlines()[:5],
        ) from None


def save(project: Project, lock: Lock) -> None:
    """Writes it whole or not at all."""
    write_atomically(project.root / FILE_NAME, _HEADER + tomli_w.dumps(lock.model_dump(exclude_none=True)))


def held(project: Project, name: str, *, required: bool) -> LockedTarget | None:
    """What a build of a target is held to.

    Raises:
        LockMissing: there is no lock for it, and it is `required`.
        LockOutdated: builder.toml names another base, or this program would install other wheels.
    """
    locked = load(project).targets.get(name)
    where = str(project.root / FILE_NAME)
    if locked is None:
        if required:
            raise LockMissing(
                f"there is no lock of the target {name!r}",
                where=where,
                remedy=f"python -m builder lock --target {name}",
            )
        return None
    changed = [*_renamed(project, name, locked), *_changes(locked.wheels, wheels(project.targets[name]))]
    if changed:
        raise LockOutdated(
            f"{FILE_NAME} holds something else than builder.toml and this program ask for",
            where=where,
            remedy=f"see what changes and accept it: python -m builder lock --target {name}",
            detail=changed,
        )
    return locked


def _renamed(project: Project, name: str, locked: LockedTarget) -> Iterator[str]:
    """Bases that builder.toml names otherwise by now; their digests say nothing of those that it names."""
    target = project.targets[name]
    triton = "" if target.is_embedded else target.triton_image
    debian = "" if locked.debian_image is None or project.debian_image == AUTO else project.debian_image
    for what, held, wanted in (
        ("triton_image", locked.triton_image, triton),
        ("debian_image", locked.debian_image, debian),
    ):
        before = held.name if held else ""
        if before != wanted and (wanted or what == "triton_image"):
            yield f"{what}: {before or 'none'} → {wanted or 'none'}"


def wheels(target: Target) -> dict[str, str]:
    """The wheels that are installed for a target, as `LockedTarget.wheels` has them."""
    # Imported here: most builds are held to no lock, and it takes long to load.
    from pip_requirements_parser import RequirementsFile

    dali = f"dali-{target.dali_version or DEFAULT_DALI}.txt"
    files = ["toolchain.txt"]
    if target.is_embedded:
        files += ["triton.txt", dali]
    elif target.toolchain == "wheel":
        files.append(dali)
    found = {}
    for file in files:
        path = package.ROOT / _REQUIREMENTS / file
        if not path.is_file():
            continue  # a DALI that nobody has locked: the build says so
        for each in RequirementsFile.from_file(str(path)).requirements:
            found[each.name] = " ".join([each.get_pinned_version, *sorted(each.hash_options)])
    return dict(sorted(found.items()))


def packages(inventory: Mapping[str, Any]) -> dict[str, str]:
    """Debian's packages in what the stage `inventory` tells, as `LockedTarget.debian` has them."""
    return dict(sorted((each["name"], each["version"]) for each in inventory["debian"]))


def write_packages(locked: LockedTarget | None, folder: Path) -> None:
    """What the Dockerfile's stage `lock` is replaced by; an empty folder without a lock."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{name}={version}\n" for name, version in (locked.debian if locked else {}).items()]
    if lines:
        write_atomically(folder / "debian", "".join(lines))
    else:
        (folder / "debian").unlink(missing_ok=True)


def differences(locked: LockedTarget, now: LockedTarget) -> list[str]:
    """What is out of date, one line each."""
    lines = []
    for what, before, after in (
        ("triton_image", locked.triton_image, now.triton_image),
        ("debian_image", locked.debian_image, now.debian_image),
    ):
        if before and after and before.digest != after.digest:
            lines.append(f"{what} {before.name} is {after.digest} now, not {before.digest}: its tag has moved")
        elif (before and before.name) != (after and after.name):
            lines.append(f"{what} is {after.name if after else 'none'}, not {before.name if before else 'none'}")
    return [*lines, *_changes(locked.wheels, now.wheels), *_changes(locked.debian, now.debian)]


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new:
            was, becomes = (value.split()[0] if value else "none" for value in (old, new))
            yield f"{name}: {was} → {becomes}" if was != becomes else f"{name} {was}: other hashes"
