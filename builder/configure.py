"""A complete config.pbtxt out of a pipeline: what the user wrote stays as it is, what is missing is added."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from builder.checks.repository import named_backend
from builder.errors import BadUsage, SignatureUnknown, did_you_mean
from builder.pbtxt import DALI, Config, message_types
from builder.signature import Signature, Tensor

_INDENT = "  "


def complete(signature: Signature, config: Config | None, name: str) -> str:
    """The text of model `name`'s config.pbtxt, with every field that the server would otherwise have to guess.

    `plugin_libs` is not among them: the list of libraries is made of the libraries themselves.

    Raises:
        SignatureUnknown: the pipeline does not declare what is missing; the detail has a line for each gap.
        BadUsage: the model is not one of DALI's.
    """
    if config and named_backend(config) not in (None, DALI):
        raise BadUsage(
            f"model {name!r} is not one of DALI's",
            where=str(config.path),
            remedy='only the pipeline of a model with backend: "dali" is known to need inputs and outputs',
        )
    gaps = list(_gaps(signature, config))
    if gaps:
        raise SignatureUnknown(
            f"the pipeline of model {name!r} does not tell everything that config.pbtxt needs",
            where=str(signature.origin),
            remedy="declare in the pipeline what is listed, or write it into config.pbtxt yourself",
            detail=gaps,
        )
    if config is None:
        return "".join(_whole(signature, name))
    text = _with_completed_tensors(signature, config)
    added = "".join(_missing_fields(signature, config))
    return text + ("\n" if added and not text.endswith("\n") and text else "") + added


def _gaps(signature: Signature, config: Config | None) -> Iterator[str]:
    """What neither the pipeline nor the configuration says, and how a pipeline says it."""
    if not (config and config.has("max_batch_size")) and signature.batch_size is None:
        yield "batch size: @pipeline_def(batch_size=...)"
    if not signature.complete and not (config and config.message.input):
        yield "inputs: not all are known without running the pipeline; after `builder build` they are"
    inputs = list(config.message.input) if config else []
    for tensor in inputs:
        if signature.complete and tensor.name and signature.input(tensor.name) is None:
            yield (
                f"input {tensor.name!r}: not an external_source of the pipeline"
                + did_you_mean(tensor.name, signature.input_names)
            )
    for index, declared in enumerate(signature.inputs):
        given = next((tensor for tensor in inputs if tensor.name == declared.name), None)
        if declared.name is None or declared.name.startswith("__ExternalSource"):
            yield f"input {index}: fn.external_source(name=...)"
        lacking = _lacking(declared, given)
        if lacking:
            what = ", ".join(f"{each}=..." for each in lacking)
            yield f"input {declared.name or index!r}: fn.external_source({what})"
        elif declared.ndim == 0 and not (given and given.dims):
            yield f"input {declared.name or index!r}: it has no dimension, and Triton needs one: ndim=1"
    yield from _output_gaps(signature, config)


def _output_gaps(signature: Signature, config: Config | None) -> Iterator[str]:
    configured = list(config.message.output) if config else []
    if signature.outputs is None:
        if not configured or any(not tensor.dims or not tensor.data_type for tensor in configured):
            yield (
                "outputs: their number is not known without running the pipeline; "
                "@pipeline_def(output_dtype=[...], output_ndim=[...]) tells it, and so does `builder build`"
            )
        return
    if len(configured) > len(signature.outputs):
        yield f"outputs: config.pbtxt has {len(configured)}, the pipeline {len(signature.outputs)}"
    for index, declared in enumerate(signature.outputs):
        given = configured[index] if index < len(configured) else None
        lacking = _lacking(declared, given)
        if lacking:
            what = ", ".join(f"output_{each}=[...]" for each in lacking)
            yield f"output {declared.name or index!r}: @pipeline_def({what}), with one entry for each output"
        elif declared.ndim == 0 and not (given and given.dims):
            who = f"output {declared.name or index!r}"
            yield f"{who}: it has no dimension, and Triton needs one: fn.expand_dims(x, axes=0)"


def _lacking(declared: Tensor, given: object | None) -> list[str]:
    """Of "dtype" and "ndim", what is neither declared nor configured."""
    lacking = []
    if declared.dtype is None and not getattr(given, "data_type", 0):
        lacking.append("dtype")
    if declared.ndim is None and not len(getattr(given, "dims", ())):
        lacking.append("ndim")
    return lacking


def _whole(signature: Signature, name: str) -> Iterator[str]:
    yield f'{_name(name)}\nbackend: "{DALI}"\nmax_batch_size: {signature.batch_size}\n'
    yield _block("input", [_tensor(each, each.name or "") for each in signature.inputs])
    outputs = signature.outputs or ()
    yield _block(
        "output",
        [_tensor(each, name) for each, name in zip(outputs, _output_names(outputs, []), strict=True)],
    )


def _missing_fields(signature: Signature, config: Config) -> Iterator[str]:
    """Top-level fields to add at the end; a list may go on there."""
    if not config.backend:
        yield f'backend: "{DALI}"\n'
    if not config.has("max_batch_size"):
        yield f"max_batch_size: {signature.batch_size}\n"
    known = {tensor.name for tensor in config.message.input}
    yield _block("input", [_tensor(each, each.name or "") for each in signature.inputs if each.name not in known])
    outputs = signature.outputs or ()
    taken = [tensor.name for tensor in config.message.output]
    names = _output_names(outputs, taken)
    yield _block(
        "output",
        [_tensor(each, name) for each, name in zip(outputs[len(taken) :], names[len(taken) :], strict=True)],
    )


def _output_names(outputs: Sequence[Tensor], taken: Sequence[str]) -> list[str]:
    """A name for each output: the configured one, the pipeline's own, or its position; none twice."""
    names = list(taken)
    for index, output in enumerate(outputs[len(taken) :], len(taken)):
        name = output.name or f"OUTPUT_{index}"
        names.append(name if name not in names else f"OUTPUT_{index}")
    return names


def _block(side: str, tensors: Sequence[str]) -> str:
    return f"{side} [\n" + ",\n".join(tensors) + "\n]\n" if tensors else ""


def _tensor(tensor: Tensor, name: str) -> str:
    fields = [_name(name), f"data_type: {tensor.dtype}", _dims(tensor)]
    return f"{_INDENT}{{\n" + "".join(f"{_INDENT * 2}{field}\n" for field in fields) + f"{_INDENT}}}"


def _name(name: str) -> str:
    """The field `name`, its text escaped as protobuf does."""
    from google.protobuf import text_format

    return str(text_format.MessageToString(message_types().ModelInput(name=name), as_utf8=True, as_one_line=True))


def _dims(tensor: Tensor) -> str:
    """Any size in each dimension: a pipeline tells only how many there are."""
    return f"dims: [ {', '.join(['-1'] * (tensor.ndim or 0))} ]"


def _with_completed_tensors(signature: Signature, config: Config) -> str:
    """The text, with data_type and dims in those tensors that lack them."""
    lines = config.text.split("\n")
    pairs = [(("input", index), given, signature.input(given.name)) for index, given in enumerate(config.message.input)]
    pairs += [
        (("output", index), given, declared)
        for index, (given, declared) in enumerate(zip(config.message.output, signature.outputs or (), strict=False))
    ]
    # From the end on, so that places before it stay what they are.
    for steps, given, declared in sorted(pairs, key=lambda pair: _end(config, pair[0]), reverse=True):
        if declared is None:
            continue
        lacks_type = not given.data_type and declared.dtype is not None
        is_written = config.has(*steps, "data_type")
        fields = [f"data_type: {declared.dtype}"] if lacks_type and not is_written else []
        if not given.dims and declared.ndim:
            fields.append(_dims(declared))
        if fields:
            _insert(lines, config, steps, fields)
        if lacks_type and is_written:
            span = config.spans[(*steps, "data_type")]
            line, start = lines[span.line - 1], span.column - 1
            known = re.sub(r"\b(TYPE_INVALID|0)\b", str(declared.dtype), line[start:], count=1)
            lines[span.line - 1] = line[:start] + known
    return "\n".join(lines)


def _end(config: Config, steps: tuple[str, int]) -> tuple[int, int]:
    return config.spans[steps].end_line, config.spans[steps].end_column


def _insert(lines: list[str], config: Config, steps: tuple[str, int], fields: Sequence[str]) -> None:
    """Writes fields before the closing bracket of a tensor, in lines of their own where it stands alone in one."""
    span = config.spans[steps]
    line, at = lines[span.end_line - 1], span.end_column - 1
    if line[:at].strip():
        lines[span.end_line - 1] = f"{line[:at].rstrip()} {' '.join(fields)} {line[at:]}"
        return
    indent = line[:at] + _INDENT
    lines[span.end_line - 1 : span.end_line - 1] = [indent + field for field in fields]
