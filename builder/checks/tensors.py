"""Rules on the inputs and outputs of a config.pbtxt: by themselves, and against the pipeline.

NVIDIA's backend compares inputs by name and outputs by position (dali_backend, src/config_tools/config_tools.cc); what
it does not compare is served as the pipeline gives it, whatever the configuration promised to clients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from builder.checks.context import Context
from builder.checks.repository import PYTHON, Model
from builder.errors import did_you_mean
from builder.findings import Finding
from builder.signature import Signature, Tensor

Side = Literal["input", "output"]
_SIDES: tuple[Side, ...] = ("input", "output")
_DTYPE_MISMATCH: dict[Side, str] = {"input": "input-dtype-mismatch", "output": "output-dtype-mismatch"}
_RANK_MISMATCH: dict[Side, str] = {"input": "input-rank-mismatch", "output": "output-rank-mismatch"}
_NOT_IN_DALI = ("TYPE_STRING", "TYPE_BF16")
SPLIT = "split_along_outer_axis"


def type_name(tensor: Any) -> str:
    """The name of a ModelInput's or ModelOutput's data_type."""
    return str(tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name)


def split_outputs(model: Model) -> tuple[str, ...]:
    """The outputs whose samples NVIDIA's backend takes apart along their first axis."""
    value = model.config.parameter(SPLIT) if model.config else None
    return tuple(name for name in (value or "").split(":") if name)


def check_fields(model: Model, context: Context) -> Iterator[Finding]:
    """What Triton itself asks of every tensor."""
    assert model.config
    for side in _SIDES:
        seen: set[str] = set()
        for index, tensor in enumerate(getattr(model.config.message, side)):
            yield from _check_name(model, side, index, tensor, seen)
            yield from _check_dims(model, side, index, tensor, context)
            yield from _check_type(model, side, index, tensor, context)


def _check_name(model: Model, side: Side, index: int, tensor: Any, seen: set[str]) -> Iterator[Finding]:
    if not tensor.name:
        yield model.finding(
            "tensor-name-missing",
            f"{side} {index + 1} of model {model.name!r} has no name",
            model.place(side, index),
            "give it one",
        )
    elif tensor.name in seen:
        yield model.finding(
            "tensor-name-repeated",
            f"model {model.name!r} has two {side}s named {tensor.name!r}",
            model.place(side, index, "name"),
            "give each its own name",
        )
    seen.add(tensor.name)


def _check_dims(model: Model, side: Side, index: int, tensor: Any, context: Context) -> Iterator[Finding]:
    if not tensor.dims and not _may_be_filled(model, side, index, tensor, "ndim", context):
        yield model.finding(
            "dims-empty",
            f"{side} {tensor.name!r} has no dims",
            model.place(side, index, "dims"),
            "give one number for each dimension, the batch left out; -1 for any size, [ 1 ] for a single value",
        )
    for place, dim in enumerate(tensor.dims):
        if dim < 1 and dim != -1:
            yield model.finding(
                "dims-invalid",
                f"{side} {tensor.name!r} has the dimension {dim}",
                model.place(side, index, "dims", place),
                "write a size from 1 on, or -1 for any size",
            )


def _check_type(model: Model, side: Side, index: int, tensor: Any, context: Context) -> Iterator[Finding]:
    dtype = type_name(tensor)
    if model.is_dali and dtype in _NOT_IN_DALI:
        yield model.finding(
            "dtype-unsupported",
            f"{side} {tensor.name!r} is {dtype}, which DALI does not have",
            model.place(side, index, "data_type"),
            "send bytes as TYPE_UINT8; DALI has booleans, integers of 8 to 64 bits and FP16, FP32 and FP64",
        )
    if dtype == "TYPE_INVALID" and not _may_be_filled(model, side, index, tensor, "dtype", context):
        written = model.config is not None and model.config.has(side, index, "data_type")
        yield model.finding(
            "dtype-unsupported",
            f"{side} {tensor.name!r} has " + ("the data_type TYPE_INVALID" if written else "no data_type"),
            model.place(side, index, "data_type"),
            "write the type of its elements, such as data_type: TYPE_UINT8",
        )


def _may_be_filled(model: Model, side: Side, index: int, tensor: Any, what: str, context: Context) -> bool:
    """Whether the server may fill in what a tensor lacks, from the model itself."""
    if model.is_ensemble:
        return False
    if model.backend == "python":
        return any(
            b"auto_complete_config" in (version / PYTHON).read_bytes()
            for version in model.served
            if (version / PYTHON).is_file()
        )
    if not model.is_dali:
        return True
    if not context.completes:
        return False
    for version in model.served:
        signature = model.pipeline(version, context.recorded).signature
        if signature is None:
            return True
        declared = _counterpart(signature, side, index, tensor)
        if declared is None:
            return not signature.complete or signature.outputs is None
        if getattr(declared, what) is None:
            # The source may say it in a way that cannot be read; a serialized pipeline has no secrets.
            return signature.kind == "source"
    return True


def _counterpart(signature: Signature, side: Side, index: int, tensor: Any) -> Tensor | None:
    if side == "input":
        return signature.input(tensor.name)
    outputs = signature.outputs or ()
    return outputs[index] if index < len(outputs) else None


def check_signature(model: Model, signature: Signature, context: Context) -> Iterator[Finding]:
    """A config.pbtxt against the pipeline that it describes."""
    yield from _check_inputs(model, signature, context)
    yield from _check_outputs(model, signature, context)
    yield from _check_split(model, signature)
    yield from _check_batch_size(model, signature, context)


def _is_filled(tensor: Tensor, context: Context) -> bool:
    """Whether NVIDIA's backend adds a tensor that config.pbtxt leaves out."""
    return context.completes and tensor.dtype is not None and tensor.ndim is not None


def _origin(model: Model, signature: Signature, tensor: Tensor | None = None) -> str:
    """Where the pipeline says it, as a line of detail."""
    return str(model.within(signature.origin, tensor.line if tensor and signature.origin.suffix == ".py" else 0))


def _check_inputs(model: Model, signature: Signature, context: Context) -> Iterator[Finding]:
    assert model.config
    configured = model.config.message.input
    names = signature.input_names
    for index, tensor in enumerate(configured):
        declared = signature.input(tensor.name)
        if declared is None:
            if signature.complete and tensor.name:
                has = ", ".join(map(repr, names)) or "none"
                yield model.finding(
                    "input-name-mismatch",
                    f"input {tensor.name!r} is not an external_source of the pipeline"
                    + did_you_mean(tensor.name, names),
                    model.place("input", index, "name"),
                    f"the pipeline has {has}; give both the same name",
                    detail=(_origin(model, signature),),
                )
            continue
        yield from _compare(model, "input", index, tensor, declared, signature, declared.ndim, context)
    known = {tensor.name for tensor in configured}
    missing = [each for each in signature.inputs if each.name is not None and each.name not in known]
    # Those under another name have been told already.
    renamed = sum(1 for name in known if name and name not in names) if signature.complete else 0
    for declared in missing if len(missing) > renamed else ():
        if _is_filled(declared, context):
            continue
        anywhere = declared.dtype is None or declared.ndim is None
        yield model.finding(
            "input-missing",
            f"the pipeline's external_source {declared.name!r} is not an input of the model",
            model.place("input", 0),
            "add it as an input, or remove it from the pipeline",
            detail=(_origin(model, signature, declared),),
            target="" if anywhere and signature.kind == "model" else context.target,
        )


def _compare(
    model: Model,
    side: Side,
    index: int,
    tensor: Any,
    declared: Tensor,
    signature: Signature,
    ndim: int | None,
    context: Context,
) -> Iterator[Finding]:
    """
    Args:
        ndim: of a sample as a client sees it; None: not declared.
    """
    assert model.config
    dtype = type_name(tensor)
    detail = (_origin(model, signature, declared),)
    if declared.dtype is not None and dtype not in ("TYPE_INVALID", declared.dtype):
        yield model.finding(
            _DTYPE_MISMATCH[side],
            f"{side} {tensor.name!r} is {dtype}, but {declared.dtype} in the pipeline",
            model.place(side, index, "data_type"),
            f"write data_type: {declared.dtype}, or change the pipeline",
            detail,
        )
    # Without batches, the requests of NVIDIA's backend have the samples as their first dimension all the same (its own
    # qa/L0_unbatched_model), so dims may count it; the embedded backend takes a request for one sample.
    unbatched = model.config.has("max_batch_size") and model.config.message.max_batch_size == 0
    counts_samples = unbatched and not context.embedded
    if ndim is None or not tensor.dims or len(tensor.dims) in (ndim, ndim + counts_samples):
        return
    if ndim == 0:
        how = "ndim=1 in its external_source" if side == "input" else "fn.expand_dims(x, axes=0)"
        remedy = f"give the pipeline's {side} a dimension, since Triton needs one: {how}"
    else:
        numbers = f"{ndim} number{'s' * (ndim != 1)}"
        remedy = f"give {numbers} in dims (the batch does not count), or change the pipeline"
    yield model.finding(
        _RANK_MISMATCH[side],
        f"{side} {tensor.name!r} has {len(tensor.dims)} dims, but {ndim} in the pipeline",
        model.place(side, index, "dims", 0),
        remedy,
        detail,
        target=context.target if unbatched and len(tensor.dims) == ndim + 1 else "",
    )


def _check_outputs(model: Model, signature: Signature, context: Context) -> Iterator[Finding]:
    assert model.config
    configured = model.config.message.output
    if signature.outputs is None:
        return
    given = signature.outputs
    if len(configured) > len(given) or any(not _is_filled(each, context) for each in given[len(configured) :]):
        anywhere = len(configured) > len(given) or any(
            each.dtype is None or each.ndim is None for each in given[len(configured) :]
        )
        yield model.finding(
            "output-count-mismatch",
            f"model {model.name!r} has {len(configured)} outputs, its pipeline {len(given)}",
            model.place("output", len(given)) if len(configured) > len(given) else model.place("output", 0),
            "list every output of the pipeline, in the order in which it returns them",
            detail=(_origin(model, signature),),
            target="" if anywhere else context.target,
        )
    names = [tensor.name for tensor in configured]
    own = [each.name for each in given]
    pairs = list(zip(names, own, strict=False))
    if names != own and sorted(names) == sorted(name or "" for name in own):
        index = next(index for index, (name, other) in enumerate(pairs) if name != other)
        yield model.finding(
            "output-order",
            f"the outputs are {', '.join(names)}, but the pipeline returns {', '.join(map(str, own))}",
            model.place("output", index, "name"),
            "list them in the order of the pipeline: outputs match by position, not by name",
            detail=(_origin(model, signature),),
        )
    else:
        for index, (name, other) in enumerate(pairs):
            if other is not None and name not in ("", other) and other not in signature.input_names:
                yield model.finding(
                    "output-name-differs",
                    f"output {name!r} is {other!r} in the pipeline",
                    model.place("output", index, "name"),
                    "give both the same name; it works as it is, since outputs match by position",
                    detail=(_origin(model, signature),),
                )
    split = split_outputs(model)
    for index, (tensor, declared) in enumerate(zip(configured, given, strict=False)):
        ndim = declared.ndim
        if ndim is not None and (tensor.name in split or declared.name in split):
            ndim -= 1
        yield from _compare(model, "output", index, tensor, declared, signature, ndim, context)


def _check_split(model: Model, signature: Signature) -> Iterator[Finding]:
    assert model.config
    names = split_outputs(model)
    place = model.place("parameters", SPLIT, "value")
    if signature.outputs is None:
        return
    known = [str(tensor.name) for tensor in model.config.message.output]
    known += [each.name for each in signature.outputs if each.name is not None]
    if len(known) < len(signature.outputs):
        return
    for name in names:
        if name not in known:
            yield model.finding(
                "split-output-unknown",
                f"{SPLIT} names {name!r}, which is not an output{did_you_mean(name, known)}",
                place,
                "name outputs of the model, separated by ':'",
            )


def _check_batch_size(model: Model, signature: Signature, context: Context) -> Iterator[Finding]:
    assert model.config
    size, top = signature.batch_size, model.config.message.max_batch_size
    if size is None or top == size or (top == 0 and size == 1 and model.config.has("max_batch_size")):
        return  # DALI has no pipeline without batches: 1 is what comes nearest
    if model.config.has("max_batch_size") and top >= 0:
        yield model.finding(
            "batch-size-differs",
            f"max_batch_size is {top}, but batch_size {size} in the pipeline: the server will "
            + (f"take batches up to {top}" if top else "take no batches"),
            model.place("max_batch_size"),
            f"write max_batch_size: {size}, or batch_size={top or 1} in the pipeline",
            detail=(_origin(model, signature),),
        )
    elif not context.completes:
        yield model.finding(
            "batch-size-differs",
            f"there is no max_batch_size, so the server takes no batches, and the pipeline batches of {size}",
            model.place(),
            f"add max_batch_size: {size}",
            detail=(_origin(model, signature),),
        )
