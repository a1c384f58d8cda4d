"""A DALI pipeline that runs one batch at a time and survives operators that throw."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import core
from .batching import Array, Batch
from .configuration import Configuration
from .errors import BackendError, ExecutionError
from .graph import Graph


class LoadedPipeline:
    """The pipeline of one model instance. Not for several threads."""

    def __init__(self, serialized: bytes, config: Configuration, skipped: str = "") -> None:
        """Builds the pipeline.

        Args:
            skipped: why a plugin could not be loaded: most likely the reason for an operator that is not there.

        Raises:
            BackendError: DALI cannot build it: an unknown operator, a GPU operator in a CPU instance, ...
        """
        self._serialized = serialized
        self._graph = Graph.parse(serialized)
        self._config = config
        self._pipeline: Any = None
        try:
            self._pipeline = self._build()
        except Exception as error:
            reason = _explain(error) + (f". {skipped}" if skipped else "")
            raise BackendError(f"Failed to build the pipeline of model '{config.model}': {reason}") from None

    def _build(self) -> Any:
        return core.build(
            self._serialized,
            batch_size=max(1, self._config.max_batch_size),
            num_threads=self._config.num_threads,
            # Triton puts every model on each GPU if it is not told otherwise, and one that needs none would still take
            # half a GiB there.
            device_id=self._config.device_id if self._graph.on_gpu else None,
            dynamic=self._graph.back_to_host,
        )

    def run(self, names: Sequence[str], inputs: Sequence[Batch]) -> list[HostOutput]:
        """The outputs, in the pipeline's order; their memory is DALI's until the next run.

        Raises:
            ExecutionError: DALI's message. The pipeline is built anew for the next batch.
        """
        try:
            if self._pipeline is None:
                self._pipeline = self._build()
            for name, batch in zip(names, inputs, strict=True):
                self._feed(name, batch)
            self._pipeline.ReleaseOutputs()  # those of the last run: there is one buffer
            self._pipeline.Run()
            return [HostOutput(output) for output in self._pipeline.ShareOutputs()]
        except Exception as error:
            self._pipeline = None  # DALI: "Current pipeline object is no longer valid."
            raise ExecutionError(_explain(error)) from None

    def _feed(self, name: str, batch: Batch) -> None:
        """Hands over the request's own memory, which is good until Triton has the responses."""
        types = core.load()
        if isinstance(batch, list):
            self._pipeline.SetExternalTensorInput(name, [types.TensorCPU(sample, "") for sample in batch], None, False)
        else:
            self._pipeline.SetExternalTLInput(name, types.TensorListCPU(batch, ""), None, False)

    def close(self) -> None:
        self._pipeline = None


class HostOutput:
    """An `OutputBatch` of DALI's TensorList; one on the GPU is copied to the host."""

    def __init__(self, tensors: Any) -> None:
        self._tensors = tensors.as_cpu() if hasattr(tensors, "as_cpu") else tensors

    def shapes(self) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self._tensors.shape()]

    def dense(self) -> Array | None:
        if not self._tensors.is_dense_tensor():
            return None
        return np.asarray(self._tensors.as_tensor())

    def sample(self, index: int) -> Array:
        return np.asarray(self._tensors[index])


def _explain(error: Exception) -> str:
    """DALI's message on what failed and why: without the pipeline's source lines and DALI's own, without what is no
    longer true, and with the remedy where there is one."""
    message = str(error).replace("Current pipeline object is no longer valid.", "")
    where, found, reason = message.partition("encountered:")
    if found:
        operator = re.search(r"Error in [^\n]*operator `[^`]+`", where)
        message = (f"{operator.group()}: " if operator else "") + reason.strip()
    message = re.sub(r"^C\+\+ context: .*$", "", message, flags=re.MULTILINE).strip()
    if "No schema found for operator" in message or "Schema for operator" in message:
        message += " (a custom operator: the server's --backend-config=dali,plugin_libs= must list its library)"
    return message
