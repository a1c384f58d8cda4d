"""What the backend needs of a model's config.pbtxt, parsed once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BackendError

DEFAULT_MODEL_FILE = "model.dali"


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
    filename: str
    max_batch_size: int  # 0: requests have no batch dimension
    num_threads: int | None  # None: what the pipeline says
    device_id: int | None  # None: CPU
    plugin_libs: tuple[str, ...]
    inputs: tuple[TensorConfig, ...]
    outputs: tuple[TensorConfig, ...]

    @classmethod
    def from_triton(cls, args: Mapping[str, str]) -> Configuration:
        """From what Triton hands to `initialize`.

        Raises:
            BackendError: a parameter has a value that cannot be used.
        """
        config: dict[str, Any] = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in (config.get("parameters") or {}).items()}
        if parameters.get("split_along_outer_axis"):
            raise BackendError(
                "parameter split_along_outer_axis is not supported by this backend (NVIDIA's image has it): "
                "remove it, or build on NVIDIA's image"
            )
        return cls(
            model=args["model_name"],
            folder=Path(args["model_repository"]) / args["model_version"],
            filename=config.get("default_model_filename") or DEFAULT_MODEL_FILE,
            max_batch_size=int(config.get("max_batch_size", 0)),
            num_threads=_num_threads(parameters.get("num_threads")),
            device_id=int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None,
            plugin_libs=tuple(path for path in parameters.get("plugin_libs", "").split(":") if path),
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

    def read_model_file(self) -> bytes:
        """The serialized pipeline.

        Raises:
            BackendError: there is none, or it is empty.
        """
        path = self.folder / self.filename
        try:
            data = path.read_bytes()
            reason = "the file is empty"
        except OSError as error:
            data, reason = b"", str(error.strerror)
        if not data:
            raise BackendError(
                f"Failed to load model file. The program looked in the following locations: {path} ({reason}). "
                "It must hold a serialized DALI pipeline"
            )
        return data


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
