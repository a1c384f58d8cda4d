"""The tests, in the image's files: `python3 -m bench.gpu.inside FOLDER gpu|cpu [--quick]`. Begun by run.py."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.gpu import served
from bench.gpu.floors import FLOORS, Figures
from bench.gpu.report import Report

TARGET = "embedded"
_ALONE_SECONDS = 240.0


def main(folder: Path, gpu: bool, quick: bool) -> None:
    report = Report()
    project = folder / "project"
    answer = folder / "answers" / "report.json"

    def save() -> None:
        answer.write_text(json.dumps(report.as_json()), encoding="utf-8")

    if gpu:
        report.test("kernels without DALI", lambda: kernels(folder, report))
    else:
        report.not_run("kernels without DALI", "no GPU")
    hold_to_floors(gpu, report)
    save()
    with tempfile.TemporaryDirectory() as models:
        report.test("DALI alone", lambda: report.add(alone(project, Path(models), gpu, quick)))
        save()
        Path(models).chmod(0o755)
        report.test("serving", lambda: report.add(served.main(folder, project, Path(models), gpu, quick).as_json()))
        save()
    report.test("smoke --local", lambda: smoke(folder, project, gpu, report))
    save()


def kernels(folder: Path, report: Report) -> str:
    told = json.loads(_output([str(folder / "kernels")]))
    report.figures["kernels"] = told
    copied, normalized = told["copy_samples_right"], told["normalize_samples_right"]
    assert min(copied, normalized) > 0, "nothing was compared"
    return (
        f"custom_copy: {copied} samples, byte for byte; normalize_permute: {normalized} samples, bit for bit as the CPU"
    )


def hold_to_floors(gpu: bool, report: Report) -> None:
    """Each floor is a test; one without a figure has failed, if there is a GPU to measure it."""
    for name, floor in FLOORS.items():
        if gpu:
            report.test(name, functools.partial(_held, floor, report))
        else:
            report.not_run(name, "no GPU")


def _held(floor: Callable[[Figures], str], report: Report) -> str:
    return floor(report.figures["kernels"])


def alone(project: Path, models: Path, gpu: bool, quick: bool) -> dict[str, Any]:
    """In a process with DALI's own NumPy, as the models' processes have it."""
    environment = {**os.environ, "PYTHONPATH": str(project.parent)}
    command = ["python3", "-m", "bench.gpu.alone", str(project), str(models), "gpu" if gpu else "cpu"]
    return dict(json.loads(_output(command + ["--quick"] * quick, environment)))


def smoke(folder: Path, project: Path, gpu: bool, report: Report) -> str:
    """As a user would run it. Without a GPU nothing has passed, and it says what was not run."""
    command = ["python3", "-m", "builder", "smoke", "-C", str(project), "--target", TARGET, "--local"]
    lane = ["--gpus", "all"] if gpu else ["--without-gpu"]
    (image,) = json.loads(_output([*command, "--folder", str(folder), "--json", *lane]))["images"]
    report.figures["smoke --local"] = image
    verified = {model["name"] for model in image["models"]}
    for each in image["not_run"]:
        report.not_run(f"smoke --local: {each['name']}", each["why"])
    control = image["negative_control"]
    assert (control["applicable"], control["passed"]) == (True, True), control["evidence"]
    expected = {"augment", "augment_cpu", "mydali_gpu"} if gpu else {"augment_cpu"}
    assert verified == expected, verified
    requests = sum(model["requests"] for model in image["models"])
    return f"{', '.join(sorted(verified))}: {requests} requests, all answers right; fails without its plugins"


def _output(command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_ALONE_SECONDS,
        check=False,
    )
    sys.stderr.write(done.stderr)
    if done.returncode:
        raise ChildProcessError(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr[-1200:]}")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "gpu", "--quick" in sys.argv)
