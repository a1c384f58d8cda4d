"""Where a command puts a result that people read, be it through `less` or `grep`."""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.table import Table


def stdout() -> Console:
    """Like the console for messages: in a file or a pipe no line is broken."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 1000
    return Console(highlight=False, soft_wrap=True, width=width, markup=False)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Columns with a head; those in `right` hold figures."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for each in columns:
        made.add_column(each, justify="right" if each in right else "left", no_wrap=each in right)
    return made
