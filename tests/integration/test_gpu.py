"""The GPU example, as far as the machine can: what needs a GPU that is not there is not run, and never passes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.gpu.floors import FLOORS
from builder import gpu
from builder.docker.engine import Engine

from .conftest import REPOSITORY, ROOT, Project

ENVIRONMENT = {
    "TRITON_DALI_BUILDER_REPOSITORY": f"localhost:5000/{REPOSITORY}-gpu",
    "TRITON_DALI_BUILDER_TARGETS__EMBEDDED__CUDA_ARCHITECTURES": '["90-real", "100"]',  # quicker than all
}
HAS_GPU = bool(gpu.find())
OF_GPUS = {"augment", "mydali_gpu"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> dict[str, Any]:
    """What `make gpu-test` tells, without the figures."""
    folder = tmp_path_factory.mktemp("gpu") / "packed"
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu", "--quick", "--folder", str(folder)],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "report.json").read_text()) == json.loads(done.stdout)
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def example(report: dict[str, Any]) -> Project:
    """The example's own folder, where it was built."""
    return Project(ROOT / "examples" / "gpu", ENVIRONMENT)


def test_what_needs_a_gpu_passes_with_one_alone_and_all_else_passes(report: dict[str, Any]) -> None:
    results = {each["name"]: each["result"] for each in report["tests"]}
    assert len(results) == len(report["tests"])
    assert bool(report["gpus"]) is HAS_GPU
    needs_gpu = {
        name for name in results if name.endswith(", gpu") or name == "kernels without DALI" or _model(name) in OF_GPUS
    }
    assert set(FLOORS) < needs_gpu
    assert len([name for name in needs_gpu if not _model(name)]) == 9 + len(FLOORS)
    assert {_model(name) for name in needs_gpu} - {""} == OF_GPUS
    assert results == {name: "passed" if HAS_GPU or name not in needs_gpu else "not run" for name in results}, report[
        "tests"
    ]


def _model(test: str) -> str:
    """Of the example's, which a test of the report is about; empty for none."""
    found = re.fullmatch(r"(?:served|smoke --local): (\w+)(?:,.*)?", test)
    return found[1] if found else ""


def test_the_same_without_a_container_proves_the_cpu_lane(report: dict[str, Any]) -> None:
    proof = report["figures"]["smoke --local"]
    expected = {"augment_cpu"} | (OF_GPUS if HAS_GPU else set())
    assert {each["name"] for each in proof["models"]} == expected
    assert {each["name"] for each in proof["not_run"]} == (set() if HAS_GPU else OF_GPUS)
    (lane,) = [each for each in proof["models"] if each["name"] == "augment_cpu"]
    assert (lane["oracle"], lane["values_compared"], lane["atol"]) == ("tests/augment.npz", True, 0.1)
    assert lane["requests"] > 300
    assert proof["negative_control"]["passed"]


def test_check_tells_which_gpus_run_what_was_built(example: Project) -> None:
    document = example.builder("check", "--target=embedded", "--json").ok().document
    found = {each["library"]: each for each in document["gpus"]}
    assert set(found) == {"/models/libcustomcopy.so", "/models/libnormalizepermute.so"}
    for each in found.values():
        assert (each["cuda"], each["dali_cuda"], each["driver"]) == ("13.0", "12", 580)
        assert each["native"] == ["9.0", "10.0", "10.3"]
        assert each["jit"] == ["12.0"]
        assert each["no"] == ["7.0", "7.5", "8.0", "8.6", "8.9"]


def test_what_did_not_run_is_not_pushed(example: Project) -> None:
    done = example.builder("smoke", "--without-gpu", "--json").ok()
    assert done.document["passed"] is False
    (proof,) = done.document["images"]
    assert {each["name"] for each in proof["models"]} == {"augment_cpu"}
    assert {each["name"] for each in proof["not_run"]} == OF_GPUS
    assert {each["why"] for each in proof["not_run"]} == {"no GPU"}
    assert example.builder("smoke", "--without-gpu").ok().stdout == ""  # no digest has passed
    example.builder("push", "--json").failed("not-verified", 6)


@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")
def test_without_a_gpu_the_whole_image_does_not_come_up(example: Project) -> None:
    error = example.builder("smoke", "--json").failed("server-died", 5)
    assert "GPU" in error["what"]


def test_a_folder_that_is_no_image_is_told(example: Project, tmp_path: Path) -> None:
    example.builder("smoke", "--local", "--folder", str(tmp_path), "--json").failed("no-unpacked-image", 3)
    example.builder("smoke", "--folder", str(tmp_path), "--json").failed("usage", 2)
