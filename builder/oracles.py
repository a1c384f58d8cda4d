"""What a model must answer."""

from __future__ import annotations

from collections.abc import Callable

from builder.errors import VerificationError
from builder.triton import ModelSpec, Tensors

Oracle = Callable[[ModelSpec, Tensors], Tensors]


def identity(model: ModelSpec, inputs: Tensors) -> Tensors:
    """Every output is the input at its position, byte for byte.

    Raises:
        VerificationError: the model has another number of outputs than of inputs.
    """
    if len(model.inputs) != len(model.outputs):
        raise VerificationError(
            f"model {model.name!r} has {len(model.inputs)} inputs and {len(model.outputs)} outputs: no identity",
            where=f"model {model.name}",
            remedy="the oracle 'identity' is for models that give back what they get",
        )
    return {output.name: inputs[given.name] for given, output in zip(model.inputs, model.outputs, strict=True)}
