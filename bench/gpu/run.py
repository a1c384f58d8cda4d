#!/usr/bin/env python3
"""Begins the GPU tests in the image's files: `python3 run.py [--report FILE]`, in the folder that was packed.

Needs Linux, Python 3.10, NVIDIA's driver, and root or a kernel that lets users have namespaces; no network. Without a
GPU the tests of the CPU run, and those of the GPU are reported as not run. The report is JSON. Exit status 1 if a test
failed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
if TYPE_CHECKING:
    from builder.unpacked import enter
else:
    sys.path.insert(0, str(HERE / "builder" / "unpacked"))  # the builder itself needs more than there may be here
    import enter

INSIDE = "/mnt/gpu-test"
SHARED_MEMORY = "12g"


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the GPU tests in the image's files, offline.")
    parser.add_argument("--report", type=Path, default=HERE / "report.json", help="where the report goes")
    parser.add_argument("--quick", action="store_true", help="correctness alone, no figures")
    arguments = parser.parse_args()
    described = json.loads((HERE / "image.json").read_text(encoding="utf-8"))["described"]
    environment = dict(each.split("=", 1) for each in described["Config"]["Env"])
    gpus = graphics()
    answers = HERE / "answers"
    answers.mkdir(exist_ok=True)
    (answers / "report.json").unlink(missing_ok=True)  # an earlier run's says nothing of this one
    environment |= {
        "PYTHONPATH": f"{INSIDE}/site:{INSIDE}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "HOME": "/tmp",
        "COLUMNS": "200",
    }
    options = ["--quick"] if arguments.quick else []
    room = enter.Room(
        root=str(HERE / "rootfs"),
        arguments=[
            "python3",
            "-m",
            "bench.gpu.inside",
            INSIDE,
            "gpu" if gpus else "cpu",
            *options,
        ],
        environment=environment,
        gpus="all" if gpus else "",
        folders={INSIDE: str(HERE)},
        shared_memory=SHARED_MEMORY,
    )
    began = now()
    status = subprocess.run(enter.command(room), check=False).returncode
    report: dict[str, Any] = {
        "date": began.isoformat(timespec="seconds"),
        "seconds": round((now() - began).total_seconds(), 1),
        "machine": machine(),
        "gpus": gpus,
        **told(answers / "report.json", status),
    }
    arguments.report.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    counts = {kind: sum(each["result"] == kind for each in report["tests"]) for kind in ("passed", "failed", "not run")}
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()) + f"; {arguments.report}")
    return 1 if counts["failed"] or status else 0


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017 - Python 3.10 has no datetime.UTC


def told(file: Path, status: int) -> dict[str, Any]:
    """What the tests left; where they came to no end, or there are none, that is a test that failed."""
    try:
        report = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        report = {"tests": [], "figures": {}}
    if status or not report["tests"]:
        left = f"after {len(report['tests'])} tests" if report["tests"] else "and no report"
        ended = {
            "name": "the tests",
            "result": "failed",
            "detail": f"they ended with exit status {status}, {left}",
        }
        report["tests"] = [*report["tests"], ended]
    return report


def graphics() -> list[dict[str, str]]:
    """The GPUs, by the driver's own tool."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ("name", "driver_version", "compute_cap", "memory.total")
    listed = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(query)}", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        return []
    overview = subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=False).stdout
    cuda = re.search(r"CUDA(?: UMD)? Version: *([\d.]+)", overview)
    rows = [
        dict(zip(query, (field.strip() for field in line.split(",")), strict=False))
        for line in listed.stdout.splitlines()
    ]
    return [{**row, "cuda": cuda[1] if cuda else ""} for row in rows]


def machine() -> dict[str, object]:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {
        "cpu": found[1] if found else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
