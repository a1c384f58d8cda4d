"""The images that a run makes, so that it can take them away again."""

from __future__ import annotations

import subprocess

from bench.daily.commands import run

NAME = "triton-dali-builder-bench"
"""In the name of every image and container that is made here."""


class Images:
    """Images with that name, those among them that lost it to a later one."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def note(self) -> None:
        """Has a look at which there are now."""
        self._seen |= {image for image, _ in _named()}

    def remove(self) -> None:
        """Takes away what was seen and what has the name; the build cache stays."""
        names = [name for _, name in _named()]
        for each in (*names, *sorted(self._seen)):  # an image without a name is gone with its last one, or not
            subprocess.run(["docker", "image", "rm", "--force", each], capture_output=True, check=False)


def _named() -> list[tuple[str, str]]:
    """ID and name of each."""
    listed = run(["docker", "image", "ls", "--no-trunc", "--format={{.ID}} {{.Repository}}:{{.Tag}}"]).stdout
    pairs = [line.partition(" ")[::2] for line in listed.splitlines()]
    return [(image, name) for image, name in pairs if NAME in name]
