"""A proxy before a real registry, on this machine alone: it injects faults, and keeps a log of what moved."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

_BLOCK = 1 << 16
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "proxy-connection"})


@dataclass(frozen=True)
class Access:
    """One request, as it ended."""

    method: str
    path: str
    """Without the query."""
    status: int
    """0: the connection was cut."""
    received: int
    """Bytes of the request's body that came from the client."""
    sent: int
    """Bytes of the answer's body that went to the client."""
    repeated: bool = False
    """Answered by the proxy: the registry never saw it."""


@dataclass
class _Rule:
    method: str
    part: str
    skip: int
    times: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0


class FaultyRegistry:
    """Passes everything on, but for what it is told to break; `address` takes the place of the registry's.

    Args:
        upstream: host:port of the registry.
        buffered: takes a request in whole before it passes it on, as nginx does by default.
        bytes_per_second: of all request bodies together; 0 is as fast as it goes.
    """

    def __init__(self, upstream: str, *, buffered: bool = False, bytes_per_second: float = 0.0) -> None:
        self.upstream = upstream
        self.buffered = buffered
        self.bytes_per_second = bytes_per_second
        self.log: list[Access] = []
        self.uploaded = 0  # bytes of PATCH and PUT bodies so far, of all requests
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._cuts: list[int] = []
        self._token_uses = 0
        self._tokens: dict[str, int] = {}
        proxy = self

        class Handler(_Handler):
            faults = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> FaultyRegistry:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        return f"localhost:{self._server.server_port}"

    def cut(self, *after: int) -> None:
        """Breaks the connection when so many bytes of uploads have come, counted over all connections from now on."""
        with self._lock:
            self._cuts = sorted(self.uploaded + each for each in after)

    def answer(
        self,
        status: int,
        method: str,
        part: str = "",
        *,
        skip: int = 0,
        times: int = 1,
        headers: dict[str, str] | None = None,
        body: str = "",
    ) -> None:
        """Answers requests of `method` whose path contains `part` itself: `times` of them, after the first `skip`."""
        self._rules.append(_Rule(method, part, skip, times, status, headers or {}, body.encode()))

    def delay(self, seconds: float, method: str, part: str = "", times: int = 1) -> None:
        """Passes such requests on at once, and their answers only after `seconds`."""
        self._rules.append(_Rule(method, part, 0, times, delay=seconds))

    def require_tokens(self, uses: int) -> None:
        """Wants a bearer token for everything, each of which is good for so many requests."""
        self._token_uses = uses

    def requests(self, method: str, part: str = "") -> list[Access]:
        """What was logged of such requests, those included that the proxy answered."""
        return [each for each in list(self.log) if each.method == method and part in each.path]

    def rule(self, method: str, path: str) -> _Rule | None:
        with self._lock:
            for each in self._rules:
                if each.method != method or each.part not in path or not each.times:
                    continue
                if each.skip:
                    each.skip -= 1
                    continue
                each.times -= 1
                return each
        return None

    def arrived(self, count: int) -> int:
        """Counts bytes of an upload; gives how many of them come through before the connection is cut."""
        with self._lock:
            before, self.uploaded = self.uploaded, self.uploaded + count
            if self._cuts and self.uploaded >= self._cuts[0]:
                # What comes after the cut never came.
                self.uploaded = self._cuts.pop(0)
                return self.uploaded - before
        return -1

    def new_token(self) -> str:
        with self._lock:
            token = f"token-{len(self._tokens)}"
            self._tokens[token] = self._token_uses
        return token

    def is_allowed(self, authorization: str) -> bool:
        token = authorization.removeprefix("Bearer ")
        with self._lock:
            if not self._token_uses:
                return True
            left = self._tokens.get(token, 0)
            self._tokens[token] = left - 1
        return left > 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what the tests are about."""


class _Cut(Exception):
    pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    faults: FaultyRegistry

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_one(self) -> None:
        self.received, self.is_logged = 0, False
        try:
            self._serve(urlsplit(self.path).path)
        except _Cut:
            self._log(0, 0)
            # A reset, not an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        except (OSError, http.client.HTTPException):
            self._log(0, 0)
            self.close_connection = True

    def handle_one_request(self) -> None:
        if self.rfile.peek(1)[:1] == b"\x16":
            # TLS. The engine tries HTTP after an answer in HTTP alone, which is what servers written in Go give.
            self.wfile.write(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n")
            self.close_connection = True
            return
        super().handle_one_request()

    def _log(self, status: int, sent: int, repeated: bool = False) -> None:
        """Before the client has the end of its answer: who has it finds it in the log."""
        if not self.is_logged:
            self.is_logged = True
            path = urlsplit(self.path).path
            self.faults.log.append(Access(self.command, path, status, self.received, sent, repeated))

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = handle_one

    def _serve(self, path: str) -> None:
        if path == "/token":
            self._own(200, {}, f'{{"token": "{self.faults.new_token()}"}}'.encode())
            return
        if not self.faults.is_allowed(self.headers.get("Authorization", "")):
            challenge = f'Bearer realm="http://{self.faults.address}/token",service="faulty"'
            self._own(401, {"Www-Authenticate": challenge}, b"{}")
            return
        rule = self.faults.rule(self.command, path)
        if rule and rule.status:
            self._own(rule.status, rule.headers, rule.body)
        else:
            self._pass_on(rule.delay if rule else 0.0)

    def _own(self, status: int, headers: dict[str, str], body: bytes) -> None:
        for _ in self._body():
            pass
        self._log(status, len(body), True)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if self.command != "HEAD" else b"")

    def _pass_on(self, delay: float) -> None:
        host, _, port = self.faults.upstream.rpartition(":")
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=600)) as upstream:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP and not (name.lower() == "authorization" and "token-" in value):
                    upstream.putheader(name, value)  # the Host too: so the registry's addresses are ours
            chunked = "Content-Length" not in self.headers and "Transfer-Encoding" in self.headers
            if chunked:
                upstream.putheader("Transfer-Encoding", "chunked")
            else:
                upstream.putheader("Content-Length", self.headers.get("Content-Length", "0"))
            blocks: Iterable[bytes] = self._body()
            if self.faults.buffered:
                blocks = list(blocks)
            upstream.endheaders()
            for block in blocks:
                upstream.send(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
            if chunked:
                upstream.send(b"0\r\n\r\n")
            answer = upstream.getresponse()
            time.sleep(delay)
            self._give(answer)

    def _give(self, answer: http.client.HTTPResponse) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP - {"content-length"}:
                self.send_header(name, value)
        length = answer.getheader("Content-Length")
        if length is None and self.command != "HEAD" and answer.status != 204:
            self.send_header("Connection", "close")
            self.close_connection = True
        sent, block = 0, answer.read(_BLOCK)
        if not block:
            self._log(answer.status, 0)
        self.end_headers()
        while block:
            sent, following = sent + len(block), answer.read(_BLOCK)
            if not following:
                self._log(answer.status, sent)
            self.wfile.write(block)
            block = following

    def _body(self) -> Iterator[bytes]:
        is_upload = self.command in ("PATCH", "PUT") and "/blobs/" in self.path
        for block in self._decoded():
            keep = self.faults.arrived(len(block)) if is_upload else -1
            self.received += len(block) if keep < 0 else keep
            if self.faults.bytes_per_second:
                time.sleep(len(block) / self.faults.bytes_per_second)
            if keep >= 0:
                yield block[:keep]
                raise _Cut
            yield block

    def _decoded(self) -> Iterator[bytes]:
        """The request's body, whichever way its length is told."""
        if "Content-Length" in self.headers:
            left = int(self.headers["Content-Length"])
            while left:
                block = self.rfile.read(min(_BLOCK, left))
                if not block:
                    raise ConnectionError("the client went away")
                left -= len(block)
                yield block
        elif "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
