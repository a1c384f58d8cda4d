"""Does the configuration fit the pipeline? In the words of NVIDIA's backend, where it has words."""

from __future__ import annotations

from collections.abc import Sequence

from .configuration import Configuration, TensorConfig
from .errors import BackendError
from .graph import Edge, Graph


def unlisted_plugins(wanted: Sequence[str], listed: Sequence[str]) -> str:
    """What is to be said where a model's own plugin_libs names libraries that the server was not told to load; else
    empty. It is no error: NVIDIA's backend does not read that parameter, and the model may need none of them."""
    missing = [library for library in wanted if library not in listed]
    if not missing:
        return ""
    return (
        f"parameter plugin_libs names '{missing[0]}', which the server does not load. Remedy: start it with "
        f"--backend-config=dali,plugin_libs={':'.join([*listed, *missing])}"
    )


def check(config: Configuration, graph: Graph) -> None:
    """Names of inputs, number of outputs, and what the pipeline declares about both.

    Raises:
        BackendError: names the first tensor that does not fit, and what the other side has.
    """
    if graph.on_gpu and config.device_id is None:  # DALI would take whichever GPU there is
        raise BackendError(
            f"Cannot add a GPU operator to a pipeline without a GPU: {graph.on_gpu} needs one, and this instance is "
            "of KIND_CPU. Remedy: instance_group [ { kind: KIND_GPU } ] where there is a GPU, or operators for the CPU"
        )
    declared = {edge.name: edge for edge in graph.inputs}
    check_names([tensor.name for tensor in config.inputs], graph)
    for tensor in config.inputs:
        _check_tensor(tensor, declared[tensor.name])
        if tensor.data_type in ("TYPE_STRING", "TYPE_BF16"):
            raise BackendError(f'DALI has no {tensor.data_type}: choose another data_type for "{tensor.name}"')
    missing = [name for name in declared if name not in config.input_names]
    if missing:
        raise BackendError(
            f"Missing config for {missing[0]}: the pipeline has this input, but the configuration file has not. "
            f"Inputs of the pipeline: {_names(graph)}"
        )
    if len(config.outputs) != len(graph.outputs):
        raise BackendError(
            f"Number of outputs does not match: {len(config.outputs)} in the configuration file "
            f"({', '.join(config.output_names)}), {len(graph.outputs)} in the pipeline "
            f"({', '.join(edge.name for edge in graph.outputs)})"
        )
    for tensor, edge in zip(config.outputs, graph.outputs, strict=True):
        _check_tensor(tensor, edge)


def check_names(inputs: Sequence[str], graph: Graph) -> None:
    """Raises BackendError where the configuration has an input that the pipeline has not."""
    for name in inputs:
        if name not in (edge.name for edge in graph.inputs):
            raise BackendError(
                f"Configuration file contains config for {name} but such input is not present in the pipeline. "
                f"Inputs of the pipeline (the names of its external_source operators): {_names(graph)}"
            )


def _names(graph: Graph) -> str:
    return ", ".join(f"'{edge.name}'" for edge in graph.inputs) or "none"


def _check_tensor(tensor: TensorConfig, edge: Edge) -> None:
    if edge.data_type is not None and edge.data_type != tensor.data_type:
        raise BackendError(
            f'Mismatch of data_type config for "{tensor.name}". Data type defined in config: {tensor.data_type}. '
            f"Data type defined in pipeline: {edge.data_type}"
        )
    if edge.ndim is not None and edge.ndim != len(tensor.dims):
        raise BackendError(
            f'Mismatch in number of dimensions for "{tensor.name}". Number of dimensions defined in config: '
            f"{len(tensor.dims)}. Number of dimensions defined in pipeline: {edge.ndim}"
        )
