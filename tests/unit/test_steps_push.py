from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from builder.artifacts import Image, Verification
from builder.docker.engine import Engine
from builder.errors import DigestMismatch, NotVerified, PushError
from builder.oci import Layout
from builder.project import Project
from builder.reference import Digest, Reference
from builder.registry import Descriptor, Manifest
from builder.registry.content import OCI_MANIFEST
from builder.steps import push

from . import built as whole_build
from . import test_docker_saved, test_oci
from .records import image, pushed, verification
from .registry_in_memory import RegistryInMemory
from .test_oci import sha256

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
IMAGE = image(DIGEST)
TO = Reference.parse("localhost:5000/mydali:1.0")
BASE_LAYERS = b"base one", b"base two, which is longer"
OURS = b"ours"


def test_the_image_that_was_verified_may_be_pushed() -> None:
    assert push.check_verified(IMAGE, verification(DIGEST)) == verification(DIGEST)


@pytest.mark.parametrize(
    ("record", "what"),
    [
        (None, "no passed verification"),
        (verification(DIGEST, passed=False), "no passed verification"),
        (verification(OTHER), "built again after its verification"),
    ],
)
def test_any_other_image_may_not(record: Verification | None, what: str) -> None:
    with pytest.raises(NotVerified, match=what) as failure:
        push.check_verified(IMAGE, record)
    assert "smoke --target embedded" in failure.value.remedy


def test_only_what_passed_here_is_promoted() -> None:
    what = TO.with_digest(Digest(DIGEST))
    assert push.check_promotable(verification(DIGEST), what) == verification(DIGEST)
    for record in (None, verification(DIGEST, passed=False)):
        with pytest.raises(NotVerified) as failure:
            push.check_promotable(record, what)
        assert failure.value.remedy == f"python -m builder smoke {what}"


class FakeClient(test_docker_saved.FakeClient):
    """The SDK's client of an engine that has the base's layers; `older` is its image store."""

    def __init__(self, *blobs: bytes, older: bool = False) -> None:
        super().__init__(b"", *blobs)
        self.older = older

    def info(self) -> dict[str, Any]:
        return {"DriverStatus": [] if self.older else [["driver-type", "io.containerd.snapshotter.v1"]]}


def engine(client: Any) -> Engine:
    return Engine(client)


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> dict[str, RegistryInMemory]:
    """By host: the one that is pushed to, and that of a base."""
    made = {
        "localhost:5000": RegistryInMemory("localhost:5000/mydali"),
        "base.example.com": RegistryInMemory("base.example.com/team/base"),
    }
    monkeypatch.setattr(push, "Registry", SimpleNamespace(connect=lambda to: made[to.host]))
    return made


@pytest.fixture
def registry(registries: dict[str, RegistryInMemory]) -> RegistryInMemory:
    return registries["localhost:5000"]


def built(project: Project, *own: bytes, **changes: Any) -> Image:
    """What `build` leaves: an image of two layers of the base's and `own`."""
    base = test_oci.base(f"{test_oci.LAYER}+gzip", *BASE_LAYERS)
    layout = test_oci.built(Image.layout(project, "embedded"), *(own or (OURS,)), on=base)
    return image(str(layout.put_on(base)), **changes)


def config(project: Project) -> bytes:
    layout = Layout(Image.layout(project, "embedded"))
    return layout.path(layout.manifest["config"]["digest"]).read_bytes()


def did(registry: RegistryInMemory, *verbs: str) -> list[str]:
    return [what for verb, what in registry.journal if verb in verbs]


def test_an_image_is_pushed_by_digest_and_read_back_and_has_no_tag(
    project: Project, console: Console, registry: RegistryInMemory
) -> None:
    made = built(project)
    pushed = push.run(project, engine(FakeClient(*BASE_LAYERS)), made, TO, console)
    assert [verb for verb, _ in registry.journal] == ["log in", *["upload"] * 4, "put", "read"]
    assert registry.journal[-2:] == [("put", made.digest), ("read", made.digest)]
    assert set(registry.manifests) == {made.digest}
    assert (pushed.reference, pushed.tag, pushed.digest) == (f"localhost:5000/mydali@{made.digest}", "", made.digest)
    content = Layout(Image.layout(project, "embedded")).content
    assert (pushed.media_type, pushed.manifest_bytes) == (OCI_MANIFEST, len(content))
    assert registry.manifests[made.digest].content == content


def test_layers_come_out_of_the_layout_and_of_one_stream_of_the_engine(
    project: Project, console: Console, registry: RegistryInMemory
) -> None:
    client = FakeClient(*BASE_LAYERS)
    pushed = push.run(project, engine(client), built(project), TO, console)
    everything = {*BASE_LAYERS, OURS, config(project)}
    assert set(registry.blobs.values()) == everything
    assert client.streams == 1
    assert did(registry, "upload") == sorted(map(sha256, everything))
    assert (pushed.bytes_uploaded, pushed.bytes_mounted) == (sum(map(len, everything)), 0)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert f"{sha256(OURS)[7:19]}: uploaded 4 bytes" in lines


def test_what_the_registry_has_is_not_sent_again(
    project: Project, console: Console, registry: RegistryInMemory
) -> None:
    made = built(project)
    first = push.run(project, engine(FakeClient(*BASE_LAYERS)), made, TO, console)
    client = FakeClient()
    second = push.run(project, engine(client), made, TO, console)
    assert (second.bytes_uploaded, second.bytes_mounted, client.streams) == (0, 0, 0)
    assert second.digest == first.digest


def test_a_layer_that_is_in_the_image_twice_is_sent_once(
    project: Project, console: Console, registry: RegistryInMemory
) -> None:
    made = built(project, OURS, OURS)
    pushed = push.run(project, engine(FakeClient(*BASE_LAYERS)), made, TO, console)
    assert did(registry, "upload").count(sha256(OURS)) == 1
    assert pushed.bytes_uploaded == sum(map(len, {*BASE_LAYERS, OURS, config(project)}))


def test_layers_of_a_base_in_the_same_registry_are_mounted(
    project: Project, console: Console, registry: RegistryInMemory
) -> None:
    registry.elsewhere["team/base"] = {sha256(each): each for each in BASE_LAYERS}
    client = FakeClient()
    pushed = push.run(project, engine(client), built(project, base="localhost:5000/team/base:1"), TO, console)
    assert did(registry, "mount") == ["team/base"] * 4  # own ones are asked for, too
    assert set(did(registry, "upload")) == {sha256(OURS), sha256(config(project))}
    assert pushed.bytes_mounted == sum(map(len, BASE_LAYERS))
    assert pushed.bytes_uploaded == len(OURS) + len(config(project))
    assert client.streams == 0


def test_layers_of_earlier_pushes_are_mounted_whichever_target_they_were_of(
    project: Project, console: Console, registry: RegistryInMemory
) -> None:
    made = built(project)
    pushed("localhost:5000/earlier@" + OTHER).save(project)
    pushed("localhost:5000/ngc@" + OTHER, target="ngc").save(project)
    registry.elsewhere["ngc"] = {sha256(each): each for each in (*BASE_LAYERS, OURS, config(project))}
    to = push.run(project, engine(FakeClient()), made, TO, console)
    assert did(registry, "mount") == ["earlier", "ngc"] * 4
    assert (to.bytes_uploaded, did(registry, "upload")) == (0, [])


def test_other_registries_and_the_repository_itself_are_not_asked_for_mounts(
    project: Project, console: Console, registry: RegistryInMemory
) -> None:
    pushed("localhost:5000/mydali@" + OTHER).save(project)
    pushed("base.example.com/x@" + OTHER, target="ngc").save(project)
    push.run(project, engine(FakeClient(*BASE_LAYERS)), built(project, base="debian:12"), TO, console)
    assert did(registry, "mount") == []


def test_layers_of_a_base_that_is_nowhere_near_come_out_of_its_registry(
    project: Project, console: Console, registries: dict[str, RegistryInMemory]
) -> None:
    far = registries["base.example.com"]
    for each in BASE_LAYERS:
        far.put(each, "layer")
    client = FakeClient()
    made = built(project, base="base.example.com/team/base:1", in_engine=False)
    push.run(project, engine(client), made, TO, console)
    assert set(registries["localhost:5000"].blobs.values()) == {*BASE_LAYERS, OURS, config(project)}
    assert client.streams == 0
    with push._from_base(made, Digest(sha256(BASE_LAYERS[1])), 5) as stream:
        assert stream.read(100) == BASE_LAYERS[1][5:]


@pytest.mark.parametrize("there", [True, False])
def test_an_image_whose_layers_are_gone_is_not_pushed(
    project: Project, console: Console, registry: RegistryInMemory, there: bool
) -> None:
    made = built(project).model_copy(update={"digest": OTHER}) if there else IMAGE
    with pytest.raises(NotVerified, match="not those of the last build") as failure:
        push.run(project, engine(FakeClient(*BASE_LAYERS)), made, TO, console)
    assert "builder build --target embedded" in failure.value.remedy
    assert (registry.blobs, registry.manifests) == ({}, {})


def test_a_registry_that_does_not_give_back_what_it_took_is_told(
    project: Project, console: Console, registry: RegistryInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "manifest", lambda _: None)
    made = built(project)
    with pytest.raises(PushError, match="does not give back") as failure:
        push.run(project, engine(FakeClient(*BASE_LAYERS)), made, TO, console)
    assert failure.value.where == f"localhost:5000/mydali@{made.digest}"


def test_the_older_image_store_pushes_by_itself(
    project: Project, console: Console, registry: RegistryInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Manifest(Digest(OTHER), "docker", b"12345")
    asked = []

    def by_engine(*given: Any) -> tuple[Manifest, int, int]:
        asked.append(given[1:4])
        return held, 7, 0

    monkeypatch.setattr(push.pushed, "by_engine", by_engine)
    made = push.run(project, engine(FakeClient(older=True)), IMAGE, TO, console)
    assert asked == [(IMAGE, TO, registry)]
    assert (made.digest, made.media_type, made.manifest_bytes, made.bytes_uploaded) == (OTHER, "docker", 5, 7)
    assert did(registry, "put", "upload", "mount") == []


# tags


def there(registry: RegistryInMemory) -> str:
    return str(registry.put_manifest(b'{"layers": []}', OCI_MANIFEST))


def test_a_tag_is_given_to_what_the_registry_has_and_is_read_back(registry: RegistryInMemory) -> None:
    digest = there(registry)
    registry.journal.clear()
    given: Any = registry
    tagged = push.tag(given, pushed(f"localhost:5000/mydali@{digest}"), TO)
    assert tagged.tag == "localhost:5000/mydali:1.0"
    assert registry.journal == [("read", digest), ("put", "1.0"), ("read", "1.0")]
    assert registry.manifests["1.0"] == registry.manifests[digest]


def test_a_tag_that_somebody_else_took_is_told(registry: RegistryInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = there(registry)
    put = registry.put_manifest

    def and_then(content: bytes, media_type: str, tag: str = "") -> Digest:
        put(content, media_type, tag)
        return put(b'{"layers": [1]}', OCI_MANIFEST, tag)

    monkeypatch.setattr(registry, "put_manifest", and_then)
    given: Any = registry
    with pytest.raises(DigestMismatch, match="under the tag") as failure:
        push.tag(given, pushed(f"localhost:5000/mydali@{digest}"), TO)
    assert failure.value.where == str(TO)


def test_no_tag_is_given_to_what_is_not_there(registry: RegistryInMemory) -> None:
    given: Any = registry
    with pytest.raises(PushError):
        push.tag(given, pushed(f"localhost:5000/mydali@{DIGEST}"), TO)
    assert registry.manifests == {}


def test_an_image_in_the_registry_is_found_by_its_digest(registry: RegistryInMemory) -> None:
    digest = there(registry)
    given: Any = registry
    found = push.found(given, Reference.parse(f"localhost:5000/mydali:old@{digest}"), "embedded")
    assert (found.reference, found.tag) == (f"localhost:5000/mydali@{digest}", "")
    assert (found.target, found.bytes_uploaded, found.manifest_bytes) == ("embedded", 0, 14)
    assert push.subject(found) == Descriptor(OCI_MANIFEST, Digest(digest), 14)
    with pytest.raises(PushError):
        push.found(given, Reference.parse(f"localhost:5000/mydali@{DIGEST}"), "embedded")


def test_what_the_last_build_left_has_to_be_what_the_image_was_made_of(project: Project) -> None:
    made = whole_build.parts_of(project)
    whole = whole_build.image_of(project, made)
    push.check_made_of(project, whole, made)
    with pytest.raises(NotVerified, match="not what this image was made of"):
        push.check_made_of(project, whole, made.model_copy(update={"dali_version": "2.0.0"}))
    (project.state / "embedded" / "parts" / "models" / "mydali" / "config.pbtxt").write_text("max_batch_size: 9\n")
    with pytest.raises(NotVerified, match="not what this image was made of"):
        push.check_made_of(project, whole, made)


def test_a_statement_that_is_no_longer_listed_keeps_the_tag_away() -> None:
    registry: Any = SimpleNamespace(repository=TO, referrers=lambda _: [Descriptor(OCI_MANIFEST, Digest(OTHER), 1)])
    push.check_attached(registry, Digest(DIGEST), [Digest(OTHER)])
    with pytest.raises(PushError, match="no longer lists") as failure:
        push.check_attached(registry, Digest(DIGEST), [Digest(OTHER), Digest(DIGEST)])
    assert failure.value.detail == (DIGEST,)
