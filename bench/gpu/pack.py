"""What a machine with a GPU needs to prove the GPU path, in one folder."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from rich.console import Console

from builder import package
from builder import project as projects
from builder.artifacts import Image
from builder.docker.bake import bake
from builder.docker.engine import Engine
from builder.errors import BadUsage
from builder.unpacked.image import UnpackedImage, unpack
from builder.views import live

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "gpu"
TARGET = "embedded"
MARK = ".packed-for-gpu-test"
"""An empty file: what lies around it was made here, and may be removed here."""
# For all GPUs that nvcc knows, whichever the machine has. nvcc from wheels does not find its libraries itself.
_KERNELS = """
FROM toolchain AS kernels
COPY plugin /src/plugin
COPY --from=benchmark /kernels.cu /src/
RUN <<EOF
    set -e  # compile the kernels
    LIBRARY_PATH=/opt/toolchain/nvidia/cu13/lib $CUDACXX -O3 -std=c++20 -arch=all-major -cudart=static -I/src/plugin \\
        -o /kernels /src/kernels.cu
EOF
FROM scratch AS packed-kernels
COPY --from=kernels /kernels /
"""


def pack(folder: Path, console: Console) -> Path:
    """Builds the example's image and puts all that there is to it into `folder`, in the place of an earlier pack.

    Raises:
        BadUsage: something else is in the folder.
        BuilderError: the image cannot be built.
        subprocess.CalledProcessError: pip cannot get what the tests import.
    """
    clear(folder)
    _builder("build", "-C", str(EXAMPLE), "--target", TARGET)
    project = projects.load(EXAMPLE)
    built = Image.load(project, TARGET)
    console.print(f"unpacking {built.reference} into {folder}")
    image = unpack(Engine.connect(), built.digest, built.reference, folder)
    _kernels(folder, console)
    _packages(folder / "site", _python(image))
    for name in ("builder", "bench"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(EXAMPLE, folder / "project", ignore=shutil.ignore_patterns("__pycache__", ".builder"))
    # The models' configurations as the image has them.
    shutil.copytree(project.state / TARGET / "parts", folder / "project" / ".builder" / TARGET / "parts")
    shutil.copy2(Path(__file__).with_name("run.py"), folder / "run.py")
    return folder


def clear(folder: Path) -> None:
    """An empty pack, where there is nothing but an earlier one.

    Raises:
        BadUsage: what is there was not made here, or it cannot be removed.
    """
    if folder.exists():
        if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARK).is_file()):
            raise BadUsage(
                "packing would remove all that is there, and it was not packed here",
                where=str(folder),
                remedy="name a folder that is not there yet with --folder, or remove this one yourself",
            )
        try:
            for path in sorted(folder.iterdir(), key=lambda path: path.name == MARK):  # the mark is the last to go
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError as error:
            raise BadUsage(
                f"what was packed there cannot be removed: {error.strerror}",
                where=str(error.filename or folder),
                remedy="remove it as the user who packed it, or name another folder with --folder",
            ) from None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()


def _builder(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "builder", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


def _kernels(folder: Path, console: Console) -> None:
    target = {
        "dockerfile-inline": package.dockerfile(EXAMPLE).read_text(encoding="utf-8") + _KERNELS,
        "target": "packed-kernels",
        "contexts": {"package": str(package.ROOT), "benchmark": str(Path(__file__).parent)},
        "args": {"DEBIAN_IMAGE": _builder("base")},
        "output": [f"type=local,dest={folder}"],
    }
    bake({"kernels": target}, context=EXAMPLE, definition=folder / "kernels.bake.json", view=live.view(console))


def _python(image: UnpackedImage) -> str:
    """The version of the image's Python, such as 3.11."""
    found = re.search(r"python(3\.\d+)$", str((image.root / "usr/bin/python3").readlink()))
    assert found is not None
    return found[1]


def _packages(folder: Path, python: str) -> None:
    """What the builder imports, for another Python than this one, in the versions of this one."""
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    pinned = sorted(f"{name}=={importlib.metadata.version(name)}" for name in _needed(ours))
    platform = [
        "--platform=manylinux_2_28_x86_64",
        "--platform=manylinux_2_17_x86_64",
        "--platform=manylinux2014_x86_64",
    ]
    wheels = ["--only-binary=:all:", "--no-deps", f"--python-version={python}", *platform]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), *wheels, *pinned],
        check=True,
        stdout=sys.stderr,
    )


def _needed(requirements: Iterable[str]) -> set[str]:
    """The packages that are meant, and all that they need."""
    extras: dict[str, set[str]] = {}
    waiting = [Requirement(each) for each in requirements]
    while waiting:
        wanted = waiting.pop()
        name = _plain(wanted.name)
        new = {"", *wanted.extras} - extras.get(name, set())
        extras.setdefault(name, set()).update(new)
        for line in (importlib.metadata.requires(name) or ()) if new else ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in new):
                waiting.append(needed)
    return set(extras)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
