"""Image references and digests: parsed once, at the edge, into types that cannot be malformed.

The grammar is the one of the distribution project: https://distribution.github.io/distribution/spec/api/
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

from builder.errors import BadReference

_HOST = r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<host>{_HOST})/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
DOCKER_HUB = "docker.io"


@dataclass(frozen=True, order=True)
class Digest:
    """`sha256:` and 64 hexadecimal digits."""

    value: str

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.value):
            raise BadReference(
                f"{self.value!r} is not a digest", remedy="a digest is sha256: and 64 lower-case hex digits"
            )

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Reference:
    """`host/path:tag@digest`; the host is Docker Hub's where none is written."""

    host: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a reference as `docker pull` would.

        Raises:
            BadReference: it is none.
        """
        match = _REFERENCE.fullmatch(text)
        if not match:
            raise BadReference(
                f"{text!r} is not an image reference",
                remedy="write it as host[:port]/path[:tag], the path in lower case, such as localhost:5000/mydali:1.0",
            )
        host, path = match["host"], match["path"]
        # As Docker does: the first part is a host only when it looks like one.
        if host and not (set(host) & set(".:[") or host == "localhost"):
            host, path = None, f"{host}/{path}"
            if not re.fullmatch(rf"{_COMPONENT}(?:/{_COMPONENT})*", path):
                raise BadReference(f"{text!r} is not an image reference", remedy="write the path in lower case")
        if host is None or host == DOCKER_HUB:
            host = DOCKER_HUB
            path = path if "/" in path else f"library/{path}"
        return cls(host, path, match["tag"], Digest(match["digest"]) if match["digest"] else None)

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def repository(self) -> str:
        """`host/path`."""
        return f"{self.host}/{self.path}"

    def with_tag(self, tag: str) -> Reference:
        return Reference(self.host, self.path, tag)

    def with_digest(self, digest: Digest) -> Reference:
        """The form that a deployment should use: it can only ever mean one image."""
        return Reference(self.host, self.path, None, digest)

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine, the only place where plain HTTP is taken."""
        host = re.sub(r":[0-9]+$", "", self.host).strip("[]")
        if host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False
