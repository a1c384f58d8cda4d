"""A build while it goes on: the stages side by side on a terminal, and one line for each step elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from builder.docker.progress import BuildProgress, Step
from builder.output import size

_PER_SECOND = 8
_NUMBERS_FROM = 72
"""Columns from which on there is room for more than times and last words."""
_TARGET_COLUMNS = 24
"""That a target needs to have a column of its own."""
_WORDS_AT_MOST = 6
_NEWS_SECONDS = 0.5
"""From when on a step of BuildKit's own is worth a row."""


class Lines:
    """One line for each finished step: for files, pipes, and terminals that cannot go back."""

    def __init__(self, console: Console) -> None:
        self.builds: list[BuildProgress] = []
        """All that were shown, the earliest first."""
        self.console = console

    def began(self, build: BuildProgress) -> None:
        self.builds.append(build)

    def finished(self, step: Step) -> None:
        mark = Text("✗", "red") if step.error else Text("✓", "green")
        line = Text.assemble(mark, " ", (f"{step.seconds:6.1f} s", "dim"), "  ", step.title)
        self.console.print(line, no_wrap=True, overflow="ellipsis", crop=True)

    def complained(self, step: Step, message: Sequence[str]) -> None:
        """Nothing: whoever reads this reads the whole error at its end."""

    def ended(self, build: BuildProgress, *, well: bool) -> None:
        pass


class Screen(Lines):
    """A row for each stage as long as the build goes on, and a line of it at the end."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live: Live | None = None

    def began(self, build: BuildProgress) -> None:
        super().began(build)
        frame = Frame(build, self.console)
        self._live = Live(
            get_renderable=frame.render,
            console=self.console,
            transient=True,
            refresh_per_second=_PER_SECOND,
            vertical_overflow="crop",
        )
        self._live.start(refresh=True)

    def finished(self, step: Step) -> None:
        """A row tells of it; what broke the build stays to be read."""
        if step.error:
            super().finished(step)

    def complained(self, step: Step, message: Sequence[str]) -> None:
        self.console.print(Text.assemble(("✗", "red"), f" the first error of {step.title}"))
        for line in message:
            self.console.print(Text.assemble((f"  {'|':>6}  ", "dim"), line), soft_wrap=True)

    def ended(self, build: BuildProgress, *, well: bool) -> None:
        if self._live:
            self._live.stop()
            self._live = None
        if well:
            self.console.print(Text.assemble(("✓", "green"), (f" {_totals(build)}", "dim")), soft_wrap=True)


def view(console: Console) -> Lines:
    """What the console can show. FORCE_COLOR asks for colours, and makes no terminal of a file."""
    is_screen = console.is_interactive and console.file.isatty() and not console.quiet
    return Screen(console) if is_screen else Lines(console)


def _totals(build: BuildProgress) -> str:
    told = [
        f"{time.monotonic() - build.began:.1f} s",
        f"{build.done} {'step' if build.done == 1 else 'steps'} done",
        f"{build.cached} from the cache",
        *([size(build.bytes)] if build.bytes else []),
    ]
    return " · ".join(told)


@dataclass
class _Row:
    """A stage of one target."""

    target: str
    name: str
    steps: list[Step] = field(default_factory=list)

    @property
    def running(self) -> list[Step]:
        return [step for step in self.steps if step.is_running]

    @property
    def has_failed(self) -> bool:
        return any(step.error for step in self.steps)

    @property
    def is_over(self) -> bool:
        """Whether no further step of the stage can come."""
        return not self.running and any(_is_last(step.number) for step in self.steps)

    @property
    def number(self) -> str:
        """`n/m` of the step under way, or else of the last one."""
        return self.now.number if self.running else max((step.number for step in self.steps), key=_ordinal)

    @property
    def is_cached(self) -> bool:
        return all(step.cached for step in self.steps)

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    @property
    def bytes(self) -> int:
        return sum(step.bytes for step in self.steps)

    @property
    def now(self) -> Step:
        """The step under way, or else the last one."""
        return (self.running or self.steps)[-1]

    def urgency(self) -> tuple[bool, bool, float]:
        """Sorts the rows that are shown first, where not all of them can be, to the end."""
        latest = max(step.began.timestamp() for step in self.steps if step.began)
        return bool(self.running), self.has_failed, latest


def _ordinal(number: str) -> int:
    """The n of `n/m`; 0 for steps of BuildKit's own."""
    return int(number.partition("/")[0] or 0)


def _is_last(number: str) -> bool:
    before, _, last = number.partition("/")
    return before == last


class Frame:
    """What a terminal shows at a moment."""

    def __init__(self, build: BuildProgress, console: Console) -> None:
        self._build = build
        self._console = console
        self._spinner = Spinner("dots", style="cyan")
        """One for all, so that they turn together."""

    def render(self) -> Group:
        rows = list(self._rows())
        names = {row.name for row in rows if not row.is_cached}
        at_work = [row for row in rows if row.name in names]
        targets = list(dict.fromkeys(row.target for row in rows if row.target))
        width, height = self._console.size
        # One line is for those from the cache, one for the totals, and the cursor stands on the last one.
        room = max(1, height - 3)
        if len(targets) > 1 and width >= (len(targets) + 1) * _TARGET_COLUMNS and room >= _WORDS_AT_MOST:
            body = self._side_by_side(at_work, targets, width, room)
        else:
            body = self._list(at_work, len(targets) > 1, width, room)
        if cached := sorted({row.name for row in rows} - names):
            body.append(_line(f"  from the cache: {', '.join(cached)}"))
        # It turns also while no step is under way: BuildKit tidies up, or waits for another build.
        totals = _table([_Column([self._spinner], 1), _Column([_line(_totals(self._build))])], width)
        return Group(*body, totals)

    def _rows(self) -> Iterable[_Row]:
        """In the order in which their stages began, those of one stage together; what waits is not among them."""
        rows: dict[tuple[str, str], _Row] = {}
        begun = [step for step in list(self._build.steps.values()) if step.spans]
        for step in sorted(begun, key=lambda step: min(step.spans)):
            # Of two outputs that need the same step one has it, and for the other it is called off.
            if step.is_cancelled or not (step.is_remarkable if step.stage else step.seconds >= _NEWS_SECONDS):
                continue
            name = step.stage or step.command.rpartition("] ")[2]
            rows.setdefault((step.target, name), _Row(step.target, name)).steps.append(step)
        stages = list(dict.fromkeys(row.name for row in rows.values()))
        yield from sorted(rows.values(), key=lambda row: stages.index(row.name))

    def _list(self, rows: Sequence[_Row], with_targets: bool, width: int, room: int) -> list[RenderableType]:
        shown, left = _fitting(rows, room)
        wide = width >= _NUMBERS_FROM
        columns = [
            _Column([self._mark(row) for row in shown], 1),
            _Column.fitted([row.name for row in shown], max(16, width // 4)),
            *([_Column.fitted([row.target for row in shown], 20 if wide else 14)] if with_targets else []),
            *([_Column.fitted([row.number for row in shown], 7, right=True)] if wide else []),
            _Column([f"{row.seconds:.1f} s" for row in shown], 8, right=True),
            *([_Column([size(row.bytes) if row.bytes else "" for row in shown], 8, right=True)] if wide else []),
        ]
        words = _Column([_words(row, short=not wide) for row in shown])
        return [_table([*columns, words], width), *left]

    def _side_by_side(
        self, rows: Sequence[_Row], targets: Sequence[str], width: int, room: int
    ) -> list[RenderableType]:
        running = [row for row in rows if row.running][: min(_WORDS_AT_MOST, room - 3)]
        # The heading, and a line of words for each that runs.
        shown, left = _fitting(rows, max(1, room - 1 - len(running)), by_name=True)
        stages: dict[str, dict[str, _Row]] = {}
        for row in shown:
            stages.setdefault(row.name, {})[row.target] = row
        cells = [
            _Column(
                [Text(target, "bold"), *(self._cell(of.get(target)) for of in stages.values())], _TARGET_COLUMNS - 2
            )
            for target in targets
        ]
        names = _Column.fitted(["", *(f"  {name}" for name in stages)], _TARGET_COLUMNS - 2)
        words = [
            _Column.fitted([f"  {row.target}" for row in running], _TARGET_COLUMNS),
            _Column.fitted([row.name for row in running], _TARGET_COLUMNS),
            _Column([_words(row) for row in running]),
        ]
        return [_table([names, *cells], width), *left, *([_table(words, width)] if running else [])]

    def _cell(self, row: _Row | None) -> RenderableType:
        if row is None:
            return ""
        if row.is_cached:
            return Text("  from the cache", "dim")
        number = row.number if row.running else ""
        return _table([_Column([self._mark(row)], 1), _Column([f"{row.seconds:.1f} s"], 8, True), _Column([number], 6)])

    def _mark(self, row: _Row) -> RenderableType:
        if row.has_failed:
            return Text("✗", "red")
        if row.running:
            return self._spinner
        return Text("✓", "green") if row.is_over else Text("·", "dim")


@dataclass
class _Column:
    """Cells that are cut where they are too long."""

    cells: Sequence[RenderableType]
    width: int = 0
    """0: what the others leave."""
    right: bool = False

    @classmethod
    def fitted(cls, cells: Sequence[str], most: int, *, right: bool = False) -> _Column:
        """As wide as the longest, up to `most`."""
        return cls(cells, min(most, max(map(cell_len, cells), default=0)), right)


def _table(columns: Sequence[_Column], width: int = 0) -> Table:
    """Of fixed widths: rows come and go, and long words must not push the others aside."""
    shown = [column for column in columns if column.width or column is columns[-1]]
    left = width - sum(column.width + 1 for column in shown)
    table = Table.grid(padding=(0, 1, 0, 0))
    for column in shown:
        justify: JustifyMethod = "right" if column.right else "left"
        table.add_column(justify=justify, no_wrap=True, overflow="ellipsis", width=column.width or max(1, left))
    for cells in zip(*(column.cells for column in shown), strict=True):
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))  # a name is no markup
    return table


def _line(text: str) -> Text:
    return Text(text, "dim", no_wrap=True, overflow="ellipsis")


def _fitting(rows: Sequence[_Row], room: int, *, by_name: bool = False) -> tuple[list[_Row], list[Text]]:
    """Those that there is room for, and a line on the others.

    Args:
        by_name: whether rows of one name share a line.
    """
    keys = {id(row): row.name if by_name else str(id(row)) for row in rows}
    lines = list(dict.fromkeys(keys.values()))
    if len(lines) <= room:
        return list(rows), []
    urgent = dict.fromkeys(keys[id(row)] for row in sorted(rows, key=_Row.urgency, reverse=True))
    kept = set(list(urgent)[: max(1, room - 1)])
    shown = [row for row in rows if keys[id(row)] in kept]
    hidden = len(lines) - len(kept)
    return shown, [] if room == 1 else [_line(f"  … and {hidden} {'stage' if hidden == 1 else 'stages'} more")]


def _words(row: _Row, *, short: bool = False) -> Text:
    """What the row's step is about; of one that ran to its end nothing has to be told.

    Args:
        short: whether there is room for one thing alone.
    """
    step = row.now
    if not row.running and not row.has_failed:
        return Text()
    expected = sum(step.expected.values())
    moved = f"{size(step.bytes)} of {size(expected)}" if expected and step.bytes < expected else ""
    told = [Text(step.command), Text(moved, "cyan"), Text(step.last_words, "dim")]
    told = [part for part in told if part]
    return told[-1] if short else Text("  ").join(told)
