"""What Docker's configuration and its credential helpers have for a registry."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field

import docker.auth
import docker.errors

from builder.errors import MachineError
from builder.process import redact
from builder.reference import DOCKER_HUB


@dataclass(frozen=True)
class Credentials:
    """A user and a password, or a token that stands for both; or neither."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def is_anonymous(self) -> bool:
        return not (self.user or self.identity_token)


def credentials(host: str) -> Credentials:
    """Those for a registry.

    Raises:
        MachineError: Docker's configuration, or a credential helper that it names, does not work.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a helper that is missing is an error below
            found = docker.auth.load_config().resolve_authconfig(None if host == DOCKER_HUB else host) or {}
    except (docker.errors.DockerException, OSError, ValueError) as error:
        raise MachineError(
            "Docker's credentials cannot be read",
            where=os.environ.get("DOCKER_CONFIG", "~/.docker"),
            remedy="see its message: a credential helper may be missing; `docker login` writes the configuration anew",
            detail=[redact(str(error).splitlines()[0]) if str(error) else type(error).__name__],
        ) from None
    user = str(found.get("Username") or found.get("username") or "")
    password = str(found.get("Password") or found.get("password") or "")
    return Credentials(user, password, str(found.get("IdentityToken") or found.get("identitytoken") or ""))
