"""`clean` on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.text import Text

from builder.output import size
from builder.steps.clean import BY, Found, Group, Item, Plan, Removed, Rules, bytes_of, could_go
from builder.views import results

_CACHE = "clean --cache --older-than 7d"


def overview(found: Found, console: Console, now: datetime) -> None:
    """What there is, how much, how much of it could go, and by which line."""
    table = results.table("what", "count", "size", "could go", "by", right=("count", "size", "could go"))
    for group in Group:
        count = sum(each.group == group for each in found.items)
        if count:
            free = could_go(found.items, group, now, found.pinned)
            line = Text(BY[group][0] if free else "", "dim")
            table.add_row(str(group), str(count), size(bytes_of(found.items, group)), size(free) if free else "-", line)
    if found.cache:
        cache = found.cache
        table.add_row(
            "BuildKit's cache, everybody's",
            str(cache.records),
            size(cache.bytes),
            size(cache.unused) if cache.unused else "-",
            Text(_CACHE if cache.unused else "", "dim"),
        )
    console.print(table)
    if found.cache:
        console.print(
            f"of the cache {size(found.cache.ours)} are of stages named as this program's; whose they are it does not "
            "tell, so it goes with --cache alone, and then for every project that builds here"
        )
    else:
        console.print("no Docker engine answers: its images and its build cache are not counted")


def planned(plan: Plan, rules: Rules, console: Console, now: datetime) -> None:
    """What would go, and what was spared."""
    if plan.goes:
        table = results.table("goes", "size", "last used", "kind", right=("size",))
        for each in plan.goes:
            table.add_row(each.name, size(each.bytes), _age(each, now), str(each.group))
        console.print(table)
    asked = [(each, why) for each, why in plan.stays if rules.all or not each.wide]
    spared = [(each, why) for each, why in asked if each.key.startswith("sha256:")]
    if spared:
        table = results.table("stays", "size", "why", right=("size",))
        for each, why in spared:
            table.add_row(each.name, size(each.bytes), why)
        console.print(table)
    if others := len(plan.stays) - len(asked):
        console.print(f"{others} of other projects and of this program stay in any case; --all asks about them, too")
    room = f"; {size(plan.holds - plan.frees)} stay" + ("" if rules.to is None else f", of {size(rules.to)} allowed")
    console.print(f"{len(plan.goes)} of {len(plan.goes) + len(plan.stays)} go, which frees {size(plan.frees)}{room}")


def done(removed: Removed, cache: int, console: Console) -> None:
    """What was freed, and what stood in the way."""
    for each, why in removed.left:
        console.print(f"left: {each.name}: {why}")
    console.print(f"{len(removed.items)} removed, {size(removed.freed + cache)} freed")
    if short := _short(removed.items):
        console.print(short)


def _short(items: Sequence[Item]) -> str:
    """Why the engine may hold more than the plan said."""
    if not any(each.key.startswith("sha256:") for each in items):
        return ""
    return "counted by the engine, which tells of unpacked layers alone; what its build cache shares with them stays"


def _age(item: Item, now: datetime) -> str:
    if item.used is None:
        return "?"
    age = now - item.used
    if age.days:
        return f"{age.days} d ago"
    hours = age.seconds // 3600
    return f"{hours} h ago" if hours else f"{age.seconds // 60} min ago"
