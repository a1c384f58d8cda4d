"""Rules on builder.toml's models: is there what shall say which answer is right?"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path

from builder import pipeline_source
from builder.errors import did_you_mean
from builder.findings import Finding, Place
from builder.project import Project


def check_oracles(project: Project, models: Collection[str]) -> Iterator[Finding]:
    """
    Args:
        models: the names of the folders in model_repository/.
    """
    for name, told in project.models.items():
        place = project.place("models", name)
        if name not in models:
            yield Finding(
                "oracle-model-unknown",
                f"there is no model {name!r}{did_you_mean(name, models)}",
                place,
                f"choose among {', '.join(sorted(models))}, or remove [models.{name}]",
                model=name,
            )
            continue
        if broken := _broken(project.root, name, told.oracle):
            yield broken
        elif problem := _problem(project.root, told.oracle):
            yield Finding(
                "oracle-missing",
                problem,
                project.place("models", name, "oracle"),
                "add it, or mend the name, which is relative to the project's folder",
                model=name,
            )


def _broken(root: Path, model: str, oracle: str) -> Finding | None:
    """What keeps the file of an oracle's function from being read."""
    file, _, function = oracle.partition(".py:")
    path = root / f"{file}.py"
    if not function or not path.is_file():
        return None
    try:
        pipeline_source.parse(path)
    except pipeline_source.Unparsable as error:
        what, line, column = str(error), error.line, error.column
    except OSError as error:
        what, line, column = f"cannot be read: {error.strerror}", 0, 0
    else:
        return None
    return Finding(
        "oracle-unreadable",
        f"{file}.py {what}",
        Place.within(root, path, line, column),
        "mend that line, or run the builder with a Python that takes it" if line else "mend the file",
        model=model,
    )


def _problem(root: Path, oracle: str) -> str:
    """What keeps an oracle from being found, whose file can be read if it exists; empty where nothing does."""
    file, _, function = oracle.partition(".py:")
    if oracle.endswith(".npz"):
        return "" if (root / oracle).is_file() else f"there is no file {oracle}"
    if not function:
        return ""
    path = root / f"{file}.py"
    if not path.is_file():
        return f"there is no file {file}.py"
    tree = pipeline_source.parse(path)
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    if function in {*names, *bound, *imported} or "*" in imported:
        return ""
    return f"{file}.py has no function {function}{did_you_mean(function, names)}"
