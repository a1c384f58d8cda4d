"""Which of an engine's images this program made, by their labels and names alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from builder.bases import OURS as PREFIX
from builder.errors import BadReference, NoRecord
from builder.recipe import OCI, OURS
from builder.record import LABEL, Record
from builder.reference import DOCKER_HUB, Reference

_REMADE = re.compile(rf"{PREFIX}(?:embedded:\d+\.\d+\.\d+-[0-9a-f]{{12}}|(?:husk|toolchain):[0-9a-f]{{12}})")
_TOOLS = re.compile(rf"{PREFIX}(?:debian|registry|browser):[\w.-]+")
_ON_TRIAL = ("", "_load", "_rebase")
"""What is added to the name of a target's image as long as it is not proven."""


@dataclass(frozen=True)
class Owned:
    """An image of this program's."""

    repository: str
    """The project's that it was built for; empty for those that any project may use."""
    target: str
    tool: bool = False
    """Whether it is no part of builds, but what they start from, or what serves tests: a Debian, a registry."""
    foreign: tuple[str, ...] = ()
    """The names that somebody else gave it."""


def owned(names: Sequence[str], labels: Mapping[str, str]) -> Owned | None:
    """Whose an image is; None for what this program did not make.

    Args:
        names: all tags, and REPOSITORY@DIGEST.
    """
    if any(name.startswith(OURS) for name in labels):
        repository, target = _made_for(labels)
        return Owned(repository, target, foreign=tuple(each for each in names if not _is_own(each, repository, target)))
    if any(map(_REMADE.fullmatch, names)):
        return Owned("", "", foreign=tuple(each for each in names if not _is_program_s(each)))
    if any(map(_TOOLS.fullmatch, names)):
        return Owned("", "", tool=True, foreign=tuple(each for each in names if not _is_program_s(each)))
    return None


def is_just_made(names: Sequence[str]) -> bool:
    """Whether these are names that a command gives to what it will need in a moment, or works on.

    They are those of an image on trial, of what images are made of, and the digest alone, which a pull for `smoke`
    leaves.

    Args:
        names: all tags, and REPOSITORY@DIGEST.
    """
    trials = tuple(each for each in _ON_TRIAL if each)
    return any("@" not in name and (name.endswith(trials) or _is_program_s(name)) for name in names) or (
        bool(names) and all("@" in name for name in names)
    )


def local_name(repository: str, target: str) -> str:
    """As `Project.local_name`."""
    return f"{repository.rpartition('/')[2].partition(':')[0]}:{target}"


def _made_for(labels: Mapping[str, str]) -> tuple[str, str]:
    """Repository and target; of the former only the path where the image has no record that this version knows."""
    try:
        record = Record.read(labels, LABEL)
    except NoRecord:
        return labels.get(f"{OCI}title", ""), labels.get(f"{OURS}target", "")
    return record.repository, record.target


def _is_own(name: str, repository: str, target: str) -> bool:
    """Whether it is a name that this program gives, or that a pull by digest leaves."""
    try:
        its, home = Reference.parse(name), Reference.parse(repository)
    except BadReference:
        return False
    if its.tag is None:  # the digest's: every tag brings one, and a pull for `smoke` leaves nothing else
        return its.path.rpartition("/")[2] == home.path.rpartition("/")[2] or _is_local(its)
    local = local_name(repository, target)
    return its.repository == home.repository or name in {local + each for each in _ON_TRIAL}


def _is_local(reference: Reference) -> bool:
    return reference.host == DOCKER_HUB and reference.path.startswith("library/")


def _is_program_s(name: str) -> bool:
    return bool(_REMADE.fullmatch(name) or _TOOLS.fullmatch(name) or re.fullmatch(rf"{PREFIX}\w+@sha256:\w+", name))
