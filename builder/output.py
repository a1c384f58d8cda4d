"""What a command says: digests and JSON on stdout, everything else on stderr."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape

from builder.artifacts import Image, Pushed, Verification
from builder.catalogue import Severity
from builder.errors import BuilderError, CheckFailed
from builder.findings import Finding, errors, ordered


def _stderr() -> Console:
    # In a file or a pipe no line is broken, so that it can be searched and copied.
    width = None if sys.stderr.isatty() or "COLUMNS" in os.environ else 1000
    return Console(stderr=True, highlight=False, soft_wrap=True, width=width)


@dataclass
class Output:
    """Where results and messages go; `json` asks for one JSON document and nothing else on stdout."""

    json: bool = False
    quiet: bool = False
    console: Console = field(default_factory=_stderr)

    @property
    def progress(self) -> Console:
        """For what is of interest only while it happens."""
        return Console(stderr=True, quiet=True) if self.quiet else self.console

    def document(self, document: Mapping[str, Any]) -> None:
        """One JSON document on stdout."""
        print(json.dumps(document))

    def show(self, found: Sequence[Finding]) -> None:
        """Findings, as a person reads them."""
        for each in found:
            print_finding(each, self.console)

    def result(self, document: Mapping[str, Any], lines: tuple[str, ...] = ()) -> None:
        """The command's result: the document, or for people who want none, `lines`."""
        if self.json:
            self.document(document)
        else:
            for line in lines:
                print(line)

    def findings(self, found: Sequence[Finding]) -> None:
        """Shows what matters less than an error.

        Raises:
            CheckFailed: there is an error among them; it brings the others along.
        """
        if errors(found):
            raise CheckFailed(ordered(found))
        for each in ordered(found):
            print_finding(each, self.progress)

    def error(self, error: BuilderError) -> None:
        """A failure, in full on stderr and as the document on stdout."""
        if isinstance(error, CheckFailed):
            for each in error.findings:
                print_finding(each, self.console)
        else:
            print_error(error, self.console)
        if self.json:
            self.result({**error.partial, "error": error.as_json()})


_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.NOTE: "bold cyan"}


def print_finding(found: Finding, console: Console) -> None:
    """As an error is shown, with its severity."""
    where = str(found.place) + (f" (target {found.target})" if found.target else "")
    _print(
        str(found.severity), _STYLES[found.severity], found.code, found.what, where, found.remedy, found.detail, console
    )


def print_error(error: BuilderError, console: Console) -> None:
    """What is wrong, where, how to mend it, and the lines that show it."""
    _print("error", _STYLES[Severity.ERROR], error.code, error.what, error.where, error.remedy, error.detail, console)


def _print(
    kind: str,
    style: str,
    code: str,
    what: str,
    where: str,
    remedy: str,
    detail: Sequence[str],
    console: Console,
) -> None:
    console.print(f"[{style}]{kind}[/] [dim]{code}[/]  {escape(what)}", soft_wrap=True)
    for name, text in (("where", where), ("remedy", remedy)):
        if text:
            console.print(f"  [bold]{name:>6}[/]  {escape(text)}", soft_wrap=True)
    for line in detail:
        console.print(f"  [dim]{'|':>6}[/]  {escape(line)}", soft_wrap=True)


def build_document(built: list[Image], seconds: float) -> dict[str, Any]:
    """`build --json`."""
    fields = {"target", "reference", "digest", "base", "base_digest", "in_engine", "bytes", "layers"}
    return {"images": [image.model_dump(include=fields) for image in built], "seconds": round(seconds, 2)}


def smoke_document(verified: list[Verification]) -> dict[str, Any]:
    """`smoke --json`."""
    return {
        "passed": all(each.passed for each in verified),
        "images": [each.model_dump(exclude={"passed", "reference"}) for each in verified],
    }


def push_document(pushed: list[Pushed]) -> dict[str, Any]:
    """`push --json`."""
    return {"pushed": [each.model_dump() for each in pushed]}


def passed(name: str, detail: str, console: Console) -> None:
    """A check that was passed, of `verify`."""
    console.print(f"[bold green]{name:>12}[/]  {escape(detail)}", soft_wrap=True)


def size(count: float) -> str:
    """Bytes for people, in decimal units as Docker gives them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def is_json_wanted() -> bool:
    """Whether JSON is asked for on the command line, also when the rest of it cannot be read."""
    given = sys.argv[1:]
    return "--json" in given or "--format=json" in given or ("--format", "json") in itertools.pairwise(given)
