"""`diff`: two images that builds have left, without an engine and without a registry."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import zstandard

from builder import dali_proto, record
from builder.artifacts import Image
from builder.docker import found as images
from builder.docker.engine import Engine
from builder.docker.found import Finder, FoundImage
from builder.errors import BadUsage, MachineError, NoImage, NothingBuilt
from builder.layers import File
from builder.oci import BaseImage
from builder.project import Project
from builder.reference import Digest
from builder.steps import diff
from builder.steps.diff import Change, FileLine

from . import built, test_oci
from .conftest import Run, document
from .entries import entry
from .records import image

CONFIG = "/models/m/config.pbtxt"
MODEL = "/models/m/1/model.dali"
BACKEND = 'name: "m"\nbackend: "dali"\n'


def pipeline(device: str, line: int = 1) -> bytes:
    made = dali_proto._message_class()(batch_size=8)
    operator = made.op.add(name="Copy", inst_name="OUT")
    operator.output.add(name="OUT")
    operator.args.add(name="device", strings=[device])
    operator.args.add(name="_origin_stack_lineno", ints=[line])
    made.pipe_outputs.add(name="OUT", device=device)
    return bytes(made.SerializeToString())


def layer(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    """As BuildKit writes them."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name.lstrip("/"))
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return zstandard.compress(written.getvalue())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))


def build(project: Project, target: str, files: dict[str, bytes], base: BaseImage | None = None, **changes: Any) -> str:
    """Leaves what `build` does: a layout and a record; gives the digest."""
    base = base or test_oci.base()
    layout = test_oci.built(Image.layout(project, target), layer(files, **changes), on=base)
    digest = str(layout.put_on(base))
    image(digest, target=target, reference=project.local_name(target), base="docker.io/library/debian:12").save(project)
    return digest


def finder(project: Project | None, folder: Path) -> Finder:
    return Finder(project, folder, lambda: None)


def compared(project: Project, tmp_path: Path) -> diff.Difference:
    with finder(project, tmp_path) as found:
        return diff.compare(found.find("embedded"), found.find("ngc"))


def opened(blob: bytes, side: FoundImage) -> images.Open:
    """As the image's own, and `blob` or an empty layer for those of its base."""
    base = [each.descriptor["digest"] for each in side.layers if each.of_base]

    def open_layer(descriptor: Mapping[str, Any]) -> contextlib.AbstractContextManager[BinaryIO]:
        if descriptor["digest"] not in base:
            return side.open(descriptor)
        content = blob if descriptor["digest"] == base[-1] else layer({})
        return contextlib.nullcontext(io.BytesIO(content))

    return open_layer


# Files, models, layers.


def test_two_images_with_the_same_content_are_identical(project: Project, tmp_path: Path) -> None:
    for target in ("embedded", "ngc"):
        build(project, target, {CONFIG: b""})
    found = compared(project, tmp_path)
    assert found.identical
    assert {each.status for each in found.layers} == {"same"}
    assert (found.files, found.models) == ((), ())


def test_files_of_own_layers_are_told_one_by_one(project: Project, tmp_path: Path) -> None:
    build(project, "embedded", {"/models/a": b"1", "/models/gone": b"12", "/models/same": b"x"})
    build(project, "ngc", {"/models/a": b"123", "/models/new": b"1", "/models/same": b"x"})
    found = compared(project, tmp_path)
    assert not found.identical
    assert [(each.path, each.status, each.bytes, each.of_base) for each in found.files] == [
        ("/models/a", "changed", 2, False),
        ("/models/gone", "removed", -2, False),
        ("/models/new", "added", 1, False),
    ]
    assert [(each.status, each.layer.of_base) for each in found.layers] == [
        ("same", True),
        ("same", True),
        ("removed", False),
        ("added", False),
    ]
    assert [each.layer.what for each in found.layers[:2]] == ["one", "two"]
    told = found.document(all_files=False)
    assert told["files"][0]["differs_in"] == ["content"]
    assert told["files"][2]["a"] is None
    assert told["files"][2]["b"] == {
        "kind": "file",
        "bytes": 1,
        "mode": "0644",
        "owner": "0:0",
        "sha256": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
        "link": None,
    }


def test_what_a_whiteout_removes_is_removed_and_it_is_no_file(project: Project, tmp_path: Path) -> None:
    below = layer({"/opt/gone/x": b"1", "/opt/gone-not": b"1", "/opt/opaque/x": b"1", "/opt/kept": b"1"})
    base = test_oci.base("application/vnd.oci.image.layer.v1.tar+zstd", layer({}), below)
    whiteouts = {"/opt/.wh.gone": b"", "/opt/opaque/.wh..wh..opq": b"", "/opt/opaque/new": b"", "/.wh..wh.plnk": b""}
    build(project, "embedded", {"/models/a": b"1"}, base=base)
    build(project, "ngc", {**whiteouts, "/models/a": b"1"}, base=base)
    with finder(project, tmp_path) as found:
        before, after = (
            replace(found.find(each), open=opened(below, found.find(each))) for each in ("embedded", "ngc")
        )
        read: list[int] = []
        files = diff.compare(before, after, lambda count, _: read.append(count)).files
    assert [(each.path, each.status, each.of_base) for each in files] == [
        ("/opt/gone/x", "removed", True),
        ("/opt/opaque/new", "added", False),
        ("/opt/opaque/x", "removed", True),
    ]
    assert read == [2, 2]


def test_a_whiteout_spares_its_own_layer_and_takes_models_along() -> None:
    def of(number: str, *paths: str) -> tuple[images.Layer, diff.Content]:
        return images.Layer(number, {}, "", False), ({each: file() for each in paths}, dict.fromkeys(paths, b"x"))

    stack = [of("1", CONFIG, MODEL), of("2", "/models/m/.wh.config.pbtxt", "/models/.wh.m", "/models/m/1/new")]
    found, contents = diff._over_one_another(stack)
    assert set(found) == set(contents) == {"/models/m/1/new"}


def test_an_image_may_say_null_for_what_it_has_not() -> None:
    config = json.dumps({"config": None, "history": None, "rootfs": {"diff_ids": ["a"]}}).encode()
    manifest = json.dumps({"layers": [{"digest": "b", "size": 1}]}).encode()
    image_of_null = BaseImage("x", Digest("sha256:" + "0" * 64), manifest, config)
    found = FoundImage("x", image_of_null, 0, lambda _: contextlib.nullcontext(io.BytesIO()))
    assert found.labels == {}
    assert [each.what for each in found.layers] == [""]
    assert images._own(image_of_null, None) == 0


def test_a_mode_alone_is_a_difference(project: Project, tmp_path: Path) -> None:
    build(project, "embedded", {"/models/a": b"1"})
    build(project, "ngc", {"/models/a": b"1"}, mode=0o755)
    [line] = compared(project, tmp_path).files
    assert line.what == {"mode": ("644", "755")}


def test_configurations_differ_by_what_triton_reads(project: Project, tmp_path: Path) -> None:
    build(project, "embedded", {CONFIG: f"# a comment\n{BACKEND}max_batch_size: 8".encode()})
    build(project, "ngc", {CONFIG: f"{BACKEND}max_batch_size:   16".encode()})
    [model] = compared(project, tmp_path).models
    assert model.path == CONFIG
    assert [each for each in model.lines if each[0] in "+-" and each[1] not in "+-"] == [
        "-max_batch_size: 8",
        "+max_batch_size: 16",
    ]


def test_a_configuration_that_means_the_same_has_no_lines(project: Project, tmp_path: Path) -> None:
    build(project, "embedded", {CONFIG: f"{BACKEND}# a comment".encode()})
    build(project, "ngc", {CONFIG: f"backend:\t'dali' {BACKEND.splitlines()[0]}".encode()})
    [model] = compared(project, tmp_path).models
    assert model.lines == ()


def test_a_configuration_that_is_none_is_compared_as_text(project: Project, tmp_path: Path) -> None:
    build(project, "embedded", {CONFIG: b"nonsense {"})
    build(project, "ngc", {CONFIG: b"nonsense ["})
    [model] = compared(project, tmp_path).models
    assert model.lines[-2:] == ("-nonsense {", "+nonsense [")


def test_pipelines_differ_by_their_operators(project: Project, tmp_path: Path) -> None:
    build(project, "embedded", {MODEL: pipeline("cpu")})
    build(project, "ngc", {MODEL: pipeline("gpu")})
    [model] = compared(project, tmp_path).models
    assert "-OUT = Copy(device='cpu')" in model.lines
    assert "+OUT = Copy(device='gpu')" in model.lines


def test_a_pipeline_from_another_line_of_the_source_is_the_same(project: Project, tmp_path: Path) -> None:
    build(project, "embedded", {MODEL: pipeline("cpu", line=1)})
    build(project, "ngc", {MODEL: pipeline("cpu", line=2)})
    found = compared(project, tmp_path)
    assert [each.path for each in found.files] == [MODEL]
    assert [each.lines for each in found.models] == [()]


def test_a_base_whose_layers_nobody_has_is_told_by_its_name(project: Project, tmp_path: Path) -> None:
    build(project, "embedded", {})
    digest = build(project, "ngc", {}, base=test_oci.base("application/vnd.oci.image.layer.v1.tar+gzip", b"another"))
    image(digest, target="ngc", base="triton-dali-builder/embedded:1.53.0-0123456789ab").save(project)
    image_of_first = Image.load(project, "embedded").model_copy(update={"base": "triton-dali-builder/embedded:x"})
    image_of_first.save(project)
    config = json.loads(test_oci.base().config)
    assert config["rootfs"]["diff_ids"]
    with finder(project, tmp_path) as found:
        before = found.find("embedded")
        with pytest.raises(NoImage, match="base is not in the engine"), before.open(before.layers[0].descriptor):
            pass


def test_a_layer_that_was_put_elsewhere_is_one_less_and_one_more() -> None:
    def of(*ids: str) -> tuple[images.Layer, ...]:
        return tuple(images.Layer(each, {"size": 1, "digest": each}, "", False) for each in ids)

    lines = diff.align(of("a", "b", "c"), of("a", "x", "c", "d"))
    assert [(each.status, each.layer.diff_id) for each in lines] == [
        ("same", "a"),
        ("removed", "b"),
        ("added", "x"),
        ("same", "c"),
        ("added", "d"),
    ]


def file(size: int = 1) -> File:
    return File("file", 0o644, (0, 0, "", ""), 0.0, "", (0, 0), (), "0", size)


def test_files_of_bases_are_counted_by_folders_as_deep_as_a_screen_has_room() -> None:
    paths = [f"/opt/a/{number}/x" for number in range(30)] + ["/opt/b/x", "/etc/x"]
    lines = [FileLine(path, "added", True, None, file(2)) for path in paths]
    lines += [FileLine("/etc/y", "removed", True, file(5), None), FileLine("/models/own", "added", False, None, file())]
    assert [(each.path, each.added, each.removed, each.bytes) for each in diff.folders(lines)] == [
        ("/etc", 1, 1, -3),
        ("/opt/a", 30, 0, 60),
        ("/opt/b", 1, 0, 2),
    ]
    assert diff.folders([]) == ()


# Versions and settings.


def told(labels: dict[str, str], config: dict[str, Any] | None = None, **changes: Any) -> FoundImage:
    content = json.dumps({"config": {"Labels": labels, **(config or {})}, "rootfs": {"diff_ids": []}}).encode()
    manifest = json.dumps({"layers": []}).encode()
    return FoundImage(
        "x", BaseImage("x", Digest("sha256:" + "0" * 64), manifest, content), 0, lambda _: None, **changes
    )  # type: ignore[arg-type, return-value]


def test_versions_come_out_of_labels_and_records(project: Project) -> None:
    made = built.parts_of(project)
    one = built.labels(project, made, wheels={"cmake": "4.0 sha256:1", "old": "1 sha256:2"})
    newer = made.model_copy(update={"dali_version": "2.1.1", "packages": {**made.packages, "libc6": "2.37"}})
    (project.plugin_folder / "x.cc").write_text("x")
    other = built.labels(project, newer, wheels={"cmake": "4.1 sha256:1", "new": "1 sha256:2"})
    changes = diff.versions(told(one), told(other))
    assert Change("version", "dali", "1.53.0", "2.1.1") in changes
    assert [(each.what, each.before, each.after) for each in changes if each.kind == "wheel"] == [
        ("cmake", "4.0 sha256:1", "4.1 sha256:1"),
        ("old", "1 sha256:2", None),
        ("new", None, "1 sha256:2"),
    ]
    assert [each.what for each in changes if each.kind == "package"] == ["libc6"]
    assert [each.what for each in changes if each.kind == "source"] == ["plugin"]
    assert diff.versions(told(one), told(one)) == ()


def test_sources_are_told_by_file_where_both_builds_were_here(project: Project) -> None:
    one = entry(project.root, 2, "a", sources={"plugin": "1", "plugin/a.cc": "2", "plugin/b.cc": "3"})
    other = entry(project.root, 1, "b", sources={"plugin": "4", "plugin/a.cc": "5", "plugin/b.cc": "3"})
    changes = diff.versions(told({}, entry=one), told({}, entry=other))
    assert [each.what for each in changes] == ["plugin", "plugin/a.cc"]


def test_what_containers_are_told_is_compared_by_name() -> None:
    one = told({"a": "1", record.LABEL: "x"}, {"Env": ["A=1", "B=2"], "Cmd": ["x"], "User": "1000:1000"})
    other = told({"a": "2", record.LABEL: "y"}, {"Env": ["B=2", "A=3", "C="], "Cmd": ["x", "y"]})
    assert list(diff.settings(one.config, other.config)) == [
        Change("config", "User", "1000:1000", None),
        Change("config", "Cmd", '["x"]', '["x", "y"]'),
        Change("env", "A", "1", "3"),
        Change("env", "C", None, ""),
        Change("label", "a", "1", "2"),
    ]


# What names an image.


def test_an_image_is_found_by_target_digest_and_build(project: Project, tmp_path: Path) -> None:
    digest = build(project, "embedded", {})
    made = entry(project.root, 1, "0", digest=digest).save()
    with finder(project, tmp_path) as found:
        named = [
            found.find(each).digest for each in ("embedded", digest, digest[:19], digest[7:19], made.id, made.id[:15])
        ]
    assert set(named) == {digest}


def test_a_build_of_another_project_is_found_without_one(project: Project, tmp_path: Path) -> None:
    digest = build(project, "embedded", {})
    made = entry(project.root, 1, "0", digest=digest).save()
    with finder(None, tmp_path) as found:
        assert found.find(made.id).digest == digest


def test_the_last_two_builds_are_those_with_different_images(project: Project, tmp_path: Path) -> None:
    other = project.model_copy(update={"root": tmp_path / "other"})
    one, two = build(project, "embedded", {"/a": b"1"}), build(other, "embedded", {"/a": b"2"})
    assert one != two
    entry(project.root, 3, "0", digest=one).save()
    entry(project.root, 2, "0", digest="", error={"code": "x"}).save()
    entry(project.root, 1, "0", digest=one).save()
    entry(other.root, 1, "0", digest=two).save()
    with finder(project, tmp_path) as found, pytest.raises(NothingBuilt, match="no two builds"):
        found.last_two()
    entry(project.root, 4, "9").save()
    # The older one's layers were replaced by the newer's, and no engine has it.
    with finder(project, tmp_path) as found, pytest.raises(NoImage, match="is gone"):
        found.last_two()


@pytest.mark.parametrize("name", ["nosuch", "mydali:other", "sha256:" + "7" * 64, "Not A Reference"])
def test_what_is_nowhere_is_not_found(project: Project, tmp_path: Path, name: str) -> None:
    with finder(project, tmp_path) as found, pytest.raises(NoImage):
        found.find(name)


def test_a_build_that_failed_has_no_image(project: Project, tmp_path: Path) -> None:
    failed = entry(project.root, 1).save()
    with finder(project, tmp_path) as found, pytest.raises(BadUsage, match="left no image"):
        found.find(failed.id)


def test_a_target_that_was_not_built_has_none(project: Project, tmp_path: Path) -> None:
    with finder(project, tmp_path) as found, pytest.raises(NothingBuilt):
        found.find("ngc")


def test_the_older_image_store_is_refused(project: Project, tmp_path: Path) -> None:
    class Older(Engine):
        def __init__(self) -> None:
            self.__dict__["keeps_manifests"] = False

        def find(self, _: str) -> dict[str, Any]:
            return {"Id": "sha256:" + "1" * 64, "Os": "linux", "Architecture": "amd64"}

    with Finder(project, tmp_path, Older) as found, pytest.raises(MachineError, match="keeps no manifests") as refused:
        found.find("mydali:embedded")
    assert refused.value.remedy.endswith("/etc/docker/daemon.json), or name images of a registry")


def test_own_layers_are_known_by_the_build_or_by_the_record(project: Project) -> None:
    labelled = test_oci.base().config.replace(b'"Cmd"', b'"Labels": {"triton-dali-builder.record": "x"}, "Cmd"')
    base = test_oci.base()
    image_with_record = BaseImage("x", base.digest, base.manifest, labelled)
    assert images._own(base, None) == 0
    assert images._own(image_with_record, None) == 2
    layers = [{"digest": "sha256:" + "1" * 64, "bytes": 1}] * 5
    built_here = entry(project.root, 1, "a").model_validate(
        {**entry(project.root, 1, "a").model_dump(), "layers": layers, "base_layers": 2}
    )
    assert images._own(image_with_record, built_here) == 3


# The command.


@pytest.fixture
def two(tmp_path: Path) -> Path:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "builder.toml").write_text(
        'repository = "localhost:5000/mydali"\n[targets.embedded]\n[targets.ngc]\n'
    )
    made = Project.model_validate(
        {"root": tmp_path / "p", "repository": "localhost:5000/mydali", "targets": {"embedded": {}, "ngc": {}}}
    )
    build(made, "embedded", {CONFIG: f"{BACKEND}max_batch_size: 8".encode(), MODEL: pipeline("cpu", 1)})
    build(made, "ngc", {CONFIG: f"{BACKEND}max_batch_size: 16".encode(), MODEL: pipeline("cpu", 2)})
    return made.root


def test_people_read_what_changed(run: Run, two: Path) -> None:
    status, out, err = run("diff", "-C", str(two), "embedded", "ngc")
    assert status == 0
    assert "reading 2 layers" in err
    for text in ("+max_batch_size: 16", f"~ {MODEL}", "2 the same", f"{MODEL}: the same to its reader"):
        assert text in out


def test_the_exit_code_tells_as_git_s(run: Run, two: Path) -> None:
    assert run("diff", "-C", str(two), "embedded", "ngc", "--exit-code", "-q")[0] == 1
    assert run("diff", "-C", str(two), "embedded", "embedded", "--exit-code")[0] == 0


def test_the_document_is_one(run: Run, two: Path) -> None:
    status, out, _ = run("diff", "-C", str(two), "embedded", "ngc", "--json")
    told = document(out)
    assert status == 0
    assert told["identical"] is False
    assert [each["path"] for each in told["models"]] == [MODEL, CONFIG]
    assert told["models"][0]["diff"] == []


def test_one_image_is_not_enough(run: Run, two: Path) -> None:
    status, _, err = run("diff", "-C", str(two), "embedded")
    assert status == 2
    assert "cannot differ" in err


def test_without_a_project_two_images_have_to_be_named(run: Run, tmp_path: Path) -> None:
    status, _, err = run("diff", "-C", str(tmp_path))
    assert status == 2
    assert "project-missing" in err
