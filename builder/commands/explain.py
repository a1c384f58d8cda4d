"""`explain`: the whole story of a code."""

from __future__ import annotations

from typing import Annotated

import typer

from builder import catalogue
from builder.commands.options import Json, prepare
from builder.errors import BadUsage, did_you_mean


def explain(
    code: Annotated[
        str,
        typer.Argument(
            metavar="[CODE]",
            help="As in a message; all codes are listed without one.",
            show_default=False,
            autocompletion=lambda: list(catalogue.codes()),
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Tell the whole story of a code: what happens, why, and what to do.

    Example:

      python -m builder explain input-name-mismatch
    """
    output = prepare(json, quiet=False, verbose=False)
    if not code:
        stories = [catalogue.story(each) for each in catalogue.codes()]
        width = max(len(story.code) for story in stories)
        lines = tuple(f"{story.code:{width}}  {story.severity:7}  {story.title}" for story in stories)
        output.result({"codes": [_as_json(story) for story in stories]}, lines)
        return
    if code not in catalogue.codes():
        raise BadUsage(
            f"there is no code {code!r}{did_you_mean(code, catalogue.codes())}",
            where="explain",
            remedy="`builder explain` lists all of them",
        )
    story = catalogue.story(code)
    output.result(_as_json(story), (f"{story.title}\n{story.code}, {story.severity}\n", story.text))


def _as_json(story: catalogue.Story) -> dict[str, str]:
    return {"code": story.code, "severity": str(story.severity), "title": story.title, "text": story.text}
