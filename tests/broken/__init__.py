"""Projects with one mistake each, and what must be said of it.

A project is a file NAME.toml here: changes to a fresh copy of another project, a command, and its outcome. Its keys are
the fields of `Case`. A project named good-* has no mistake, and is what others start from.
"""

from __future__ import annotations

import os
import shutil
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).parent
EXAMPLE = "example"
BUILT = "built"
"""The example with what a build left: only where there is an engine."""
SOURCES = ("builder.toml", "plugin", "model_repository")


@dataclass(frozen=True)
class Case:
    """A project, a command, and what must come of it."""

    name: str
    title: str
    """What the user did."""
    base: str = EXAMPLE
    """"example", "built", a good-* project, or a folder of tests/projects."""
    command: str = "check"
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    needs_engine: bool = False

    # The changes, in this order.
    copy: tuple[dict[str, Any], ...] = ()
    """`file`, `to`."""
    remove: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    """To make."""
    link: tuple[dict[str, Any], ...] = ()
    """`file`, `to`: a symbolic link."""
    write: tuple[dict[str, Any], ...] = ()
    """`file`, and `text` or `bytes` (hexadecimal)."""
    edit: tuple[dict[str, Any], ...] = ()
    """`file`, `old`, `new`: `old` must be there once, or any number of times with `everywhere`."""
    patch: tuple[dict[str, Any], ...] = ()
    """As `edit`, of a binary file; `old` and `new` are hexadecimal."""
    truncate: tuple[dict[str, Any], ...] = ()
    """`file`, and the number of `bytes` that are left of it."""

    # The outcome.
    exit: int = 2
    code: str = ""
    """Empty: there must be no finding at all."""
    severity: str = "error"
    place: str = ""
    """FILE or FILE:LINE, or what an error names that is in no file; empty: anything."""
    at: str = ""
    """Text that the line has which is blamed; it must be there once. Instead of a line's number."""
    says: str = ""
    """In the finding or its remedy."""
    count: int = 1
    """So many things are wrong at that place."""
    also: tuple[str, ...] = ()
    """Codes of warnings and notes that may be there too."""

    def make(self, root: Path, built: Path | None = None) -> Path:
        """Makes the project in `root`, which must not exist; `built` is the project that BUILT stands for."""
        if self.base.startswith("good-"):
            load(self.base).make(root, built)
        elif self.base == BUILT:
            assert built is not None
            shutil.copytree(built, root, symlinks=True)
        else:
            _copy_sources(ROOT if self.base == EXAMPLE else ROOT / "tests/projects" / self.base, root)
        for change in self.copy:
            shutil.copy2(root / change["file"], _parent(root / change["to"]))
        for each in self.remove:
            path = root / each
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for each in self.folders:
            (root / each).mkdir(parents=True)
        for change in self.link:
            _parent(root / change["file"]).symlink_to(change["to"])
        for change in self.write:
            data = change["text"].encode() if "text" in change else bytes.fromhex(change["bytes"])
            _parent(root / change["file"]).write_bytes(data)
        for change in self.edit:
            old, new = change["old"].encode(), change["new"].encode()
            _replace(root / change["file"], old, new, everywhere=change.get("everywhere", False))
        for change in self.patch:
            _replace(root / change["file"], bytes.fromhex(change["old"]), bytes.fromhex(change["new"]))
        for change in self.truncate:
            os.truncate(root / change["file"], change["bytes"])
        return root

    def line(self, root: Path) -> str:
        """The place that must be named, as far as it is given: FILE or FILE:LINE."""
        if not self.at:
            return self.place
        lines = (root / self.place).read_text().splitlines()
        numbers = [number for number, line in enumerate(lines, 1) if self.at in line]
        assert len(numbers) == 1, f"{self.place} has {self.at!r} in the lines {numbers}"
        return f"{self.place}:{numbers[0]}"


def load(name: str) -> Case:
    """The project of a file here."""
    with (FOLDER / f"{name}.toml").open("rb") as file:
        read = tomllib.load(file)
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in read.items()}
    return Case(name, **given)


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def judge(case: Case, root: Path, status: int, document: dict[str, Any]) -> None:
    """Asserts that the outcome is the one that the project names.

    Args:
        status: the command's exit status.
        document: its JSON document.
    """
    findings = _findings(document, root)
    shown = "\n".join(map(str, findings)) or "no finding"
    assert status == case.exit, f"exit status {status}\n{shown}"
    if not case.code:
        assert findings == []
        return
    expected = [each for each in findings if each["code"] == case.code]
    assert expected, shown
    wanted = case.line(root)
    for each in expected:
        assert each["severity"] == case.severity, shown
        assert not wanted or f"{each['place']}:".startswith(f"{wanted}:"), shown
        assert each["remedy"], shown
        assert len(each["detail"]) <= 40
    # Of several targets each may say it.
    assert len({each["what"] for each in expected}) == case.count, shown
    assert any(case.says in _text(each) for each in expected), shown
    others = {each["code"] for each in findings if each["severity"] == "error"} - {case.code}
    assert not others, f"one mistake, more than one error\n{shown}"
    warned = {each["code"] for each in findings} - {case.code} - set(case.also)
    assert not warned, f"more than what is wrong\n{shown}"


def _findings(document: dict[str, Any], root: Path) -> list[dict[str, Any]]:
    """All findings with their place as text; an error that is none counts as one."""
    found = [dict(each) for each in document.get("findings", [])]
    for each in found:
        parts = each["place"]
        each["place"] = ":".join(str(part) for part in (parts["file"], parts["line"], parts["column"]) if part)
    error = document.get("error")
    if error and not found:
        where = str(error["where"]).removeprefix(f"{root.resolve()}/").removeprefix(str(root.resolve()))
        found.append({**error, "place": where, "severity": "error"})
    return found


def _text(finding: dict[str, Any]) -> str:
    return " ".join([finding["what"], finding["remedy"], *finding["detail"]])


def _copy_sources(source: Path, root: Path) -> None:
    root.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "model.dali", ".builder")
    for path in sorted(source.iterdir()):
        if source == ROOT and path.name not in SOURCES:
            continue
        if path.is_dir():
            shutil.copytree(path, root / path.name, ignore=ignored)
        else:
            shutil.copy2(path, root)


def _parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _replace(path: Path, old: bytes, new: bytes, *, everywhere: bool = False) -> None:
    data = path.read_bytes()
    count = data.count(old)
    assert count == 1 or (everywhere and count), f"{path.name} has {old!r} {count} times"
    path.write_bytes(data.replace(old, new))
