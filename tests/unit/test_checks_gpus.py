from __future__ import annotations

from pathlib import Path

import pytest

from builder import elf, fatbin, gpu
from builder.checks import gpus
from builder.checks.gpus import Support
from builder.elf import Library
from builder.project import load


def test_the_toolkit_is_what_the_machine_code_names() -> None:
    assert fatbin.toolkit(b"\0Cuda compilation tools, release 12.9, V12.9.86\0") == "12.9"
    assert (
        fatbin.toolkit(b"release 9.0, Cuda compilation tools, release 9.2 Cuda compilation tools, release 13.0")
        == "13.0"
    )
    assert fatbin.toolkit(b"") == ""


@pytest.mark.parametrize(
    ("cuda", "dali", "driver", "why"),
    [
        ("13.0", "12", 580, ", for DALI alone, which has CUDA 12, 525 would do"),
        ("12.9", "12", 525, ""),
        ("12.9", "13", 580, ""),
        ("13.0", "", 580, ""),
        ("", "", 580, ""),
        ("", "12", 580, ", for DALI alone, which has CUDA 12, 525 would do"),
        ("", "13", 580, ""),
        ("99.0", "13", 580, ""),
    ],
)
def test_the_driver_is_one_that_runs_the_library_and_dali(cuda: str, dali: str, driver: int, why: str) -> None:
    support = Support("t", "/models/libx.so", cuda, dali, (90,), (100, 120), (75,))
    assert support.driver == driver
    compiler = f"by a driver with CUDA {cuda or 'of its compiler'} or newer"
    assert str(support) == (
        f"libx.so: CUDA {cuda or 'unknown'}, runs on H100 (9.0); compiled first, {compiler}, on B200 (10.0), "
        f"RTX PRO 6000 Blackwell (12.0); not on T4 (7.5); driver {driver} or newer{why}"
    )


def test_of_a_library_that_no_gpu_compiles_first_nothing_is_said_of_its_ptx() -> None:
    assert "compiled" not in str(Support("t", "/models/libx.so", "12.9", "12", (90,), (), (75,)))


def test_every_library_with_gpu_code_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "builder.toml").write_text('repository = "localhost:5000/x"\n[targets.t]\n')
    (tmp_path / "model_repository").mkdir()
    for name in ("a", "b", "broken"):
        (tmp_path / "model_repository" / f"lib{name}.so").write_bytes(b"Cuda compilation tools, release 12.4")

    def read(path: Path) -> Library:
        if "broken" in path.name:
            raise elf.BadLibrary("is damaged")
        code = (
            (("sm_80", "sm_90", "compute_90"), ("sm_75", "sm_80", "sm_90", "compute_90"))
            if "a" in path.stem[3:]
            else ()
        )
        return Library(path.name, "x86_64", 64, "", (), (), (), (), code)

    monkeypatch.setattr(elf, "read", read)
    project = load(tmp_path)
    (found,) = gpus.supports(project, project.targets)
    assert (found.library, found.cuda, found.driver) == ("/models/liba.so", "12.4", 525)
    assert found.native == (80, 86, 89, 90)
    assert found.jit == (100, 103, 120)
    assert found.no == (70, 75)
    assert found.as_json()["native"] == ["8.0", "8.6", "8.9", "9.0"]


def test_drivers_are_known_by_cuda() -> None:
    assert [gpu.driver_for(cuda) for cuda in (11, 12, 13)] == [450, 525, 580]
    assert gpu.Driver((gpu.Gpu("T4", "535.1", 1, "7.5"),), "").runs(12)
    assert not gpu.Driver((gpu.Gpu("T4", "535.1", 1, "7.5"),), "").runs(13)
