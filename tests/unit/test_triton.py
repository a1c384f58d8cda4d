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
from builder.triton import Endpoint, TensorSpec, wait_until_ready


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
    spec = triton.specification(config)
    assert (spec.name, spec.max_batch_size, spec.outputs) == ("m", 8, ())
    assert spec.inputs == (TensorSpec("IN", datatype, (-1, 3)),)
    assert spec.inputs[0].dtype == dtype
