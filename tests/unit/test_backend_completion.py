"""What the embedded backend fills in where config.pbtxt says nothing, and where it finds a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dali_backend import sources
from dali_backend.completion import complete
from dali_backend.errors import BackendError
from dali_backend.graph import Edge, Graph

DECLARED = Graph(16, (Edge("IN", "TYPE_FP32", 2),), (Edge("OUT", "TYPE_UINT8", 1),))
UNDECLARED = Graph(16, (Edge("IN", None, None),), (Edge("OUT", None, None),))
OUTPUT = b"\x3a\x05\x0a\x03OUT"  # the shortest pipeline: its output's name


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """The folder of a model's version."""
    folder = tmp_path / "model" / "1"
    folder.mkdir(parents=True)
    return folder


def completed(config: dict[str, Any], version: Path, graph: Graph = DECLARED) -> dict[str, Any]:
    config = {"name": "model", "max_batch_size": 0, **config}
    complete(config, graph, version)
    return config


def test_nothing_at_all_is_needed(version: Path) -> None:
    assert completed({}, version) == {
        "name": "model",
        "max_batch_size": 16,
        "input": [{"name": "IN", "allow_ragged_batch": True, "data_type": "TYPE_FP32", "dims": [-1, -1]}],
        "output": [{"name": "OUT", "data_type": "TYPE_UINT8", "dims": [-1]}],
        "dynamic_batching": {},
    }


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("max_batch_size: 0", 0),
        ('backend: "dali" max_batch_size : 0', 0),
        ("# max_batch_size: 0", 16),
        ('name: "max_batch_size"', 16),
        ("", 16),
    ],
)
def test_a_batch_size_of_none_is_kept_where_it_is_written(version: Path, text: str, size: int) -> None:
    (version.parent / "config.pbtxt").write_text(text + "\n")
    config = completed({}, version)
    assert config["max_batch_size"] == size
    assert ("dynamic_batching" in config) == (size > 0)


def test_what_is_written_is_kept(version: Path) -> None:
    given = {
        "max_batch_size": 3,
        "input": [{"name": "IN", "data_type": "TYPE_FP32", "dims": [4, 5], "allow_ragged_batch": False}],
        "output": [{"name": "ANOTHER", "data_type": "TYPE_INVALID", "dims": []}],
        "sequence_batching": {},
    }
    config = completed(given, version)
    assert config["max_batch_size"] == 3
    assert config["input"][0]["dims"] == [4, 5]
    assert config["input"][0]["allow_ragged_batch"] is False
    assert config["output"] == [{"name": "ANOTHER", "data_type": "TYPE_UINT8", "dims": [-1]}]
    assert "dynamic_batching" not in config


def test_a_split_output_has_a_dimension_less(version: Path) -> None:
    graph = Graph(16, DECLARED.inputs, (Edge("OUT", "TYPE_UINT8", 3),))
    parameters = {"split_along_outer_axis": {"string_value": "OUT:OTHER"}}
    assert completed({"parameters": parameters}, version, graph)["output"][0]["dims"] == [-1, -1]


def test_an_input_that_the_pipeline_has_not_is_said_first(version: Path) -> None:
    given = {"input": [{"name": "OTHER", "data_type": "TYPE_FP32", "dims": [1]}]}
    with pytest.raises(BackendError, match="config for OTHER but such input is not present in the pipeline"):
        completed(given, version, UNDECLARED)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, 'Missing data_type config for "IN"'),
        ({"input": [{"name": "IN", "data_type": "TYPE_FP32"}]}, "model input 'IN' must specify 'dims'"),
        (
            {
                "input": [{"name": "IN", "data_type": "TYPE_FP32", "dims": [1]}],
                "output": [{"name": "OUT", "data_type": "TYPE_FP32", "dims": []}],
            },
            "model output 'OUT' must specify 'dims'",
        ),
    ],
)
def test_what_nobody_declares_is_named(version: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        completed(given, version, UNDECLARED)


def test_the_file_is_the_one_that_the_configuration_names(version: Path) -> None:
    (version / "model.dali").write_bytes(OUTPUT)
    (version / "other.dali").write_bytes(b"\x10\x02" + OUTPUT)
    assert sources.read(version, "") == OUTPUT
    assert sources.read(version, "other.dali") == b"\x10\x02" + OUTPUT


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, r"model\.dali \(no such file\)"), (b"", "the file is empty"), (b"garbage\n", "not a serialized DALI")],
)
def test_where_it_was_looked_for_is_said(version: Path, content: bytes | None, why: str) -> None:
    if content is not None:
        (version / "model.dali").write_bytes(content)
    with pytest.raises(BackendError, match=why) as failure:
        sources.read(version, "")
    assert f"{version}/dali.py (no such file)" in str(failure.value)
