"""What a pipeline takes and gives, whatever it is known from. Anything may be unknown; nothing is guessed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from builder import dali_operators

Kind = Literal["model", "source"]


@dataclass(frozen=True)
class Tensor:
    """An input or an output, without the batch dimension."""

    name: str | None
    """None: it has no name of its own, or one that cannot be told."""
    dtype: str | None = None
    """Triton's name, such as TYPE_UINT8; None: not declared."""
    ndim: int | None = None
    """None: not declared."""
    layout: str | None = None
    """Such as HWC."""
    line: int = 0
    """In the pipeline's source; 0: not known."""


@dataclass(frozen=True)
class OperatorUse:
    """A call of an operator."""

    name: str
    """The schema's, such as CustomCopy or readers__Video, or the function's (custom_copy, readers.video)."""
    device: str | None = None
    """cpu, gpu or mixed; None: not written, so it follows the inputs."""
    line: int = 0

    @property
    def key(self) -> str:
        """The same for the schema and its function."""
        return dali_operators.key(self.name)

    @property
    def is_builtin(self) -> bool:
        return dali_operators.is_builtin(self.name)

    def __str__(self) -> str:
        """As the schema is named, as far as its function's name tells."""
        if self.name != self.name.lower():
            return self.name
        *modules, last = self.name.split(".")
        return "__".join([*modules, "".join(part.capitalize() for part in last.split("_"))])


@dataclass(frozen=True)
class LoadedPlugin:
    """A plugin that the pipeline's source loads itself."""

    path: str
    line: int = 0


@dataclass(frozen=True)
class Signature:
    """A pipeline, from outside."""

    origin: Path
    """The file that it was read from."""
    kind: Kind
    """A serialized pipeline, or its source as far as it can be read without running it."""
    inputs: tuple[Tensor, ...] = ()
    """Those that are known; all of them if `complete`."""
    outputs: tuple[Tensor, ...] | None = None
    """None: not even their number is known."""
    batch_size: int | None = None
    num_threads: int | None = None
    operators: tuple[OperatorUse, ...] = ()
    """Those that are known; all of them if `complete`. External sources are left out."""
    plugins: tuple[LoadedPlugin, ...] = ()
    gpu_lines: tuple[int, ...] = ()
    """Where data is sent to a GPU; 0 for a line that is not known."""
    complete: bool = True
    """Whether nothing else can be in the pipeline: no other input, no other operator."""

    def input(self, name: str) -> Tensor | None:
        return next((tensor for tensor in self.inputs if tensor.name == name), None)

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self.inputs if tensor.name is not None)

    @property
    def gpu_line(self) -> int | None:
        """The first line that needs a GPU (0: not known which); None: none is known to."""
        uses = [each.line for each in self.operators if each.device in ("gpu", "mixed")]
        lines = (*self.gpu_lines, *uses)
        return min((line for line in lines if line), default=0) if lines else None


def from_serialized(data: bytes, origin: Path) -> Signature:
    """The signature of a serialized pipeline.

    Raises:
        ValueError: `data` is none.
    """
    from builder import dali_proto  # protobuf takes longer to load than most commands take to run

    pipeline = dali_proto.parse(data)
    sources = dali_proto.external_sources(pipeline)
    names = [operator.inst_name for operator in sources]
    uses = [
        OperatorUse(str(operator.name), dali_proto.argument(operator, "device"), _line(operator))
        for operator in pipeline.op
        if operator.inst_name not in names
    ]
    on_gpu = [_line(operator) for operator in sources if dali_proto.argument(operator, "device") == "gpu"]
    if any(output.device == "gpu" for output in pipeline.pipe_outputs):
        on_gpu.append(0)
    return Signature(
        origin,
        "model",
        inputs=tuple(_input(operator) for operator in sources),
        outputs=tuple(_output(output) for output in pipeline.pipe_outputs),
        batch_size=pipeline.batch_size or None,
        num_threads=pipeline.num_threads or None,
        operators=tuple(uses),
        gpu_lines=tuple(on_gpu),
    )


def _input(operator: Any) -> Tensor:
    from builder import dali_proto

    layout = dali_proto.argument(operator, "layout")
    ndim = dali_proto.argument(operator, "ndim")
    return Tensor(
        str(operator.inst_name),
        dali_proto.triton_type(_whole(dali_proto.argument(operator, "dtype"))),
        rank(_whole(ndim), layout if isinstance(layout, str) else None),
        layout if isinstance(layout, str) else None,
        _line(operator),
    )


def _output(output: Any) -> Tensor:
    from builder import dali_proto

    name = str(output.name)
    return Tensor(
        None if name.startswith("__") else name,  # DALI's own, made up
        dali_proto.triton_type(output.dtype),
        output.ndim if output.ndim >= 0 else None,
    )


def rank(ndim: int | None, layout: str | None) -> int | None:
    """DALI takes the number of dimensions from the layout where it is not given (NVIDIA/DALI pull request 3836)."""
    if ndim is not None and ndim >= 0:
        return ndim
    return len(layout) if layout else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _line(operator: Any) -> int:
    """The line of the source that made the operator, which DALI keeps; the innermost frame comes first."""
    from builder import dali_proto

    lines = dali_proto.argument(operator, "_origin_stack_lineno")
    return lines[0] if isinstance(lines, list) and lines and isinstance(lines[0], int) else 0
