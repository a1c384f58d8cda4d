"""How `dev` shows a verdict: a line for people, or a JSON document of one line for programs."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from builder.dev.verdict import Verdict
from builder.errors import CheckFailed
from builder.output import Output, print_error, print_finding

_SHOWN = 4


def show(verdict: Verdict, output: Output, results: Console) -> None:
    """A verdict on stdout; what is wrong, in full, on stderr."""
    if output.json:
        print(json.dumps(document(verdict)), flush=True)
    else:
        results.print(Text.from_markup(line(verdict)), soft_wrap=True)
    if isinstance(verdict.error, CheckFailed):
        for each in verdict.error.findings:
            print_finding(each, output.console)
    elif verdict.error:
        print_error(verdict.error, output.console)


def document(verdict: Verdict) -> dict[str, Any]:
    """`dev --json`, for each verdict."""
    told: dict[str, Any] = {
        "when": verdict.when.isoformat(timespec="milliseconds"),
        "passed": verdict.passed,
        "changed": list(verdict.changed),
        "done": [{"what": each.what, "seconds": round(each.seconds, 3)} for each in verdict.done],
        "models": [
            {
                "name": each.name,
                "version": each.version,
                "oracle": each.oracle,
                "values_compared": each.values_compared,
                "requests": each.requests,
                "latency_ms": {"p50": each.p50_ms, "p99": each.p99_ms},
            }
            for each in verdict.models
        ],
        "not_run": [{"name": name, "why": why} for name, why in verdict.not_run],
        "seconds": round(verdict.seconds, 3),
        "http": verdict.http,
        "grpc": verdict.grpc,
    }
    return told | ({"error": verdict.error.as_json()} if verdict.error else {})


def line(verdict: Verdict) -> str:
    """With rich's markup."""
    style, mark = ("green", "✓") if verdict.passed else ("red", "✗")
    changed = _several(list(verdict.changed)) if verdict.changed else "start"
    parts = [escape(f"{each.what} {each.seconds:.1f} s") for each in verdict.done]
    if verdict.error:
        serving = "; the server goes on with what it had" if verdict.http else ""
        parts.append(f"[bold red]{verdict.error.code}[/]{serving}")
    else:
        parts.append(
            escape(
                _several(
                    [
                        f"{each.title} {'right' if each.values_compared else 'of the right types and shapes'} "
                        f"({each.oracle}, {each.requests} requests, p50 {each.p50_ms:.2f} ms, p99 {each.p99_ms:.2f} ms)"
                        for each in verdict.models
                    ]
                )
            )
        )
    if verdict.not_run:
        parts.append(escape(f"not run: {_several([f'{name} ({why})' for name, why in verdict.not_run])}"))
    return (
        f"[dim]{verdict.when:%H:%M:%S}[/] [bold {style}]{mark} {verdict.seconds:4.1f} s[/]  "
        f"[bold]{escape(changed)}[/]: {', '.join(part for part in parts if part)}"
    )


def _several(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
