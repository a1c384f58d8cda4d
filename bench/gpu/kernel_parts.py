"""Takes the kernels out of the plugin's sources, for `kernels.cu`: `kernel_parts.py PLUGIN TO`.

A source has them between two comments: all that lies there needs nothing of DALI. Nothing but the standard library.
"""

from __future__ import annotations

import sys
from pathlib import Path

FILES = ("custom_copy", "normalize_permute")
_BEGIN, _END = "// --- The kernel: ", "// --- The operator. ---"


def kernel(source: str) -> str:
    """What lies between the comments.

    Raises:
        ValueError: one of them is not there.
    """
    begin = source.index(_BEGIN)
    return source[source.index("\n", begin) + 1 : source.index(_END, begin)]


def main(plugin: Path, to: Path) -> None:
    for name in FILES:
        (to / f"{name}.inc").write_text(kernel((plugin / f"{name}.cu").read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
