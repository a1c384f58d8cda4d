"""What `make gpu-test` tells: nothing of an earlier run, and no figure below its floor as good."""

from __future__ import annotations

import copy
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench.gpu import inside, pack
from bench.gpu.floors import FLOORS
from bench.gpu.report import Report
from builder.errors import BadUsage

ROOT = Path(__file__).resolve().parents[2]
PASSED = {"tests": [{"name": "x", "result": "passed", "detail": ""}], "figures": {"f": 1}}
LARGE, SMALL, ONE, NORMALIZE = FLOORS


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """run.py, which has `enter` beside it where it was packed."""
    monkeypatch.syspath_prepend(str(ROOT / "builder" / "unpacked"))
    for name in ("bench.gpu.run", "enter"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("bench.gpu.run")


@pytest.mark.parametrize(
    ("left", "status", "results"),
    [
        (PASSED, 0, ["passed"]),
        (PASSED, 137, ["passed", "failed"]),
        ({"tests": [], "figures": {}}, 0, ["failed"]),
        (None, 0, ["failed"]),
        (None, 125, ["failed"]),
    ],
)
def test_tests_that_came_to_no_end_have_failed(
    runner: ModuleType, tmp_path: Path, left: Any, status: int, results: list[str]
) -> None:
    file = tmp_path / "report.json"
    if left is not None:
        file.write_text(json.dumps(left))
    told = runner.told(file, status)
    assert [each["result"] for each in told["tests"]] == results
    assert told["figures"] == (left or {"figures": {}})["figures"]


def test_an_earlier_run_s_results_are_not_those_of_this_one(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "report.json").write_text(json.dumps(PASSED))
    (tmp_path / "image.json").write_text(json.dumps({"described": {"Config": {"Env": ["A=b"]}}}))
    monkeypatch.setattr(runner, "HERE", tmp_path)
    monkeypatch.setattr(runner, "graphics", list)
    monkeypatch.setattr(runner.enter, "command", lambda _: ["true"])
    monkeypatch.setattr(sys, "argv", ["run.py", "--report", str(tmp_path / "new.json")])
    assert runner.main() == 1
    (only,) = json.loads((tmp_path / "new.json").read_text())["tests"]
    assert (only["result"], only["detail"]) == ("failed", "they ended with exit status 0, and no report")


@pytest.fixture
def measured() -> dict[str, Any]:
    """The figures of the run on an H200, which docs/gpu.md tells."""
    report = json.loads((ROOT / "docs" / "gpu-report.json").read_text())
    return dict(report["figures"]["kernels"])


def test_the_run_that_is_told_met_every_floor(measured: dict[str, Any]) -> None:
    for floor in FLOORS.values():
        floor(measured)


@pytest.mark.parametrize(
    ("name", "figure", "keys", "value"),
    [
        (LARGE, "copy_512MiB", ["of_cudaMemcpy"], 0.9499),
        (SMALL, "copy_4096_of_1KiB", ["faster_than_copy_per_sample"], [9.9, 125.2]),
        (SMALL, "copy_4096_of_1KiB", ["faster_than_copy_per_sample"], [987.6, 9.9]),
        (ONE, "copy_4096_of_1KiB", ["launches"], [2, 32]),
        (NORMALIZE, "normalize_rgb_odd", ["of_copy"], 0.8499),
        (NORMALIZE, "normalize_rgb_224", ["of_copy"], 0.8499),
    ],
)
def test_a_figure_below_its_floor_fails_its_test_alone(
    measured: dict[str, Any], name: str, figure: str, keys: list[str], value: Any
) -> None:
    changed = copy.deepcopy(measured)
    for key in keys:
        changed[figure][key] = value
    report = Report()
    report.figures["kernels"] = changed
    inside.hold_to_floors(True, report)
    assert {each["name"]: each["result"] for each in report.tests} == {
        each: "failed" if each == name else "passed" for each in FLOORS
    }


def test_without_figures_no_floor_is_met() -> None:
    report = Report()
    inside.hold_to_floors(True, report)
    assert {each["result"] for each in report.tests} == {"failed"}
    report = Report()
    inside.hold_to_floors(False, report)
    assert [(each["name"], each["result"]) for each in report.tests] == [(name, "not run") for name in FLOORS]


@pytest.mark.parametrize("missing", ["copy_samples_right", "normalize_samples_right"])
def test_kernels_that_were_not_checked_have_not_passed(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    told = {"copy_samples_right": 1, "normalize_samples_right": 1}
    monkeypatch.setattr(inside, "_output", lambda _: json.dumps(told))
    assert "custom_copy: 1 samples" in inside.kernels(Path(), Report())
    del told[missing]
    report = Report()
    report.test("kernels", lambda: inside.kernels(Path(), report))
    assert report.tests[0]["result"] == "failed"


def test_packing_removes_earlier_packs_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "pack"
    pack.clear(folder)
    (folder / "rootfs").mkdir()
    (folder / "run.py").touch()
    pack.clear(folder)
    assert [path.name for path in folder.iterdir()] == [pack.MARK]

    other = tmp_path / "other"
    other.mkdir()
    pack.clear(other)  # empty
    (other / pack.MARK).unlink()
    (other / "mine").touch()
    with pytest.raises(BadUsage, match="not packed here"):
        pack.clear(other)
    with pytest.raises(BadUsage, match="not packed here"):
        pack.clear(other / "mine")
    assert (other / "mine").exists()
