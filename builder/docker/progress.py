"""BuildKit's raw progress → a live view on a terminal, one line a step elsewhere, and what a failure is told by."""

from __future__ import annotations

import base64
import codecs
import json
import re
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from builder.process import redact

_NAME = re.compile(r"\[(?:(?P<target>\S+) )?(?P<stage>[^\s\]]+) +(?P<step>\d+/\d+)\] (?P<command>.*)", re.DOTALL)
_MOUNTS = re.compile(r"--mount=\S+\s+")
# BuildKit names a script by its first line; in this project's Dockerfile that says what the script is for.
_SCRIPT = re.compile(r"RUN <<\w+ \(set -e # (?P<title>.*?)\.\.\.\)")
_UNREMARKABLE = re.compile(r"\[(?:\S+ )?(?:internal|context [^\]]+)\]|\[.*?\] (?:FROM|LINK) ")
_LOG_LINES = 2000


@dataclass
class Step:
    """A vertex of BuildKit's graph that a user would call a step."""

    name: str
    started: datetime | None = None
    completed: datetime | None = None
    cached: bool = False
    error: str = ""
    log: deque[str] = field(default_factory=lambda: deque(maxlen=_LOG_LINES))
    unfinished_line: str = ""
    decoder: codecs.IncrementalDecoder = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))
    """Of its output, which comes in pieces that may end within a character."""

    @property
    def stage(self) -> str:
        """The Dockerfile's stage; empty for steps of BuildKit's own."""
        match = _NAME.match(self.name)
        return match["stage"] if match else ""

    @property
    def title(self) -> str:
        """`stage n/m  COMMAND`, on one line."""
        match = _NAME.match(self.name)
        if not match:
            return " ".join(self.name.split())
        command = _MOUNTS.sub("", " ".join(match["command"].split()))
        if script := _SCRIPT.fullmatch(command):
            command = script["title"]
        return f"{match['stage']} {match['step']}  {command}"

    @property
    def said(self) -> list[str]:
        """Its output, the line under way included, without empty lines."""
        return [line for line in (*self.log, redact(self.unfinished_line)) if line.strip()]

    @property
    def seconds(self) -> float:
        if not self.started:
            return 0.0
        return ((self.completed or datetime.now(self.started.tzinfo)) - self.started).total_seconds()


class BuildProgress:
    """Reads `--progress=rawjson` line by line; as a context manager it also shows it."""

    def __init__(self, console: Console) -> None:
        self.steps: dict[str, Step] = {}
        self.messages: deque[str] = deque(maxlen=50)
        """What buildx said outside the protocol."""
        self._document = ""
        self._console = console
        self._began = time.monotonic()
        self._live = (
            Live(get_renderable=self._render, console=console, transient=True, refresh_per_second=8)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.__exit__(kind, error, trace)

    def feed(self, line: str) -> None:
        """Takes one line of buildx's stderr; a document may stretch over many."""
        if not self._document and not line.startswith("{"):
            if line.strip():
                self.messages.append(line)
            return
        self._document += line
        # Inside a document, indented or not, no line starts with a closing brace.
        if not line.endswith("}") or (line != "}" and not line.startswith("{")):
            return
        try:
            status = json.loads(self._document)
        except json.JSONDecodeError:
            self.messages.append(self._document)
            return
        finally:
            self._document = ""
        for vertex in status.get("vertexes") or ():
            self._vertex(vertex)
        for entry in status.get("logs") or ():
            self._log(entry)

    @property
    def failed(self) -> Step | None:
        """The step that broke the build; those that were stopped because of it do not count."""
        broken = [step for step in self.steps.values() if step.error]
        return next((step for step in broken if "context canceled" not in step.error.lower()), None)

    @property
    def cached(self) -> int:
        return sum(step.cached for step in self.steps.values() if step.stage)

    def _vertex(self, vertex: dict[str, object]) -> None:
        name = str(vertex.get("name", ""))
        step = self.steps.setdefault(str(vertex["digest"]), Step(name))
        step.started = _time(vertex.get("started")) or step.started
        step.cached = bool(vertex.get("cached")) or step.cached
        step.error = str(vertex.get("error") or step.error)
        was_complete = step.completed is not None
        step.completed = _time(vertex.get("completed")) or step.completed
        if step.completed and not was_complete and not step.cached and not _UNREMARKABLE.match(name):
            self._report(step)

    def _log(self, entry: dict[str, object]) -> None:
        step = self.steps.get(str(entry.get("vertex")))
        if step is None:
            return
        text = step.unfinished_line + step.decoder.decode(base64.b64decode(str(entry.get("data") or "")))
        *lines, step.unfinished_line = text.split("\n")
        step.log.extend(redact(line.rstrip("\r")) for line in lines)

    def _report(self, step: Step) -> None:
        mark, style = ("✗", "red") if step.error else ("✓", "green")
        if step.error and step is not self.failed:
            return
        line = Text.assemble((mark, style), " ", (f"{step.seconds:6.1f} s", "dim"), "  ", step.title)
        self._console.print(line, no_wrap=True, overflow="ellipsis", crop=True)

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(justify="right", width=8, style="dim")
        table.add_column(no_wrap=True, overflow="ellipsis")
        running = [
            step
            for step in self.steps.values()
            if step.started and not step.completed and not _UNREMARKABLE.match(step.name)
        ]
        for step in running[-8:]:
            last = redact(step.unfinished_line).strip() or (step.log[-1].strip() if step.log else "")
            table.add_row(
                Spinner("dots"),
                f"{step.seconds:.1f} s",
                Text.assemble(step.title, ("  " + last if last else "", "dim")),
            )
        done = sum(step.completed is not None for step in self.steps.values())
        footer = Text(
            f"{time.monotonic() - self._began:.0f} s, {done} steps done, {self.cached} from the cache", style="dim"
        )
        return Group(table, footer)


def _time(value: object) -> datetime | None:
    """BuildKit's RFC 3339 with nanoseconds."""
    if not value:
        return None
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", str(value)).replace("Z", "+00:00"))
