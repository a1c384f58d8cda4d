"""Which DALI each release of NVIDIA's Triton image holds.

releases.csv was collected from what NVIDIA publishes about each release. A build compares it with the image itself.
"""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path

from builder.reference import Reference

NVIDIA = ("nvcr.io", "nvidia/tritonserver")
_TAG = re.compile(r"^(\d\d\.\d\d)(?:-.*)?$")


@cache
def table() -> dict[str, str]:
    """Triton's release (YY.MM) → DALI's version."""
    with (Path(__file__).parent / "releases.csv").open(encoding="utf-8", newline="") as file:
        return {row["triton_release"]: row["dali_version"] for row in csv.DictReader(file)}


def release_of(image: Reference) -> str | None:
    """The Triton release that a reference names: NVIDIA's own image, or a copy of it in another registry."""
    found = _TAG.match(image.tag or "")
    return found[1] if found and image.path.endswith("tritonserver") else None


def dali_of(image: Reference) -> str | None:
    """The DALI in a Triton image, as major.minor.patch; None where the table does not have it."""
    version = table().get(release_of(image) or "")
    if version is None:
        return None
    return version if version.count(".") == 2 else f"{version}.0"
