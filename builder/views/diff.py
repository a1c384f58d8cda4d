"""`diff` on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from builder.layers import File
from builder.output import size
from builder.steps.diff import Change, Difference, FileLine, LayerLine, folders
from builder.views import results

_SIGNS = {"added": "+", "removed": "-", "changed": "~", "same": " "}
_STYLES = {"added": "green", "removed": "red", "changed": "yellow", "same": "dim"}
_KINDS = {
    "version": "versions",
    "source": "sources",
    "wheel": "wheels",
    "package": "packages of Debian where the plugins are compiled",
    "config": "configuration",
    "env": "environment",
    "label": "labels",
}


def show(found: Difference, console: Console, *, all_files: bool) -> None:
    """Layers, files, versions, configurations; what is the same is told in one line."""
    for sign, side in (("-", found.before), ("+", found.after)):
        console.print(f"{sign} {side.name}  {side.digest}  {size(side.bytes)} compressed")
    if found.identical:
        console.print("identical")
        return
    _layers(found.layers, console)
    _files([each for each in found.files if all_files or not each.of_base], console)
    if not all_files:
        _folders(found.files, console)
    _changes(found.changes, console)
    for each in found.models:
        console.print()
        if not each.lines:
            console.print(f"{each.path}: the same to its reader, written otherwise")
        for line in each.lines:
            console.print(Text(line, {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")))


def _layers(lines: Sequence[LayerLine], console: Console) -> None:
    _title("layers", console)
    same = [each for each in lines if each.status == "same"]
    if same:
        total = size(sum(each.layer.bytes for each in same))
        console.print(f"  {len(same)} the same, {total} compressed")
    for each in lines:
        if each.status != "same":
            layer = each.layer
            of = "base" if layer.of_base else "own"
            text = f"{_SIGNS[each.status]} {layer.diff_id[7:19]}  {size(layer.bytes):>9}  {of:4}  {layer.what}"
            console.print(Text(text, _STYLES[each.status]))


def _files(lines: Sequence[FileLine], console: Console) -> None:
    if not lines:
        return
    _title("files", console)
    for each in lines:
        console.print(Text(f"{_SIGNS[each.status]} {each.path}  {_told(each)}", _STYLES[each.status]))


def _told(line: FileLine) -> str:
    if line.before and line.after:
        told = []
        for what, (before, after) in line.what.items():
            if what == "content":
                told.append(f"content, {size(line.before.size)} → {size(line.after.size)}")
            elif what == "owner":
                told.append(f"owner {_owner(line.before)} → {_owner(line.after)}")
            else:
                told.append(f"{what} {before} → {after}")
        return "; ".join(told)
    only = line.before or line.after
    assert only is not None
    return f"{only.kind}, {size(only.size)}, {only.mode:04o}, {_owner(only)}"


def _owner(file: File) -> str:
    return f"{file.owner[0]}:{file.owner[1]}"


def _folders(lines: Sequence[FileLine], console: Console) -> None:
    found = folders(lines)
    if not found:
        return
    _title("the bases' files by folder (--files lists each)", console)
    table = results.table(
        "folder", "added", "removed", "changed", "bytes", right=("added", "removed", "changed", "bytes")
    )
    for each in found:
        grown = f"{'-' if each.bytes < 0 else '+'}{size(abs(each.bytes))}"
        table.add_row(each.path, *(str(count or "") for count in (each.added, each.removed, each.changed)), grown)
    console.print(table)


def _changes(changes: Sequence[Change], console: Console) -> None:
    for kind, title in _KINDS.items():
        of_kind = [each for each in changes if each.kind == kind]
        if of_kind:
            _title(title, console)
        for each in of_kind:
            before, after = (_short(kind, value) for value in (each.before, each.after))
            if before == after:  # the same version, by other hashes
                before, after = each.before or "none", each.after or "none"
            console.print(f"~ {each.what}: {before} → {after}")


def _short(kind: str, value: str | None) -> str:
    if value is None:
        return "none"
    return value.split()[0] if kind == "wheel" else value[:19] if kind == "source" else value


def _title(text: str, console: Console) -> None:
    console.print()
    console.print(Text(text, "bold"))
