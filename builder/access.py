"""What a registry lets this machine do: reach it, read, write. Asked of the registry itself, changing nothing in it.

The protocol is that of https://distribution.github.io/distribution/spec/api/ and its token authentication. It is the
engine that pushes: one on another machine, or behind another proxy, may fare differently.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin

import docker.auth
import docker.errors
import requests
import requests.exceptions
import requests.utils

from builder.errors import InsecureRegistry, MachineError, NoRegistry, RegistryReadOnly, Unauthorized
from builder.process import redact
from builder.reference import DOCKER_HUB, Reference

_HUB_HOST = "registry-1.docker.io"
_CERTIFICATES = Path("/etc/docker/certs.d")
_PLAIN = ("WRONG_VERSION_NUMBER", "wrong version number", "record layer failure", "packet length too long")
"""What OpenSSL says of an answer that is not TLS."""


@dataclass(frozen=True)
class Credentials:
    """What Docker's configuration and its credential helpers have for a registry."""

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


class Registry:
    """A registry that answers, seen from one repository of it."""

    def __init__(self, repository: Reference, url: str, session: requests.Session, timeout: float) -> None:
        self.repository = repository
        self.url = url
        self.credentials = Credentials()
        self._session = session
        self._timeout = timeout

    @classmethod
    def connect(cls, repository: Reference, timeout: float = 5.0) -> Registry:
        """Asks whether a registry is there, over TLS unless it is on this machine.

        Raises:
            NoRegistry: nothing answers, or what answers is no registry.
            InsecureRegistry: it has no TLS, or a certificate that this machine does not trust.
        """
        session = requests.Session()
        session.auth = lambda request: request  # or it would take what ~/.netrc has, which Docker does not know
        if bundle := _bundle(repository.host):
            session.verify = bundle
        host = _HUB_HOST if repository.host == DOCKER_HUB else repository.host
        for scheme in ("https", "http") if repository.is_loopback else ("https",):
            registry = cls(repository, f"{scheme}://{host}", session, timeout)
            try:
                answer = registry._ask("GET", "/v2/")
            except requests.exceptions.SSLError as error:
                if repository.is_loopback and any(words in str(error) for words in _PLAIN):
                    continue
                raise _untrusted(error, repository) from None
            except requests.exceptions.RequestException as error:
                raise NoRegistry(
                    "no registry answers",
                    where=repository.host,
                    remedy=f"see that a registry runs at {repository.host}; NO_PROXY keeps a proxy out of it",
                    detail=[_reason(error)],
                ) from None
            if answer.status_code in (200, 401):
                return registry
            raise NoRegistry(
                f"what answers at {repository.host} is no registry (HTTP {answer.status_code})",
                where=f"{registry.url}/v2/",
                remedy="correct `repository` in builder.toml",
            )
        raise NoRegistry("no registry answers", where=repository.host, remedy="see that a registry runs there")

    def log_in(self) -> Credentials:
        """Takes what Docker has for it from now on.

        Raises:
            MachineError: see credentials.
        """
        self.credentials = credentials(self.repository.host)
        return self.credentials

    def read(self) -> bool:
        """Whether the repository exists; one that does not is often made by the first push.

        Raises:
            Unauthorized: it may not be read.
            NoRegistry: the registry stopped answering.
        """
        answer = self._allowed("GET", f"/v2/{self.repository.path}/tags/list?n=1", "read")
        return answer.status_code == 200

    def write(self) -> None:
        """Begins an upload and takes it back: what a push does first.

        Raises:
            Unauthorized: nothing may be written.
            RegistryReadOnly: it takes no writes from anybody.
            NoRegistry: the registry stopped answering, or has no such repository and makes none.
        """
        answer = self._allowed("POST", f"/v2/{self.repository.path}/blobs/uploads/", "write to")
        if answer.status_code == 202:
            self._ask("DELETE", urljoin(f"{self.url}/", answer.headers.get("Location", "")))
            return
        if answer.status_code in (405, 503):
            raise RegistryReadOnly(
                "the registry takes no writes",
                where=str(self.repository),
                remedy="switch its read-only mode off, or push elsewhere",
            )
        raise NoRegistry(
            f"the registry refuses an upload (HTTP {answer.status_code})",
            where=str(self.repository),
            remedy="create the repository there first: not every registry makes one for a push",
            detail=answer.text.splitlines()[:3],
        )

    def _allowed(self, method: str, path: str, verb: str) -> requests.Response:
        try:
            answer = self._ask(method, path)
            if answer.status_code == 401 and self._authorize(answer.headers.get("Www-Authenticate", "")):
                answer = self._ask(method, path)
        except requests.exceptions.RequestException as error:
            raise NoRegistry(
                "the registry stopped answering",
                where=self.repository.host,
                remedy="try again",
                detail=[_reason(error)],
            ) from None
        if answer.status_code in (401, 403):
            anonymous = self.credentials.is_anonymous
            raise Unauthorized(
                f"nobody may {verb} {self.repository.repository} without credentials"
                if anonymous
                else f"the credentials of {self.credentials.user or 'the token'} may not {verb} "
                f"{self.repository.repository}",
                where=self.repository.host,
                remedy=f"docker login {self.repository.host}",
            )
        return answer

    def _ask(self, method: str, where: str) -> requests.Response:
        return self._session.request(
            method, urljoin(f"{self.url}/", where), timeout=self._timeout, allow_redirects=method == "GET"
        )

    def _authorize(self, challenge: str) -> bool:
        """Answers a registry's question who asks; whether there is an answer to it."""
        scheme, _, rest = challenge.partition(" ")
        wanted: dict[str, str] = requests.utils.parse_dict_header(rest)  # type: ignore[no-untyped-call]
        if scheme.lower() == "basic" and not self.credentials.is_anonymous:
            self._session.auth = (self.credentials.user, self.credentials.password)
            return True
        if scheme.lower() != "bearer" or "realm" not in wanted:
            return False
        token = self._token(wanted)
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"
        return bool(token)

    def _token(self, wanted: dict[str, str]) -> str:
        """From the service that the registry names; empty where it gives none."""
        values = {
            "service": wanted.get("service", ""),
            "scope": wanted.get("scope") or f"repository:{self.repository.path}:pull,push",
        }
        known = self.credentials
        if known.identity_token:
            form = {**values, "grant_type": "refresh_token", "refresh_token": known.identity_token}
            form["client_id"] = "triton-dali-builder"
            answer = self._session.post(wanted["realm"], data=form, timeout=self._timeout)
        else:
            user = None if known.is_anonymous else (known.user, known.password)
            answer = self._session.get(wanted["realm"], params=values, auth=user, timeout=self._timeout)
        if answer.status_code != 200:
            return ""
        try:
            given = answer.json()
        except ValueError:
            return ""
        return str(given.get("token") or given.get("access_token") or "") if isinstance(given, dict) else ""


def _bundle(host: str) -> str:
    """The certificates to trust: the engine's own for that registry, or those that this machine is told to use."""
    own = _CERTIFICATES / host / "ca.crt"
    if own.is_file():
        return str(own)
    named = os.environ.get("SSL_CERT_FILE", "")
    return named if Path(named).is_file() else ""


def _untrusted(error: Exception, repository: Reference) -> InsecureRegistry:
    if any(words in str(error) for words in _PLAIN):
        return InsecureRegistry(
            "the registry speaks plain HTTP",
            where=repository.host,
            remedy="plain HTTP is for registries on this machine; give it a certificate",
        )
    return InsecureRegistry(
        "the registry's certificate is not trusted here",
        where=repository.host,
        remedy=f"put the certificate of its authority into {_CERTIFICATES / repository.host / 'ca.crt'}",
        detail=[_reason(error)],
    )


def _reason(error: Exception) -> str:
    """The innermost of the library's nested messages, which is the one that tells."""
    cause = getattr(error.args[0], "reason", error) if error.args else error
    return redact(str(cause).rpartition("): ")[2] or type(error).__name__)[:300]
