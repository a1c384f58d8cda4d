"""The engine's own push, and what registries say to it."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from builder.docker import pushed
from builder.docker.engine import Engine
from builder.errors import (
    BuilderError,
    DigestMismatch,
    DiskFull,
    InsecureRegistry,
    NoRegistry,
    PushError,
    RegistryReadOnly,
    Unauthorized,
)
from builder.reference import Digest, Reference
from builder.registry import Descriptor, Manifest
from builder.registry.content import OCI_MANIFEST, as_content

from .records import image
from .registry_in_memory import RegistryInMemory

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
TO = Reference.parse("localhost:5000/mydali:1.0")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("unauthorized: authentication required", Unauthorized),
        ("no basic auth credentials", Unauthorized),
        ("denied: requested access to the resource is denied", Unauthorized),
        ("unexpected status from HEAD request to https://r.example/v2/x: 403 Forbidden", Unauthorized),
        ("unexpected status from POST request to https://r.example/v2/x: 405 Method Not Allowed", RegistryReadOnly),
        ("unsupported: the operation is unsupported", RegistryReadOnly),
        ("failed to do request: dial tcp 127.0.0.1:5000: connect: connection refused", NoRegistry),
        ("dial tcp: lookup r.example: no such host", NoRegistry),
        ("dial tcp 10.0.0.1:443: i/o timeout", NoRegistry),
        ("failed to do request: EOF", NoRegistry),
        ('Get "https://r.example/v2/": http: server gave HTTP response to HTTPS client', InsecureRegistry),
        ("write /var/lib/docker/x: no space left on device", DiskFull),
        ("something else", PushError),
        # Numbers and letters that only look like a status.
        ("failed to do request: dial tcp 127.0.0.1:54013: connect: connection refused", NoRegistry),
        ("failed to copy: dial tcp 10.0.0.1:4053: connect: connection refused", NoRegistry),
        (f"blob sha256:{'403' * 21}0 was not found", PushError),
        ("localhost:5000/geoffrey/mydali: something else", PushError),
    ],
)
def test_a_registry_s_message_is_told_by_what_it_stands_for(message: str, expected: type[BuilderError]) -> None:
    failure = pushed._refused(message, Reference.parse("r.example/team/mydali:1"))
    assert type(failure) is expected
    assert failure.detail == (message,)
    assert failure.remedy


class FakeClient:
    """The SDK's client of an engine with the given registry settings."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def info(self) -> dict[str, Any]:
        return {"RegistryConfig": self.settings}


INSECURE = {"IndexConfigs": {"plain.example:5000": {"Secure": False}, "docker.io": {"Secure": True}}}
NETWORKS = {"IndexConfigs": {}, "InsecureRegistryCIDRs": ["::1/128", "10.0.0.0/8"]}


@pytest.mark.parametrize(
    ("settings", "host"),
    [
        (INSECURE, "other.example"),
        (INSECURE, "docker.io"),
        ({"IndexConfigs": {"localhost:5000": {"Secure": False}}}, "localhost:5000"),
        ({}, "plain.example:5000"),
        (NETWORKS, "192.0.2.1:5000"),
    ],
)
def test_tls_and_this_machine_are_taken(settings: dict[str, Any], host: str) -> None:
    client: Any = FakeClient(**settings)
    pushed._require_tls(Engine(client), Reference.parse(f"{host}/team/mydali:1"))


@pytest.mark.parametrize(("settings", "host"), [(INSECURE, "plain.example:5000"), (NETWORKS, "10.1.2.3:5000")])
def test_plain_http_to_another_host_is_refused(settings: dict[str, Any], host: str) -> None:
    client: Any = FakeClient(**settings)
    with pytest.raises(InsecureRegistry):
        pushed._require_tls(Engine(client), Reference.parse(f"{host}/team/mydali:1"))


def test_only_layers_that_were_sent_count_as_uploaded(console: Console) -> None:
    with pushed._Transfer(console) as transfer:
        for layer, status, current in [
            ("sent", "Preparing", 0),
            ("sent", "Pushing", 10),
            ("sent", "Pushing", 70),
            ("sent", "Pushed", 0),
            ("there", "Layer already exists", 0),
            ("mounted", "Mounted from library/debian", 0),
            ("late", "Pushing", 5),
            ("late", "Layer already exists", 0),
            ("begun", "Pushing", 0),
        ]:
            transfer.feed({"id": layer, "status": status, "progressDetail": {"current": current, "total": 80}})
        transfer.feed({"status": "The push refers to repository [localhost:5000/mydali]"})
    sizes = {"sent": 80, "there": 1000, "mounted": 2000, "late": 4000, "begun": 8000, "unheard": 16000}
    assert transfer.uploaded(sizes) == 80


def test_each_layer_s_end_is_one_line_where_there_is_no_terminal(console: Console) -> None:
    with pushed._Transfer(console) as transfer:
        for status in ("Preparing", "Waiting", "Pushing", "Pushed", "Pushed"):
            transfer.feed({"id": "abc", "status": status, "progressDetail": {}})
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "abc: Pushed\n"


@pytest.mark.parametrize("diff_ids", [["sha256:" + digit * 64 for digit in "cd"], []])
def test_a_layer_s_size_is_known_by_blob_and_by_diff_id(diff_ids: list[str]) -> None:
    layers = [Descriptor("layer", Digest(digest), size).as_json() for digest, size in ((DIGEST, 1), (OTHER, 20))]
    held = Manifest(Digest(DIGEST), OCI_MANIFEST, json.dumps({"layers": layers}).encode())
    by_blob = {"a" * 12: 1, "b" * 12: 20}
    by_diff_id = {"c" * 12: 1, "d" * 12: 20} if diff_ids else {}
    assert pushed._sizes(held, diff_ids) == by_blob | by_diff_id


class PushingClient(FakeClient):
    """Of an engine that pushes an image with the configuration `config` and one layer, and says `events` of it."""

    def __init__(self, registry: RegistryInMemory, config: str, *events: dict[str, Any]) -> None:
        super().__init__()
        self.api = self
        self.registry = registry
        self.config = config
        self.events = events
        self.tags: list[tuple[str, str, str]] = []

    def tag(self, image: str, repository: str, tag: str, **_: object) -> None:
        self.tags.append((image, repository, tag))

    def push(self, _repository: str, tag: str, **_: object) -> Any:
        layer = Descriptor("layer", Digest(OTHER), 80).as_json()
        config = Descriptor("config", Digest(self.config), 1).as_json()
        yield from self.events
        self.registry.put_manifest(as_content({"config": config, "layers": [layer]}), OCI_MANIFEST, tag)


def by_engine(client: PushingClient, console: Console) -> tuple[Manifest, int, int]:
    sdk: Any = client
    registry: Any = client.registry
    return pushed.by_engine(Engine(sdk), image(DIGEST), TO, registry, console)


def test_the_engine_pushes_under_the_tag_and_the_registry_is_asked_what_it_has(console: Console) -> None:
    events = [{"id": "b" * 12, "status": "Pushing", "progressDetail": {"current": 80, "total": 80}}]
    client = PushingClient(RegistryInMemory("localhost:5000/mydali"), DIGEST, *events)
    held, sent, mounted = by_engine(client, console)
    assert client.tags == [(DIGEST, "localhost:5000/mydali", "1.0")]
    assert client.registry.manifests["1.0"] == held
    assert (sent, mounted) == (80, 0)


def test_another_image_under_the_tag_is_told(console: Console) -> None:
    with pytest.raises(DigestMismatch, match="not the image that was verified"):
        by_engine(PushingClient(RegistryInMemory(), OTHER), console)


def test_a_push_that_the_registry_refuses_leaves_it_at_that(console: Console) -> None:
    client = PushingClient(RegistryInMemory(), DIGEST, {"error": "denied: requested access is denied"})
    with pytest.raises(Unauthorized):
        by_engine(client, console)
    assert client.registry.manifests == {}
