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
from dali_backend import batching, checks, completion, plugins, server, sources  # noqa: E402
from dali_backend.configuration import Configuration  # noqa: E402
from dali_backend.errors import BackendError, ExecutionError  # noqa: E402
from dali_backend.graph import Graph  # noqa: E402
from dali_backend.pipeline import LoadedPipeline  # noqa: E402


class TritonPythonModel:
    """One instance of one model. Triton calls `execute` for one batch at a time, never twice at once."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Fills in what config.pbtxt leaves out, and lets Triton join requests, as NVIDIA's backend does."""
        config = auto_complete_model_config.as_dict()  # the very dictionary that Triton gets back
        try:
            version = server.version_folder()
            data = sources.read(version, config.get("default_model_filename", ""))
            completion.complete(config, Graph.parse(data), version)
        except BackendError as error:
            raise _refused(config["name"], error) from None
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Loads plugins and pipeline; raises TritonModelException with the whole reason if the model cannot serve."""
        try:
            self._config = config = Configuration.from_triton(args)
            listed = server.listed_plugins()
            data = sources.read(config.folder, config.filename)
            skipped = plugins.load(listed)
            if skipped:
                pb_utils.Logger.log_error(f"dali: {skipped}")
            if unlisted := checks.unlisted_plugins(config.plugin_libs, listed):
                pb_utils.Logger.log_warn(f"dali: model '{config.model}': {unlisted}")
            graph = Graph.parse(data)
            checks.check(config, graph.split(config.split_outputs))
            self._pipeline = LoadedPipeline(
                graph.without_copies(), config, ". ".join(filter(None, (skipped, unlisted)))
            )
        except BackendError as error:
            raise _refused(args["model_name"], error) from None
        self._inputs = config.input_names
        self._outputs = [(name, name in config.split_outputs) for name in config.output_names]
        self._batched = config.batched

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request, in order: its part of one DALI batch, or that batch's error."""
        responses: list[Any] = [None] * len(requests)
        places: list[int] = []
        arrays: list[list[batching.Array]] = []
        sizes: list[int] = []
        for place, request in enumerate(requests):
            try:
                given = self._arrays(request)
                sizes.append(batching.samples(self._inputs, given, self._batched))
                places.append(place)
                arrays.append(given)
            except ExecutionError as error:
                responses[place] = _failed(error)
        if self._batched:
            if places:
                self._answer(requests, responses, places, arrays, sizes)
        else:  # a batch of one sample each, whatever Triton hands over at once
            for place, given in zip(places, arrays, strict=True):
                self._answer(requests, responses, [place], [given], [1])
        return responses

    def _answer(
        self,
        requests: list[Any],
        responses: list[Any],
        places: list[int],
        arrays: list[list[batching.Array]],
        sizes: list[int],
    ) -> None:
        """Runs the requests at `places` as one batch, and puts their responses there."""
        try:
            outputs = self._pipeline.run(self._inputs, batching.join(arrays, self._batched))
            extents = batching.extents(sizes)
            columns = [
                (name, batching.split(name, output, extents, self._batched, outer))
                for (name, outer), output in zip(self._outputs, outputs, strict=True)
            ]
        except ExecutionError as error:
            for place in places:
                responses[place] = _failed(error)
            return
        for index, place in enumerate(places):
            wanted = requests[place].requested_output_names() if len(columns) > 1 else None
            # A Tensor is a copy, in the memory that the answer leaves from: DALI may have its own back.
            responses[place] = pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, column[index]) for name, column in columns if not wanted or name in wanted]
            )

    def finalize(self) -> None:
        """Triton unloads the model: DALI's threads and memory go before the interpreter does."""
        if pipeline := getattr(self, "_pipeline", None):  # there is none if `initialize` failed
            pipeline.close()

    def _arrays(self, request: Any) -> list[batching.Array]:
        """The request's inputs, without a copy."""
        found = []
        for name in self._inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is None:
                raise ExecutionError(f"input '{name}' is missing from the request")
            found.append(tensor.as_numpy())
        return found


def _refused(model: str, error: BackendError) -> Exception:
    pb_utils.Logger.log_error(f"dali: model '{model}': {error}")
    exception: Exception = pb_utils.TritonModelException(str(error))
    return exception


def _failed(error: ExecutionError) -> Any:
    # INVALID_ARG is 400 over HTTP: what NVIDIA's backend answers when an operator refuses its input.
    return pb_utils.InferenceResponse(
        output_tensors=[], error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
    )
