"""`python -m bench.daily`: measures, prints a table and the summary, and leaves JSON and a picture."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench.daily import __doc__ as about
from bench.daily import machine, report, warm
from bench.daily.goals import ROWS
from bench.daily.images import Images
from bench.daily.limits import Limit, say
from bench.daily.picture import picture
from bench.daily.projects import ROOT
from bench.daily.warm import Measured
from builder import journal
from builder.artifacts import write_atomically

COLD = ("cold", "targets")
_WORK = ROOT / ".builder" / "bench"


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    rows = [row for row in ROWS if row in given.rows]
    limit = Limit(given.minutes * 60)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # in an orderly way: there are containers to take away
    _WORK.mkdir(parents=True, exist_ok=True)
    loads = [machine.load()]
    with tempfile.TemporaryDirectory(dir=_WORK) as folder:
        work = Path(folder)
        os.environ[journal.VARIABLE] = str(work / "state")  # these builds are none of the user's
        measured = _measure(rows, given, work, limit)
    loads.append(machine.load())
    document = report.document(
        measured,
        machine.describe(),
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.monotonic() - limit.began,
        loads=loads,
    )
    write_atomically(given.out, json.dumps(document, indent=2) + "\n")
    write_atomically(given.picture, picture(document))
    report.show(document, Console(stderr=True, width=None if sys.stderr.isatty() else 160))
    say(f"{given.out}: every round; {given.picture}: the picture")
    print(report.summary(document), end="")
    return 0 if document["met"] else 1


def _measure(rows: Sequence[str], given: argparse.Namespace, work: Path, limit: Limit) -> Measured:
    measured = Measured()
    images = Images()

    def take(more: Measured) -> None:
        measured.rows.update(more.rows)
        measured.phases.update(more.phases)

    try:
        if set(rows) & set(warm.ROWS):
            take(warm.measure(rows, given.rounds, work, limit, images))
        if "models" in rows:
            take(warm.models(given.models_rounds or given.rounds, work, limit, images))
    finally:
        images.remove()
    if set(rows) & set(COLD):
        from bench.daily import cold  # it needs root, and what the tests start an engine with

        take(cold.measure(rows, given.cold_rounds, work, limit))
    return measured


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.daily", description=(about or "").partition("\n")[0])
    parser.add_argument("--rows", type=_rows, default=list(ROWS), metavar="NAME,...", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=_positive, default=5, metavar="N", help="5 by default")
    parser.add_argument(
        "--models-rounds", type=_positive, default=0, metavar="N", help="of the row models; as --rounds by default"
    )
    parser.add_argument(
        "--cold-rounds", type=_positive, default=3, metavar="N", help="of the rows cold and targets; 3 by default"
    )
    parser.add_argument(
        "--minutes", type=float, default=40.0, help="no round begins that would end later; 40 by default"
    )
    parser.add_argument("--out", type=Path, default=ROOT / ".builder" / "bench.json", metavar="FILE")
    parser.add_argument("--picture", type=Path, default=ROOT / ".builder" / "bench.svg", metavar="FILE")
    return parser


def _rows(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise argparse.ArgumentTypeError(f"no such row: {', '.join(unknown)} (there are {', '.join(ROWS)})")
    return names


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
