"""Complaints about pipelines, out of what serialize.py said."""

from __future__ import annotations

import pytest

from builder.docker.serializer import complaints


@pytest.mark.parametrize("folder", ["/models", "/chosen"])
def test_a_pipeline_has_its_name_in_the_project(folder: str) -> None:
    said = [
        "serialize: /x/n/1/model.dali: 120 bytes",
        f"serialize: warning: {folder}/n/1/dali.py: an external_source has no name",
        f"serialize: error: {folder}/m/1/dali.py:7: NameError: x",
        "something else",
        f"serialize: error: {folder}/k/2/dali.py: the process that ran it ended with SIGABRT: serialize: error: /y",
    ]
    assert complaints(said, folder) == [
        "model_repository/m/1/dali.py:7: NameError: x",
        "model_repository/k/2/dali.py: the process that ran it ended with SIGABRT: serialize: error: /y",
    ]


def test_one_that_is_elsewhere_is_named_as_it_is() -> None:
    assert complaints(["serialize: error: /own/m/1/dali.py: x"], "/models") == ["own/m/1/dali.py: x"]


def test_what_is_about_no_file_is_no_complaint() -> None:
    assert complaints(["serialize: error: usage: python3 serialize.py REPOSITORY"], "/models") == []
