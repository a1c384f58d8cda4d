"""The embedded backend's way from requests to one batch and back, with a pretended DALI output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "embedded" / "backend"))

from dali_backend import batching
from dali_backend.checks import check
from dali_backend.configuration import Configuration, TensorConfig
from dali_backend.errors import BackendError, ExecutionError
from dali_backend.graph import Edge, Graph


class FakeOutput:
    """Samples as DALI would hold them."""

    def __init__(self, samples: list[Any]) -> None:
        self._samples = [np.asarray(sample) for sample in samples]

    def shapes(self) -> list[tuple[int, ...]]:
        return [sample.shape for sample in self._samples]

    def dense(self) -> batching.Array | None:
        return np.stack(self._samples) if len(set(self.shapes())) == 1 else None

    def sample(self, index: int) -> batching.Array:
        return self._samples[index]


def bytes_of(*shape: int) -> batching.Array:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_one_request_is_handed_over_as_it_is() -> None:
    array = bytes_of(8, 16)
    (joined,) = batching.join([[array]], batched=True)
    assert joined is array


def test_small_requests_of_one_shape_become_one_array() -> None:
    first, second = bytes_of(2, 3), bytes_of(1, 3)
    (joined,) = batching.join([[first], [second]], batched=True)
    assert isinstance(joined, np.ndarray)
    np.testing.assert_array_equal(joined, np.concatenate([first, second]))


def test_large_requests_are_not_copied() -> None:
    first, second = bytes_of(2, 1 << 18), bytes_of(1, 1 << 18)
    (joined,) = batching.join([[first], [second]], batched=True)
    assert isinstance(joined, list)
    assert len(joined) == 3
    assert all(np.shares_memory(sample, source) for sample, source in zip(joined, [first, first, second], strict=True))


def test_each_input_is_joined_by_itself() -> None:
    requests = [[bytes_of(1, 2), bytes_of(1, 5)], [bytes_of(2, 2), bytes_of(2, 6)]]
    same, ragged = batching.join(requests, batched=True)
    assert isinstance(same, np.ndarray)
    assert [sample.shape for sample in ragged] == [(5,), (6,), (6,)]


@pytest.mark.parametrize("sizes", [(3, 5), (0, 7), (1, 1 << 20)])
def test_ragged_requests_come_back_as_they_went(sizes: tuple[int, int]) -> None:
    requests = [bytes_of(2, sizes[0]), bytes_of(3, sizes[1])]
    (joined,) = batching.join([[request] for request in requests], batched=True)
    assert isinstance(joined, list)
    answers = batching.split("OUT", FakeOutput(joined), batching.extents([2, 3]), batched=True)
    for answer, request in zip(answers, requests, strict=True):
        np.testing.assert_array_equal(answer, request)


def test_without_batching_a_request_is_one_sample() -> None:
    array = bytes_of(4, 5)
    assert batching.samples(["IN"], [array], batched=False) == 1
    (joined,) = batching.join([[array]], batched=False)
    assert isinstance(joined, np.ndarray)
    assert joined.shape == (1, 4, 5)
    (answer,) = batching.split("OUT", FakeOutput([array]), [(0, 1)], batched=False)
    np.testing.assert_array_equal(answer, array)


def test_samples_of_no_elements_pass() -> None:
    assert batching.samples(["IN"], [np.zeros((4, 0), np.uint8)], batched=True) == 4
    answers = batching.split("OUT", FakeOutput([np.zeros(0, np.uint8)] * 4), [(0, 4)], batched=True)
    assert answers[0].shape == (4, 0)


def test_no_sample_at_all_is_refused() -> None:
    with pytest.raises(ExecutionError, match=r"'IN' has shape \[0, 16\]"):
        batching.samples(["IN"], [np.zeros((0, 16), np.uint8)], batched=True)


def test_inputs_must_agree_on_the_batch() -> None:
    with pytest.raises(ExecutionError, match="one batch size, got: 'A' 2, 'B' 3"):
        batching.samples(["A", "B"], [bytes_of(2, 1), bytes_of(3, 1)], batched=True)


def test_extents_follow_each_other() -> None:
    assert batching.extents([2, 1, 4]) == [(0, 2), (2, 3), (3, 7)]


def test_a_response_cannot_be_ragged() -> None:
    output = FakeOutput([bytes_of(3), bytes_of(4)])
    with pytest.raises(ExecutionError, match=r"'OUT' has samples of different shapes .*\[3\], \[4\]"):
        batching.split("OUT", output, [(0, 2)], batched=True)


def test_an_output_must_have_a_sample_for_each_that_went_in() -> None:
    with pytest.raises(ExecutionError, match="'OUT' has 1 samples for 2"):
        batching.split("OUT", FakeOutput([bytes_of(3)]), [(0, 2)], batched=True)


@pytest.mark.parametrize("rows", [(2, 2, 2), (1, 3, 0)])
def test_samples_are_split_along_their_outer_axis(rows: tuple[int, ...]) -> None:
    samples = [bytes_of(count, 4) for count in rows]
    first, second = batching.split("OUT", FakeOutput(samples), [(0, 2), (2, 3)], batched=True, outer=True)
    np.testing.assert_array_equal(first, np.concatenate(samples[:2]))
    np.testing.assert_array_equal(second, samples[2])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [([(2, 3), (2, 4)], r"different shapes .*\[2, 3\], \[2, 4\]"), ([(), ()], "samples without dimensions")],
)
def test_what_has_no_common_outer_axis_is_refused(shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ExecutionError, match=message):
        batching.split("OUT", FakeOutput([bytes_of(*s) for s in shapes]), [(0, 2)], batched=True, outer=True)


def configuration(**parameters: str) -> Configuration:
    config = (
        '{"name": "m", "max_batch_size": 4,'
        ' "input": [{"name": "IN", "data_type": "TYPE_UINT8", "dims": ["-1"]}],'
        ' "output": [{"name": "OUT", "data_type": "TYPE_UINT8", "dims": ["-1"]}],'
        ' "parameters": {'
        + ", ".join(f'"{key}": {{"string_value": "{value}"}}' for key, value in parameters.items())
        + "}}"
    )
    return Configuration.from_triton(
        {
            "model_config": config, "model_name": "m", "model_repository": "/nowhere/m", "model_version": "1",
            "model_instance_kind": "CPU", "model_instance_device_id": "0",
        }
    )  # fmt: skip


def test_configuration_is_read() -> None:
    config = configuration(plugin_libs="/a.so:/b.so", num_threads="3")
    assert config.plugin_libs == ("/a.so", "/b.so")
    assert (config.num_threads, config.device_id, config.max_batch_size) == (3, None, 4)
    assert config.inputs == (TensorConfig("IN", "TYPE_UINT8", (-1,)),)


def test_num_threads_must_be_a_number() -> None:
    with pytest.raises(BackendError, match="num_threads must be a whole number from 1 on, got 'many'"):
        configuration(num_threads="many")


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ([Edge("OTHER", None, None)], 1, "contains config for IN but such input is not present in the pipeline"),
        ([Edge("IN", "TYPE_FP32", None)], 1, 'Mismatch of data_type config for "IN"'),
        ([Edge("IN", None, 3)], 1, 'Mismatch in number of dimensions for "IN"'),
        ([Edge("IN", None, None), Edge("MORE", None, None)], 1, "Missing config for MORE"),
        ([Edge("IN", None, None)], 2, "Number of outputs does not match: 1 in the configuration file"),
    ],
)
def test_what_does_not_fit_is_named(inputs: list[Edge], outputs: int, message: str) -> None:
    graph = Graph(4, tuple(inputs), tuple(Edge(f"o{n}", None, None) for n in range(outputs)))
    with pytest.raises(BackendError, match=message):
        check(configuration(), graph)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (Edge("OUT", "TYPE_FP32", None), 'Mismatch of data_type config for "OUT"'),
        (Edge("OUT", None, 2), 'Mismatch in number of dimensions for "OUT"'),
    ],
)
def test_what_the_pipeline_declares_of_an_output_counts_too(output: Edge, message: str) -> None:
    graph = Graph(4, (Edge("IN", None, None),), (output,))
    with pytest.raises(BackendError, match=message):
        check(configuration(), graph)
    check(configuration(), Graph(4, graph.inputs, (Edge("ANOTHER", "TYPE_UINT8", 1),)))


def test_a_split_output_has_a_dimension_less() -> None:
    graph = Graph(4, (Edge("IN", None, None),), (Edge("OUT", None, 2), Edge("MORE", None, 2))).split(["OUT"])
    assert [edge.ndim for edge in graph.outputs] == [1, 2]
    check(configuration(split_along_outer_axis="OUT"), Graph(4, graph.inputs, graph.outputs[:1]))


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return bytes([number << 3, content])
    return bytes([number << 3 | 2, len(content)]) + content


def test_the_graph_is_read_from_the_bytes() -> None:
    dtype = field(4, field(1, b"dtype") + field(4, 9))
    source = field(1, b"ExternalSource") + dtype + field(5, b"IN")
    copy = field(1, b"CustomCopy") + field(5, b"OUT")
    data = field(1, 2) + field(2, 16) + field(5, source) + field(5, copy) + field(7, field(1, b"OUT") + field(6, 1))
    assert Graph.parse(data) == Graph(16, (Edge("IN", "TYPE_FP32", None),), (Edge("OUT", None, 1),))


@pytest.mark.parametrize("data", [b"", b"garbage\n", b"\x2a\xff\xff", b"\x08\x02"])
def test_what_is_no_pipeline_is_refused(data: bytes) -> None:
    with pytest.raises(BackendError, match="is not a serialized DALI pipeline"):
        Graph.parse(data)
