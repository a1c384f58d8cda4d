"""Figures as people read them."""

from __future__ import annotations

from datetime import datetime

from builder.output import size

__all__ = ["added", "counted", "day", "duration", "milliseconds", "number", "short", "size"]


def duration(seconds: float) -> str:
    """Such as 0.04 s, 3.2 s, 2 min 5 s."""
    if seconds < 0.1:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def milliseconds(count: float) -> str:
    """Three digits that count, such as 0.365 ms; seconds from 1 s on."""
    if count >= 1000:
        return duration(count / 1000)
    return f"{count:.{3 if count < 1 else 2 if count < 10 else 1 if count < 100 else 0}f} ms"


def number(count: float) -> str:
    """Thousands apart, by a space that no line is broken at."""
    return f"{count:,.0f}".replace(",", "\N{NO-BREAK SPACE}")


def counted(count: int, what: str) -> str:
    """Such as `1 layer` and `2 layers`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def added(before: float, now: float, unit: str) -> str:
    """How much there is more, such as `+1.2 MB`; `unit`: `s` or `B`."""
    if before == now:
        return "unchanged"
    sign = "+" if now > before else "\N{MINUS SIGN}"
    return sign + (duration if unit == "s" else size)(abs(now - before))


def day(when: str) -> str:
    """A time of ISO 8601, to the minute and with its zone; as it stands where it is none."""
    try:
        return f"{datetime.fromisoformat(when):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return when


def short(digest: str) -> str:
    """The first 12 digits."""
    return digest.removeprefix("sha256:")[:12]
