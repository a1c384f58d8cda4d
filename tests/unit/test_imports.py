"""Imports go one way. The layers are those of the design; a new module has to find its place here."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "builder"
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "process", "reference", "findings", "catalogue", "sources"),
    ("toml_file", "settings", "releases", "project", "artifacts", "package", "lock", "journal"),
    (
        *("docker", "unpacked", "registry", "triton", "recipe", "workload", "oracles", "pbtxt", "dali_proto"),
        *("elf", "fatbin", "gpu", "cmake", "signature", "pipeline_source", "dali_operators", "sarif", "symptoms"),
        *("revision", "oci", "bases", "layers", "record", "attest", "render", "asking", "negative_control"),
    ),
    ("checks", "scaffold", "configure", "doctor", "dev"),
    ("steps", "output", "views"),
    ("commands",),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def modules() -> dict[str, Path]:
    """Dotted names below `builder`; a package's `__init__` has the package's name. The build stages are left out."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != PACKAGE / "__init__.py" and "stages" not in path.parts
    }


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides its layer"
            # `from builder import x` may name a module, `from builder.x import y` a part of one.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    """The modules of this package that a file imports, as dotted names below `builder`."""
    known = set(modules())
    found = set()
    for name in imported(path):
        parts = name.split(".")[1:] if name.split(".")[0] == "builder" else []
        for length in range(len(parts), 0, -1):
            if ".".join(parts[:length]) in known:
                found.add(".".join(parts[:length]))
                break
    return found


@pytest.mark.parametrize("name", modules())
def test_a_module_imports_its_own_layer_and_those_below(name: str) -> None:
    rank = RANK[name.split(".")[0]]
    assert {other for other in ours(modules()[name]) if RANK[other.split(".")[0]] > rank} == set()


def test_the_layers_are_those_of_modules_that_exist() -> None:
    assert set(RANK) == {name.split(".")[0] for name in modules()}


def test_imports_are_seen_at_all() -> None:
    found = ours(PACKAGE / "steps" / "push.py")
    # A module, a part of a module, and a part of what a package's `__init__` gives.
    assert {"docker.pushed", "docker.engine", "registry"} <= found
    assert {"registry.client", "registry.content"} <= ours(PACKAGE / "registry" / "__init__.py")


def test_steps_never_import_each_other() -> None:
    steps = {name: path for name, path in modules().items() if name.startswith("steps.")}
    assert {name: ours(path) & set(steps) for name, path in steps.items() if ours(path) & set(steps)} == {}


def test_only_the_program_itself_imports_the_command_line() -> None:
    assert [name for name, path in modules().items() if "cli" in ours(path)] == ["__main__"]


def test_commands_share_their_options_and_nothing_else() -> None:
    commands = {name: path for name, path in modules().items() if name.startswith("commands.")}
    shared = {name: ours(path) & set(commands) - {"commands.options"} for name, path in commands.items()}
    assert {name: others for name, others in shared.items() if others} == {}


@pytest.mark.parametrize("path", sorted((PACKAGE / "stages").rglob("*.py")), ids=lambda path: path.name)
def test_build_stages_need_nothing_but_the_standard_library_and_dali(path: Path) -> None:
    foreign = {
        name
        for name in imported(path)
        if name.split(".")[0] not in sys.stdlib_module_names and not f"{name}.".startswith("nvidia.dali.")
    }
    assert foreign == set()
