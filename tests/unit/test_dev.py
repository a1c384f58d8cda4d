from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from rich.console import Console
from tritonclient.utils import InferenceServerException

from builder import cli, oracles, triton
from builder.dev import answers, server, session, workshop
from builder.dev.answers import Answered
from builder.dev.folder import ModelFolder
from builder.dev.session import Foundation, Round, cmake_options
from builder.dev.snapshot import Camera, Moved, Snapshot, is_ignored, newest
from builder.dev.verdict import Done, Verdict
from builder.dev.watcher import Watcher, watched
from builder.dev.workshop import Workshop
from builder.errors import (
    BaseElsewhere,
    BuilderError,
    CompileError,
    ModelNotLoaded,
    NoBase,
    NoRegistry,
    ProjectError,
    RequestRefused,
    SerializeError,
    ServerDied,
    Unauthorized,
    VerificationError,
    WrongAnswer,
)
from builder.gpu import Driver, Gpu
from builder.oracles import Oracle, RandomQuestions, identity
from builder.output import Output
from builder.process import uninterrupted
from builder.project import FILE_NAME, Model, Project
from builder.steps import dev
from builder.triton import Endpoint, ModelSpec, Tensors, TensorSpec
from builder.views import verdict as view

CONFIG = "model_repository/m/config.pbtxt"
PIPELINE = "model_repository/m/1/dali.py"


@pytest.fixture
def sources(project: Project) -> Project:
    """A project of one plugin and one model."""
    write(project, FILE_NAME, 'repository = "localhost:5000/mydali"\n[targets.embedded]\n')
    write(project, "plugin/CMakeLists.txt", "add_dali_plugin(one SOURCES one.cc)")
    write(project, "plugin/one.cc", "int one;")
    write(project, CONFIG, 'backend: "dali"')
    write(project, PIPELINE, "pipeline")
    return project


def write(project: Project, name: str, text: str) -> Path:
    path = project.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def take(project: Project) -> Snapshot:
    return Camera(project.root).take(project)


# --- What changed ---


@pytest.mark.parametrize(
    "name",
    [
        "plugin/.one.cc.swp",
        "plugin/4913",
        "plugin/one.cc~",
        "plugin/.#one.cc",
        "plugin/#one.cc#",
        "plugin/one.cc___jb_tmp___",
        "model_repository/m/1/__pycache__/dali.cpython-311.pyc",
        "model_repository/m/1/.goutputstream-ABC123",
        "plugin/one.cc.tmp",
        "plugin/.git/index",
    ],
)
def test_what_editors_leave_is_no_part_of_a_project(name: str) -> None:
    assert is_ignored(name)


@pytest.mark.parametrize(
    "name", ["plugin/one.cc", "plugin/4913.cc", CONFIG, "model_repository/m/1/weights.part.npy", "plugin/.clang-format"]
)
def test_sources_are_a_part_of_it(name: str) -> None:
    assert not is_ignored(name)


def test_a_change_is_one_of_contents(sources: Project) -> None:
    camera = Camera(sources.root)
    before = camera.take(sources)
    os.utime(write(sources, CONFIG, 'backend: "dali"'), (1, 1))
    write(sources, "plugin/one.cc~", "a backup")
    assert camera.take(sources) == before
    write(sources, CONFIG, 'backend: "python"')
    write(sources, "model_repository/n/1/model.onnx", "new")
    (sources.root / "plugin" / "one.cc").unlink()
    now = camera.take(sources)
    assert before.differences(now) == (CONFIG, "model_repository/n/1/model.onnx", "plugin/one.cc")
    assert now.models().keys() == {"m", "n"}
    assert now.models()["m"] != before.models()["m"]
    write(sources, CONFIG, 'backend: "dali"')
    assert camera.take(sources).models()["m"] == before.models()["m"]


def test_files_of_oracles_and_settings_count_and_others_do_not(sources: Project) -> None:
    told = {"m": Model(oracle="tests/golden.npz"), "n": Model(oracle="../elsewhere.py:right")}
    project = sources.model_copy(update={"models": told})
    for name in ("tests/golden.npz", "../elsewhere.py", "tests/other.npz", "Dockerfile", "README.md"):
        write(project, name, "x")
    names = {name for name in take(project).files if "/m" not in name and not name.startswith("plugin/")}
    assert names == {FILE_NAME, "Dockerfile", "tests/golden.npz", "../elsewhere.py"}


def test_an_empty_folder_of_a_version_counts(sources: Project) -> None:
    before = take(sources)
    (sources.root / "model_repository" / "ensemble" / "1").mkdir(parents=True)
    assert take(sources).models().keys() == {"m", "ensemble"}
    assert take(sources) != before


def test_when_a_file_was_saved(tmp_path: Path) -> None:
    for name, when in (("early", 50.0), ("late", 150.0), ("future", 250.0)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (when, when))
    assert newest(tmp_path, ["early", "late", "future", "gone"], 100, 200) == 150
    assert newest(tmp_path, ["early", "gone"], 100, 200) == 200


# --- When to look ---


def test_a_save_wakes_whoever_waits(sources: Project) -> None:
    watcher = Watcher()
    watcher.follow(sources)
    try:
        time.sleep(0.5)
        threading.Timer(0.1, write, (sources, PIPELINE, "another")).start()
        before = time.time()
        while watcher.wait() < before + 0.1:
            assert time.time() < before + 10
    finally:
        watcher.close()


def test_folders_that_come_and_go_are_followed(sources: Project) -> None:
    before = watched(sources)
    assert before[sources.root / "plugin"][1]
    assert not before[sources.root][1]
    (sources.root / "plugin").rename(sources.root / "plugin.old")
    assert sources.root / "plugin" not in watched(sources)
    write(sources, "plugin/one.cc", "int one;")
    assert watched(sources) != before
    project = sources.model_copy(update={"models": {"m": Model(oracle="model_repository/../tests/golden.npz")}})
    write(project, "tests/golden.npz", "x")
    assert any(path.name == "tests" for path in watched(project))


# --- What the server sees ---


def test_the_server_s_folder_is_made_what_it_must_be(sources: Project, tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "dev" / "models")
    made = {"m/1/model.dali": b"serialized", "libone.so": b"library"}

    def fill() -> dict[str, str]:
        return folder.fill(sources.repository_folder, take(sources).below("model_repository"), made)

    (sources.root / "model_repository" / "ensemble" / "1").mkdir(parents=True)
    first = fill()
    assert first.keys() == {"m", "ensemble"}
    assert (folder.path / "ensemble" / "1").is_dir()
    assert (folder.path / "m" / "1" / "model.dali").read_bytes() == b"serialized"
    assert (folder.path / "m" / "1" / "model.dali").stat().st_mode & 0o777 == 0o644
    was = (folder.path / "m" / "config.pbtxt").stat().st_ino, (folder.path / "m" / "1" / "dali.py").stat().st_ino

    write(sources, CONFIG, 'backend: "python"')
    (sources.root / "model_repository" / "ensemble" / "1").rmdir()
    (sources.root / "model_repository" / "ensemble").rmdir()
    del made["libone.so"]
    second = fill()
    assert second.keys() == {"m"}
    assert second["m"] != first["m"]
    assert not (folder.path / "ensemble").exists()
    assert not (folder.path / "libone.so").exists()
    now = (folder.path / "m" / "config.pbtxt").stat().st_ino, (folder.path / "m" / "1" / "dali.py").stat().st_ino
    assert (now[0] != was[0], now[1] == was[1]) == (True, True)
    assert fill() == second
    folder.close()
    assert not folder.path.exists()


def test_what_is_served_has_the_digest_of_what_was_copied(sources: Project, tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "dev" / "models")
    now = take(sources)

    def fill() -> dict[str, str]:
        return folder.fill(sources.repository_folder, now.below("model_repository"), {})

    write(sources, CONFIG, "another")  # since the snapshot
    with pytest.raises(Moved, match=r"m/config\.pbtxt"):
        fill()
    write(sources, CONFIG, 'backend: "dali"')  # and back
    fill()
    assert (folder.path / "m" / "config.pbtxt").read_text() == 'backend: "dali"'


def test_a_file_that_goes_while_it_is_copied_is_left_out(sources: Project, tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "dev" / "models")
    before = take(sources).below("model_repository")
    path = sources.root / PIPELINE
    path.unlink()
    with pytest.raises(Moved, match=r"dali\.py"):
        folder.fill(sources.repository_folder, before, {})
    assert not (folder.path / "m" / "1" / "dali.py").exists()
    write(sources, PIPELINE, "pipeline")
    folder.fill(sources.repository_folder, before, {})
    assert (folder.path / "m" / "1" / "dali.py").read_text() == "pipeline"


# --- What is compiled and serialized ---


class Container:
    """Answers what a workshop runs; `said` and `status` are the answer to the next build stage."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.put: list[tuple[str, list[str]]] = []
        self.files: dict[str, dict[str, bytes]] = {"/plugins": {"./libone.so": b"one"}, "/models": {}}
        self.said, self.status = b"", 0
        self.id = "it"
        self.client = SimpleNamespace(
            api=SimpleNamespace(
                exec_create=self._create, exec_start=lambda _: self._answer[1], exec_inspect=lambda _: self._exit()
            )
        )
        self._answer: tuple[int, bytes] = (0, b"")

    def put_archive(self, to: str, spool: Any) -> None:
        with tarfile.open(fileobj=spool) as archive:
            self.put.append((to, sorted(archive.getnames())))

    def _create(self, _: str, command: list[str], **__: bool) -> dict[str, str]:
        text = " ".join(command)
        self.ran.append(text)
        self._answer = (0, b"")
        if "compile.py" in text or "serialize.py" in text:
            self._answer = (self.status, self.said)
        elif command[0] == "tar" and "-C" in command:
            folder, names = command[command.index("-C") + 1], command[command.index("--") + 1 :]
            known = self.files[folder]
            self._answer = (0, archived(known if names == ["."] else {name: known[name] for name in names}))
        return {"Id": "1"}

    def _exit(self) -> dict[str, int]:
        return {"ExitCode": self._answer[0]}

    def stages(self) -> list[str]:
        """Those that ran since the last time."""
        found = [name for each in self.ran for name in ("compile.py", "serialize.py") if name in each]
        self.ran.clear()
        return found


def archived(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


@pytest.fixture
def container() -> Container:
    made = Container()
    made.files["/models"] = {"m/1/model.dali": b"serialized"}
    return made


@pytest.fixture
def shop(container: Container, tmp_path: Path) -> Workshop:
    stands_in: Any = container
    return Workshop(stands_in, tmp_path / "kept.tar")


def make(shop: Workshop, project: Project) -> None:
    now = take(project)
    shop.compile(project.plugin_folder, now, ["-DX=1"])
    shop.serialize(project.repository_folder, now)


def test_nothing_is_made_twice_of_the_same(shop: Workshop, container: Container, sources: Project) -> None:
    make(shop, sources)
    assert container.stages() == ["compile.py", "serialize.py"]
    assert shop.libraries == {"libone.so": b"one"}
    assert shop.pipelines == {"m/1/model.dali": b"serialized"}
    make(shop, sources)
    write(sources, CONFIG, 'backend: "python"')
    make(shop, sources)
    assert container.stages() == []  # a configuration is compiled into nothing
    write(sources, PIPELINE, "another")
    make(shop, sources)
    assert container.stages() == ["serialize.py"]
    write(sources, "plugin/one.cc", "// a comment")
    make(shop, sources)
    assert container.stages() == ["compile.py"]  # of which the same library came
    container.files["/plugins"] = {"./libone.so": b"two"}
    write(sources, "plugin/one.cc", "int two;")
    make(shop, sources)
    assert container.stages() == ["compile.py", "serialize.py"]


@pytest.mark.parametrize("name", ["plugin/one.cc", PIPELINE])
def test_nothing_is_made_of_what_is_not_in_the_snapshot(
    shop: Workshop, container: Container, sources: Project, name: str
) -> None:
    path = sources.root / name
    right, now = path.read_text(), take(sources)

    def make() -> None:
        shop.compile(sources.plugin_folder, now, ["-DX=1"])
        shop.serialize(sources.repository_folder, now)

    path.write_text("another")
    with pytest.raises(Moved, match=path.name):
        make()
    path.unlink()
    with pytest.raises(Moved, match=path.name):
        make()
    container.stages()
    path.write_text(right)
    make()
    assert container.stages()[-1] == "serialize.py"
    assert "m/1/dali.py" in container.put[-1][1]


def test_a_model_that_goes_after_it_moved_is_taken_away(shop: Workshop, container: Container, sources: Project) -> None:
    make(shop, sources)
    write(sources, PIPELINE, "another")
    now = take(sources)
    (sources.root / PIPELINE).unlink()
    with pytest.raises(Moved):
        shop.serialize(sources.repository_folder, now)
    (sources.root / CONFIG).unlink()
    (sources.root / PIPELINE).parent.rmdir()
    (sources.root / "model_repository" / "m").rmdir()
    container.ran.clear()
    make(shop, sources)
    assert any("rm -rf" in each and "m/1/dali.py" in each for each in container.ran)


def test_a_model_that_goes_takes_its_pipeline_along(shop: Workshop, container: Container, sources: Project) -> None:
    make(shop, sources)
    (sources.root / PIPELINE).unlink()
    make(shop, sources)
    assert shop.pipelines == {}
    assert any("rm -rf" in each and "m/1/dali.py" in each for each in container.ran)


def test_what_the_compiler_says_is_told_and_the_next_save_is_tried(
    shop: Workshop, container: Container, sources: Project
) -> None:
    make(shop, sources)
    container.status, container.said = 1, b"FAILED: x\n/src/plugin/one.cc:1:5: error: expected ';'\n  1 | int\n"
    write(sources, "plugin/one.cc", "int")
    with pytest.raises(CompileError) as failure:
        make(shop, sources)
    assert failure.value.detail[0] == "plugin/one.cc:1:5: error: expected ';'"
    with pytest.raises(CompileError):
        make(shop, sources)
    container.status, container.said = 0, b""
    container.stages()
    write(sources, "plugin/one.cc", "int one;")
    make(shop, sources)
    assert container.stages() == ["compile.py"]


def test_a_pipeline_s_mistake_is_named_by_its_place_in_the_project(
    shop: Workshop, container: Container, sources: Project
) -> None:
    now = take(sources)
    shop.compile(sources.plugin_folder, now, ["-DX=1"])
    container.status = 1
    container.said = b"serialize: error: /chosen/m/1/dali.py:3: NameError: name 'x' is not defined\n"
    with pytest.raises(SerializeError) as failure:
        shop.serialize(sources.repository_folder, now)
    assert failure.value.where == "model_repository/m/1/dali.py:3"
    container.status, container.said = 0, b""
    make(shop, sources)
    assert shop.pipelines


def test_without_plugins_nothing_is_compiled(shop: Workshop, container: Container, sources: Project) -> None:
    for path in (sources.root / "plugin").iterdir():
        path.unlink()
    container.files["/plugins"] = {}
    make(shop, sources)
    assert container.stages() == ["serialize.py"]
    assert shop.libraries == {}


def test_versions_are_numbers_and_sources_lie_in_them() -> None:
    assert workshop._is_source("m/1/dali.py")
    assert not any(map(workshop._is_source, ["m/dali.py", "m/one/dali.py", ".m/1/dali.py", "m/1/x/dali.py"]))


def _driver(*capabilities: str) -> Driver:
    return Driver(tuple(Gpu("H200", "580", 1, each) for each in capabilities), "13.0")


def test_plugins_are_compiled_for_what_is_there(project: Project) -> None:
    target = project.targets["embedded"]

    def options(gpus: str, driver: Driver | None = None, **update: Any) -> list[str]:
        return cmake_options(target.model_copy(update=update), gpus, lambda: driver)

    assert options("", cuda="OFF") == ["-DDALI_PLUGIN_CUDA=OFF"]
    assert options("") == ["-DDALI_PLUGIN_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=80-real"]
    assert options("", cuda_architectures=("90-real", "100-real"))[1] == "-DCMAKE_CUDA_ARCHITECTURES=90-real"
    assert options("all", _driver("9.0", "9.0", "7.5"))[1] == "-DCMAKE_CUDA_ARCHITECTURES=75-real;90-real"
    assert options("", _driver("9.0"))[1] == "-DCMAKE_CUDA_ARCHITECTURES=80-real"


# --- The server ---


def test_a_server_starts_with_no_model_of_its_own() -> None:
    image = [
        "tritonserver",
        "--model-repository=/models",
        "--load-model=m",
        "--model-control-mode=poll",
        "--log-verbose=1",
    ]
    assert server.command(image) == [
        "tritonserver",
        "--model-repository=/models",
        "--log-verbose=1",
        "--model-control-mode=explicit",
    ]


class FakeServer:
    """One that writes a line for each model that it refuses, and goes on."""

    def __init__(self) -> None:
        self.lines = b"E1 what was wrong before\n"
        self.status: int | None = None

    def exited(self) -> int | None:
        return self.status

    def whole_log(self) -> bytes:
        return self.lines

    def log(self) -> list[str]:
        return self.lines.decode().splitlines()


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> tuple[server.LiveServer, FakeServer, list[str]]:
    """A server that refuses models of the name `bad`, and what it was asked to do."""
    fake, asked = FakeServer(), []
    stands_in: Any = fake

    class Grpc:
        def __init__(self, _: str) -> None:
            pass

        def load_model(self, name: str, **_: float) -> None:
            asked.append(f"load {name}")
            if name == "bad":
                fake.lines += b'I1 x.cc:1] "the plugin"\nE2 y.cc:2] No schema found for operator "Blur"\n'
                raise InferenceServerException("failed to load 'bad'")

        def unload_model(self, name: str, **_: float) -> None:
            asked.append(f"unload {name}")

        def close(self) -> None:
            pass

    monkeypatch.setattr(tritonclient.grpc, "InferenceServerClient", Grpc)
    return server.LiveServer(stands_in, Endpoint("h", "g"), "command", 1.0), fake, asked


def test_what_changed_is_loaded_and_ensembles_after_their_steps(
    live: tuple[server.LiveServer, FakeServer, list[str]],
) -> None:
    one, _, asked = live
    one.bring({"a": "1", "e": "1"}, {"e"})
    assert asked == ["load a", "load e"]
    asked.clear()
    assert one.bring({"a": "2", "e": "1"}, {"e"}) == ["a"]
    assert asked == ["load a"]
    asked.clear()
    assert one.bring({"b": "1"}, {"e"}) == ["b"]
    assert asked == ["unload e", "unload a", "load b"]
    assert one.loaded == {"b": "1"}


def test_a_model_that_is_refused_is_told_by_the_new_lines_of_the_log(
    live: tuple[server.LiveServer, FakeServer, list[str]],
) -> None:
    one, fake, _ = live
    with pytest.raises(ModelNotLoaded, match="model 'bad' does not load: no loaded plugin registers the operator Blur"):
        one.bring({"bad": "1", "good": "1"}, set())
    assert one.loaded == {"good": "1"}
    assert one.is_usable
    fake.status = 139
    with pytest.raises(ServerDied):
        one.bring({"bad": "1", "good": "1"}, set())
    assert not one.is_usable


def test_a_server_whose_answer_failed_is_not_gone_on_with(
    live: tuple[server.LiveServer, FakeServer, list[str]],
) -> None:
    one, _, _ = live
    with pytest.raises(WrongAnswer), one.asked():
        raise WrongAnswer("another value")
    assert one.is_usable
    with pytest.raises(RequestRefused), one.asked():
        raise RequestRefused("Stub process 'm' is not healthy")
    assert not one.is_usable


# --- The answers ---

SPEC = ModelSpec("m", 8, (TensorSpec("IN", "UINT8", (-1,)),), (TensorSpec("OUT", "UINT8", (-1,)),), "1")
RIGHT = Oracle("identity", 0.0, 0.0, lambda spec, seed: RandomQuestions(spec, seed, identity))


class Client:
    def __init__(self, wrong: int = 0) -> None:
        self.protocol = "http"
        self.shapes: list[tuple[int, ...]] = []
        self._wrong = wrong

    def infer(self, _: ModelSpec, inputs: Tensors) -> Tensors:
        self.shapes.append(inputs["IN"].shape)
        return {"OUT": inputs["IN"] + np.uint8(self._wrong)}

    def infer_many(self, spec: ModelSpec, requests: Sequence[Tensors]) -> list[Tensors]:
        return [self.infer(spec, each) for each in requests]


def test_a_short_run_asks_every_batch_size_over_every_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = Client(), Client()
    answered = answers.ask(SPEC, RIGHT, clients, 1)
    for client in clients:
        assert {(1, 1), (2, 1), (7, 1), (8, 1)} <= set(client.shapes)
    assert answered.requests == sum(len(each.shapes) for each in clients)
    assert 50 < answered.requests < 250
    assert 0 < answered.p50_ms <= answered.p99_ms
    monkeypatch.setattr(answers, "SECONDS", 0.0)
    assert answers.ask(SPEC, RIGHT, [Client()], 1).requests >= 6


def _asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ready: list[ModelSpec]) -> Callable[[list[str]], Round]:
    """A session of which only the asking is real, by a server that lists `ready`."""
    stands_in: Any = SimpleNamespace(endpoint=Endpoint("h", "g"), asked=contextlib.nullcontext)
    monkeypatch.setattr(triton, "clients", lambda *_: contextlib.nullcontext([Client()]))
    monkeypatch.setattr(triton, "models", lambda _: ready)
    one = session.Session(stands_in, tmp_path / "models", Console(file=io.StringIO()))

    def ask(names: list[str]) -> Round:
        into = Round(not_run={"made": "no GPU"})
        one._ask(stands_in, {"m": RIGHT}, dict.fromkeys(names, "digest"), (), into)
        return into

    return ask


def test_no_model_that_is_asked_is_no_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ask = _asking(monkeypatch, tmp_path, [SPEC])
    assert [each.name for each in ask(["m"]).models] == ["m"]
    with pytest.raises(VerificationError, match="no model was asked") as failure:
        ask([])
    assert failure.value.detail == ("made: no GPU",)
    assert not _verdict(models=()).passed


def test_a_model_that_the_server_does_not_list_is_no_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ask = _asking(monkeypatch, tmp_path, [SPEC])
    for _ in range(2):  # and is none the next time either
        with pytest.raises(ModelNotLoaded, match="as ready: n"):
            ask(["m", "n"])


def test_a_wrong_answer_ends_it() -> None:
    with pytest.raises(WrongAnswer):
        answers.ask(SPEC, RIGHT, [Client(wrong=1)], 1)


def test_a_function_that_changed_is_read_again(sources: Project) -> None:
    path = write(
        sources, "right.py", "import helper\ndef answer(inputs):\n    return {'OUT': inputs['IN'] + helper.MORE}\n"
    )
    told = Model(oracle="right.py:answer")

    def expected() -> int:
        oracles.forget(sources.root)
        case = oracles.load(sources.root, told).ask(SPEC, 0).small()
        assert case.expected is not None
        return int((case.expected["OUT"] - case.inputs["IN"])[0, 0])

    helper = write(sources, "helper.py", "import numpy\nMORE = numpy.uint8(1)\n")
    assert expected() == 1
    helper.write_text("import numpy\nMORE = numpy.uint8(20)\n")
    assert expected() == 20
    path.write_text("def answer(inputs):\n    return {'OUT': inputs['IN'] + inputs['IN'].dtype.type(3)}\n")
    assert expected() == 3


# --- The loop ---


class Stopped(BaseException):
    """As a signal's."""


class FakeSession:
    server = None

    def __init__(self, *fails: Exception | None) -> None:
        self.fails = list(fails)
        self.rounds: list[tuple[str, ...]] = []
        self.foundations: list[Foundation] = []

    def round(self, *given: Any) -> None:
        foundation, changed, into = given[2], given[4], given[5]
        self.rounds.append(tuple(changed))
        self.foundations.append(foundation)
        into.done.append(Done("compiled", 0.5))
        if error := self.fails.pop(0):
            raise error
        into.models = (Answered("m", "1", "identity", True, 120, 0.5, 1.0),)

    def tidy(self) -> None:
        pass


def run_loop(
    project: Project, fake: FakeSession, edits: list[Callable[[], Any]], load: Callable[[], Project] | None = None
) -> tuple[list[Verdict], int]:
    verdicts: list[Verdict] = []
    began = 0

    def begin(_: Project) -> Foundation:
        nonlocal began
        began += 1
        return Foundation("base", f"toolchain:{began}")

    class Scripted(Watcher):
        def follow(self, project: Project) -> None:
            pass

        def wait(self) -> float:
            if not edits:
                raise Stopped
            edits.pop(0)()
            return time.time()

    stands_in: Any = fake
    with pytest.raises(Stopped):
        dev.run(
            project,
            "embedded",
            stands_in,
            Scripted(),
            load=load or (lambda: project),
            begin=begin,
            check=lambda _: [],
            tell=verdicts.append,
        )
    return verdicts, began


def test_every_save_gets_its_verdict_and_a_mistake_does_not_end_the_watch(sources: Project) -> None:
    fake = FakeSession(None, CompileError("no"), None)
    edits = [
        lambda: write(sources, "plugin/one.cc", "int"),
        lambda: write(sources, "plugin/one.cc~", "nothing"),
        lambda: os.utime(sources.root / CONFIG),
        lambda: write(sources, "plugin/one.cc", "int two;"),
    ]
    verdicts, began = run_loop(sources, fake, edits)
    assert [each.passed for each in verdicts] == [True, False, True]
    assert fake.rounds == [(), ("plugin/one.cc",), ("plugin/one.cc",)]
    assert verdicts[1].error
    assert verdicts[1].error.code == "plugin-does-not-compile"
    assert all(each.seconds >= 0 for each in verdicts)
    assert began == 1


@pytest.mark.parametrize("kind", [NoBase, BaseElsewhere, NoRegistry, Unauthorized])
def test_a_base_that_is_not_to_be_had_waits_for_the_next_save(sources: Project, kind: type[BuilderError]) -> None:
    fake = FakeSession(None, kind("no"), None)
    edits = [
        lambda: write(sources, "plugin/one.cc", "int two;"),
        lambda: write(sources, "plugin/one.cc", "int three;"),
    ]
    verdicts, _ = run_loop(sources, fake, edits)
    assert [each.passed for each in verdicts] == [True, False, True]


def test_broken_settings_stay_broken_until_they_are_read(sources: Project) -> None:
    fake = FakeSession(None, None)
    answers: list[Project | Exception] = [ProjectError("no"), ProjectError("still no"), sources]

    def load() -> Project:
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    edits = [
        lambda: write(sources, FILE_NAME, "models ="),
        lambda: write(sources, "plugin/one.cc", "int two;"),
        lambda: write(sources, "plugin/one.cc", "int three;"),
    ]
    verdicts, _ = run_loop(sources, fake, edits, load)
    assert [each.passed for each in verdicts] == [True, False, False, True]


def test_a_round_of_files_that_moved_is_repeated(sources: Project) -> None:
    fake = FakeSession(None, Moved("one.cc"), None)
    verdicts, _ = run_loop(sources, fake, [lambda: write(sources, "plugin/one.cc", "int two;")])
    assert [each.passed for each in verdicts] == [True, True]
    assert fake.rounds == [(), ("plugin/one.cc",), ("plugin/one.cc",)]


def test_files_that_never_rest_are_told(sources: Project) -> None:
    fake = FakeSession(*(Moved("one.cc") for _ in range(dev._REPEATS + 1)))
    (verdict,), _ = run_loop(sources, fake, [])
    assert verdict.error
    assert verdict.error.where == "one.cc"


def test_settings_that_change_are_read_and_other_images_are_begun_with(sources: Project) -> None:
    fake = FakeSession(None, None, None)
    newer = sources.targets["embedded"].model_copy(update={"dali": "2.1.1"})
    changed = sources.model_copy(update={"targets": {**sources.targets, "embedded": newer}})
    loads = iter([sources, changed])
    edits = [
        lambda: write(sources, FILE_NAME, "models = {}"),
        lambda: write(sources, FILE_NAME, "dali = '2.1.1'"),
    ]
    verdicts, began = run_loop(sources, fake, edits, load=lambda: next(loads))
    assert len(verdicts) == 3
    assert began == 2
    assert [each.toolchain for each in fake.foundations] == ["toolchain:1", "toolchain:1", "toolchain:2"]


def test_a_file_that_is_still_being_written_is_waited_for(sources: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = iter(["int t", "int tw", "int two;"])
    last = ""

    def more(_: float) -> None:
        nonlocal last
        last = next(pieces, last)
        write(sources, "plugin/one.cc", last)

    monkeypatch.setattr(dev.time, "sleep", more)
    fake = FakeSession(None, None)
    verdicts, _ = run_loop(sources, fake, [lambda: write(sources, "plugin/one.cc", "int")])
    assert len(verdicts) == 2
    assert last == "int two;"


# --- How it ends ---

_COMMAND = """
import signal, sys, time
from pathlib import Path
from builder import cli, project

def load(*_):
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("said to nobody", file=sys.stderr, flush=True)
        Path(sys.argv[-1]).touch()

project.load = load
cli.main(["check"])
"""


def test_a_terminal_that_is_closed_ends_it_through_its_finallys(tmp_path: Path) -> None:
    master, terminal = os.openpty()
    done = tmp_path / "done"
    process = subprocess.Popen(
        # The terminal is its own: who opens one without having any gets it.
        [
            sys.executable,
            "-c",
            f"import os; os.close(os.open({os.ttyname(terminal)!r}, os.O_RDWR)){_COMMAND}",
            str(done),
        ],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        assert b"begun" in os.read(master, 1000)
        os.close(master)
        assert process.wait(60) == 128 + signal.SIGHUP
    finally:
        process.kill()
        process.wait()
    assert done.exists()


def test_a_terminal_that_is_closed_is_minded_only_where_it_is_not_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with cli._signals():
            assert callable(signal.getsignal(signal.SIGHUP))
            with pytest.raises(cli._Stopped), uninterrupted():
                signal.raise_signal(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with cli._signals(), uninterrupted():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# --- What is shown ---


def _verdict(**update: Any) -> Verdict:
    told: dict[str, Any] = {
        "when": datetime(2026, 11, 22, 21, 3, 12, tzinfo=UTC),
        "changed": ("plugin/one.cc",),
        "done": (Done("compiled", 2.34), Done("loaded m", 1.4)),
        "models": (Answered("m", "1", "identity", True, 121, 0.61, 1.2),),
        "not_run": (),
        "seconds": 4.25,
        "http": "127.0.0.1:32000",
        "grpc": "127.0.0.1:32001",
    }
    return Verdict(**{**told, **update})


def shown(verdict: Verdict, *, json: bool = False) -> tuple[str, str]:
    out, err = Console(file=io.StringIO(), width=500), Console(file=io.StringIO(), width=500)
    view.show(verdict, Output(json=json, console=err), out)
    return out.file.getvalue(), err.file.getvalue()  # type: ignore[attr-defined]


def test_a_verdict_is_one_line() -> None:
    out, err = shown(_verdict())
    assert out == (
        "21:03:12 ✓  4.2 s  plugin/one.cc: compiled 2.3 s, loaded m 1.4 s, "
        "m/1 right (identity, 121 requests, p50 0.61 ms, p99 1.20 ms)\n"
    )
    assert err == ""


def test_what_is_left_out_is_told() -> None:
    assert "not run: made (no GPU)\n" in shown(_verdict(not_run=(("made", "no GPU"),)))[0]


def test_a_mistake_is_told_in_full_beside_it() -> None:
    wrong = WrongAnswer("output 'OUT' differs", where="model m", remedy="mend it")
    out, err = shown(_verdict(models=(), error=wrong))
    assert "✗" in out
    assert "wrong-answer" in out
    assert "output 'OUT' differs" in err
    assert "mend it" in err


def test_verdicts_are_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    shown(_verdict(), json=True)
    shown(_verdict(models=(), error=RequestRefused("no")), json=True)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["passed"]
    assert first["models"][0]["latency_ms"] == {"p50": 0.61, "p99": 1.2}
    assert first["done"][0] == {"what": "compiled", "seconds": 2.34}
    assert "error" not in first
    assert (second["passed"], second["error"]["code"]) == (False, "request-refused")


def test_many_names_are_cut() -> None:
    assert session._listed([f"m{number}" for number in range(9)]) == "m0, m1, m2 and 6 more"
    assert view._several([str(number) for number in range(9)]) == "0, 1, 2, 3 and 5 more"
