"""The stage, with a dpkg-query of our own and wheels that are folders with a METADATA."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.attest.inventory import Inventory
from builder.stages import inventory

Run = Callable[..., subprocess.CompletedProcess[str]]
Dpkg = Callable[[str], None]


@pytest.fixture
def dpkg(tmp_path: Path) -> Dpkg:
    """Makes a dpkg-query that says this, or fails where it begins with `fail`."""

    def make(says: str) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / "said").write_text(says)
        script = f'#!/bin/sh\nif /bin/grep -q ^fail "{tmp_path}/bin/said"; then echo broken >&2; exit 2; fi\n'
        (tmp_path / "bin" / "dpkg-query").write_text(f'{script}exec /bin/cat "{tmp_path}/bin/said"\n')
        (tmp_path / "bin" / "dpkg-query").chmod(0o755)

    return make


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "dali").mkdir()
    environment = {**os.environ, "PATH": str(tmp_path / "bin"), "DALI_HOME": str(tmp_path / "dali")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, inventory.__file__, *arguments], env=environment, capture_output=True, text=True
        )

    return run


def wheel(folder: Path, name: str, metadata: str) -> None:
    (folder / f"{name}.dist-info").mkdir(parents=True)
    (folder / f"{name}.dist-info" / "METADATA").write_text(metadata)


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_debian_s_packages_are_those_that_are_installed(run: Run, dpkg: Dpkg) -> None:
    dpkg(
        "installed\tzlib1g\t1:1.2.13.dfsg-1\tamd64\tzlib\t1:1.2.13.dfsg-1\n"
        "config-files\tgone\t1\tall\tgone\t1\n"
        "installed\tgcc-12-base\t12.2.0-14\tamd64\tgcc-12\t12.2.0-14\n"
        "installed\tzlib1g\t1:1.2.13.dfsg-1\ti386\tzlib\t1:1.2.13.dfsg-1\n"
    )
    found = told(run())["debian"]
    assert [(each["name"], each["architecture"], each["source"]) for each in found] == [
        ("gcc-12-base", "amd64", "gcc-12"),
        ("zlib1g", "amd64", "zlib"),
        ("zlib1g", "i386", "zlib"),
    ]
    assert found[1]["version"] == found[1]["source_version"] == "1:1.2.13.dfsg-1"


def test_wheels_are_found_in_dali_s_folder_and_in_those_that_are_named(run: Run, tmp_path: Path) -> None:
    wheel(tmp_path / "dali", "nvidia_dali_cuda120-1.53.0", "Name: nvidia-dali-cuda120\nVersion: 1.53.0\n\nName: no\n")
    wheel(tmp_path / "more", "six-1.17.0", "Name: six\nVersion: 1.17.0\n")
    wheel(tmp_path / "more", "~ix-1.16.0", "Summary: left over\n")
    found = told(run(str(tmp_path / "more"), str(tmp_path / "more")))["python"]
    ours = [each for each in found if str(tmp_path) in each["folder"]]
    assert ours == [
        {"name": "nvidia-dali-cuda120", "version": "1.53.0", "folder": str(tmp_path / "dali")},
        {"name": "six", "version": "1.17.0", "folder": str(tmp_path / "more")},
    ]
    assert "pytest" in {each["name"] for each in found}  # this very Python has it


def test_what_it_prints_is_what_the_bill_of_materials_is_made_of(run: Run, dpkg: Dpkg) -> None:
    dpkg("installed\tlibc6\t2.36-9\tamd64\tglibc\t2.36-9\n")
    done = run()
    found = Inventory.model_validate_json(done.stdout)
    assert found.debian[0].source == "glibc"
    assert found.model_dump(mode="json") == told(done)
    assert done.stdout == run().stdout


def test_a_system_without_dpkg_has_no_debian_packages(run: Run) -> None:
    assert told(run())["debian"] == []


@pytest.mark.parametrize(("says", "what"), [("fail", "broken"), ("nonsense\n", "not a package: 'nonsense'")])
def test_a_dpkg_that_does_not_tell_is_an_error(run: Run, dpkg: Dpkg, says: str, what: str) -> None:
    dpkg(says)
    done = run()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"inventory: error: dpkg-query: {what}\n"


def test_a_folder_that_is_not_there_is_an_error(run: Run) -> None:
    done = run("/nowhere")
    assert (done.returncode, done.stderr) == (1, "inventory: error: /nowhere: no such folder\n")


def test_this_machine_has_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert inventory.main([]) == 0
    found = Inventory.model_validate_json(capsys.readouterr().out)
    assert found.python
