"""What the embedded backend tells from a serialized pipeline about GPUs, with real pipelines."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from builder import dali_proto

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "embedded" / "backend"))

from dali_backend.checks import check
from dali_backend.configuration import Configuration, TensorConfig
from dali_backend.errors import BackendError
from dali_backend.graph import Graph

PIPELINES = Path(__file__).parent / "data" / "pipelines"


def graph(name: str) -> Graph:
    return Graph.parse((PIPELINES / name / "model.dali").read_bytes())


def changed(name: str, **arguments: str) -> Graph:
    """A pipeline whose sources have other arguments."""
    pipeline = dali_proto.parse((PIPELINES / name / "model.dali").read_bytes())
    for source in dali_proto.external_sources(pipeline):
        for argument in source.args:
            if argument.name in arguments:
                argument.strings[:] = [arguments[argument.name]]
    return Graph.parse(pipeline.SerializeToString())


def no_copy(data: bytes) -> list[bool]:
    """Of each source: whether it uses the memory that it is fed with."""
    sources = dali_proto.external_sources(dali_proto.parse(data))
    return [any(argument.name == "no_copy" for argument in source.args) for source in sources]


def test_what_needs_a_gpu_is_named() -> None:
    assert graph("copy").on_gpu is None
    assert "decoders" in str(graph("gpu").on_gpu)
    assert not graph("copy").back_to_host


def test_sources_on_the_host_use_the_request_s_memory_and_those_on_the_gpu_copy() -> None:
    assert no_copy(graph("copy").serialized) == [False]
    assert no_copy(graph("copy").without_copies()) == [True]
    assert no_copy(changed("copy", device="gpu").without_copies()) == [False]
    assert Graph.parse(graph("copy").without_copies()) == graph("copy")


def test_a_pipeline_for_the_gpu_is_refused_without_one() -> None:
    wanted = graph("gpu")
    config = Configuration(
        model="m",
        folder=Path("/nowhere"),
        filename="",
        max_batch_size=4,
        num_threads=None,
        device_id=None,
        plugin_libs=(),
        split_outputs=(),
        inputs=tuple(TensorConfig(edge.name, edge.data_type or "TYPE_UINT8", (-1,)) for edge in wanted.inputs),
        outputs=tuple(
            TensorConfig(edge.name, edge.data_type or "TYPE_UINT8", (-1,) * (edge.ndim or 1)) for edge in wanted.outputs
        ),
    )
    with pytest.raises(BackendError, match=r"Cannot add a GPU operator.*instance is of KIND_CPU"):
        check(config, wanted)
    check(replace(config, device_id=0), wanted)
