"""What is to be served, and with how much of a machine: the same for every kind of manifest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from builder.errors import BadUsage, ReferenceNotPinned
from builder.reference import Digest, Reference

LONGEST_NAME = 53
"""KServe adds `-predictor` to make a Service, whose name is a DNS label: 63 characters at most."""
EXIT_TIMEOUT = 30
"""Seconds that Triton waits for running requests when it is told to stop; `--exit-timeout-secs` says otherwise."""
_EXIT_TIMEOUT = "--exit-timeout-secs"
_ALLOW_METRICS = "--allow-metrics"
_LABEL = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_CPU = re.compile(r"[1-9]\d*m?|(?!0+\.0+$)\d+\.\d{1,3}")
_MEMORY = re.compile(r"([1-9]\d*)(Mi|Gi)")
_MEBIBYTES = {"Mi": 1, "Gi": 1024}


@dataclass(frozen=True)
class Serving:
    """One image as a service.

    Raises:
        ReferenceNotPinned: the image is not named by its digest.
        BadUsage: a name or a quantity that a cluster would refuse.
    """

    name: str
    image: Reference
    platform: str
    """The image's, such as linux/amd64."""
    application: str
    """What the image is of: the project's name."""
    namespace: str = ""
    """Empty for the one that the manifests are applied to."""
    replicas: int = 1
    gpus: int = 0
    """For each replica."""
    cpu: str = "2"
    """Cores, as Kubernetes writes them, such as 2 or 500m."""
    memory: str = "4Gi"
    """For each replica, what is in its shared memory included."""
    shared_memory: str = "1Gi"
    """The size of /dev/shm, through which Python-based backends pass tensors."""
    pull_secrets: tuple[str, ...] = ()
    server_arguments: tuple[str, ...] = ()
    """builder.toml's, which are in the image's command."""

    def __post_init__(self) -> None:
        if not self.image.digest:
            raise ReferenceNotPinned(
                f"{self.image} does not name one image: a tag can move",
                where=str(self.image),
                remedy="give REPOSITORY@sha256:..., as `push` prints it",
            )
        _require(_LABEL, self.name, "--name", "small letters, digits and hyphens, a letter first")
        if len(self.name) > LONGEST_NAME:
            raise BadUsage(
                f"{self.name!r} is too long", where="--name", remedy=f"use {LONGEST_NAME} characters at most"
            )
        if self.namespace:
            _require(_NAMESPACE, self.namespace, "--namespace", "small letters, digits and hyphens, 63 at most")
        for secret in self.pull_secrets:
            _require(_SUBDOMAIN, secret, "--pull-secret", "the name of a Secret, not a credential")
        _require(_CPU, self.cpu, "--cpu", "cores, such as 2, 1.5 or 500m")
        if _mebibytes(self.memory, "--memory") <= _mebibytes(self.shared_memory, "--shared-memory"):
            raise BadUsage(
                f"{self.memory} of memory leave nothing beside {self.shared_memory} of shared memory",
                where="--memory",
                remedy="give more of it: what is in /dev/shm counts as memory of the container",
            )

    @property
    def digest(self) -> Digest:
        """The image's."""
        assert self.image.digest
        return self.image.digest

    @property
    def architecture(self) -> str:
        """As Kubernetes labels its nodes, such as amd64."""
        return self.platform.partition("/")[2]

    @property
    def exit_seconds(self) -> int:
        """How long the server may take to stop."""
        given = _value(self.server_arguments, _EXIT_TIMEOUT)
        return int(given) if given and given.isdecimal() else EXIT_TIMEOUT

    @property
    def has_metrics(self) -> bool:
        """Whether the server listens for Prometheus."""
        return (_value(self.server_arguments, _ALLOW_METRICS) or "true").lower() not in ("false", "0")

    @property
    def selector(self) -> dict[str, str]:
        """The labels that tell this service's pods from all others. A Deployment can never change them."""
        return {"app.kubernetes.io/name": label(self.application), "app.kubernetes.io/instance": self.name}

    @property
    def labels(self) -> dict[str, str]:
        """The recommended ones (kubernetes.io, "Recommended Labels"). A label's value has 63 characters at most, so the
        version is the digest's head."""
        return {
            **self.selector,
            "app.kubernetes.io/version": self.digest.value.removeprefix("sha256:")[:12],
            "app.kubernetes.io/component": "inference-server",
            "app.kubernetes.io/managed-by": "triton-dali-builder",
        }


def label(text: str) -> str:
    """The DNS label that comes closest to a repository's or a target's name."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return (plain if plain[:1].isalpha() else f"triton-{plain}")[:LONGEST_NAME].strip("-")


def _require(form: re.Pattern[str], text: str, where: str, wanted: str) -> None:
    if not form.fullmatch(text):
        raise BadUsage(f"{text!r} is not taken by Kubernetes", where=where, remedy=f"write {wanted}")


def _mebibytes(text: str, where: str) -> int:
    _require(_MEMORY, text, where, "a size, such as 4Gi or 512Mi")
    return int(text[:-2]) * _MEBIBYTES[text[-2:]]


def _value(arguments: Sequence[str], name: str) -> str | None:
    """What the server is told last by `name=VALUE` or `name VALUE`; None where nothing."""
    found = None
    for index, argument in enumerate(arguments):
        if argument.startswith(f"{name}="):
            found = argument.partition("=")[2]
        elif argument == name and index + 1 < len(arguments):
            found = arguments[index + 1]
    return found
