"""Auto-complete: what config.pbtxt leaves out is taken from the pipeline, as NVIDIA's backend does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .checks import check_names
from .configuration import split_outputs
from .errors import BackendError
from .graph import Edge, Graph

_CONFIG = "config.pbtxt"
_COMMENT = re.compile(r"#.*")
_MAX_BATCH_SIZE = re.compile(r"\bmax_batch_size\s*:")
_SCHEDULERS = ("dynamic_batching", "sequence_batching", "ensemble_scheduling")


def complete(config: dict[str, Any], graph: Graph, version: Path) -> None:
    """Fills in the model's configuration (Triton's JSON form), in place.

    Args:
        version: the folder of the model's version.

    Raises:
        BackendError: something is missing that the pipeline does not declare either.
    """
    if not config["max_batch_size"] and not _is_written(version.parent / _CONFIG):
        config["max_batch_size"] = graph.batch_size
    _inputs(config, graph)
    _outputs(config, graph.split(split_outputs(config)))
    if config["max_batch_size"] > 0 and not any(name in config for name in _SCHEDULERS):
        config["dynamic_batching"] = {}


def _is_written(path: Path) -> bool:
    """Whether max_batch_size is in the file: in what Triton hands over, 0 and nothing are the same."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return bool(_MAX_BATCH_SIZE.search(_COMMENT.sub("", text)))


def _inputs(config: dict[str, Any], graph: Graph) -> None:
    given = {tensor["name"]: tensor for tensor in config.setdefault("input", [])}
    check_names(list(given), graph)
    for edge in graph.inputs:
        if edge.name in given:
            _fill("input", given[edge.name], edge)
        else:
            config["input"].append(_fill("input", {"name": edge.name, "allow_ragged_batch": True}, edge))


def _outputs(config: dict[str, Any], graph: Graph) -> None:
    given = config.setdefault("output", [])
    for tensor, edge in zip(given, graph.outputs, strict=False):
        _fill("output", tensor, edge)
    given.extend(_fill("output", {"name": edge.name}, edge) for edge in graph.outputs[len(given) :])


def _fill(kind: str, tensor: dict[str, Any], edge: Edge) -> dict[str, Any]:
    if tensor.get("data_type", "TYPE_INVALID") == "TYPE_INVALID":
        if edge.data_type is None:
            raise BackendError(
                f'Missing data_type config for "{tensor["name"]}": config.pbtxt and the pipeline declare none '
                "(dtype= of the external_source, output_dtype= of the pipeline)"
            )
        tensor["data_type"] = edge.data_type
    if not tensor.get("dims"):
        if edge.ndim is None:
            raise BackendError(
                f"model {kind} '{tensor['name']}' must specify 'dims': config.pbtxt and the pipeline declare none "
                "(ndim= of the external_source, output_ndim= of the pipeline)"
            )
        tensor["dims"] = [-1] * edge.ndim
    return tensor
