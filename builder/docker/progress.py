"""BuildKit's raw progress: what each step does, how long it takes, and what a failure is told by."""

from __future__ import annotations

import base64
import codecs
import json
import re
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol, Self

from builder import journal
from builder.docker import compiler
from builder.process import redact

_NAME = re.compile(r"\[(?:(?P<target>\S+) )?(?P<stage>[^\s\]]+) +(?P<step>\d+/\d+)\] (?P<command>.*)", re.DOTALL)
_OWN_NAME = re.compile(r"\[(?!internal\])(?P<target>[^\s\]]+)(?: internal| context [^\]]+)?\] ")
_MOUNTS = re.compile(r"--mount=\S+\s+")
# BuildKit names a script by its first line; in this project's Dockerfile that says what the script is for.
_SCRIPT = re.compile(r"RUN <<\w+ \(set -e # (?P<title>.*?)\.\.\.\)")
_INTERNAL = re.compile(r"\[(?:\S+ )?(?:internal|context [^\]]+)\]")
_LINK = re.compile(r"\[.*?\] LINK ")
_FROM = re.compile(r"\[.*?\] FROM ")
# No build shares this one with another.
_FIRST = re.compile(r"\[(?:\S+ )?internal\] load build definition")
_SCRIPT_FAILED = re.compile(r'process ".*" did not complete successfully: ', re.DOTALL)
_CACHE_IMPORT = re.compile(r"importing cache manifest from ")
_NO_CACHE = ": none that can be read"
_LOG_LINES = 2000
_NOTABLE_SECONDS = 0.1
_NOTABLE_HOUSEKEEPING_SECONDS = 0.5
_NOTABLE_BYTES = 1_000_000


@dataclass
class Step:
    """A vertex of BuildKit's graph that a user would call a step."""

    name: str
    spans: dict[datetime, datetime | None] = field(default_factory=dict)
    """When it began and ended. It may do so several times: BuildKit looks for it in the cache, and then runs it."""
    cached: bool = False
    error: str = ""
    log: deque[str] = field(default_factory=lambda: deque(maxlen=_LOG_LINES))
    unfinished_line: str = ""
    decoder: codecs.IncrementalDecoder = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))
    """Of its output, which comes in pieces that may end within a character."""
    moved: dict[str, int] = field(default_factory=dict)
    """Bytes of each of its downloads, transfers and exports so far."""
    expected: dict[str, int] = field(default_factory=dict)
    """Bytes of those whose size is known."""
    seen: float = 0.0
    """`time.monotonic()` when its last span was heard of: the engine's clock may be another machine's."""
    is_told: bool = False
    """Whether people have read that it ended."""

    @property
    def target(self) -> str:
        """Of builder.toml; empty where the build has one target alone. The embedded base belongs to its target."""
        match = _NAME.match(self.name) or _OWN_NAME.match(self.name)
        return (match["target"] or "").partition("_")[0] if match else ""

    @property
    def stage(self) -> str:
        """The Dockerfile's stage; empty for steps of BuildKit's own."""
        match = _NAME.match(self.name)
        return match["stage"] if match else ""

    @property
    def number(self) -> str:
        """`n/m` within the stage; empty for steps of BuildKit's own."""
        match = _NAME.match(self.name)
        return match["step"] if match else ""

    @property
    def command(self) -> str:
        """What it does, on one line: its script's title, or the Dockerfile's words."""
        match = _NAME.match(self.name)
        if not match:
            return " ".join(self.name.split())
        command = _MOUNTS.sub("", " ".join(match["command"].split()))
        script = _SCRIPT.fullmatch(command)
        return script["title"] if script else command

    @property
    def title(self) -> str:
        """`stage n/m  COMMAND`, on one line."""
        return f"{self.stage} {self.number}  {self.command}" if self.stage else self.command

    @property
    def said(self) -> list[str]:
        """Its output, the line under way included, without empty lines."""
        return [line for line in (*self.log, redact(self.unfinished_line)) if line.strip()]

    @property
    def last_words(self) -> str:
        """The last line of its output; empty as long as it said nothing."""
        return next((line.strip() for line in (redact(self.unfinished_line), *reversed(self.log)) if line.strip()), "")

    @property
    def began(self) -> datetime | None:
        """None as long as it waits."""
        return min(self.spans, default=None)

    @property
    def is_running(self) -> bool:
        return any(ended is None for ended in list(self.spans.values()))

    @property
    def is_complete(self) -> bool:
        return bool(self.spans) and not self.is_running

    @property
    def is_cancelled(self) -> bool:
        """Whether it was stopped because another one broke."""
        return "context canceled" in self.error.lower()

    @property
    def seconds(self) -> float:
        """Spent on it so far; what two of its spans share counts once."""
        total = 0.0
        until: datetime | None = None
        for began, ended in sorted(self.spans.items()):
            if ended is None or (until and ended <= until):
                continue
            total += (ended - max(began, until or began)).total_seconds()
            until = ended
        return total + (time.monotonic() - self.seen if self.is_running else 0.0)

    @property
    def bytes(self) -> int:
        """Downloaded, transferred or written, as far as BuildKit tells."""
        return sum(list(self.moved.values()))

    @property
    def is_remarkable(self) -> bool:
        """Whether people want to read of it: neither a step of BuildKit's own housekeeping nor one that did nothing."""
        if _INTERNAL.match(self.name) or _LINK.match(self.name):
            return False
        return not _FROM.match(self.name) or self.bytes > 0

    @property
    def is_notable(self) -> bool:
        """Whether it took long enough, or moved enough, to be told of whatever it is."""
        least = _NOTABLE_HOUSEKEEPING_SECONDS if _INTERNAL.match(self.name) else _NOTABLE_SECONDS
        return self.seconds >= least or self.bytes >= _NOTABLE_BYTES


class View(Protocol):
    """Shows builds while they go on."""

    def began(self, build: BuildProgress) -> None:
        """BuildKit said its first word."""

    def finished(self, step: Step) -> None:
        """A remarkable step ran to its end, or broke the build."""

    def complained(self, step: Step, message: Sequence[str]) -> None:
        """The compiler named the build's first error; it may still be at work."""

    def ended(self, build: BuildProgress, *, well: bool) -> None:
        """Nothing comes any more."""


class BuildProgress:
    """Reads `--progress=rawjson` line by line; a context manager whose end is that of the build."""

    def __init__(self, view: View) -> None:
        self.steps: dict[str, Step] = {}
        self.messages: deque[str] = deque(maxlen=50)
        """What buildx said outside the protocol."""
        self.began = time.monotonic()
        self._document = ""
        self._view = view
        self._has_begun = False
        self._has_complained = False
        self._broken: Step | None = None
        """The first one in which a compiler named an error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._has_begun:
            self._view.ended(self, well=kind is None and self.failed is None)

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
            news = json.loads(self._document)
        except json.JSONDecodeError:
            self.messages.append(self._document)
            return
        finally:
            self._document = ""
        if not self._has_begun:
            self._has_begun = True
            self._view.began(self)
        # What is said of a step counts before that it ended.
        for vertex in news.get("vertexes") or ():
            self.steps.setdefault(str(vertex["digest"]), Step(str(vertex.get("name", ""))))
        for status in news.get("statuses") or ():
            self._status(status)
        for entry in news.get("logs") or ():
            self._log(entry)
        for vertex in news.get("vertexes") or ():
            self._vertex(vertex)

    @property
    def failed(self) -> Step | None:
        """The step that broke the build; those that were stopped because of it do not count."""
        return next((step for step in self.steps.values() if step.error and not step.is_cancelled), None)

    @property
    def done(self) -> int:
        """Steps of the Dockerfile that ran to their end, and were not in the cache."""
        return sum(step.is_complete and not step.cached for step in self._of_stages())

    @property
    def cached(self) -> int:
        return sum(step.cached for step in self._of_stages())

    def _of_stages(self) -> list[Step]:
        return [step for step in list(self.steps.values()) if step.stage and not _LINK.match(step.name)]

    @property
    def bytes(self) -> int:
        """Downloaded, transferred or written by all steps."""
        return sum(step.bytes for step in list(self.steps.values()))

    @property
    def origin(self) -> datetime | None:
        """By BuildKit's clock. What ended before, another build did, and this one has only waited for."""
        return min(
            (min(step.spans) for step in self.steps.values() if step.spans and _FIRST.match(step.name)), default=None
        )

    def _vertex(self, vertex: dict[str, Any]) -> None:
        step = self.steps[str(vertex["digest"])]
        step.cached = bool(vertex.get("cached")) or step.cached
        step.error = redact(str(vertex.get("error") or step.error))
        if step.error and _CACHE_IMPORT.search(step.name):
            # No failure: what is not found there is built.
            step.error, step.name = "", step.name.removesuffix(_NO_CACHE) + _NO_CACHE
        if began := _time(vertex.get("started")):
            ended = _time(vertex.get("completed"))
            if ended is None and began not in step.spans:
                step.seen = time.monotonic()
            step.spans[began] = ended or step.spans.get(began)
        if not step.is_complete or step.is_told or step.cached:
            return
        if not self._broken and step.stage == compiler.STAGE and compiler.is_error(step.unfinished_line):
            self._broken = step
        if step is self._broken:
            self._complain(step, whole=True)
        if step.is_remarkable and (not step.error or step is self.failed):
            step.is_told = True
            self._view.finished(step)

    def _status(self, status: dict[str, Any]) -> None:
        step = self.steps.get(str(status.get("vertex")))
        if step is None or step.name == "[internal] load local bake definitions":
            return
        name = str(status.get("id"))
        step.moved[name] = max(step.moved.get(name, 0), int(status.get("current") or 0))
        if total := int(status.get("total") or 0):
            step.expected[name] = total

    def _log(self, entry: dict[str, Any]) -> None:
        step = self.steps.get(str(entry.get("vertex")))
        if step is None:
            return
        text = step.unfinished_line + step.decoder.decode(base64.b64decode(str(entry.get("data") or "")))
        *lines, step.unfinished_line = text.split("\n")
        step.log.extend(redact(line.rstrip("\r")) for line in lines)
        if not self._broken and step.stage == compiler.STAGE and any(map(compiler.is_error, lines)):
            self._broken = step
        if step is self._broken:
            self._complain(step, whole=False)

    def _complain(self, step: Step, *, whole: bool) -> None:
        """Hands on the build's first error, as soon as its place is shown too.

        Args:
            whole: whether the step has said all that it says.
        """
        # Ninja prints all that a compiler said at once; another generator may be in the middle of it.
        if not self._has_complained and (whole or not (step.unfinished_line or compiler.is_error(step.log[-1]))):
            self._has_complained = True
            self._view.complained(step, next(compiler.messages(step.said)))


def timeline(builds: Iterable[BuildProgress], began: datetime) -> tuple[journal.Step, ...]:
    """What was done in `builds`, one after the other, in the order in which it began; without what tells nothing.

    Args:
        began: the beginning of all, with a time zone.
    """
    told = [
        _told(step, began, build.origin)
        for build in builds
        for step in build.steps.values()
        if step.is_complete
        and not _LINK.match(step.name)
        # Of two outputs that need the same step one has it, and for the other it is called off.
        and (build.failed or not step.is_cancelled)
        and (step.is_notable or step.error or (step.stage and step.is_remarkable))
    ]
    found = [step for step in told if not step.cached]
    # A later build, or another output of the same one, looks again for what is made already.
    for step in told:
        if step.cached and not any(_is_same(step, other) for other in found):
            found.append(step)
    return tuple(sorted(found, key=lambda step: (step.began, step.title)))


def _told(step: Step, began: datetime, origin: datetime | None) -> journal.Step:
    first, last = min(step.spans), max(ended for ended in step.spans.values() if ended)
    is_of_another = origin is not None and last < origin
    return journal.Step(
        title=step.title,
        stage=step.stage,
        targets=(step.target,) if step.target else (),
        # The clock may be another machine's.
        began=round(max(0.0, (first - began).total_seconds()), 3),
        seconds=0.0 if is_of_another else round(step.seconds, 3),
        cached=step.cached or is_of_another,
        bytes=step.bytes,
        error=_SCRIPT_FAILED.sub("", step.error),
    )


def _is_same(step: journal.Step, other: journal.Step) -> bool:
    of_one = step.targets == other.targets or not step.targets or not other.targets
    return of_one and step.title == other.title


def _time(value: object) -> datetime | None:
    """BuildKit's RFC 3339 with nanoseconds."""
    if not value:
        return None
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", str(value)).replace("Z", "+00:00"))
