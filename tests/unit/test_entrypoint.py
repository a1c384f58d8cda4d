"""The embedded base's entrypoint: what it hands on, and what it closes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ENTRYPOINT = Path(__file__).resolve().parents[2] / "embedded" / "entrypoint.py"
ALL = "shared-memory,logging,trace"


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Stands for tritonserver: prints its arguments."""
    program = tmp_path / "tritonserver"
    program.write_text(f"#!{sys.executable}\nimport sys\nprint(*sys.argv[1:], sep='\\n')\n")
    program.chmod(0o755)
    return program


def enter(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ENTRYPOINT, *command], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "http", "grpc"),
    [
        ([], ALL, ALL),
        (["--model-repository=/models", "--http-restricted-api=health:k=v"], ALL, ALL),
        (["--http-restricted-api=shared-memory:k=v"], "logging,trace", ALL),
        (["--http-restricted-api", "health,trace:k=v", "--grpc-restricted-protocol=logging:k=trace"],
         "shared-memory,logging", "shared-memory,trace"),
        (["--http-restricted-api=shared-memory:k=v", f"--http-restricted-api={ALL[14:]}:k=v"], "", ALL),
    ],
)  # fmt: skip
def test_a_server_gets_what_has_no_key_closed(server: Path, arguments: list[str], http: str, grpc: str) -> None:
    given = enter(server, *arguments).stdout.splitlines()
    assert given[: len(arguments)] == arguments
    added = [re.fullmatch(r"--(http|grpc)-restricted-[a-z]+=([a-z,-]+):closed=[0-9a-f]{32}", each) for each in given]
    found = {each[1]: each[2] for each in added[len(arguments) :] if each}
    assert found == {name: apis for name, apis in (("http", http), ("grpc", grpc)) if apis}


def test_every_start_has_a_key_of_its_own(server: Path) -> None:
    assert enter(server).stdout != enter(server).stdout


def test_any_other_command_is_handed_on_as_it_is() -> None:
    assert enter(sys.executable, "-c", "import sys; print(sys.argv)", "$HOME *").stdout == "['-c', '$HOME *']\n"
    assert enter(sys.executable, "-c", "import sys; sys.exit(7)").returncode == 7


def test_a_command_that_cannot_be_run(tmp_path: Path) -> None:
    missing = enter("/nowhere/tritonserver")
    assert (missing.returncode, missing.stderr) == (127, "exec: /nowhere/tritonserver: not found\n")
    folder = enter(tmp_path)
    assert (folder.returncode, folder.stderr) == (126, f"exec: {tmp_path}: Permission denied\n")
    assert enter().returncode == 127
