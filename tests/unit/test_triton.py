from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2

from builder import triton
from builder.errors import NotReady, ServerDied
from builder.triton import Endpoint, TensorSpec, explain, wait_until_ready


@dataclass
class FakeServer:
    """A server's process: its exit status and its log."""

    status: int | None
    lines: list[str] = field(default_factory=list)

    def exited(self) -> int | None:
        return self.status

    def log(self) -> list[str]:
        return self.lines


@pytest.fixture
def closed() -> Iterator[Endpoint]:
    """A port of this machine that is taken, and where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        yield Endpoint(http=address, grpc=address)


LIBRARY = "/models/libcustomcopy.so"


# As NVIDIA's and the embedded backend write them.
@pytest.mark.parametrize(
    ("line", "what", "remedy"),
    [
        (
            f"Failed to load plugin libs: Failed to load library {LIBRARY}: {LIBRARY}: cannot open shared object file",
            f"the plugin {LIBRARY} could not be loaded",
            "plugin_libs=",
        ),
        (
            f"dali: model 'mydali': Failed to load plugin library '{LIBRARY}' (parameter plugin_libs): file too short",
            f"the plugin {LIBRARY} could not be loaded",
            "plugin_libs=",
        ),
        (
            f"Failed to load library {LIBRARY}: libdali.so: version `DALI_1.53.0' not found (required by {LIBRARY})",
            "the plugin was compiled against DALI 1.53.0, which is not the image's",
            "build the image again",
        ),
        (
            f"libdali.so: version 'DALI_1.53.0' not found (required by {LIBRARY})",
            "the plugin was compiled against DALI 1.53.0, which is not the image's",
            "build the image again",
        ),
        (
            'No schema found for operator "CustomCopy"',
            "no loaded plugin registers the operator CustomCopy",
            "plugin_libs",
        ),
        (
            "Schema for operator 'CustomCopy' not registered",
            "no loaded plugin registers the operator CustomCopy",
            "plugin_libs",
        ),
        (
            'Operator "CustomCopy" already registered for ::dali::CPU',
            "two libraries register the operator CustomCopy",
            "remove one",
        ),
        (
            "Configuration file contains config for OTHER but such input is not present in the pipeline.",
            "the pipeline has no external_source named OTHER",
            "the same name",
        ),
        (
            "Failed to load model file. The program looked in the following locations: /models/m/1/model.dali",
            "a serialized pipeline is missing or damaged",
            "model.dali",
        ),
        (
            "instance group m_0 of model m specifies invalid or unsupported gpu id 0. GPUs with at least "
            "the minimum required CUDA compute compatibility of 6.000000 are: ",
            "the model wants a GPU and there is none",
            "--gpus all",
        ),
        ("CUDA error: cudaErrorInsufficientDriver", "the model wants a GPU and there is none", "--gpus all"),
        (
            "Failed to increase the shared memory pool size for key 'triton_python_backend_shm_region_1': "
            "No space left on device",
            "the container's shared memory is too small",
            "--shm-size",
        ),
        (
            "failed to read text proto from /models/m/config.pbtxt",
            "a config.pbtxt cannot be read",
            "mend the line",
        ),
    ],
)
def test_a_log_line_is_told_by_what_it_means(line: str, what: str, remedy: str) -> None:
    meaning = explain(["I1122 11:57:18 loading: mydali:1", f'E1122 11:57:21 1 model.cc:48] "{line}"', "error: done"])
    assert meaning is not None
    assert meaning.what == what
    assert remedy in meaning.remedy
    assert [line in evidence for evidence in meaning.evidence] == [True]


@pytest.mark.parametrize("lines", [[], [""], ["I1122 11:57:18 1 server.cc:305] all is well", "something else"]])
def test_an_unknown_log_means_nothing(lines: list[str]) -> None:
    assert explain(lines) is None


def test_a_cause_counts_more_than_its_consequence() -> None:
    consequence = 'No schema found for operator "CustomCopy"'
    cause = f"Failed to load plugin libs: Failed to load library {LIBRARY}: file too short"
    for lines in ([cause, consequence], [consequence, cause]):
        meaning = explain(lines)
        assert meaning is not None
        assert meaning.evidence == (cause,)


def test_waiting_stops_as_soon_as_the_server_is_dead(closed: Endpoint) -> None:
    began = time.monotonic()
    with pytest.raises(ServerDied, match=r"exit status 3.*operator X") as failure:
        wait_until_ready(closed, FakeServer(3, ['No schema found for operator "X"']), timeout=60, where="mydali")
    assert time.monotonic() - began < 5
    assert (failure.value.where, failure.value.detail) == ("mydali", ('No schema found for operator "X"',))


def test_the_death_of_a_server_with_an_unknown_log_shows_its_last_lines(closed: Endpoint) -> None:
    with pytest.raises(ServerDied) as failure:
        wait_until_ready(closed, FakeServer(139, [str(line) for line in range(60)]), timeout=60, where="mydali")
    assert failure.value.detail == tuple(str(line) for line in range(40, 60))


def test_a_server_that_is_not_ready_in_time_is_given_up_with_its_log(closed: Endpoint) -> None:
    began = time.monotonic()
    with pytest.raises(NotReady, match="not ready") as failure:
        wait_until_ready(closed, FakeServer(None, ["loading: mydali:1"]), timeout=0.2, where="mydali")
    assert 0.2 <= time.monotonic() - began < 5
    assert failure.value.detail == ("loading: mydali:1",)


@pytest.mark.parametrize(
    ("data_type", "datatype", "dtype"),
    [("TYPE_UINT8", "UINT8", np.uint8), ("TYPE_FP16", "FP16", np.float16), ("TYPE_STRING", "BYTES", np.object_)],
)
def test_a_model_s_configuration_becomes_its_signature(data_type: str, datatype: str, dtype: type) -> None:
    config = model_config_pb2.ModelConfig(name="m", backend="dali", max_batch_size=8)
    config.input.add(name="IN", data_type=data_type, dims=[-1, 3])
    spec = triton._spec(config)
    assert (spec.name, spec.max_batch_size, spec.outputs) == ("m", 8, ())
    assert spec.inputs == (TensorSpec("IN", datatype, (-1, 3)),)
    assert spec.inputs[0].dtype == dtype
