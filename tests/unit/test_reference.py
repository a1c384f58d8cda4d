from __future__ import annotations

import pytest

from builder.errors import BadReference
from builder.reference import Digest, Reference

SHA = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "text",
    [
        "localhost:5000/mydali",
        "localhost/mydali:1.0",
        "registry.example.com/team/my-dali_x/a.b:V1_2-3",
        f"localhost:5000/mydali@{SHA}",
        f"localhost:5000/mydali:1.0@{SHA}",
        "[::1]:5000/mydali:1",
        "docker.io/library/debian:12-slim",
    ],
)
def test_a_full_reference_prints_as_it_was_written(text: str) -> None:
    assert str(Reference.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("debian", "docker.io/library/debian"),
        ("debian:12", "docker.io/library/debian:12"),
        ("docker.io/debian", "docker.io/library/debian"),
        ("team/mydali:1", "docker.io/team/mydali:1"),
        ("a/b/c", "docker.io/a/b/c"),
        ("localhost:5000", "docker.io/library/localhost:5000"),
    ],
)
def test_what_names_no_host_is_on_docker_hub(text: str, full: str) -> None:
    assert str(Reference.parse(text)) == full


@pytest.mark.parametrize(
    "text",
    [
        "",
        "UPPER",
        "Team/mydali",
        "localhost:5000/MyDali",
        "localhost:5000/",
        "localhost:port/mydali",
        "my dali",
        "mydali:",
        "mydali:-1",
        "mydali:" + "x" * 129,
        "mydali@sha256:123",
        f"mydali@{SHA.upper()}",
        "a//b",
        "a/.b",
        "mydali\n",
        "https://localhost:5000/mydali",
    ],
)
def test_anything_else_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(BadReference) as failure:
        Reference.parse(text)
    assert failure.value.remedy


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("registry.localhost:5000", True),
        ("127.0.0.1", True),
        ("127.8.9.10:5000", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("10.0.0.1:5000", False),
        ("[2001:db8::1]:5000", False),
        ("registry.example.com", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com:5000", False),
    ],
)
def test_loopback_is_this_machine_alone(host: str, loopback: bool) -> None:
    assert Reference.parse(f"{host}/mydali").is_loopback is loopback


def test_a_tag_replaces_tag_and_digest() -> None:
    assert str(Reference.parse(f"localhost/x:1@{SHA}").with_tag("2")) == "localhost/x:2"


def test_a_digest_replaces_the_tag() -> None:
    assert str(Reference.parse("localhost/x:1").with_digest(Digest(SHA))) == f"localhost/x@{SHA}"


@pytest.mark.parametrize("text", ["", SHA[:-1], SHA + "0", SHA.upper(), "sha512:" + "0" * 64, SHA + "\n"])
def test_a_malformed_digest_cannot_be_made(text: str) -> None:
    with pytest.raises(BadReference):
        Digest(text)
