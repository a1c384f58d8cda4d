from __future__ import annotations

import ast
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builder.errors import NoNamespaces, NoUnpackedImage
from builder.process import Completed
from builder.unpacked import enter, server
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
    image = unpack(engine, "sha256:1", "x:y", folder)
    assert (image.root / "etc" / "hello").read_text() == "hello"
    assert not (image.root / "old").exists()
    assert image.command == ["/start", "serve"]
    assert image.environment == {"PATH": "/bin", "A": "b=c"}
    assert (image.user, image.digest, image.reference) == ("1000:1000", "sha256:1", "x:y")
    assert UnpackedImage.read(folder) == image


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
    for program in ("sh", "cat", "ls", "id", "test"):
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
