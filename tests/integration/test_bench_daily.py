"""`make bench` with one round of what is soon measured: it works, whatever the figures are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from .conftest import ROOT, Project


def test_one_round_leaves_json_and_a_picture(shipped: Project, image: dict[str, str], tmp_path: Path) -> None:
    out, drawn = tmp_path / "bench.json", tmp_path / "bench.svg"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.daily", "--rows=help,check,build", "--rounds=1"),
            *("--out", str(out), "--picture", str(drawn)),
        ],
        cwd=ROOT,
        env={**os.environ, **shipped.environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr  # 1: a figure missed what it was to reach
    assert "Traceback" not in done.stderr
    told = json.loads(out.read_text())
    assert (done.returncode == 0) == told["met"]
    rows = {row["row"]: row for row in told["rows"]}
    assert list(rows) == ["help", "check", "build"]
    assert [goal["goal"] for goal in rows["build"]["goals"]] == ["≤ 1 s", "≤ 1.5 times that by hand"]
    for row in rows.values():
        for figure in row["figures"].values():
            assert figure["median"] > 0
            assert len(figure["rounds"]) == row["rounds"] == 1
    assert rows["build"]["ratios"]["to rival"]["median"] > 0
    assert rows["build"]["phases"]
    assert told["machine"]["cores"] == os.cpu_count()
    assert done.stdout.startswith("| work |")
    ElementTree.parse(drawn)
    names = shipped.docker("image", "ls", "--format={{.Repository}}").ok().stdout
    assert "triton-dali-builder-bench" not in names
