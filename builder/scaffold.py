"""New projects, and the Dockerfile for those who want to own it: the shipped example's files under other names."""

from __future__ import annotations

import json
import keyword
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pygments.lexers import CppLexer
from pygments.token import Keyword

from builder import dali_operators, package, recipe
from builder.errors import BadUsage
from builder.project import DEFAULT_DALI, Project
from builder.releases import NVIDIA, table
from builder.settings import FILE_NAME

# Two letters begin each word, or DALI would not make my_blur of MyBlur again: it makes ab of AB, and not a_b.
_WORD = re.compile(r"[a-z]{2}[a-z0-9]*(_[a-z]{2}[a-z0-9]*)*")
_TAKEN = {"dali", "std", "nvidia", "cuda", "builder"}
# https://cmake.org/cmake/help/v3.25/policy/CMP0037.html
_TARGETS_OF_CMAKE = {"all", "clean", "help", "install", "package", "preinstall", "test"}
_PLUGIN_FILES = (
    "CMakeLists.txt",
    "custom_copy.h",
    "custom_copy.cc",
    "custom_copy_gpu.cc",
    "custom_copy_kernel.h",
    "custom_copy.cu",
)
_EJECTED = (
    "Dockerfile",
    "docker-compose.yml",
    ".dockerignore",
    "embedded",
    "builder/dali_proto.py",
    "builder/stages",
)
_COMMAND = re.compile(r'^CMD \["tritonserver".*$', re.MULTILINE)


@dataclass(frozen=True)
class Name:
    """The name of a new project, in the spellings that its files need."""

    snake: str
    """Of the operator in Python, of its files, and of the model: my_blur."""

    @classmethod
    def parse(cls, text: str) -> Name:
        """Takes my_blur, my-blur and MyBlur alike.

        Raises:
            BadUsage: C++, CMake, DALI and Triton would not all take it.
        """
        spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z][a-z])", "_", text.strip())
        snake = re.sub(r"[\s.-]+", "_", spaced).lower()
        remedy = "take letters and digits, words separated by _ and begun by two letters, such as my_blur: --name NAME"
        if not _WORD.fullmatch(snake) or len(snake) > 50:
            raise BadUsage(f"{text!r} cannot be the name of an operator", where="init", remedy=remedy)
        name = cls(snake)
        if name._is_taken():
            raise BadUsage(f"{text!r} is a word that C++, Python, CMake or DALI has taken", where="init", remedy=remedy)
        return name

    def _is_taken(self) -> bool:
        kind = next(iter(CppLexer().get_tokens(self.snake)))[0]
        operator = dali_operators.key(self.camel)
        return (
            kind in Keyword
            or keyword.iskeyword(self.snake)
            or self.snake in _TAKEN
            or self.library in _TARGETS_OF_CMAKE
            or any(each == operator or each.startswith(f"{operator}.") for each in dali_operators.KEYS)
            # The example's own types and functions are in the operator's namespace.
            or any(re.search(rf"\b{self.camel}\b", _shipped(f"plugin/{file}")) for file in _PLUGIN_FILES)
        ) and self.snake != "custom_copy"

    @property
    def camel(self) -> str:
        """Of the operator in C++: MyBlur."""
        return "".join(word[:1].upper() + word[1:] for word in self.snake.split("_"))

    @property
    def library(self) -> str:
        """Of the plugin in CMake: myblur makes libmyblur.so."""
        return self.snake.replace("_", "")

    @property
    def repository(self) -> str:
        """Of the image."""
        return self.snake.replace("_", "-")

    def rename(self, text: str) -> str:
        """A text of the shipped example, with this name in place of its own."""
        ours = {
            # Names like `gamma` and `random` are functions of C already.
            "namespace custom_copy": f"namespace {self.snake}_plugin",
            "::custom_copy::": f"::{self.snake}_plugin::",
            "custom_copy": self.snake,
            "CustomCopy": self.camel,
            "customcopy": self.library,
            "mydali": self.snake,
        }
        return re.sub("|".join(ours), lambda found: ours[found[0]], text)


def init(folder: Path, name: Name, repository: str) -> list[str]:
    """Writes a new project into `folder`, all of it or nothing.

    Args:
        repository: where its images are pushed; empty for one on this machine.

    Returns:
        the files that were written, relative to `folder`.

    Raises:
        BadUsage: a file of that name is there already.
    """
    files = _new(name, repository or f"localhost:5000/{name.repository}")
    return _write(folder, files)


def _new(name: Name, repository: str) -> dict[str, str]:
    renamed = {f"plugin/{name.rename(file)}": name.rename(_shipped(f"plugin/{file}")) for file in _PLUGIN_FILES}
    model = f"model_repository/{name.snake}"
    newest = max(table())
    return {
        FILE_NAME: _PROJECT.format(
            name=name.snake, repository=repository, dali=DEFAULT_DALI, image=f"{'/'.join(NVIDIA)}:{newest}-py3"
        ),
        **renamed,
        f"{model}/config.pbtxt": name.rename(_shipped("model_repository/mydali/config.pbtxt")),
        f"{model}/1/dali.py": name.rename(_shipped("model_repository/mydali/1/dali.py")),
        f"tests/test_{name.snake}.py": _TEST.format(name=name.snake),
        "README.md": _README.format(name=name.snake, library=name.library),
        ".gitignore": ".builder/\n.env\n__pycache__/\n",
    }


def eject(project: Project, plugins: Sequence[str]) -> list[str]:
    """Writes the Dockerfile, and all that it needs to work without this program, into the project's folder.

    Args:
        plugins: the libraries that the image's command shall list, as paths in the image.

    Returns:
        the files that were written, relative to the folder.

    Raises:
        BadUsage: one of them is there already.
    """
    files = {}
    for name in _EJECTED:
        path = package.ROOT / name
        for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if each.is_file() and "__pycache__" not in each.parts:
                files[each.relative_to(package.ROOT).as_posix()] = each.read_text(encoding="utf-8")
    command = json.dumps(recipe.command(project, plugins))
    files["Dockerfile"] = _COMMAND.sub(lambda _: f"CMD {command}", files["Dockerfile"])
    files["docker-compose.yml"] = files["docker-compose.yml"].replace("mydali", project.name)
    return _write(project.root, files)


def _shipped(name: str) -> str:
    return (package.ROOT / name).read_text(encoding="utf-8")


def _write(folder: Path, files: dict[str, str]) -> list[str]:
    present = [name for name in files if (folder / name).exists()]
    if present:
        raise BadUsage(
            f"{present[0]} is there already" + (f", and {len(present) - 1} more" if len(present) > 1 else ""),
            where=str(folder),
            remedy="choose another folder, or move them away",
        )
    made: list[Path] = []
    try:
        _make(folder, made)
        # Beside their places first, so that a full disk leaves nothing half-written.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".init-") as temporary:
            for name, text in files.items():
                path = Path(temporary) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                if (package.ROOT / name).is_file():
                    shutil.copymode(package.ROOT / name, path)
            for name in files:
                _make((folder / name).parent, made)
                (Path(temporary) / name).replace(folder / name)
                made.append(folder / name)
    except BaseException as error:
        for path in reversed(made):
            path.rmdir() if path.is_dir() else path.unlink()
        if not isinstance(error, OSError):
            raise
        raise BadUsage(
            f"the files cannot be written: {error.strerror}", where=str(folder), remedy="choose another folder"
        ) from None
    return list(files)


def _make(folder: Path, made: list[Path]) -> None:
    """A folder and those above it, noting in `made` which were not there."""
    for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        path.mkdir()
        made.append(path)


_PROJECT = """\
repository = "{repository}"

[targets.embedded]      # Debian and PyPI alone: needs no NVIDIA account and no GPU
dali = "{dali}"

# [targets.production]  # NVIDIA's image: python -m builder build --target all
# triton_image = "{image}"

[models]
{name} = {{ oracle = "identity" }}   # or "FILE.npz" with golden arrays, or "FILE.py:FUNCTION"
"""

_TEST = '''\
"""Builds the image and proves it: `python -m pytest`. Needs a Docker engine."""

import json
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def builder(command: str, *arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "builder", command, "-C", str(PROJECT), "--json", *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_project_has_no_mistake():
    assert builder("check")["passed"]


def test_the_image_serves_{name}_as_its_oracle_has_it():
    builder("build")
    models = builder("smoke")["images"][0]["models"]
    assert [(model["name"], model["oracle"]) for model in models] == [("{name}", "identity")]
'''

_README = """\
# {name}

A DALI operator, served by Triton.

```sh
python -m builder check     # find mistakes before anything is built
python -m builder build     # compile, serialize, build the image
python -m builder smoke     # prove it by inference
python -m builder push      # push what was proven; prints the reference to deploy
```

| file | what it is |
|---|---|
| `plugin/{name}.cc`, `_gpu.cc` | the operator on the CPU and on GPUs; it gives back its input, until you change it |
| `plugin/{name}.cu`, `_kernel.h` | the kernel; kept apart, as DALI's headers make a .cu file slow to compile |
| `plugin/CMakeLists.txt` | one line for each library; this one makes lib{library}.so |
| `model_repository/{name}/1/dali.py` | the pipeline |
| `model_repository/{name}/config.pbtxt` | what Triton serves it as; `python -m builder config {name}` writes it anew |
| `builder.toml` | where images are pushed, what they are built on, and how each model is verified |
| `tests/` | `python -m pytest` does all of the above but the push |
"""
