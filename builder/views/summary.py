"""What a command came to: layers, times and latencies, in tables at its end."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from rich.console import Console
from rich.text import Text

from builder import journal
from builder.artifacts import Image, Parts, Verification
from builder.journal import Step
from builder.oci import Layout
from builder.output import size
from builder.project import Project
from builder.views import results

_MADE_OF = {"COPY /root-fs/ /": "models", "COPY /plugins-fs/ /": "libraries"}
"""The Dockerfile's words for the layers of its stage `runtime`."""
_BUILDKIT = "# buildkit"
_OF_TARGET = re.compile(r"^\[[^\]]*\] ")
"""What buildx puts before its own steps."""
_WORDS = 40
_BASE_LAYERS = 8
_LONGEST = 5
_SHORT_SECONDS = 0.05
_HEX = slice(7, 19)
"""The first digits of a digest."""


def earlier(project: Project, targets: Iterable[str]) -> dict[str, frozenset[str]]:
    """The diff IDs of each target's image before the build that comes, without targets that were not built here."""
    found = {name: Image.find(project, name) or _of_journal(project, name) for name in targets}
    return {name: frozenset(layer.digest for layer in each.layers) for name, each in found.items() if each}


def _of_journal(project: Project, target: str) -> journal.Entry | None:
    """The last build that went through, though the project's own record of it is gone."""
    here = str(project.root.resolve())
    every = (each for each in journal.entries() if (each.project, each.target) == (here, target) and each.digest)
    return next(every, None)


def images(
    project: Project,
    built: Sequence[Image],
    parts: Mapping[str, Parts],
    before: Mapping[str, AbstractSet[str]],
    steps: Sequence[Step],
    seconds: float,
    console: Console,
) -> None:
    """What went into each image, its layers, and what the time went into.

    Args:
        before: as `earlier` gives it.
        steps: of all targets.
        seconds: from the command's beginning to its end.
    """
    for image in built:
        for plugin in parts[image.target].plugins:
            has = ", ".join(f"{each.name} ({', '.join(each.devices)})" for each in plugin.operators) or "no operator"
            dali = parts[image.target].dali_version
            console.print(f"{plugin.path}: {has}, compiled against DALI {dali}", markup=False)
        _layers(image, own_layers(Layout(Image.layout(project, image.target))), before.get(image.target), console)
    _times(steps, seconds, console)


def own_layers(layout: Layout) -> dict[str, str]:
    """What each layer is that the project put on its base, by diff ID; nothing where there is no layout to tell."""
    if not layout.exists:
        return {}
    config = layout.config
    held = [layout.holds(layer["digest"]) for layer in layout.manifest["layers"]]
    own = config["rootfs"]["diff_ids"][held.index(True) if True in held else len(held) :]
    made = [entry.get("created_by", "") for entry in config.get("history", ()) if not entry.get("empty_layer")]
    # From the uppermost down: what a base tells of its own layers may be less than they are.
    return {digest: _what(words) for digest, words in zip(reversed(own), reversed(made), strict=False)}


def _what(created_by: str) -> str:
    words = " ".join(created_by.removesuffix(_BUILDKIT).split())
    return _MADE_OF.get(words, words if len(words) <= _WORDS else f"{words[: _WORDS - 1]}…")


def _layers(image: Image, own: Mapping[str, str], before: AbstractSet[str] | None, console: Console) -> None:
    far = not image.in_engine
    console.print(Text.assemble((image.reference, "bold"), f"  {image.digest[:19]}"), soft_wrap=True)
    table = results.table("  layer", "size", "what", "", right=("size",))
    # Where they are many, those of a base that stays are nothing that a build tells.
    kept = [
        layer
        for layer in image.layers
        if own and layer.digest not in own and (before is None or layer.digest in before)
    ]
    folded = {layer.digest for layer in kept} if len(kept) > _BASE_LAYERS else set()
    if folded:
        total = size(sum(layer.bytes for layer in kept))
        table.add_row(Text(f"  {len(kept)} layers", "dim"), total, Text("base", "dim"), "")
    for layer in image.layers:
        if layer.digest in folded:
            continue
        is_new = before is not None and layer.digest not in before
        what = own.get(layer.digest, "base") if own else ""
        table.add_row(
            Text(f"  {layer.digest[_HEX]}", "dim"),
            size(layer.bytes),
            Text(what, "dim" if what == "base" else ""),
            Text("new", "bold green") if is_new else "",
        )
    console.print(table)
    total = size(sum(each.bytes for each in image.layers))
    console.print(f"  {total} in all{', compressed' if far else ''}{_news(image, before)}", soft_wrap=True)
    if far:
        console.print(
            f"its base {image.base} is not here: `push --untagged` takes it to that registry, "
            "and a machine that has the base proves it",
            markup=False,
            soft_wrap=True,
        )


def _news(image: Image, before: AbstractSet[str] | None) -> str:
    if before is None:
        return "; the target's first build here"
    new = [layer for layer in image.layers if layer.digest not in before]
    return f"; {size(sum(each.bytes for each in new))} new" if new else "; no layer is new"


def _times(steps: Sequence[Step], seconds: float, console: Console) -> None:
    """The longest steps, and what the others sum up to; several may have run at once."""
    ran = sorted((step for step in steps if not step.cached), key=lambda step: -step.seconds)
    cached = sum(step.cached for step in steps)
    several = len({step.targets for step in steps if step.targets}) > 1
    table = results.table("seconds", "step", right=("seconds",))
    longest = [step for step in ran[:_LONGEST] if step.seconds >= _SHORT_SECONDS]
    for step in longest:
        of = f"{', '.join(step.targets)}: " if several and step.targets else ""
        title = step.title if step.stage else _OF_TARGET.sub("", step.title)
        table.add_row(f"{step.seconds:.1f}", Text.assemble((of, "dim"), title, overflow="ellipsis", no_wrap=True))
    if others := ran[len(longest) :]:
        told = "1 other step" if len(others) == 1 else f"{len(others)} other steps"
        table.add_row(f"{sum(step.seconds for step in others):.1f}", told)
    from_cache = f"; {cached} {'step' if cached == 1 else 'steps'} from the cache" if steps else ""
    table.add_row(f"{seconds:.1f}", Text(f"in all{from_cache}"), style="bold")
    console.print(table)


def verified(found: Collection[Verification], console: Console) -> None:
    """What each image was asked, how fast it answered, and what it does without its plugins."""
    for each in found:
        head = Text.assemble((each.reference, "bold"), f"  {each.digest[:19]}  ready after {each.ready_seconds:.1f} s")
        console.print(head, soft_wrap=True)
        figures = ("requests", "p50", "p99", "requests/s")
        table = results.table("  model", "version", "oracle", *figures, right=("version", *figures))
        for model in each.models:
            table.add_row(
                Text(f"  {model.name}"),
                model.version,
                Text(model.oracle if model.values_compared else f"{model.oracle}, no values"),
                str(model.requests),
                f"{model.latency_ms.p50:.2f} ms",
                f"{model.latency_ms.p99:.2f} ms",
                f"{model.requests_per_second:.0f}",
            )
        console.print(table)
        for left_out in each.not_run:
            console.print(f"  {left_out.name}: not run: {left_out.why}", markup=False, soft_wrap=True)
        control = each.negative_control
        fails = "without its plugins it fails: " if control.applicable else ""
        evidence = Text(f"  {fails}{control.evidence}")
        console.print(evidence, soft_wrap=False, no_wrap=True, overflow="ellipsis")
