"""`push` and `promote` as they are typed, to a registry in memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from builder import project as projects
from builder.artifacts import Image, Pushed, Verification
from builder.attest import image_signature
from builder.attest.statement import MEDIA_TYPE, PROVENANCE, SBOM, VERIFICATION
from builder.docker.engine import Engine
from builder.project import Project
from builder.reference import Digest
from builder.steps import push as step
from builder.steps.attest import PREDICATE_TYPE

from . import attested
from .built import BASE_LAYERS, image_of, parts_of
from .conftest import Run, document
from .records import verification
from .registry_in_memory import RegistryInMemory
from .test_steps_push import FakeClient

PROJECT = """\
repository = "localhost:5000/mydali"
tags = ["1.4", "latest"]
[targets.embedded]
[targets.embedded-dali2]
dali = "2.1.1"
"""
OTHER = "sha256:" + "b" * 64


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> RegistryInMemory:
    made = RegistryInMemory("localhost:5000/mydali")
    monkeypatch.setattr(step, "Registry", SimpleNamespace(connect=lambda _: made))
    return made


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    made = FakeClient(*BASE_LAYERS)
    sdk: Any = made
    monkeypatch.setattr(Engine, "connect", lambda: Engine(sdk))
    return made


@pytest.fixture
def here(tmp_path: Path, client: FakeClient, registry: RegistryInMemory) -> Project:
    """Both targets are built and proven."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "builder.toml").write_text(PROJECT)
    made = projects.load(root, (), {})
    for target in made.targets:
        parts = parts_of(made, target)
        built = image_of(made, parts, own=target.encode())
        told = verification(built.digest).model_copy(update={"target": target, "models": (attested.MODEL,)})
        told.save(made).keep(made)
    return made


def digest(here: Project, target: str = "embedded") -> str:
    return Image.load(here, target).digest


def tagged(registry: RegistryInMemory) -> dict[str, str]:
    return {name: str(held.digest) for name, held in registry.manifests.items() if not name.startswith("sha256:")}


def statements(registry: RegistryInMemory, of: str) -> set[str]:
    return {each.annotations[PREDICATE_TYPE] for each in registry.referrers(Digest(of), MEDIA_TYPE)}


def verbs(registry: RegistryInMemory) -> list[str]:
    """What came after the layers, reads between and logins left out."""
    return [verb for verb, _ in registry.journal if verb in ("upload", "put", "attach")]


def key(folder: Path) -> Path:
    made = ec.generate_private_key(ec.SECP256R1())
    path = folder / "cosign.key"
    path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def test_a_push_puts_the_digest_then_what_is_said_of_it_and_the_tags_last(
    run: Run, here: Project, registry: RegistryInMemory
) -> None:
    of = digest(here)
    status, out, _ = run("push", "-C", str(here.root))
    assert (status, out) == (0, f"localhost:5000/mydali@{of}\n")
    assert verbs(registry) == [*["upload"] * 4, "put", *["attach"] * 3, "put", "put"]
    puts = [what for verb, what in registry.journal if verb == "put"]
    assert puts == [of, "1.4", "latest"]
    # It is read back before anything is said of it.
    journal = registry.journal
    assert journal.index(("read", of)) < journal.index(("attach", of))
    assert tagged(registry) == {"1.4": of, "latest": of}
    assert statements(registry, of) == {VERIFICATION, PROVENANCE, SBOM}


def test_what_was_pushed_is_recorded_and_is_what_compose_serves(
    run: Run, here: Project, registry: RegistryInMemory
) -> None:
    (here.root / ".env").write_text("MINE=1\n")
    status, out, _ = run("push", "-C", str(here.root), "--json")
    told = document(out)["pushed"]
    assert (status, [each["tag"] for each in told]) == (
        0,
        [f"localhost:5000/mydali:{tag}" for tag in ("1.4", "latest")],
    )
    assert Pushed.load(here, "embedded").reference == f"localhost:5000/mydali@{digest(here)}"
    assert (here.root / ".env").read_text() == f"MINE=1\nIMAGE=localhost:5000/mydali@{digest(here)}\n"


def test_pushing_again_sends_nothing_and_says_the_same(run: Run, here: Project, registry: RegistryInMemory) -> None:
    run("push", "-C", str(here.root))
    written = registry.written
    status, out, _ = run("push", "-C", str(here.root), "--json")
    assert (status, {each["bytes_uploaded"] for each in document(out)["pushed"]}) == (0, {0})
    assert registry.written == written


def test_all_targets_are_pushed_each_with_its_own_tags(run: Run, here: Project, registry: RegistryInMemory) -> None:
    status, out, _ = run("push", "-C", str(here.root), "--target", "all")
    first, second = digest(here), digest(here, "embedded-dali2")
    assert (status, out) == (0, f"localhost:5000/mydali@{first}\nlocalhost:5000/mydali@{second}\n")
    assert {tag for tag, of in tagged(registry).items() if of == first} == {"1.4", "latest"}
    others = {tag for tag, of in tagged(registry).items() if of == second}
    assert others == {str(each.tag) for each in here.pushed_as("embedded-dali2")}
    # compose serves the first.
    assert f"IMAGE=localhost:5000/mydali@{first}\n" in (here.root / ".env").read_text()


def test_one_image_that_was_not_proven_keeps_all_of_them_here(
    run: Run, here: Project, registry: RegistryInMemory
) -> None:
    Verification.discard(here, "embedded-dali2")
    status, out, _ = run("push", "-C", str(here.root), "--target", "all", "--json")
    assert (status, document(out)["error"]["code"]) == (6, "not-verified")
    assert (registry.journal, (here.root / ".env").exists()) == ([], False)


def test_an_image_that_was_built_again_is_not_pushed(run: Run, here: Project, registry: RegistryInMemory) -> None:
    Image.load(here, "embedded").model_copy(update={"digest": OTHER}).save(here)
    status, out, _ = run("push", "-C", str(here.root), "--json")
    assert (status, document(out)["error"]["code"]) == (6, "not-verified")
    assert registry.journal == []


def test_a_failed_statement_leaves_the_image_without_a_tag(run: Run, here: Project, registry: RegistryInMemory) -> None:
    (here.state / "embedded" / "parts" / "inventory.json").unlink()
    status, out, _ = run("push", "-C", str(here.root), "--json")
    assert (status, document(out)["error"]["code"]) == (2, "nothing-built")
    assert tagged(registry) == {}
    assert Pushed.find(here, "embedded") is None


def test_another_tag_or_repository_can_be_given(run: Run, here: Project, registry: RegistryInMemory) -> None:
    assert run("push", "localhost:5000/mydali:9", "-C", str(here.root))[0] == 0
    assert set(tagged(registry)) == {"9"}


def test_a_push_that_is_signed_signs_statements_and_image(
    run: Run, here: Project, registry: RegistryInMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COSIGN_PASSWORD", raising=False)
    assert run("push", "-C", str(here.root), "--sign", str(key(tmp_path)))[0] == 0
    of = digest(here)
    types = {each.artifact_type for each in registry.attached[of]}
    assert MEDIA_TYPE not in types
    assert len(registry.attached[of]) == 3
    assert image_signature.tag(Digest(of)) in registry.manifests
    # Signatures are there before any tag is.
    puts = [what for verb, what in registry.journal if verb == "put"]
    assert puts == [of, image_signature.tag(Digest(of)), "1.4", "latest"]


def test_a_key_that_is_none_is_told_before_anything_is_sent(
    run: Run, here: Project, registry: RegistryInMemory
) -> None:
    status, out, _ = run("push", "-C", str(here.root), "--sign", str(here.root / "builder.toml"), "--json")
    assert (status, document(out)["error"]["code"]) == (2, "signing-key-invalid")
    assert registry.journal == []


# without a tag


def test_an_unproven_image_can_be_pushed_without_a_tag(run: Run, here: Project, registry: RegistryInMemory) -> None:
    Verification.discard(here, "embedded")
    status, out, _ = run("push", "-C", str(here.root), "--untagged")
    of = digest(here)
    assert (status, out) == (0, f"localhost:5000/mydali@{of}\n")
    assert tagged(registry) == {}
    assert statements(registry, of) == {PROVENANCE, SBOM}
    assert not (here.root / ".env").exists()


def test_a_verification_of_another_image_is_not_attached(run: Run, here: Project, registry: RegistryInMemory) -> None:
    verification(OTHER).save(here)
    assert run("push", "-C", str(here.root), "--untagged")[0] == 0
    assert statements(registry, digest(here)) == {PROVENANCE, SBOM}


@pytest.mark.parametrize(
    "arguments",
    [
        ("localhost:5000/mydali:1", "--untagged"),
        ("localhost:5000/mydali:1", "--target", "all"),
        (f"localhost:5000/mydali@{OTHER}",),
    ],
)
def test_what_cannot_be_is_refused(
    run: Run, here: Project, registry: RegistryInMemory, arguments: tuple[str, ...]
) -> None:
    status, out, _ = run("push", *arguments, "-C", str(here.root), "--json")
    assert (status, document(out)["error"]["code"]) == (2, "usage")
    assert registry.journal == []


def test_the_older_image_store_cannot_push_without_a_tag(
    run: Run, here: Project, registry: RegistryInMemory, client: FakeClient
) -> None:
    client.older = True
    status, out, _ = run("push", "-C", str(here.root), "--untagged", "--json")
    assert (status, document(out)["error"]["code"]) == (2, "usage")
    assert registry.journal == []


# promote


@pytest.fixture
def untagged(run: Run, here: Project, registry: RegistryInMemory) -> str:
    """The reference of an image that is in the registry by its digest alone, unproven there."""
    Verification.discard(here, "embedded")
    _, out, _ = run("push", "-C", str(here.root), "--untagged")
    registry.journal.clear()
    return out.strip()


def test_what_was_proven_here_gets_its_verification_and_then_its_tags(
    run: Run, here: Project, registry: RegistryInMemory, untagged: str
) -> None:
    status, out, _ = run("promote", untagged, "--tag", "1.4", "--tag", "latest", "-C", str(here.root))
    of = digest(here)
    assert (status, out) == (0, untagged + "\n")
    assert verbs(registry) == ["attach", "put", "put"]
    assert tagged(registry) == {"1.4": of, "latest": of}
    assert statements(registry, of) == {VERIFICATION, PROVENANCE, SBOM}


def test_what_was_not_proven_here_is_not_promoted(
    run: Run, here: Project, registry: RegistryInMemory, untagged: str
) -> None:
    Verification.forget(here, digest(here))
    status, out, _ = run("promote", untagged, "--tag", "1.4", "-C", str(here.root), "--json")
    error = document(out)["error"]
    assert (status, error["code"]) == (6, "not-verified")
    assert error["remedy"] == f"python -m builder smoke {untagged}"
    assert registry.journal == []


def test_what_is_not_in_the_registry_is_not_promoted(run: Run, here: Project, registry: RegistryInMemory) -> None:
    status, out, _ = run(
        "promote", f"localhost:5000/mydali@{digest(here)}", "--tag", "1", "-C", str(here.root), "--json"
    )
    assert (status, document(out)["error"]["code"]) == (6, "push-failed")
    assert registry.manifests == {}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("localhost:5000/mydali:1.4", "--tag", "latest"), "usage"),
        (("localhost:5000/mydali", "--tag", "latest"), "usage"),
        ((f"localhost:5000/mydali@{OTHER}",), "usage"),
        ((f"localhost:5000/mydali@{OTHER}", "--tag", "a b"), "reference-invalid"),
        (("Not/A/Reference", "--tag", "latest"), "reference-invalid"),
    ],
)
def test_what_cannot_be_promoted_is_refused(
    run: Run, here: Project, registry: RegistryInMemory, arguments: tuple[str, ...], code: str
) -> None:
    status, out, _ = run("promote", *arguments, "-C", str(here.root), "--json")
    assert (status, document(out)["error"]["code"]) == (2, code)
    assert registry.journal == []
