"""A registry in this process, as odd as a test wants it. It keeps what it gets, as registries do."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Oddities:
    """How a registry differs from the specification, or uses its freedom."""

    absolute: str = ""
    """Put before the Location of an upload, such as http://other.host."""
    range_form: str = "0-{last}"
    """The Range of an upload's answers; empty: none."""
    status: int = 204
    """Of an upload's state; a 4xx: it cannot tell."""
    cuts: list[int] = field(default_factory=list)
    """Breaks the connection after so many bytes of a chunk, once each, and keeps those."""
    forgets: bool = False
    """Throws an upload away when its connection breaks."""
    least: int = 0
    """OCI-Chunk-Min-Length."""
    digest_header: str | None = ""
    """Docker-Content-Digest of what it stored: the true one, another, or None: none."""
    referrers: bool = False
    """Has the interface for referrers, one in each page."""
    ranges: bool = True
    """Gives parts of blobs."""
    broken_reads: list[int] = field(default_factory=list)
    """Breaks the connection after so many bytes of a blob, once each."""
    mounts: int = 201


class FakeRegistry:
    """Serves on 127.0.0.1; `script` has answers that come first, by method and a part of the path, once each."""

    def __init__(self, oddities: Oddities | None = None) -> None:
        self.odd = oddities or Oddities()
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.script: list[tuple[str, str, Answer]] = []
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.received = 0
        self.chunks: list[int] = []
        fake = self

        class Handler(_Handler):
            registry = fake

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def says(self, method: str, part: str, status: int, body: str = "", **headers: str) -> None:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.script.append((method, part, (status, given, body.encode())))

    def count(self, method: str, part: str = "") -> int:
        return sum(each == method and part in path for each, path, _ in self.asked)

    def headers(self, method: str, part: str = "") -> list[dict[str, str]]:
        return [headers for each, path, headers in self.asked if each == method and part in path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    registry: FakeRegistry

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self) -> None:
        registry, path = self.registry, self.path
        registry.asked.append((self.command, path, dict(self.headers)))
        for each in registry.script:
            if each[0] == self.command and each[1] in path:
                registry.script.remove(each)
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                return self.give(*each[2])
        parts = urlsplit(path)
        known: tuple[tuple[str, Callable[..., Answer | None]], ...] = (
            (r"/v2/", lambda: (200, {}, b"{}")),
            (r"/v2/team/x/blobs/uploads/", self.begin),
            (r"/v2/team/x/blobs/uploads/(\w+)", self.upload),
            (r"/v2/team/x/blobs/(sha256:\w+)", self.blob),
            (r"/v2/team/x/manifests/(\S+)", self.manifest),
            (r"/v2/team/x/referrers/(\S+)", self.referrers),
        )
        for pattern, serve in known:
            if match := re.fullmatch(pattern, parts.path):
                given = serve(*match.groups())
                return self.give(*given) if given else None
        return self.give(404, {}, b"404 page not found")

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = answer

    def give(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    def state(self, name: str) -> dict[str, str]:
        odd, size = self.registry.odd, len(self.registry.uploads[name])
        headers = {"Location": f"{odd.absolute}/v2/team/x/blobs/uploads/{name}?_state=s3cret{size}"}
        if odd.range_form:
            headers["Range"] = odd.range_form.format(last=max(0, size - 1), size=size)
        return headers

    def begin(self) -> Answer:
        odd, registry = self.registry.odd, self.registry
        if "mount" in self.query() and odd.mounts == 201:
            return 201, {}, b""
        name = f"u{len(registry.asked)}"
        registry.uploads[name] = bytearray()
        least = {"OCI-Chunk-Min-Length": str(odd.least)} if odd.least else {}
        return 202, {**self.state(name), **least}, b""

    def upload(self, name: str) -> Answer | None:
        registry, odd = self.registry, self.registry.odd
        if self.command == "DELETE":
            registry.uploads.pop(name, None)
            return 204, {}, b""
        if name not in registry.uploads:
            return 404, {}, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}'
        if self.command == "GET":
            return (odd.status, self.state(name), b"") if odd.status < 400 else (odd.status, {}, b"")
        held, length = registry.uploads[name], int(self.headers.get("Content-Length", 0))
        if self.command == "PATCH":
            first = int(self.headers["Content-Range"].partition("-")[0])
            if first != len(held):
                self.rfile.read(length)
                return 416, self.state(name), b""
            keep = odd.cuts.pop(0) if odd.cuts else length
            held += self.rfile.read(keep)
            registry.received += keep
            registry.chunks.append(length)
            if keep < length:
                if odd.forgets:
                    del registry.uploads[name]
                self.close_connection = True
                return None
            return 202, self.state(name), b""
        digest = self.query()["digest"][0]
        del registry.uploads[name]
        if digest != "sha256:" + hashlib.sha256(held).hexdigest():
            return 400, {}, b'{"errors":[{"code":"DIGEST_INVALID"}]}'
        registry.blobs[digest] = bytes(held)
        return 201, self.stored(digest), b""

    def stored(self, digest: str) -> dict[str, str]:
        header = self.registry.odd.digest_header
        return {} if header is None else {"Docker-Content-Digest": header or digest}

    def blob(self, digest: str) -> Answer | None:
        registry, odd = self.registry, self.registry.odd
        content = registry.blobs.get(digest)
        if content is None:
            return 404, {}, b""
        first = int((self.headers.get("Range") or "bytes=0-")[6:-1]) if odd.ranges else 0
        if self.command == "GET" and odd.broken_reads:
            self.send_response_only(206 if first else 200)
            self.send_header("Content-Length", str(len(content) - first))
            self.end_headers()
            self.wfile.write(content[first : first + odd.broken_reads.pop(0)])
            self.close_connection = True
            return None
        if first >= len(content):
            return 416, {}, b""
        return (206 if first else 200), {}, content[first:]

    def manifest(self, reference: str) -> Answer:
        registry = self.registry
        if self.command != "PUT":
            kind, content = registry.manifests.get(reference, ("", b""))
            return (200, {"Content-Type": kind}, content) if content else (404, {}, b"")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        for name in (digest, reference):
            registry.manifests[name] = (self.headers["Content-Type"], content)
        subject = json.loads(content).get("subject", {}).get("digest", "")
        refers = {"OCI-Subject": subject} if registry.odd.referrers and subject else {}
        return 201, {**self.stored(digest), **refers}, b""

    def referrers(self, subject: str) -> Answer:
        if not self.registry.odd.referrers:
            return 404, {}, b"404 page not found"
        found: list[dict[str, Any]] = []
        for name, (kind, content) in self.registry.manifests.items():
            document = json.loads(content)
            if document.get("subject", {}).get("digest") == subject:
                referrer = {"mediaType": kind, "digest": name, "size": len(content)}
                found.append({**referrer, "artifactType": document["artifactType"]})
        page = int(self.query().get("page", ["0"])[0])
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
        following = f'</v2/team/x/referrers/{subject}?page={page + 1}>; rel="next"'
        headers = {"Link": following} if page + 1 < len(found) else {}
        return 200, headers, json.dumps({**index, "manifests": found[page : page + 1]}).encode()
