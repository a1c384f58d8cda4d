"""How the embedded backend learns which libraries the server was told to load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from dali_backend.checks import unlisted_plugins
from dali_backend.server import in_command

BACKEND = Path(__file__).resolve().parents[2] / "embedded" / "backend"
A, B = "/models/liba.so", "/models/libb.so"
SETTING = f"dali,plugin_libs={A}:{B}"


@pytest.mark.parametrize(
    ("command", "plugins"),
    [
        (["tritonserver", "--model-repository=/models", f"--backend-config={SETTING}"], (A, B)),
        (["tritonserver", "--backend-config", SETTING, "--log-verbose=1"], (A, B)),
        # The last one counts.
        (["tritonserver", f"--backend-config={SETTING}", f"--backend-config=dali,plugin_libs={B}"], (B,)),
        (["tritonserver", f"--backend-config={SETTING}", "--backend-config=dali,plugin_libs="], ()),
        # Others' settings, and other settings.
        (["tritonserver", f"--backend-config={SETTING}", f"--backend-config=python,plugin_libs={B}"], (A, B)),
        (["tritonserver", f"--backend-config={SETTING}", "--backend-config=dali,x=1"], (A, B)),
        (["tritonserver", "--backend-config=default,plugin_libs=" + A], ()),
        (["tritonserver", f"--model-repository={SETTING}"], ()),
        (["tritonserver", SETTING], ()),
        (["tritonserver", f"--backend-config=dali,plugin_libs=:{A}::"], (A,)),
        (["tritonserver", "--backend-config"], ()),
        (["tritonserver", ""], ()),
        ([], ()),
    ],
)
def test_plugins_are_those_of_the_server_s_command(command: list[str], plugins: tuple[str, ...]) -> None:
    assert in_command(command) == plugins


def test_the_server_is_the_process_that_started_this_one() -> None:
    child = "from dali_backend import server; print(server.listed_plugins())"
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    command = [sys.executable, "-c", parent, child, f"--backend-config={SETTING}"]
    done = subprocess.run(command, cwd=BACKEND, capture_output=True, text=True, check=True)
    assert done.stdout == f"{(A, B)}\n"


def test_a_model_may_name_the_libraries_that_it_needs_in_any_order() -> None:
    assert unlisted_plugins((), ()) == ""
    assert unlisted_plugins((), (A, B)) == ""
    assert unlisted_plugins((B, A), (A, B)) == ""


def test_a_library_that_the_server_was_not_told_to_load_is_named_with_the_remedy() -> None:
    said = unlisted_plugins((A, B), (A,))
    assert f"names '{B}', which the server does not load" in said
    assert f"--backend-config=dali,plugin_libs={A}:{B}" in said


def test_the_version_s_folder_is_that_of_the_command(tmp_path: Path) -> None:
    """As Triton starts the process: a program, and the path of a model.py that need not be there."""
    script = tmp_path / "1" / "model.py"
    script.parent.mkdir()
    script.write_text(
        f"import sys; sys.path.insert(0, {str(BACKEND)!r})\n"
        "from dali_backend import server; print(server.version_folder())"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{script.parent}\n"
