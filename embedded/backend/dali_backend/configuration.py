"""What the backend needs of a model's config.pbtxt, parsed once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BackendError


@dataclass(frozen=True)
class TensorConfig:
    """An `input` or `output` of config.pbtxt."""

    name: str
    data_type: str  # "TYPE_UINT8", ...
    dims: tuple[int, ...]  # without the batch dimension; -1: any size


@dataclass(frozen=True)
class Configuration:
    """One model instance."""

    model: str
    folder: Path  # of the model's version
    filename: str  # of the pipeline; empty: the usual one
    max_batch_size: int  # 0: requests have no batch dimension
    num_threads: int | None  # None: what the pipeline says
    device_id: int | None  # None: CPU
    plugin_libs: tuple[str, ...]
    split_outputs: tuple[str, ...]  # each of whose samples is a number of samples, along the outer axis
    inputs: tuple[TensorConfig, ...]
    outputs: tuple[TensorConfig, ...]

    @classmethod
    def from_triton(cls, args: Mapping[str, str]) -> Configuration:
        """From what Triton hands to `initialize`.

        Raises:
            BackendError: a parameter has a value that cannot be used.
        """
        config: dict[str, Any] = json.loads(args["model_config"])
        parameters = _parameters(config)
        return cls(
            model=args["model_name"],
            folder=Path(args["model_repository"]) / args["model_version"],
            filename=config.get("default_model_filename", ""),
            max_batch_size=int(config.get("max_batch_size", 0)),
            num_threads=_num_threads(parameters.get("num_threads")),
            device_id=int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None,
            plugin_libs=tuple(path for path in parameters.get("plugin_libs", "").split(":") if path),
            split_outputs=split_outputs(config),
            inputs=_tensors(config.get("input")),
            outputs=_tensors(config.get("output")),
        )

    @property
    def batched(self) -> bool:
        return self.max_batch_size > 0

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self.outputs)


def split_outputs(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Those that the parameter split_along_outer_axis of a configuration (Triton's JSON form) names."""
    return tuple(filter(None, _parameters(config).get("split_along_outer_axis", "").split(":")))


def _parameters(config: Mapping[str, Any]) -> dict[str, str]:
    return {key: value["string_value"] for key, value in (config.get("parameters") or {}).items()}


def _tensors(entries: Any) -> tuple[TensorConfig, ...]:
    # Triton's JSON writes 64-bit integers as strings.
    return tuple(
        TensorConfig(entry["name"], entry["data_type"], tuple(int(dim) for dim in entry["dims"]))
        for entry in entries or ()
    )


def _num_threads(value: str | None) -> int | None:
    if value is None:
        return None
    if not value.strip().isdecimal() or int(value) < 1:
        raise BackendError(f"parameter num_threads must be a whole number from 1 on, got {value!r}")
    return int(value)
