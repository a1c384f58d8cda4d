"""When the virtual environment is made anew, and with what; without a network."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "setup"))

import engine_common
import engine_install

SETUP = Path(__file__).resolve().parents[2] / "setup"
# By its path: the standard library has a module of this name.
_spec = importlib.util.spec_from_file_location("setup_venv", SETUP / "venv.py")
assert _spec is not None
assert _spec.loader is not None
venv = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(venv)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("[project]")
    path = tmp_path / "requirements.lock"
    path.write_text("numpy==1")
    return path


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was made, by something quicker than pip."""
    folders: list[Path] = []

    def make(folder: Path, _lock: Path) -> None:
        folders.append(folder)
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "bin/python").unlink(missing_ok=True)
        (folder / "bin/python").symlink_to(sys.executable)

    monkeypatch.setattr(venv, "make", make)
    return folders


def test_it_is_made_once_and_again_when_it_would_differ(
    tmp_path: Path, lock: Path, made: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".venv"
    for _ in range(2):
        venv.ensure(folder, lock)
    assert made == [folder]
    lock.write_text("numpy==2")
    venv.ensure(folder, lock)
    assert len(made) == 2
    (folder / "bin/python").unlink()
    (folder / "bin/python").symlink_to(tmp_path / "gone")
    venv.ensure(folder, lock)
    assert len(made) == 3
    folder.rename(tmp_path / "moved")
    venv.ensure(tmp_path / "moved", lock)
    assert len(made) == 4
    monkeypatch.setattr(venv, "PYTHON", "/another/python3")
    venv.ensure(tmp_path / "moved", lock)
    assert len(made) == 5
    (tmp_path / "moved/ready").write_text("")  # as earlier versions of the script left it
    venv.ensure(tmp_path / "moved", lock)
    assert len(made) == 6


def test_the_project_file_counts(tmp_path: Path, lock: Path) -> None:
    before = venv.fingerprint(tmp_path / ".venv", lock, tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    assert venv.fingerprint(tmp_path / ".venv", lock, tmp_path) != before


def test_a_run_inside_the_environment_does_not_count_as_another_interpreter() -> None:
    assert Path(venv.PYTHON).resolve() == Path(sys.executable).resolve()
    assert Path(sys.prefix) not in Path(venv.PYTHON).parents or sys.prefix == sys.base_prefix


def test_a_failed_run_leaves_nothing_that_counts_as_whole(
    tmp_path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".venv"
    folder.mkdir()
    (folder / "ready").write_text(venv.fingerprint(folder, lock))
    monkeypatch.setattr(venv, "tool", lambda *_arguments, **_options: (1, "no room"))
    with pytest.raises(engine_common.SetupError, match=r"-m venv .* failed:\n    no room\n  See"):
        venv.ensure(folder, lock)
    assert not (folder / "ready").exists()


def test_two_runs_wait_for_each_other(tmp_path: Path, lock: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    command = [sys.executable, SETUP / "venv.py", tmp_path / ".venv", lock]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as second:
        assert second.stderr is not None
        assert second.stderr.readline().startswith("waiting for another run")
        assert not (tmp_path / ".venv").exists()
        second.send_signal(signal.SIGINT)
        assert second.wait(10) == 130
        assert second.stderr.read() == ""
    os.close(descriptor)


def test_ctrl_c_while_pip_runs(tmp_path: Path, lock: Path) -> None:
    lock.write_text("nothing==1 --hash=sha256:" + "0" * 64)
    environment = {**os.environ, "PIP_INDEX_URL": "http://192.0.2.1/simple", "PIP_NO_INDEX": "", "PIP_RETRIES": "9"}
    command = [sys.executable, SETUP / "venv.py", tmp_path / ".venv", lock]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / ".venv/tmp").exists():  # pip is next
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert told.splitlines() == [f"making {tmp_path}/.venv from {lock}"]
    assert not (tmp_path / ".venv/ready").exists()


@pytest.mark.parametrize(
    ("names", "given"),
    [
        ((), None),
        (("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"), "REQUESTS_CA_BUNDLE"),
        (("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), "SSL_CERT_FILE"),
        (("SSL_CERT_FILE", "PIP_CERT"), "PIP_CERT"),
    ],
)
def test_pip_is_told_of_the_users_ca_bundle(tmp_path: Path, names: tuple[str, ...], given: str | None) -> None:
    environ = {name: str(tmp_path / name) for name in names}
    for bundle in environ.values():
        Path(bundle).touch()
    assert venv.pip_environment(environ).get("PIP_CERT") == (environ[given] if given else None)


def test_a_ca_bundle_that_is_not_there_is_passed_over(tmp_path: Path) -> None:
    environ = {"SSL_CERT_FILE": str(tmp_path / "none"), "CURL_CA_BUNDLE": str(tmp_path)}
    assert venv.pip_environment(environ)["PIP_CERT"] == str(tmp_path)


def test_debians_venv_is_installed_where_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[str], bool]] = []

    def apt(argv: list[str], must_finish: bool = False) -> tuple[int, str]:
        calls.append((argv, must_finish))
        return (0 if len(calls) == 3 else 100), "a third-party source does not answer"

    monkeypatch.setattr(engine_install, "tool", apt)
    monkeypatch.setattr(venv.shutil, "which", lambda _name: "/usr/bin/apt-get")
    monkeypatch.setattr(venv.os, "geteuid", lambda: 0)
    venv.install_venv()
    assert [(argv[-2:], must_finish) for argv, must_finish in calls] == [
        (["install", "python3-venv"], True),
        (["-q", "update"], False),
        (["install", "python3-venv"], True),
    ]
    assert "DPkg::Lock::Timeout=120" in calls[0][0]
    monkeypatch.setattr(venv.os, "geteuid", lambda: 1000)
    with pytest.raises(engine_common.SetupError, match="apt-get install python3-venv"):
        venv.install_venv()
