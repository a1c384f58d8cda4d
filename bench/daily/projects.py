"""The projects that are measured, in folders of their own, and the changes that each round makes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RIVAL = Path(__file__).resolve().parent / "rival"
TARGET = "embedded"
MODEL = "mydali"
OPERATOR = Path("plugin/custom_copy.cc")
PIPELINE = Path("model_repository", MODEL, "1/dali.py")
CONFIG = Path("model_repository", MODEL, "config.pbtxt")
_SOURCES = ("plugin", "model_repository")
_IGNORED = shutil.ignore_patterns("__pycache__", "model.dali")
_THIRD = "embedded-cpu"
"""A target that has the first one's base, and another compilation."""
_BASE = "# ---- the project's image"
"""Where the embedded base's half of the project's Dockerfile ends."""
_COUNT = re.compile(r"(kMinBytesPerTask = )[^;]*;")
_MARK = re.compile(r"\n# round .*\n")


def ours(folder: Path, repository: str, *, targets: bool = False) -> Path:
    """The shipped example, as a user has it.

    Args:
        targets: with a third target that needs no image of NVIDIA's, in the place of the one that does.
    """
    settings = re.sub(r'repository = "[^"]*"', f'repository = "{repository}"', (ROOT / "builder.toml").read_text())
    if targets:
        third = f'[targets.{_THIRD}]\ndali = "1.53.0"\ncuda = "OFF"\n'
        settings = re.sub(r"\[targets\.ngc\][^\[]*", third + "\n", settings)
    _copy_sources(folder)
    (folder / "builder.toml").write_text(settings)
    return folder


def rival(folder: Path, *, with_base: bool = False) -> Path:
    """The same sources under the Dockerfile that is written by hand.

    Args:
        with_base: whether it makes the embedded base itself, as the project's own Dockerfile does.
    """
    _copy_sources(folder)
    dockerfile = (RIVAL / "Dockerfile").read_text()
    if with_base:
        base, found, _ = (ROOT / "Dockerfile").read_text().partition(_BASE)
        assert found, f"the Dockerfile has no line {_BASE!r}"
        dockerfile = f"{base}\n{dockerfile}"
        for name in ("embedded", "builder/stages"):
            shutil.copytree(ROOT / name, folder / name, ignore=_IGNORED)
        shutil.copy2(ROOT / "builder/dali_proto.py", folder / "builder")
    (folder / "Dockerfile").write_text(dockerfile)
    (folder / "floors.Dockerfile").write_text(f"{dockerfile}\n{(RIVAL / 'floors.Dockerfile').read_text()}")
    shutil.copy2(RIVAL / "clock.py", folder)
    shutil.copy2(ROOT / "embedded/requirements/toolchain.txt", folder)
    shutil.copytree(ROOT / "builder/stages/cmake", folder / "cmake", dirs_exist_ok=True)
    return folder


def many(folder: Path, repository: str, count: int) -> Path:
    """The shipped example with its model `count` times, each of them with a pipeline of its own to be serialized."""
    names = [f"{MODEL}{number:03}" for number in range(count)]
    for name in names:
        model = folder / "model_repository" / name
        (model / "1").mkdir(parents=True)
        shutil.copy2(ROOT / PIPELINE, model / "1")
        (model / CONFIG.name).write_text((ROOT / CONFIG).read_text().replace(f'"{MODEL}"', f'"{name}"'))
    shutil.copytree(ROOT / "plugin", folder / "plugin", ignore=_IGNORED)
    oracles = "".join(f'{name} = {{ oracle = "identity" }}\n' for name in names)
    (folder / "builder.toml").write_text(
        f'repository = "{repository}"\n\n[targets.{TARGET}]\ndali = "1.53.0"\ncuda = "OFF"\n\n[models]\n{oracles}'
    )
    return folder


def change_operator(project: Path, number: int) -> None:
    """One line of the operator: it does the same, in other portions."""
    path = project / OPERATOR
    text, changed = _COUNT.subn(rf"\g<1>(128 << 10) + {number};", path.read_text())
    assert changed == 1, f"{path} has no line with kMinBytesPerTask"
    path.write_text(text)


def change_configuration(project: Path, number: int) -> None:
    """One line of config.pbtxt: its last one, a comment."""
    _mark(project / CONFIG, number)


def change_pipelines(project: Path, number: int) -> None:
    """One line of every dali.py: its last one, a comment."""
    for path in sorted(project.glob("model_repository/*/1/dali.py")):
        _mark(path, number)


def _mark(path: Path, number: int) -> None:
    path.write_text(f"{_MARK.sub('', path.read_text())}\n# round {number}\n")


def _copy_sources(folder: Path) -> None:
    for name in _SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=_IGNORED)
