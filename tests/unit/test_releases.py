from __future__ import annotations

import re

import pytest

from builder import releases
from builder.reference import Reference


def test_the_table_has_a_version_for_each_release() -> None:
    table = releases.table()
    assert all(re.fullmatch(r"\d\d\.(0[1-9]|1[0-2])", release) for release in table)
    assert all(re.fullmatch(r"\d+\.\d+(\.\d+)?", version) for version in table.values())
    assert list(table) == sorted(table)
    assert table["26.06"] == "2.1.1"


@pytest.mark.parametrize(
    ("image", "release", "version"),
    [
        ("nvcr.io/nvidia/tritonserver:26.06-py3", "26.06", "2.1.1"),
        ("nvcr.io/nvidia/tritonserver:24.10-py3-min", "24.10", "1.42.0"),
        ("nvcr.io/nvidia/tritonserver:22.07-py3", "22.07", "1.14.0"),
        ("nvcr.io/nvidia/tritonserver:22.07", "22.07", "1.14.0"),
        ("mirror.example.com:5000/ngc/tritonserver:26.06-py3", "26.06", "2.1.1"),
        (f"nvcr.io/nvidia/tritonserver:26.06-py3@sha256:{'a' * 64}", "26.06", "2.1.1"),
        ("nvcr.io/nvidia/tritonserver:99.01-py3", "99.01", None),
        ("nvcr.io/nvidia/tritonserver:26.06.1-py3", None, None),
        ("nvcr.io/nvidia/tritonserver:latest", None, None),
        (f"nvcr.io/nvidia/tritonserver@sha256:{'a' * 64}", None, None),
        ("nvcr.io/nvidia/pytorch:26.06-py3", None, None),
        ("embedded", None, None),
    ],
)
def test_a_release_is_known_by_the_image_s_tag(image: str, release: str | None, version: str | None) -> None:
    reference = Reference.parse(image)
    assert (releases.release_of(reference), releases.dali_of(reference)) == (release, version)
