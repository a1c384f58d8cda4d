"""What serialize.py complains of, out of all that it said or out of a whole build log."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MARK = "serialize: error: /"


def complaints(lines: Iterable[str], folder: str) -> list[str]:
    """What is wrong with each pipeline; begins with its file, by the name that this has in the project.

    Args:
        folder: where the models were. A Dockerfile of the project's own may have others elsewhere.
    """
    said = ("/" + line.split(_MARK, 1)[1] for line in lines if _MARK in line)
    return [re.sub(f"^{folder}/", "/model_repository/", each)[1:] for each in said]
