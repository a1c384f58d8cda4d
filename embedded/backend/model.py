"""Triton's backend `dali` on machines without NVIDIA's: a Python-based backend that runs serialized DALI pipelines.

Triton imports this file from `BACKENDS/dali/model.py`, in one process for each model instance. DALI is expected where
NVIDIA's image keeps it: `BACKENDS/dali/wheel/dali/nvidia/dali`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
# The process that Triton starts for this file does not look at PYTHONPATH.
for _folder in (_HERE, _HERE / "wheel" / "dali"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

import triton_python_backend_utils as pb_utils  # noqa: E402  (Triton's own, only there in its process)
from dali_backend import batching, checks, plugins, server  # noqa: E402
from dali_backend.configuration import Configuration  # noqa: E402
from dali_backend.errors import BackendError, ExecutionError  # noqa: E402
from dali_backend.graph import Graph  # noqa: E402
from dali_backend.pipeline import LoadedPipeline  # noqa: E402


class TritonPythonModel:
    """One instance of one model. Triton calls `execute` for one batch at a time, never twice at once."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Lets Triton join requests, as NVIDIA's backend does for a model that says nothing about it."""
        config = auto_complete_model_config.as_dict()
        if config["max_batch_size"] > 0 and not {"sequence_batching", "ensemble_scheduling"} & config.keys():
            auto_complete_model_config.set_dynamic_batching()
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Loads plugins and pipeline; raises TritonModelException with the whole reason if the model cannot serve."""
        try:
            self._config = Configuration.from_triton(args)
            data = self._config.read_model_file()
            listed = server.listed_plugins()
            checks.check_plugins(self._config.plugin_libs, listed)
            skipped = plugins.load(listed)
            if skipped:
                pb_utils.Logger.log_error(f"dali: {skipped}")
            checks.check(self._config, Graph.parse(data))
            self._pipeline = LoadedPipeline(data, self._config, skipped)
        except BackendError as error:
            pb_utils.Logger.log_error(f"dali: model '{args['model_name']}': {error}")
            raise pb_utils.TritonModelException(str(error)) from None

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request, in order: its part of one DALI batch, or that batch's error."""
        responses: list[Any] = [None] * len(requests)
        arrays: dict[int, dict[str, batching.Array]] = {}
        for place, request in enumerate(requests):
            try:
                arrays[place] = batching.checked(self._inputs(request), self._config.batched)
            except ExecutionError as error:
                responses[place] = _failed(error)
        # A model without batching has batches of one sample, whatever Triton hands over at once.
        batches = [list(arrays)] if self._config.batched else [[place] for place in arrays]
        for places in filter(None, batches):
            try:
                answers = self._run([arrays[place] for place in places], copy=len(batches) > 1)
            except ExecutionError as error:
                for place in places:
                    responses[place] = _failed(error)
                continue
            for place, answer in zip(places, answers, strict=True):
                wanted = requests[place].requested_output_names()
                responses[place] = pb_utils.InferenceResponse(
                    [pb_utils.Tensor(name, array) for name, array in answer.items() if name in wanted]
                )
        return responses

    def _run(self, requests: list[dict[str, batching.Array]], copy: bool) -> list[dict[str, batching.Array]]:
        """The outputs of each request, by name.

        They are views of DALI's memory, good until the next run: Triton copies them to where the answer leaves from
        after `execute` returned, and calls it again only then. `copy` is for those who run twice in one `execute`.
        """
        extents, inputs = batching.join(requests, self._config.batched)
        answers: list[dict[str, batching.Array]] = [{} for _ in requests]
        for name, output in zip(self._config.output_names, self._pipeline.run(inputs), strict=True):
            for answer, array in zip(answers, batching.split(name, output, extents, self._config.batched), strict=True):
                answer[name] = array.copy() if copy else array
        return answers

    def finalize(self) -> None:
        """Triton unloads the model: DALI's threads and memory go before the interpreter does."""
        if pipeline := getattr(self, "_pipeline", None):  # there is none if `initialize` failed
            pipeline.close()

    def _inputs(self, request: Any) -> dict[str, batching.Array]:
        """The request's arrays by the input's name, without a copy."""
        found: dict[str, batching.Array] = {}
        for name in self._config.input_names:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is None:
                raise ExecutionError(f"input '{name}' is missing from the request")
            found[name] = tensor.as_numpy()
        return found


def _failed(error: ExecutionError) -> Any:
    # INVALID_ARG is 400 over HTTP: what NVIDIA's backend answers when an operator refuses its input.
    return pb_utils.InferenceResponse(
        output_tensors=[], error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
    )
