from __future__ import annotations

import ast
import contextlib
import dataclasses
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builder.errors import MachineError, NoNamespaces, NoUnpackedImage
from builder.process import Completed
from builder.unpacked import enter, image, server
from builder.unpacked.image import UnpackedImage, unpack

CONFIG = {"Entrypoint": ["/start"], "Cmd": ["serve"], "Env": ["PATH=/bin", "A=b=c"], "User": "1000:1000"}


class Engine:
    """Has one image, of one file."""

    def image(self, _: str) -> dict[str, Any]:
        return {"Id": "sha256:1", "Config": CONFIG}

    @contextmanager
    def created(self, _: str) -> Iterator[Any]:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            member = tarfile.TarInfo("etc/hello")
            member.size = 5
            archive.addfile(member, io.BytesIO(b"hello"))
        data = content.getvalue()
        yield SimpleNamespace(export=lambda: iter([data[:100], data[100:1000], data[1000:]]))


def test_an_image_is_unpacked_with_what_it_says_of_itself(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    (folder / "rootfs").mkdir(parents=True)
    (folder / "rootfs" / "old").touch()
    engine: Any = Engine()
    unpacked = unpack(engine, "sha256:1", "x:y", folder)
    assert (unpacked.root / "etc" / "hello").read_text() == "hello"
    assert not (unpacked.root / "old").exists()
    assert unpacked.command == ["/start", "serve"]
    assert unpacked.environment == {"PATH": "/bin", "A": "b=c"}
    assert (unpacked.user, unpacked.digest, unpacked.reference) == ("1000:1000", "sha256:1", "x:y")
    assert UnpackedImage.read(folder) == unpacked


def test_all_that_an_image_has_is_unpacked_whatever_python_s_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Python 3.14's default is a filter that refuses absolute links."""
    used = []
    plain = tarfile.TarFile.extractall

    def everything(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
        return member

    def extractall(self: Any, *arguments: Any) -> None:
        used.append(self.extraction_filter)
        plain(self, *arguments)

    monkeypatch.setattr(tarfile, "fully_trusted_filter", everything, raising=False)
    monkeypatch.setattr(tarfile.TarFile, "extractall", extractall)
    engine: Any = Engine()
    unpack(engine, "sha256:1", "x:y", tmp_path / "x")
    assert used == [everything]


def test_nothing_but_an_image_is_removed_where_one_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    engine: Any = Engine()
    unpack(engine, "sha256:1", "x:y", tmp_path)
    assert (tmp_path / "mine").exists()


def test_what_another_user_left_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "rootfs" / "etc").mkdir(parents=True)
    (tmp_path / "image.json").touch()

    def rmtree(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path / "etc"))

    monkeypatch.setattr(image.shutil, "rmtree", rmtree)
    engine: Any = Engine()
    with pytest.raises(MachineError, match="Permission denied") as failure:
        unpack(engine, "sha256:1", "x:y", tmp_path)
    assert failure.value.where == str(tmp_path / "rootfs" / "etc")
    assert str(tmp_path) in failure.value.remedy
    with pytest.raises(NoUnpackedImage, match="no unpacked image") as none:
        UnpackedImage.read(tmp_path)
    assert "not there yet" in none.value.remedy
    assert str(tmp_path) not in none.value.remedy  # where it would be refused again


@pytest.mark.parametrize(
    "content", [None, "", "{}", "[]", json.dumps({"reference": "", "digest": "", "described": {}})]
)
def test_another_folder_is_told_to_be_none(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "rootfs").mkdir()
    if content is not None:
        (tmp_path / "image.json").write_text(content)
    with pytest.raises(NoUnpackedImage):
        UnpackedImage.read(tmp_path)


def test_a_user_who_may_not_have_namespaces_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = ("unshare: unshare failed: Operation not permitted",)
    monkeypatch.setattr(server, "run", lambda _: Completed("unshare", 1, "", said))
    with pytest.raises(NoNamespaces) as failure, server.serving(UnpackedImage(tmp_path, "", "", {"Config": CONFIG})):
        pass
    assert failure.value.detail == said


def test_what_runs_elsewhere_needs_nothing_but_python_3_10() -> None:
    tree = ast.parse(Path(enter.__file__).read_text(), feature_version=(3, 10))
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {each.module or "" if isinstance(each, ast.ImportFrom) else each.names[0].name for each in names}
    assert {module.partition(".")[0] for module in modules} <= sys.stdlib_module_names


def test_the_driver_s_libraries_are_found_beside_libcuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "libcuda.so.1",
        "libcuda.so.580.1",
        "libnvidia-ml.so.1",
        "libnvcuvid.so.1",
        "libc.so.6",
        "libcudart.so.13",
    ):
        (tmp_path / name).touch()
    monkeypatch.setattr(enter, "_ELSEWHERE", (str(tmp_path / "no"), str(tmp_path)))
    monkeypatch.setattr(enter.shutil, "which", lambda _: None)
    names = [path.name for path in enter.driver_libraries()]
    assert names == ["libcuda.so.1", "libcuda.so.580.1", "libnvcuvid.so.1", "libnvidia-ml.so.1"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files of a system: this machine's own Python, C library and shell, by links that lead nowhere outside."""
    allowed = subprocess.run([*enter.namespaces(), "true"], capture_output=True, check=False).returncode == 0
    if not allowed:
        pytest.skip("this user cannot have namespaces")
    folder = tmp_path / "rootfs"
    for name in ("dev", "sys", "proc", "tmp", "mnt", "bin", "models"):
        (folder / name).mkdir(parents=True)
    for program in ("sh", "cat", "ls", "id", "test", "sleep"):
        _add(folder, Path(str(shutil.which(program))))
    (folder / "models" / "libx.so").write_text("a library")
    tmp_path.chmod(0o755)
    return folder


def _add(folder: Path, program: Path) -> None:
    """A program and the libraries that it is linked to, each at its own path."""
    told = subprocess.run(["ldd", str(program.resolve())], capture_output=True, text=True, check=True).stdout
    for word in [str(program), *(word for word in told.split() if word.startswith("/"))]:
        place = folder / word.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(word, place)


def _run(root: Path, script: str, **options: Any) -> subprocess.CompletedProcess[str]:
    room = enter.Room(str(root), ["sh", "-c", script], {"PATH": "/bin:/usr/bin"}, **options)
    return subprocess.run(enter.command(room), capture_output=True, text=True, check=False, timeout=60)


def test_a_command_sees_the_image_s_files_and_its_own_processes_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "file").write_text("of this machine")
    script = "cat /models/libx.so /mnt/given/file; ls /; ls -d /proc/[0-9]*; test -c /dev/null && exit 7"
    done = _run(root, script, hidden=["/models/libx.so"], folders={"/mnt/given": str(tmp_path / "given")})
    assert done.returncode == 7, done.stderr
    assert "a library" not in done.stdout
    assert "of this machine" in done.stdout
    assert "rootfs" not in done.stdout
    assert done.stdout.split().count("/proc/1") == 1
    assert len([word for word in done.stdout.split() if word.startswith("/proc/")]) <= 2
    # And nothing of it is left.
    assert (root / "models" / "libx.so").read_text() == "a library"
    assert not any((root / "mnt").iterdir())
    assert str(root) not in Path("/proc/mounts").read_text()


def test_root_gives_its_rights_away(root: Path) -> None:
    done = _run(root, "id -u", user="1000:1000")
    assert done.stdout.strip() == ("1000" if os.geteuid() == 0 else "0"), done.stderr


def test_what_cannot_be_started_is_told(root: Path) -> None:
    room = enter.Room(str(root), ["no-such-program"], {"PATH": "/bin"})
    done = subprocess.run(enter.command(room), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (125, "enter: there is no no-such-program\n")
    done = _run(root, "true", hidden=["/models/no.so"])
    assert done.returncode == 125
    assert "/models/no.so" in done.stderr


def test_the_image_s_files_cannot_be_written(root: Path) -> None:
    """As in a container, by root too; what is the command's own can."""
    done = _run(root, "echo x > /tmp/a && echo x > /dev/shm/a && cat /tmp/a; echo x > /models/a")
    assert done.stdout == "x\n"
    assert "Read-only file system" in done.stderr
    assert done.returncode != 0
    assert not (root / "models" / "a").exists()
    (root / "models" / "a").write_text("of this machine still")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount what is forbidden to others")
def test_users_namespaces_keep_what_the_machine_forbids(root: Path) -> None:
    """A mount without set-user-ID programs and devices stays one, or the kernel refuses to make it read-only."""
    room = enter.Room(str(root), ["sh", "-c", "echo x > /models/a"], {"PATH": "/bin:/usr/bin"})
    folder = str(root)
    inner = shlex.join(
        [*namespaces_of_users(), sys.executable, "-I", "-S", str(enter.__file__), json.dumps(dataclasses.asdict(room))]
    )
    script = f"mount --bind {folder} {folder} && mount -o remount,bind,nosuid,nodev,noatime {folder} && {inner}"
    done = subprocess.run(
        [*enter.namespaces(), "sh", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert "Read-only file system" in done.stderr, done.stderr
    assert done.returncode != enter._CANNOT


def namespaces_of_users() -> list[str]:
    return ["unshare", "--user", "--map-root-user", *enter.namespaces()[1:]]


def _started(root: Path, *arguments: str, user: str = "") -> tuple[subprocess.Popen[bytes], int]:
    """A command, and its process once it is itself."""
    room = enter.Room(str(root), list(arguments), {"PATH": "/bin:/usr/bin"}, user=user)
    process = subprocess.Popen(enter.command(room), stdout=subprocess.PIPE)
    wanted = "\0".join(arguments).encode()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for child in server._children(process.pid):
            if Path(f"/proc/{child}/cmdline").read_bytes().rstrip(b"\0") == wanted:
                return process, child
        time.sleep(0.01)
    process.kill()
    raise AssertionError(f"{arguments} was not started")


def _is_gone(pid: int) -> bool:
    """Nobody may have asked yet how it ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return True


@pytest.mark.parametrize("user", ["", "1000:1000"])
def test_the_command_ends_with_what_started_it(root: Path, user: str) -> None:
    process, child = _started(root, "sleep", "300", user=user)
    try:
        process.kill()
        process.wait(10)
        deadline = time.monotonic() + 10
        while not _is_gone(child) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert _is_gone(child)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_a_server_that_heeds_no_signal_is_ended_at_once(root: Path) -> None:
    process, child = _started(root, "sleep", "300", user="1000:1000")
    began = time.monotonic()
    server._stop(process)
    assert time.monotonic() - began < server._STOPPING_SECONDS / 2
    assert process.returncode is not None
    assert _is_gone(child)


def test_a_server_that_heeds_them_ends_by_itself(root: Path) -> None:
    script = "trap 'echo ended; exit 0' TERM; echo ready; while true; do sleep 0.01; done"
    process, child = _started(root, "sh", "-c", script, user="1000:1000")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    server._stop(process)
    assert process.stdout.read() == b"ended\n"
    assert process.returncode == 0
    assert _is_gone(child)


def test_a_server_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr(server, "_STOPPING_SECONDS", 2.0)
    script = "trap : TERM; echo ready; while true; do sleep 0.01; done"
    process, child = _started(root, "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    server._stop(process)
    assert process.returncode is not None
    assert _is_gone(child)
