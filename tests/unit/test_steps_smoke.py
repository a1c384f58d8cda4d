from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from builder import triton
from builder.errors import BuilderError, InferenceFailed, ServerDied, VerificationError, WrongAnswer
from builder.steps import smoke
from builder.steps.smoke import compare
from builder.triton import Array, ModelSpec, TensorSpec

PLUGIN = "/models/libcustomcopy.so"


def model(datatype: str) -> ModelSpec:
    return ModelSpec("m", 8, (TensorSpec("IN", datatype, (-1,)),), (TensorSpec("OUT", datatype, (-1,)),))


def check(datatype: str, given: Array, got: Array | None) -> None:
    outputs: Any = {"OUT": got}
    compare(model(datatype), {"IN": given}, outputs, "http")


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
        (lambda tensor: np.where(np.arange(12).reshape(3, 4) == 5, 99, tensor).astype(np.uint8), "element 5 on"),
        (lambda tensor: tensor.reshape(4, 3), r"is uint8\[4, 3\], not uint8\[3, 4\]"),
        (lambda tensor: tensor[:2], r"is uint8\[2, 4\], not uint8\[3, 4\]"),
        (lambda tensor: tensor.astype(np.int8), r"is int8\[3, 4\], not uint8\[3, 4\]"),
    ],
)
def test_an_answer_that_differs_is_told_by_how(change: Callable[[Array], Array | None], problem: str) -> None:
    tensor = np.arange(12, dtype=np.uint8).reshape(3, 4)
    with pytest.raises(WrongAnswer, match=problem) as failure:
        check("UINT8", tensor, change(tensor))
    assert failure.value.where == "model m, http, input [3, 4]"


def test_a_zero_s_sign_counts() -> None:
    with pytest.raises(WrongAnswer):
        check("FP32", np.zeros((1, 1), np.float32), -np.zeros((1, 1), np.float32))


def test_a_model_that_is_no_identity_has_no_oracle() -> None:
    spec = ModelSpec("m", 8, model("UINT8").inputs, ())
    with pytest.raises(VerificationError, match="1 inputs and 0 outputs"):
        compare(spec, {"IN": np.zeros((1, 1), np.uint8)}, {}, "http")


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


def judge(*lines: str) -> Any:
    server: Any = FakeServer("I1122 1 model_lifecycle.cc:472] loading: mydali:1", *lines, "error: creating server")
    return smoke._judge(server, "mydali")


@pytest.mark.parametrize(
    "line",
    [
        f"E1122 model.py:48] Failed to load plugin library '{PLUGIN}' (parameter plugin_libs): file too short",
        f"Failed to load plugin libs: Failed to load library {PLUGIN}: file too short",
        'No schema found for operator "CustomCopy"',
        "Schema for operator 'CustomCopy' not registered",
    ],
)
def test_a_server_that_fails_for_lack_of_its_plugin_is_the_proof(line: str) -> None:
    control = judge(line)
    assert (control.applicable, control.passed, control.evidence) == (True, True, line)


@pytest.mark.parametrize(
    "lines",
    [
        ("E1122 socket.cc:42] failed to bind port 8000",),
        # Triton prints the backends with their options whatever went wrong.
        (
            "instance group m_0 of model m specifies invalid or unsupported gpu id 0",
            "| dali    | /opt/tritonserver/backends/dali/libtriton_dali.so | "
            f'{{"cmdline":{{"auto-complete-config":"true","plugin_libs":"{PLUGIN}"}}}} |',
        ),
    ],
    ids=["port", "gpu"],
)
def test_a_server_that_fails_for_another_reason_proves_nothing(lines: tuple[str, ...]) -> None:
    with pytest.raises(VerificationError, match="something else"):
        judge(*lines)


@pytest.mark.parametrize(
    ("status", "expected", "what"),
    [(139, ServerDied, "stopped with exit status 139 while it was asked"), (None, InferenceFailed, "refused")],
)
def test_a_request_that_fails_for_want_of_a_server_names_the_server(
    monkeypatch: pytest.MonkeyPatch, console: Console, status: int | None, expected: type[BuilderError], what: str
) -> None:
    @contextlib.contextmanager
    def serving(*_: object, **__: object) -> Iterator[FakeServer]:
        yield FakeServer("Segmentation fault", status=status)

    def models(_: object) -> Any:
        raise InferenceFailed("the server refused")

    monkeypatch.setattr(smoke, "serving", serving)
    monkeypatch.setattr(triton, "wait_until_ready", lambda *_, **__: 1.0)
    monkeypatch.setattr(triton, "models", models)
    engine: Any = SimpleNamespace(image=lambda _: {"Config": {}})
    with pytest.raises(expected, match=what) as failure:
        smoke.run(engine, "sha256:1", "mydali", "embedded", console, seed=1)
    assert type(failure.value) is expected
