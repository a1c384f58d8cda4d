"""What is other than in the build before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from builder.journal import Entry
from builder.views.report.picture import CROSS, LINE, Picture
from builder.views.report.words import added, day, duration, short, size

_FOLDERS = ("plugin", "model_repository")
_TALL = 96
_CUT = 4


@dataclass(frozen=True)
class File:
    """A source that is another one now."""

    name: str
    how: str
    """`added`, `changed` or `removed`."""
    sign: str


@dataclass(frozen=True)
class Value:
    """A fact that is another one now."""

    name: str
    before: str
    now: str
    how: str = ""
    """The difference, where it is a number."""


@dataclass(frozen=True)
class Changes:
    when: str
    """When the build before began."""
    same_image: bool
    """The digests are the same."""
    files: tuple[File, ...]
    values: tuple[Value, ...]
    layers_kept: int
    layers_new: int
    layers_gone: int


_SIGNS = {"added": "+", "changed": "~", "removed": "\N{MINUS SIGN}"}


def changes(build: Entry, before: Entry) -> Changes:
    """`before` went through; `build` may have failed."""
    kept = {each.digest for each in before.layers} & {each.digest for each in build.layers}
    found = [
        Value(
            "build time", duration(before.seconds), duration(build.seconds), added(before.seconds, build.seconds, "s")
        )
    ]
    if build.digest:
        found += [
            Value("image size", size(in_all(before)), size(in_all(build)), added(in_all(before), in_all(build), "B")),
            Value("digest", short(before.digest), short(build.digest)),
            Value("base", before.base, build.base),
            Value("base's digest", short(before.base_digest), short(build.base_digest)),
            *(Value(f"{name}'s version", *each) for name, each in _differing(before.versions, build.versions)),
            *(
                Value(name, *(short(one) or "not there" for one in each))
                for name, each in _differing(before.plugins, build.plugins)
            ),
        ]
    return Changes(
        when=day(before.when),
        same_image=bool(build.digest) and build.digest == before.digest,
        files=tuple(files(before.sources, build.sources)),
        values=tuple(each for each in found if each.before != each.now or each.how),
        layers_kept=len(kept),
        layers_new=len(build.layers) - len(kept),
        layers_gone=len(before.layers) - len(kept),
    )


def in_all(build: Entry) -> int:
    """The bytes of its layers, as they are added up beside them."""
    return sum(each.bytes for each in build.layers) or build.bytes


def files(before: Mapping[str, str], now: Mapping[str, str]) -> list[File]:
    """The sources that differ, by name; of a failed build that told none, nothing."""
    if not now:
        return []
    found = []
    for name, (was, is_) in _differing(before, now):
        if name in _FOLDERS:
            continue  # the digest of all its files
        how = "removed" if not is_ else "changed" if was else "added"
        found.append(File(name, how, _SIGNS[how]))
    return found


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[tuple[str, tuple[str, str]]]:
    pairs = {name: (before.get(name, ""), now.get(name, "")) for name in sorted({*before, *now})}
    return [(name, pair) for name, pair in pairs.items() if pair[0] != pair[1]]


def picture(recent: tuple[Entry, ...]) -> Picture:
    """The seconds of the last builds, a column each, this one at the right.

    One that took very much longer than most, as the first of all does, is cut off, and shown to be.
    """
    last, times = recent[-1], sorted(each.seconds for each in recent)
    top = min(times[-1], times[len(times) // 2] * _CUT) or 1.0
    told = f"The last {len(recent)} builds took {duration(times[0])} to {duration(times[-1])}"
    made = Picture(_TALL + 2 * LINE + 6, f"{told}, this one {duration(last.seconds)}")
    made.text(0, 14, told, "muted")
    wide, floor = 100 / len(recent), _TALL + LINE
    for index, each in enumerate(recent):
        tall = max(min(each.seconds, top) / top * (_TALL - 10), 2)
        kind = "broken" if not each.digest else "ran" if each is last else "earlier"
        tip = f"{day(each.when)}: {duration(each.seconds)}" + ("" if each.digest else ", failed")
        left = index * wide + wide * 0.12
        made.bar(left, wide * 0.76, floor - tall, tall, kind, tip)
        if each.seconds > top:
            for y in (floor - tall + 8, floor - tall + 14):
                made.line((left, y + 5), (left + wide * 0.76, y - 5), "cut")
        if not each.digest:
            made.mark(left + wide * 0.38, floor - tall - 8, CROSS, "cross", tip)
    made.line((0, floor), (100, floor), "axis")
    made.text(100, floor + LINE, f"this build {duration(last.seconds)}", "strong", "end")
    return made
