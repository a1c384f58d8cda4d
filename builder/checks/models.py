"""Rules on the models of a repository, by what Triton and NVIDIA's backend do with each mistake.

The messages are those of triton-inference-server/core (src/model_config_utils.cc, src/model_repository_manager) and of
triton-inference-server/dali_backend (src/config_tools/config_tools.cc, src/parameters.h, src/model_provider).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from builder import pbtxt
from builder.checks import ensembles, plugins, repository, tensors
from builder.checks.context import Context
from builder.checks.repository import PYTHON, SERIALIZED, SOURCE, Model
from builder.errors import did_you_mean
from builder.findings import Finding
from builder.signature import Signature

_NUMBER = re.compile(r"\s*[+-]?\d+")  # what C++ takes for a number: the rest is cut off
_LARGEST_INT = 2**31 - 1
# For these, Triton knows the backend itself.
_PLATFORM = re.compile(r"|ensemble|tensorrt_plan|onnxruntime_onnx|tensorflow_(graphdef|savedmodel)|(py)?torch_\w+")
# NVIDIA's backend hands the path of a pipeline's source to a shell, and therefore allows these characters only.
_PATH = re.compile(r"[A-Za-z0-9/._]*")


def check_models(root: Path, models: Path, context: Context) -> Iterator[Finding]:
    """Everything that is wrong with the model repository `models` for one target.

    Findings that are true of any target have an empty `target`, and are the same for all of them.
    """
    found, findings = repository.models(root, models)
    yield from findings
    for model in found:
        yield from check_model(model, context)
    yield from ensembles.check(found, context)


def check_model(model: Model, context: Context) -> Iterator[Finding]:
    """What is wrong with one model; ensembles are looked at together."""
    yield from repository.check_structure(model)
    if model.unreadable or model.is_empty:
        return
    yield from _check_backend(model, context)
    if model.config:
        yield from tensors.check_fields(model, context)
        yield from _check_scheduling(model)
        yield from _check_instances(model, context)
    if model.backend == "python":
        yield from _check_python(model)
    if model.is_dali:
        yield from _check_dali(model, context)


def _check_backend(model: Model, context: Context) -> Iterator[Finding]:
    config = model.config.message if model.config else None
    if config is None:
        if model.has_pipeline and not model.is_dali and not model.recognized:
            yield model.finding(
                "config-missing",
                f"model {model.name!r} has a pipeline, but no {pbtxt.FILE_NAME}",
                model.within(model.folder),
                f"`builder config {model.name}` writes one from the pipeline",
            )
    elif config.HasField("ensemble_scheduling") != (config.platform == "ensemble"):
        has = "ensemble_scheduling" if config.HasField("ensemble_scheduling") else 'platform: "ensemble"'
        lacks = 'platform: "ensemble"' if config.HasField("ensemble_scheduling") else "ensemble_scheduling"
        yield model.finding(
            "ensemble-platform",
            f"model {model.name!r} has {has} without {lacks}",
            model.place("ensemble_scheduling" if config.HasField("ensemble_scheduling") else "platform"),
            f"add {lacks}: an ensemble needs both",
        )
    elif not model.backend and not model.recognized and not config.platform:
        yield model.finding(
            "backend-missing",
            f"model {model.name!r} names no backend",
            model.place(),
            'add backend: "dali"' if model.has_pipeline else 'add backend: "...", the one that serves it',
        )
    elif not config.backend and not config.default_model_filename and not _PLATFORM.fullmatch(config.platform):
        backend = pbtxt.DALI if model.has_pipeline else "..."
        yield model.finding(
            "backend-missing",
            f"platform is {config.platform!r}, which Triton does not know",
            model.place("platform"),
            f'write backend: "{backend}" in its place',
        )
    if model.backend and context.backends is not None and model.backend not in context.backends:
        known = sorted(context.backends)
        yield model.finding(
            "backend-unknown",
            f"the base has no backend {model.backend!r}{did_you_mean(model.backend, known)}",
            model.place("backend"),
            f"it has {', '.join(known)}; NVIDIA's image has more",
            target=context.target,
        )


def _check_scheduling(model: Model) -> Iterator[Finding]:
    assert model.config
    config = model.config.message
    top = config.max_batch_size
    if top < 0 and not model.is_dali:  # NVIDIA's DALI backend puts the pipeline's in its place
        yield model.finding(
            "max-batch-size-invalid",
            f"max_batch_size is {top}",
            model.place("max_batch_size"),
            "give the largest batch, or 0 for requests without a batch dimension",
        )
    if not config.HasField("dynamic_batching"):
        return
    if not top and (model.config.has("max_batch_size") or not (model.is_dali or model.recognized)):
        yield model.finding(
            "dynamic-batching-needs-batches",
            "dynamic_batching does nothing without batches: max_batch_size is 0",
            model.place("dynamic_batching"),
            "give max_batch_size, or take dynamic_batching out",
        )
        return
    for index, size in enumerate(config.dynamic_batching.preferred_batch_size):
        if size <= 0 or (model.config.has("max_batch_size") and 0 < top < size):
            yield model.finding(
                "preferred-batch-size-invalid",
                f"preferred_batch_size {size} is not from 1 to max_batch_size" + (f" ({top})" if top > 0 else ""),
                model.place("dynamic_batching", "preferred_batch_size", index),
                "leave it out, or name sizes that a batch can have",
            )


def _check_instances(model: Model, context: Context) -> Iterator[Finding]:
    assert model.config
    config = model.config.message
    kinds = config.DESCRIPTOR.fields_by_name["instance_group"].message_type.enum_types_by_name["Kind"].values_by_number
    for index, group in enumerate(config.instance_group if not model.is_ensemble else ()):
        kind = kinds[group.kind].name
        at = ("instance_group", index)
        if kind == "KIND_GPU" and not context.has_gpu:
            yield model.finding(
                "kind-gpu-on-cpu-target",
                f"model {model.name!r} wants a GPU, and the target has none",
                model.place(*at, "kind"),
                "leave kind out, which takes a GPU where there is one, or write KIND_CPU",
                target=context.target,
            )
        if kind in ("KIND_CPU", "KIND_MODEL") and group.gpus:
            yield model.finding(
                "instance-group-invalid",
                f"an instance group of {kind} lists GPUs",
                model.place(*at, "gpus", 0),
                "take gpus out, or write KIND_GPU",
            )
        if group.count < 1 and model.config.has(*at, "count"):
            yield model.finding(
                "instance-count-invalid",
                f"an instance group has the count {group.count}, which Triton takes for 1",
                model.place(*at, "count"),
                "write how many instances there are to be, from 1 on",
            )


def _check_python(model: Model) -> Iterator[Finding]:
    name = (str(model.config.message.default_model_filename) if model.config else "") or PYTHON
    for version in model.served:
        if not (version / name).is_file():
            yield model.finding(
                "python-model-missing",
                f"version {version.name} of model {model.name!r} has no {name}",
                model.within(version),
                f"add {model.name}/{version.name}/{name} with a class TritonPythonModel",
            )


def _check_dali(model: Model, context: Context) -> Iterator[Finding]:
    broken: list[Finding] = []
    for version in model.versions:
        pipeline = model.pipeline(version, context.recorded)
        # The build serializes every version, whether Triton will load it or not.
        broken.extend(pipeline.findings)
        if version not in model.served:
            continue
        missing = list(_check_files(model, version, context))
        broken.extend(missing)
        yield from _check_pipeline(model, pipeline.signature, context)
    yield from broken
    if not model.config:
        signatures = [model.pipeline(version, context.recorded).signature for version in model.served]
        yield from _check_completable(model, signatures, context)
        return
    threads = model.config.parameter("num_threads")
    if threads is not None and not _is_count(threads, context):
        anywhere = not _NUMBER.match(threads)
        yield model.finding(
            "num-threads-invalid",
            f"parameter num_threads is {threads!r}",
            model.place("parameters", "num_threads", "value"),
            'write a whole number from 1 on, as a string: { string_value: "4" }',
            target="" if anywhere else context.target,
        )
    yield from plugins.check_parameter(model, context)


def _check_pipeline(model: Model, signature: Signature | None, context: Context) -> Iterator[Finding]:
    if signature is None:
        return
    if model.config:
        yield from tensors.check_signature(model, signature, context)
    yield from plugins.check_pipeline(model, signature, context)


def _check_files(model: Model, version: Path, context: Context) -> Iterator[Finding]:
    """Is there something to load?"""
    default = str(model.config.message.default_model_filename) if model.config else ""
    path, source = version / model.filename, version / SOURCE
    if default and default != SERIALIZED and not path.is_file():
        names = [each.name for each in version.iterdir()]
        yield model.finding(
            "default-model-file-missing",
            f"default_model_filename is {default!r}, which version {version.name} of model {model.name!r} does not have"
            + did_you_mean(default, names),
            model.place("default_model_filename"),
            f"leave the line out: the server then takes {SERIALIZED}, which the build makes of {SOURCE}",
        )
    elif not path.is_file() and not source.is_file():
        yield model.finding(
            "pipeline-missing",
            f"version {version.name} of model {model.name!r} has no pipeline",
            model.within(version),
            f"add {model.name}/{version.name}/{SOURCE} with a function under @autoserialize, or a {SERIALIZED}",
        )
    if not (path.suffix == ".py" and path.is_file()):
        return
    loaded = f"/models/{model.name}/{version.name}/{model.filename}"
    if not context.embedded and (not _PATH.fullmatch(loaded) or ".." in loaded):
        yield model.finding(
            "model-path-refused",
            f"NVIDIA's backend does not serialize {loaded}: only letters, digits, '/', '.' and '_' are allowed",
            model.place("default_model_filename"),
            f"name the file {SOURCE} and leave default_model_filename out, or rename the folder",
            target=context.target,
        )


def _is_count(value: str, context: Context) -> bool:
    """Whether the backend takes it for a number of threads; NVIDIA's reads the digits that it begins with."""
    if value.strip().isdecimal() and value.isascii():
        return 1 <= int(value) <= _LARGEST_INT
    number = _NUMBER.match(value)
    return not context.embedded and number is not None and 1 <= int(number[0]) <= _LARGEST_INT


def _check_completable(model: Model, signatures: list[Signature | None], context: Context) -> Iterator[Finding]:
    """A model of DALI's without a config.pbtxt: its folder is named NAME.dali."""
    lacking: list[str] = []
    for signature in signatures:
        if signature is not None and context.completes:
            for kind, given in (("input", signature.inputs), ("output", signature.outputs or ())):
                lacking += [
                    f"{kind} {tensor.name or 'without a name'}"
                    for tensor in given
                    if tensor.dtype is None or tensor.ndim is None
                ]
    if context.completes and not lacking:
        return
    why = f"and the pipeline does not declare dtype and ndim of {', '.join(dict.fromkeys(lacking))}"
    yield model.finding(
        "config-missing",
        f"model {model.name!r} has no {pbtxt.FILE_NAME}, "
        + (why if context.completes else "and the server is told to complete none"),
        model.within(model.folder),
        f"`builder config {model.name}` writes one from the pipeline",
    )
