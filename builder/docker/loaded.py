"""An image layout in the engine, under a name of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from builder.docker.engine import Engine, translated
from builder.oci import Layout
from builder.reference import Reference


@contextlib.contextmanager
def loaded(engine: Engine, layout: Layout, trial: str) -> Iterator[str]:
    """The image as `trial` for the length of a `with`, or for longer where it gets another name; gives its digest.

    Loaded under a name that an earlier image has, it would take that image's place, and nobody could push it any more.
    """
    try:
        engine.load(layout.archive(str(Reference.parse(trial))), trial)
        yield str(layout.digest)
    finally:
        if engine.has_image(trial):
            with translated(trial):
                engine.client.images.remove(trial, force=True)
