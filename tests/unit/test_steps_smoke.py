from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from builder import __version__, asking, triton, workload
from builder.artifacts import Verification
from builder.asking import compare
from builder.errors import (
    BuilderError,
    GoldenInvalid,
    InferenceFailed,
    OracleModelUnknown,
    RequestRefused,
    ServerDied,
    VerificationError,
    WrongAnswer,
)
from builder.oracles import Case, Oracle, RandomQuestions, identity
from builder.project import Model, Project
from builder.steps import smoke
from builder.triton import Array, ModelSpec, Tensors, TensorSpec
from builder.workload import MIB

PLUGIN = "/models/libcustomcopy.so"
REQUESTS = Oracle("requests.npz", 0.0, 0.0, lambda spec, seed: RandomQuestions(spec, seed, identity))
IDENTITY = replace(REQUESTS, name="identity")


def model(datatype: str = "UINT8", name: str = "m", version: str = "") -> ModelSpec:
    return ModelSpec(name, 8, (TensorSpec("IN", datatype, (-1,)),), (TensorSpec("OUT", datatype, (-1,)),), version)


def check(datatype: str, given: Array, got: Array | None) -> None:
    outputs: Any = {"OUT": got}
    compare(model(datatype), IDENTITY, Case({"IN": given}, {"OUT": given}), outputs, "http")


@pytest.mark.parametrize(
    ("datatype", "tensor"),
    [
        ("UINT8", np.arange(12, dtype=np.uint8).reshape(3, 4)),
        ("BOOL", np.array([[True, False]])),
        ("FP32", np.array([[np.nan, np.inf, -0.0]], np.float32)),
        ("UINT8", np.empty((4, 0), np.uint8)),
        ("BYTES", np.array([[b"one", b"two"]], object)),
    ],
)
def test_an_equal_answer_is_right(datatype: str, tensor: Array) -> None:
    copy = np.array([[bytes(bytearray(each)) for each in row] for row in tensor], object)
    check(datatype, tensor, copy if datatype == "BYTES" else tensor.copy())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda _: None, "is missing"),
        (
            lambda tensor: np.where(np.arange(12).reshape(3, 4) == 5, 99, tensor).astype(np.uint8),
            r"differs at \[1, 1\]: got 99, not 5; 1 of 12 elements differ, by 94 at most",
        ),
        (lambda tensor: tensor.reshape(4, 3), r"is uint8\[4, 3\], not uint8\[3, 4\]"),
        (lambda tensor: tensor[:2], r"is uint8\[2, 4\], not uint8\[3, 4\]"),
        (lambda tensor: tensor.astype(np.int8), r"is int8\[3, 4\], not uint8\[3, 4\]"),
    ],
)
def test_an_answer_that_differs_is_told_by_how(change: Callable[[Array], Array | None], problem: str) -> None:
    tensor = np.arange(12, dtype=np.uint8).reshape(3, 4)
    with pytest.raises(WrongAnswer, match=f"output 'OUT' of model 'm' {problem}") as failure:
        check("UINT8", tensor, change(tensor))
    assert failure.value.where == "model m, http, input uint8[3, 4]"


def test_a_zero_s_sign_counts() -> None:
    with pytest.raises(WrongAnswer):
        check("FP32", np.zeros((1, 1), np.float32), -np.zeros((1, 1), np.float32))


class Echo:
    """A client whose server gives back what it gets, after `seconds` for each MiB."""

    def __init__(self, protocol: str, seconds: float = 0.0, refuses: bool = False) -> None:
        self.protocol = protocol
        self.asked: list[tuple[str, str, tuple[int, ...]]] = []
        self._seconds = seconds
        self._refuses = refuses

    def infer(self, spec: ModelSpec, inputs: Tensors) -> Tensors:
        if self._refuses:
            raise RequestRefused("refused", remedy="see the server's message")
        given = inputs["IN"]
        time.sleep(self._seconds * given.nbytes / MIB)
        self.asked.append((spec.name, spec.version, given.shape))
        return {"OUT": given}

    def infer_many(self, spec: ModelSpec, requests: Sequence[Tensors]) -> list[Tensors]:
        return [self.infer(spec, each) for each in requests]


def test_every_version_of_every_model_is_asked_over_every_protocol(
    monkeypatch: pytest.MonkeyPatch, console: Console
) -> None:
    monkeypatch.setattr(workload, "SAMPLE_BYTES", (1, 100))
    clients = Echo("http"), Echo("grpc")
    specs = [model(name="a", version="1"), model(name="a", version="2"), model(name="b", version="1")]
    verified = smoke.verify(specs, {"a": IDENTITY}, clients, 1, console)
    assert [(each.name, each.version, each.oracle) for each in verified] == [
        ("a", "1", "identity"),
        ("a", "2", "identity"),
        ("b", "1", "signature"),
    ]
    assert [each.values_compared for each in verified] == [True, True, False]
    for each in verified:
        counts = [
            sum((name, version) == (each.name, each.version) for name, version, _ in one.asked) for one in clients
        ]
        assert all(counts)
        assert sum(counts) == each.requests
        assert each.left_out == 0
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "model a/2: " in lines[1]
    assert "every value right (identity)" in lines[1]
    assert "types and shapes right, no oracle compared values (signature)" in lines[2]


def test_what_there_is_no_time_for_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch, console: Console) -> None:
    monkeypatch.setattr(smoke, "MODELS_SECONDS", 0.0)
    clients = Echo("http"), Echo("grpc")
    (verified,) = smoke.verify([model()], {"m": IDENTITY}, clients, 1, console)
    for client in clients:
        shapes = {shape for _, _, shape in client.asked}
        assert {(1, 1), (2, 1), (7, 1), (8, 1), (1, 8 * MIB)} <= shapes
    assert verified.left_out > 100
    assert verified.requests == sum(len(client.asked) for client in clients)
    assert f"no time for {verified.left_out} more requests" in console.file.getvalue()  # type: ignore[attr-defined]


def test_all_models_together_keep_to_their_time(monkeypatch: pytest.MonkeyPatch, console: Console) -> None:
    monkeypatch.setattr(smoke, "MODELS_SECONDS", 2.0)
    monkeypatch.setattr(workload, "SAMPLE_BYTES", (1, MIB))
    slow = Echo("http", seconds=0.05)
    began = time.monotonic()
    verified = smoke.verify([model(name=name) for name in "abc"], {}, [slow], 1, console)
    assert time.monotonic() - began < 10  # 21 s of requests without the limit
    assert all(each.left_out for each in verified)


def test_nothing_is_timed_before_all_else_has_ended_and_that_costs_no_time(
    monkeypatch: pytest.MonkeyPatch, console: Console
) -> None:
    monkeypatch.setattr(workload, "SAMPLE_BYTES", (1, 100))
    client, asked, now = Echo("http"), list[int](), [0.0]
    monkeypatch.setattr(asking, "time", SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter))

    def alone() -> None:
        asked.append(len(client.asked))
        now[0] += 2 * smoke.MODELS_SECONDS

    first, second = smoke.verify(
        [model(name="a"), model(name="b")], {"a": IDENTITY, "b": IDENTITY}, [client], 1, console, alone=alone
    )
    needed, others = RandomQuestions(model(), 1, identity).sweep()
    untimed = len(needed) + len(others) + smoke.ROUNDS * smoke.AT_ONCE
    assert asked == [untimed, first.requests + untimed]
    assert first.requests > untimed + smoke.LATENCY_REQUESTS
    assert first.left_out == second.left_out == 0


def test_the_first_wrong_answer_ends_it(monkeypatch: pytest.MonkeyPatch, console: Console) -> None:
    wrong = Oracle("x.py:f", 0.0, 0.0, lambda spec, seed: RandomQuestions(spec, seed, _one_more))
    with pytest.raises(WrongAnswer, match="by 1 at most"):
        smoke.verify([model()], {"m": wrong}, [Echo("http")], 1, console)
    monkeypatch.setattr(workload, "SAMPLE_BYTES", (1, 100))
    smoke.verify([model()], {"m": replace(wrong, atol=255.0)}, [Echo("http")], 1, console)


def _one_more(_: ModelSpec, inputs: Tensors) -> Tensors:
    return {"OUT": np.where(inputs["IN"] < 255, inputs["IN"] + np.uint8(1), np.uint8(254))}


@pytest.mark.parametrize(("oracle", "advice"), [(IDENTITY, True), (REQUESTS, False)])
def test_a_model_that_refuses_random_input_wants_a_golden_file(console: Console, oracle: Oracle, advice: bool) -> None:
    with pytest.raises(RequestRefused) as failure:
        smoke.verify([model()], {"m": oracle}, [Echo("http", refuses=True)], 1, console)
    assert ('oracle = "FILE.npz" in [models.m]' in failure.value.remedy) is advice


class FakeServer:
    """A server that stopped, and the log that it left."""

    def __init__(self, *lines: str, status: int | None = 1) -> None:
        self.lines = list(lines)
        self.status = status

    def endpoint(self) -> None:
        return None

    def exited(self) -> int | None:
        return self.status

    def log(self) -> list[str]:
        return self.lines

    def whole_log(self) -> bytes:
        return "".join(f"{line}\n" for line in self.lines).encode()


def host(serving: Callable[..., Any], *plugins: str) -> Any:
    """Serves an image with these plugins in its command."""
    command = [f"--backend-config=dali,plugin_libs={':'.join(plugins)}"] if plugins else []
    return SimpleNamespace(image=lambda _: {"Config": {"Cmd": command}}, serving=serving, version="")


@pytest.mark.parametrize(
    ("status", "expected", "what"),
    [(139, ServerDied, "stopped with exit status 139 while it was asked"), (None, InferenceFailed, "refused")],
)
def test_a_request_that_fails_for_want_of_a_server_names_the_server(
    monkeypatch: pytest.MonkeyPatch,
    console: Console,
    project: Project,
    status: int | None,
    expected: type[BuilderError],
    what: str,
) -> None:
    @contextlib.contextmanager
    def serving(*_: object, **__: object) -> Iterator[Any]:
        yield FakeServer("Segmentation fault", status=status)

    def models(_: object) -> Any:
        raise InferenceFailed("the server refused")

    monkeypatch.setattr(triton, "wait_until_ready", lambda *_, **__: 1.0)
    monkeypatch.setattr(triton, "models", models)
    with pytest.raises(expected, match=what) as failure:
        smoke.run(host(serving), "sha256:1", "mydali", "embedded", console, project=project, seed=1)
    assert type(failure.value) is expected


class Proven:
    """A host with one image; `passing` says how it is served."""

    version = "26.1.5"
    serving: Any

    def __init__(self, described: dict[str, Any]) -> None:
        self.image = lambda _: described


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A verification whose requests are left out; the lines are the server's log."""
    lines: list[str] = []

    @contextlib.contextmanager
    def serving(*_: object, **__: object) -> Iterator[FakeServer]:
        yield FakeServer(*lines, status=None)

    monkeypatch.setattr(Proven, "serving", staticmethod(serving), raising=False)
    monkeypatch.setattr(triton, "wait_until_ready", lambda *_, **__: 1.0)
    monkeypatch.setattr(triton, "models", lambda _: [model()])
    monkeypatch.setattr(triton, "clients", lambda *_: contextlib.nullcontext(()))
    monkeypatch.setattr(smoke, "verify", lambda *_, **__: ())
    return lines


LABELS = {
    "triton-dali-builder.target": "ngc",
    "triton-dali-builder.triton.version": "26.06",
    "triton-dali-builder.dali.version": "2.1.1",
}


def proven(project: Project, console: Console, target: str = "embedded", labels: Any = LABELS) -> Verification:
    described = {"Config": {"Labels": labels}}
    host: Any = Proven(described)
    return smoke.run(host, "sha256:1", "mydali", target, console, project=project, seed=1)


def test_a_verification_tells_what_was_verified_and_by_what(
    project: Project, console: Console, passing: list[str]
) -> None:
    made = proven(project, console)
    assert made.versions == {"triton": "26.06", "dali": "2.1.1", "builder": __version__, "engine": "26.1.5"}
    assert (made.target, made.passed, made.seed) == ("embedded", True, 1)
    # An image of the engine, or of a registry, tells its target itself.
    assert proven(project, console, target="").target == "ngc"
    nobody_s = proven(project, console, target="", labels=None)
    assert (nobody_s.target, nobody_s.versions["dali"]) == ("", "")


def test_a_verification_holds_the_digest_of_the_whole_log_and_its_last_lines(
    project: Project, console: Console, passing: list[str]
) -> None:
    passing.extend(str(number) for number in range(100))
    made = proven(project, console)
    assert made.server_log == tuple(map(str, range(60, 100)))
    whole = "".join(f"{number}\n" for number in range(100)).encode()
    assert made.server_log_sha256 == hashlib.sha256(whole).hexdigest()


def test_a_verification_names_the_files_that_said_how_to_verify(
    project: Project, console: Console, passing: list[str]
) -> None:
    files = {"builder.toml": b"x", "tests/golden.npz": b"y", "tests/oracles.py": b"z", "tests/other.py": b"-"}
    (project.root / "tests").mkdir()
    for name, content in files.items():
        (project.root / name).write_bytes(content)
    models = {
        "a": Model(oracle="tests/golden.npz"),
        "b": Model(oracle="tests/oracles.py:decode"),
        "c": Model(oracle="tests/oracles.py:encode"),
        "d": Model(oracle="identity"),
        "e": Model(oracle="tests/gone.npz"),
    }
    told = project.model_copy(update={"models": models})
    del files["tests/other.py"]
    assert smoke._configuration(told) == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def test_a_model_that_builder_toml_names_must_be_served(project: Project) -> None:
    told = project.model_copy(update={"models": {"reverse": Model(), "twce": Model()}})
    with pytest.raises(OracleModelUnknown, match=r"no model 'twce'.*did you mean twice"):
        smoke._check_all_served(told, [model(name="reverse"), model(name="twice")])


CONFIG = """max_batch_size: 8
input [{ name: "IN" data_type: TYPE_UINT8 dims: [ -1 ] }]
output [{ name: "OUT" data_type: TYPE_UINT8 dims: [ %s ] }]
"""


def test_golden_arrays_are_tried_before_a_server_starts(project: Project) -> None:
    told = project.model_copy(update={"models": {"m": Model(oracle="golden.npz")}})
    data = np.zeros((2, 3), np.uint8)
    np.savez(project.root / "golden.npz", IN=data, OUT=data)
    folder: Path = project.state / "embedded" / "parts" / "models" / "m"
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG % "-1")
    assert smoke._oracles(told, "embedded")["m"].has_requests
    (folder / "config.pbtxt").write_text(CONFIG % "4")
    with pytest.raises(GoldenInvalid, match=r"OUT.*is uint8\[2, 3\], and config.pbtxt declares uint8\[samples, 4\]"):
        smoke._oracles(told, "embedded")


PLACED = "backend: 'dali'\ninstance_group [ {{ kind: {} }} ]\n"


def test_models_of_gpus_are_left_out_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, console: Console, project: Project
) -> None:
    """The server is told to load the others alone, and nothing has passed."""
    models = project.state / "embedded" / "parts" / "models"
    for name, config in (("cpu", PLACED.format("KIND_CPU")), ("gpu", PLACED.format("KIND_GPU")), ("made", "")):
        (models / name / "1").mkdir(parents=True)
        if config:
            (models / name / "config.pbtxt").write_text(config)
    left_out = smoke.of_gpus(project, "embedded")
    assert [(each.name, each.why) for each in left_out] == [("gpu", "no GPU")]

    started: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def serving(_: str, **options: Any) -> Iterator[Any]:
        started.append(options)
        server: Any = FakeServer('No schema found for operator "CustomCopy"')
        server.hidden = options.get("hidden")
        yield server

    def wait(_endpoint: object, server: Any, **__: object) -> float:
        if server.hidden:
            raise ServerDied("it died", remedy="none")
        return 1.0

    @contextlib.contextmanager
    def clients(*_: object) -> Iterator[Any]:
        yield [Echo("http")]

    monkeypatch.setattr(triton, "wait_until_ready", wait)
    monkeypatch.setattr(triton, "models", lambda _: [model(name="cpu"), model(name="made")])
    monkeypatch.setattr(triton, "clients", clients)
    monkeypatch.setattr(smoke, "MODELS_SECONDS", 0.0)
    found = smoke.run(
        host(serving, PLUGIN), "sha256:1", "x", "embedded", console, project=project, seed=1, not_run=left_out
    )
    only = ["--model-control-mode=explicit", "--load-model=cpu", "--load-model=made"]
    assert [each["arguments"] for each in started] == [only, only]
    assert found.negative_control.passed
    assert [each.name for each in found.models] == ["cpu", "made"]
    assert [each.name for each in found.not_run] == ["gpu"]
    assert not found.passed


@dataclass
class Both:
    """A host whose image has a plugin; what happened to its two servers, in order."""

    monkeypatch: pytest.MonkeyPatch
    happened: list[str] = field(default_factory=list)
    may_end: threading.Event = field(default_factory=threading.Event)
    """Whether the server without plugins gives up."""
    client: Echo = field(default_factory=lambda: Echo("http"))

    def __post_init__(self) -> None:
        self.monkeypatch.setattr(triton, "wait_until_ready", self.wait)
        self.monkeypatch.setattr(triton, "models", lambda _: [model()])
        self.monkeypatch.setattr(triton, "clients", lambda *_: contextlib.nullcontext([self.client]))
        self.monkeypatch.setattr(workload, "SAMPLE_BYTES", (1, 100))

    @contextlib.contextmanager
    def serving(self, _: str, **options: Any) -> Iterator[Any]:
        server: Any = FakeServer('No schema found for operator "CustomCopy"')
        server.hidden = options.get("hidden")
        name = "without" if server.hidden else "server"
        self.happened.append(f"{name} started")
        yield server
        self.happened.append(f"{name} taken away")

    def wait(self, _: object, server: Any, **__: object) -> float:
        if not server.hidden:
            return 1.0
        assert self.may_end.wait(30)
        self.happened.append("without ended")
        raise ServerDied("it died", remedy="none")

    def run(self, project: Project, console: Console, target: str = "embedded", gpus: str = "") -> Verification:
        return smoke.run(
            host(self.serving, PLUGIN), "sha256:1", "x", target, console, project=project, seed=1, gpus=gpus
        )


def test_requests_are_asked_beside_the_server_without_plugins_and_timed_after_its_end(
    monkeypatch: pytest.MonkeyPatch, console: Console, project: Project
) -> None:
    both = Both(monkeypatch)
    (project.state / "embedded" / "parts" / "models").mkdir(parents=True)
    measure = smoke._latency

    def latency(*arguments: Any) -> Any:
        both.happened.append("timed")
        return measure(*arguments)

    stopped = asking.Clock.stopped

    def asked(clock: asking.Clock) -> Any:
        both.happened.append("asked")
        both.may_end.set()
        return stopped(clock)

    monkeypatch.setattr(smoke, "_latency", latency)
    monkeypatch.setattr(asking.Clock, "stopped", asked)
    assert both.run(project, console).negative_control.passed
    assert both.happened == [
        *("server started", "without started", "asked", "without ended", "timed"),
        *("without taken away", "server taken away"),
    ]


@pytest.mark.parametrize(
    ("target", "gpus", "size"),
    [("embedded", "all", 1), ("embedded", "", 2000), ("", "", 1)],
    ids=["gpu", "heavy", "unknown"],
)
def test_two_servers_that_want_much_do_not_run_at_once(
    monkeypatch: pytest.MonkeyPatch, console: Console, project: Project, target: str, gpus: str, size: int
) -> None:
    both = Both(monkeypatch)
    both.may_end.set()
    monkeypatch.setattr(smoke, "_LIGHT_BYTES", 1000)
    weights = project.state / "embedded" / "parts" / "models" / "m" / "1" / "weights"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(bytes(size))
    assert both.run(project, console, target, gpus).negative_control.passed
    assert both.happened == [
        *("server started", "server taken away"),
        *("without started", "without ended", "without taken away"),
    ]


def test_an_ensemble_is_left_out_with_its_steps(project: Project) -> None:
    """However far away the model is that needs the GPU, and whichever name comes first."""
    models = project.state / "embedded" / "parts" / "models"
    steps = {"a_all": ["b_some", "cpu"], "b_some": ["cpu", "gpu"], "c_none": ["cpu"]}
    for name, config in {
        "cpu": PLACED.format("KIND_CPU"),
        "gpu": PLACED.format("KIND_GPU"),
        **{
            name: "platform: 'ensemble'\nensemble_scheduling { step ["
            + ", ".join(f"{{ model_name: '{step}' }}" for step in of)
            + "] }"
            for name, of in steps.items()
        },
    }.items():
        (models / name / "1").mkdir(parents=True)
        (models / name / "config.pbtxt").write_text(config)
    assert [(each.name, each.why) for each in smoke.of_gpus(project, "embedded")] == [
        ("a_all", "its step b_some is not run"),
        ("b_some", "its step gpu is not run"),
        ("gpu", "no GPU"),
    ]


def test_a_server_with_gpu_models_alone_proves_nothing_without_one(
    monkeypatch: pytest.MonkeyPatch, console: Console, project: Project
) -> None:
    @contextlib.contextmanager
    def serving(*_: Any, **__: Any) -> Iterator[Any]:
        yield FakeServer()

    monkeypatch.setattr(triton, "wait_until_ready", lambda *_, **__: 1.0)
    monkeypatch.setattr(triton, "models", lambda _: [])
    left_out = [smoke.NotRun(name="gpu", why="no GPU")]
    with pytest.raises(VerificationError, match="no model that needs no GPU"):
        smoke.run(host(serving), "1", "x", "embedded", console, project=project, seed=1, not_run=left_out)
