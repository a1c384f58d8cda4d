"""The fuzzing harnesses, for a moment each; `make fuzz` gives them ten minutes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("harness", sorted((ROOT / "tests/fuzz").glob("fuzz_*.py")), ids=lambda path: path.stem)
def test_a_harness_finds_no_crash(harness: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(harness), "--seconds", "3"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "DONE" in done.stderr or "Done " in done.stderr
