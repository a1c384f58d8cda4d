"""A registry that answers, seen from one repository of it: connecting, authentication, and trying again.

The protocol is https://github.com/opencontainers/distribution-spec/blob/main/spec.md with the token authentication of
https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from socket import SO_KEEPALIVE, SOL_SOCKET
from typing import Any, Self, TypeVar
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
import requests.adapters
import requests.auth
import requests.exceptions
import requests.utils
import tenacity
import urllib3
import urllib3.connection
import urllib3.exceptions

from builder.errors import BuilderError, InsecureRegistry, NoRegistry, PushError
from builder.process import redact
from builder.reference import DOCKER_HUB, Reference
from builder.registry.credentials import Credentials, credentials
from builder.registry.refusals import TRANSIENT, is_full, is_half_written, refusal

log = logging.getLogger(__name__)
T = TypeVar("T")

COMMIT_SECONDS = 300.0
"""How long a registry may take to put away what it received: it may copy a blob of gigabytes before it answers."""
_CONNECT_SECONDS = 10.0
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 15.0
"""Seconds between tries: anything up to the first, then twice that, and so on up to the longest."""
_ALTOGETHER = 4.0
"""A question is given up after so many times its patience, waiting and answering together."""
_TOKENS = 3
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 70_000}
"""Seconds, and milliseconds for the last: that of bytes that were sent and never acknowledged."""
_HUB_HOST = "registry-1.docker.io"
_CERTIFICATES = Path("/etc/docker/certs.d")
_PLAIN = ("WRONG_VERSION_NUMBER", "wrong version number", "record layer failure", "packet length too long")
"""What OpenSSL says of an answer that is not TLS."""


class Again(Exception):
    """Worth another try.

    Args:
        reason: what went wrong, without an address.
        answer: what the registry said, where it said anything.
    """

    def __init__(self, reason: str, answer: requests.Response | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer


class Connection:
    """Requests to one registry. Threads may share it."""

    def __init__(
        self, repository: Reference, url: str, session: requests.Session, timeout: float, patience: float
    ) -> None:
        self.repository = repository
        self.url = url
        self.credentials = Credentials()
        self._session = session
        self._timeout = timeout
        self._patience = patience
        self._lock = threading.Lock()
        # By the repository that is mounted from, which needs a token of its own; empty for all else.
        self._authorizations: dict[str, requests.auth.AuthBase] = {}
        self._scopes: dict[str, dict[str, None]] = {}

    @classmethod
    def open(cls, repository: Reference, timeout: float, patience: float) -> Self:
        """Asks whether a registry is there, over TLS unless it is on this machine.

        Raises:
            NoRegistry: nothing answers, or what answers is no registry.
            InsecureRegistry: it has no TLS, or a certificate that this machine does not trust.
        """
        session = _Session()
        # As Docker does: a proxy is never asked for what is on this machine.
        session.trust_env = not repository.is_loopback
        if bundle := _bundle(repository.host):
            session.verify = bundle
        host = _HUB_HOST if repository.host == DOCKER_HUB else repository.host
        for scheme in ("https", "http") if repository.is_loopback else ("https",):
            connection = cls(repository, f"{scheme}://{host}", session, timeout, patience)
            try:
                answer = connection.persist(connection._hello)
            except requests.exceptions.SSLError as error:
                if repository.is_loopback and any(words in str(error) for words in _PLAIN):
                    continue
                raise _untrusted(error, repository) from None
            except requests.exceptions.RequestException as error:
                raise NoRegistry(
                    "no registry answers",
                    where=repository.host,
                    remedy=f"see that a registry runs at {repository.host}; NO_PROXY keeps a proxy out of it",
                    detail=[reason(error)],
                ) from None
            if answer.status_code in (200, 401):
                return connection
            raise NoRegistry(
                f"what answers at {repository.host} is no registry (HTTP {answer.status_code})",
                where=f"{connection.url}/v2/",
                remedy="correct `repository` in builder.toml",
            )
        raise NoRegistry("no registry answers", where=repository.host, remedy="see that a registry runs there")

    def _hello(self) -> requests.Response:
        answer = self._request("GET", f"{self.url}/v2/", None)
        if answer.status_code in TRANSIENT:
            raise Again(f"HTTP {answer.status_code}", answer)
        return answer

    def log_in(self) -> Credentials:
        """Takes what Docker has for it from now on.

        Raises:
            MachineError: see credentials.
        """
        self.credentials = credentials(self.repository.host)
        return self.credentials

    def ask(
        self,
        method: str,
        where: str,
        *,
        ok: Collection[int],
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        seconds: float | None = None,
        stream: bool = False,
        mounting: str = "",
    ) -> requests.Response:
        """A question that may be asked twice, until it has one of the statuses `ok`.

        Args:
            where: a path at the registry, or a Location that it gave.
            seconds: how long the answer may take.
            mounting: the other repository that this is about.

        Raises:
            NoRegistry: the registry stopped answering.
            PushError and those below it: what else it says; see refusals.
        """

        def attempt() -> requests.Response:
            answer = self.once(
                method,
                where,
                headers=headers,
                params=params,
                body=None if content is None else lambda: content,
                seconds=seconds,
                stream=stream,
                mounting=mounting,
            )
            if answer.status_code in ok:
                return answer
            raise self.refused(answer)

        return self.persist(attempt)

    def once(
        self,
        method: str,
        where: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: Callable[[], Any] | None = None,
        seconds: float | None = None,
        stream: bool = False,
        mounting: str = "",
    ) -> requests.Response:
        """One request. A token that is missing or has run out is fetched, and `body` asked for the body again.

        Raises:
            Again: the connection broke.
            InsecureRegistry: the registry sends us to plain HTTP on another machine.
        """
        url = self._absolute(where)
        own = _origin(url) == _origin(self.url)  # no other host gets to see our credentials
        try:
            for _ in range(_TOKENS):
                sent = self._authorizations.get(mounting) if own else None
                answer = self._request(
                    method,
                    url,
                    sent,
                    headers={"Accept-Encoding": "identity", **(headers or {})},
                    params=params,
                    data=body() if body else None,
                    seconds=seconds,
                    stream=stream,
                )
                if answer.status_code != 401 or not own or not self._authorize(answer, sent, mounting):
                    break
                answer.close()
        except requests.exceptions.RequestException as error:
            raise Again(f"{method}: {reason(error)}") from None
        return answer

    def refused(self, answer: requests.Response) -> Exception:
        """What to raise for an answer that is none of those hoped for."""
        if (answer.status_code in TRANSIENT and not is_full(answer)) or is_half_written(answer):
            return Again(f"{answer.request.method}: HTTP {answer.status_code}", answer)
        return refusal(answer, self.repository, self.credentials)

    def persist(self, attempt: Callable[[], T]) -> T:
        """Calls `attempt` until it does not raise Again: with ever longer waits, or those that the registry asks for.

        Raises:
            NoRegistry: the registry stopped answering.
            PushError and those below it: what it said until the end.
        """
        tried: list[str] = []

        def note(state: tenacity.RetryCallState) -> None:
            tried.append(str(state.outcome.exception() if state.outcome else ""))
            log.info("registry %s: %s; again in %.1f s", self.repository.host, tried[-1], state.upcoming_sleep)

        def is_enough(state: tenacity.RetryCallState) -> bool:
            altogether = state.seconds_since_start or 0.0
            return state.idle_for + state.upcoming_sleep > self._patience or altogether > self._patience * _ALTOGETHER

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Again), wait=_wait, stop=is_enough, before_sleep=note, reraise=True
        )
        try:
            return retrying(attempt)
        except Again as last:
            raise self._given_up(last, tried) from None

    def _given_up(self, last: Again, tried: list[str]) -> BuilderError:
        told = [f"try {number}: {each}" for number, each in enumerate([*tried, last.reason], 1)]
        if len(told) > 8:
            told[4:-3] = [f"... {len(told) - 7} more"]
        if last.answer is not None:
            if wait := _retry_after(last.answer):
                told.append(f"it asks to be left alone for {wait:.0f} s")
            return refusal(last.answer, self.repository, self.credentials, told if tried or wait else ())
        if any("HTTP" in each for each in tried):
            return PushError(
                "the registry does not get to the end of it",
                where=str(self.repository),
                remedy="push again when the registry works: what it has already is not sent again",
                detail=told,
            )
        return NoRegistry(
            "the registry stopped answering",
            where=self.repository.host,
            remedy="try again: what it has already is not sent again",
            detail=told if tried else [last.reason],
        )

    def _request(
        self,
        method: str,
        url: str,
        auth: requests.auth.AuthBase | None,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        data: Any = None,
        seconds: float | None = None,
        stream: bool = False,
    ) -> requests.Response:
        return self._session.request(
            method,
            url,
            headers=headers,
            params=params,
            data=data,
            # Or it would take what ~/.netrc has, which Docker does not know.
            auth=auth or _anonymous,
            timeout=(min(_CONNECT_SECONDS, self._timeout), max(self._timeout, seconds or 0.0)),
            allow_redirects=method in ("GET", "HEAD"),
            stream=stream,
        )

    def _absolute(self, where: str) -> str:
        url = urljoin(f"{self.url}/", where)
        parts, own = urlsplit(url), urlsplit(self.url)
        if parts.netloc == own.netloc:
            # A registry behind a proxy may not know that its address begins with https.
            return urlunsplit(parts._replace(scheme=own.scheme))
        _require_tls(url)
        return url

    def _authorize(self, answer: requests.Response, sent: requests.auth.AuthBase | None, mounting: str) -> bool:
        """Answers a registry's question who asks; whether there is a new answer to it."""
        scheme, _, rest = answer.headers.get("Www-Authenticate", "").partition(" ")
        wanted: dict[str, str] = requests.utils.parse_dict_header(rest)  # type: ignore[no-untyped-call]
        with self._lock:
            if self._authorizations.get(mounting) is not sent:
                return True  # another thread was faster
            if scheme.lower() == "basic" and not self.credentials.is_anonymous and sent is None:
                given: requests.auth.AuthBase = requests.auth.HTTPBasicAuth(
                    self.credentials.user, self.credentials.password
                )
            elif scheme.lower() == "bearer" and "realm" in wanted and (token := self._token(wanted, mounting)):
                given = _Bearer(token)
            else:
                return False
            self._authorizations[mounting] = given
        return True

    def _token(self, wanted: dict[str, str], mounting: str) -> str:
        """From the service that the registry names; empty where it gives none."""
        # Rights that were asked for before stay: else two threads would take each other's away.
        scopes = self._scopes.setdefault(mounting, {})
        named = wanted.get("scope") or f"repository:{self.repository.path}:pull,push"
        scopes |= dict.fromkeys(named.split())
        if mounting:
            scopes |= dict.fromkeys([f"repository:{mounting}:pull"])
        service, known = wanted.get("service", ""), self.credentials
        realm = self._absolute(wanted["realm"])
        timeout = (min(_CONNECT_SECONDS, self._timeout), self._timeout)
        if known.identity_token:
            form = {"service": service, "scope": " ".join(scopes), "grant_type": "refresh_token"}
            form |= {"refresh_token": known.identity_token, "client_id": "triton-dali-builder"}
            answer = self._session.post(realm, data=form, timeout=timeout, auth=_anonymous)
        else:
            values = {"service": service, "scope": list(scopes)}
            basic = _anonymous if known.is_anonymous else requests.auth.HTTPBasicAuth(known.user, known.password)
            answer = self._session.get(realm, params=values, auth=basic, timeout=timeout)
        if answer.status_code in TRANSIENT:
            raise Again(f"the token service: HTTP {answer.status_code}", answer)
        if answer.status_code != 200:
            return ""
        try:
            given = answer.json()
        except ValueError:
            return ""
        return str(given.get("token") or given.get("access_token") or "") if isinstance(given, dict) else ""


class _Session(requests.Session):
    """Follows no redirect to plain HTTP on another machine, and never has credentials out of ~/.netrc."""

    def __init__(self) -> None:
        super().__init__()
        for scheme in ("https://", "http://"):
            self.mount(scheme, _Adapter(pool_maxsize=16))

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target:
            _require_tls(urljoin(resp.url, target))
        return target

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        if _origin(str(prepared_request.url)) != _origin(str(response.request.url)):
            prepared_request.headers.pop("Authorization", None)


class _Adapter(requests.adapters.HTTPAdapter):
    """Notices within a minute or so when the other side is gone, and keeps long commits from looking idle."""

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        options = [*urllib3.connection.HTTPConnection.default_socket_options, (SOL_SOCKET, SO_KEEPALIVE, 1)]
        for name, value in _KEEP_ALIVE.items():
            if option := getattr(socket, name, None):  # macOS has others
                options.append((socket.IPPROTO_TCP, option, value))
        super().init_poolmanager(*args, **more, socket_options=options)


class _Bearer(requests.auth.AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        r.headers["Authorization"] = f"Bearer {self._token}"
        return r


def _anonymous(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


_BACKOFF = tenacity.wait_random_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT)


def _wait(state: tenacity.RetryCallState) -> float:
    """Seconds: what the registry asks for, and never less than a part of the first wait."""
    error = state.outcome.exception() if state.outcome else None
    asked = _retry_after(error.answer) if isinstance(error, Again) and error.answer is not None else 0.0
    return asked + max(_BACKOFF(state), _FIRST_WAIT / 5)


def _retry_after(answer: requests.Response) -> float:
    """Seconds; 0 where it does not say."""
    try:
        return urllib3.Retry().parse_retry_after(answer.headers.get("Retry-After", "0"))
    except urllib3.exceptions.InvalidHeader:
        return 0.0


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _require_tls(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not Reference(parts.netloc.rpartition("@")[2], "").is_loopback:
        raise InsecureRegistry(
            f"the registry sends this machine on to plain HTTP at {parts.hostname}",
            where=parts.hostname or "",
            remedy="plain HTTP is for registries on this machine; have it give addresses that begin with https",
        )


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
        detail=[reason(error)],
    )


def reason(error: Exception) -> str:
    """The innermost of the library's nested messages, which is the one that tells; no query of an address is in it."""
    cause = getattr(error.args[0], "reason", error) if error.args else error
    words = redact(str(cause).rpartition("): ")[2] or type(error).__name__)
    return re.sub(r"\?\S+", "", words)[:300]
