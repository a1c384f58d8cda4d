"""What was tested and measured, as JSON."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"


class Report:
    """Tests and figures, in their order."""

    def __init__(self) -> None:
        self.tests: list[dict[str, Any]] = []
        self.figures: dict[str, Any] = {}

    def test(self, name: str, run: Callable[[], object]) -> None:
        """Runs a test; what it returns is told, what it raises has failed it."""
        began = time.monotonic()
        try:
            told = run()
        except Exception as error:
            # Of an exception without words, such as an assertion, the line tells.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            message = str(error)[:1500] or f"line {frame.lineno}: {frame.line}"
            self._add(name, FAILED, f"{type(error).__name__}: {message}", began)
        else:
            self._add(name, PASSED, "" if told is None else str(told), began)

    def measure(self, name: str, run: Callable[[], object]) -> None:
        """As `test`, for what gives a figure."""

        def measured() -> None:
            self.figures[name] = run()

        self.test(f"measure {name}", measured)

    def not_run(self, name: str, why: str) -> None:
        self._add(name, NOT_RUN, why, None)

    def add(self, other: dict[str, Any]) -> None:
        """What another process reported."""
        self.tests += other["tests"]
        self.figures |= other["figures"]

    def as_json(self) -> dict[str, Any]:
        return {"tests": self.tests, "figures": self.figures}

    def _add(self, name: str, result: str, detail: str, began: float | None) -> None:
        seconds = {} if began is None else {"seconds": round(time.monotonic() - began, 2)}
        self.tests.append({"name": name, "result": result, "detail": detail, **seconds})
        print(f"{result:7}  {name}  {detail[:300]}", file=sys.stderr, flush=True)
