"""Rules on ensembles, which Triton checks when it loads them: after every other model, and one mistake at a time.

They are those of triton-inference-server/core: src/model_config_utils.cc (ValidateEnsembleSchedulingConfig) and
src/ensemble_scheduler/ensemble_utils.cc (ValidateEnsembleConfig).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builder.checks.context import Context
from builder.checks.repository import PYTHON, Model
from builder.checks.tensors import type_name
from builder.errors import did_you_mean
from builder.findings import Finding

_REFUSED = ("instance_group", "optimization", "model_warmup")
_ANY_SIZE = -1


@dataclass(frozen=True)
class _Known:
    """What is known of a tensor, and of whom."""

    model: str
    dtype: str
    dims: tuple[int, ...]
    batched: bool | None
    """None: as the pipeline is."""

    @property
    def shape(self) -> tuple[int, ...]:
        """With the batch dimension."""
        return (_ANY_SIZE, *self.dims) if self.batched else self.dims

    def fits(self, other: _Known) -> bool:
        """Whether both can be the same tensor: a model without batches may take the batch for a dimension."""
        unknown = not self.dims or not other.dims or None in (self.batched, other.batched)
        return unknown or _fit(self.dims, other.dims) or _fit(self.shape, other.shape)


_CONSEQUENCES = ("ensemble-input-unmapped", "ensemble-tensor-unused")


def check(models: Sequence[Model], context: Context) -> Iterator[Finding]:
    """What is wrong with the ensembles among `models`."""
    by_name = {model.name: model for model in models}
    for model in models:
        if model.is_ensemble and model.config and model.config.message.HasField("ensemble_scheduling"):
            found = list(_Ensemble(model, by_name, context).check())
            # A tensor under a wrong name is also one that is not given, and one that nobody uses.
            misnamed = any(each.code == "ensemble-tensor-unknown" for each in found)
            yield from (each for each in found if not (misnamed and each.code in _CONSEQUENCES))


class _Ensemble:
    def __init__(self, model: Model, models: Mapping[str, Model], context: Context) -> None:
        assert model.config
        self._model, self._models, self._context = model, models, context
        self._config = model.config.message
        self._steps = list(self._config.ensemble_scheduling.step)
        self._known: dict[str, _Known] = {}
        self._wrong_map = False

    def check(self) -> Iterator[Finding]:
        for name in _REFUSED:
            if self._model.config and any(steps[0] == name for steps in self._model.config.spans):
                yield self._finding(
                    "ensemble-field-refused",
                    f"an ensemble has no {name}: it runs on none of its own",
                    self._refused(name),
                    f"remove {name}, or give it to the models of the steps",
                )
        if not self._steps:
            yield self._finding(
                "ensemble-incomplete", "the ensemble has no step", ("ensemble_scheduling",), "add step [ { ... } ]"
            )
            return
        for side in ("input", "output"):
            for tensor in getattr(self._config, side):
                self._known.setdefault(tensor.name, self._tensor(self._model, tensor))
        for index, step in enumerate(self._steps):
            yield from self._check_step(index, step)
        if not self._wrong_map:
            yield from self._check_flow()
        yield from self._check_circle()

    def _refused(self, name: str) -> tuple[str | int, ...]:
        return (name, 0) if name != "optimization" else (name,)

    def _check_step(self, index: int, step: Any) -> Iterator[Finding]:
        at = ("ensemble_scheduling", "step", index)
        for name in ("model_name", "input_map", "output_map"):
            if not getattr(step, name):
                self._wrong_map = True
                yield self._finding(
                    "ensemble-incomplete", f"step {index + 1} of the ensemble has no {name}", at, f"add {name}"
                )
        if not step.model_name or step.model_namespace:
            return
        model = self._models.get(step.model_name)
        if model is None:
            yield self._finding(
                "ensemble-step-missing",
                f"step {index + 1} runs model {step.model_name!r}, which there is not"
                + did_you_mean(step.model_name, self._models),
                (*at, "model_name"),
                f"there are {', '.join(sorted(set(self._models) - {self._model.name})) or 'no others'}",
            )
            return
        if model.config is None:
            return
        yield from self._check_versions(index, step, model)
        yield from self._check_batch(index, model)
        for side, field, mapping in (("input", "input_map", step.input_map), ("output", "output_map", step.output_map)):
            yield from self._check_map(index, model, side, field, mapping)

    def _check_versions(self, index: int, step: Any, model: Model) -> Iterator[Finding]:
        wanted = step.model_version
        if wanted > 0 and model.versions and str(wanted) not in {each.name for each in model.served}:
            yield self._finding(
                "ensemble-step-missing",
                f"step {index + 1} runs version {wanted} of model {model.name!r}, which Triton does not load",
                ("ensemble_scheduling", "step", index, "model_version"),
                f"write -1 for the last one, or one of {', '.join(each.name for each in model.served)}",
            )

    def _check_batch(self, index: int, model: Model) -> Iterator[Finding]:
        assert model.config
        top, own = model.config.message.max_batch_size, self._config.max_batch_size
        if 0 < top < own:
            yield self._finding(
                "ensemble-batch-size",
                f"the ensemble takes batches of {own}, but model {model.name!r} of step {index + 1} only of {top}",
                ("max_batch_size",),
                f"write max_batch_size: {top}, or more in {model.name}",
            )

    def _check_map(
        self, index: int, model: Model, side: str, field: str, mapping: Mapping[str, str]
    ) -> Iterator[Finding]:
        assert model.config
        tensors = {str(tensor.name): tensor for tensor in getattr(model.config.message, side)}
        names = self._names(model, side, tensors)
        at = ("ensemble_scheduling", "step", index, field)
        for name, ensemble_name in sorted(mapping.items()):
            if names is not None and name not in names:
                self._wrong_map = True
                yield self._finding(
                    "ensemble-tensor-unknown",
                    f"{field} of step {index + 1} names {name!r}, which is not an {side} of model {model.name!r}"
                    + did_you_mean(name, names),
                    (*at, name),
                    f"its {side}s are {', '.join(sorted(names)) or 'none'}: "
                    "the key is the model's name for the tensor, the value the ensemble's",
                )
            elif name in tensors:
                yield from self._compare(model, ensemble_name, self._tensor(model, tensors[name]), (*at, name))
        for name, tensor in tensors.items():
            if side == "input" and name and name not in mapping and not tensor.optional:
                yield self._finding(
                    "ensemble-input-unmapped",
                    f"step {index + 1} gives model {model.name!r} nothing for its input {name!r}",
                    at[:3],
                    f'add input_map {{ key: "{name}" value: "..." }}',
                )

    def _names(self, model: Model, side: str, tensors: Mapping[str, Any]) -> set[str] | None:
        """The names that a step may map; None where the server may add some."""
        names = set(tensors)
        if model.is_ensemble:
            return names
        if model.backend == "python":
            sources = [version / PYTHON for version in model.served]
            if any(b"auto_complete_config" in path.read_bytes() for path in sources if path.is_file()):
                return None
            return names
        if not model.is_dali:
            return names or None
        if not self._context.completes:
            return names
        for version in model.served:
            signature = model.pipeline(version, self._context.recorded).signature
            if signature is None or not signature.complete or signature.outputs is None:
                return None
            given = signature.inputs if side == "input" else signature.outputs[len(tensors) :]
            names |= {each.name for each in given if each.name is not None}
        return names

    def _compare(self, model: Model, name: str, tensor: _Known, steps: tuple[str | int, ...]) -> Iterator[Finding]:
        other = self._known.setdefault(name, tensor)
        if "TYPE_INVALID" not in (other.dtype, tensor.dtype) and other.dtype != tensor.dtype:
            yield self._finding(
                "ensemble-dtype-mismatch",
                f"tensor {name!r} is {other.dtype} in {other.model!r}, but {tensor.dtype} in {model.name!r}",
                steps,
                "give both the same data_type, or put a step between them that converts it",
            )
        elif not tensor.fits(other):
            yield self._finding(
                "ensemble-shape-mismatch",
                f"tensor {name!r} has the shape {list(other.shape)} in {other.model!r}, "
                f"but {list(tensor.shape)} in {model.name!r}",
                steps,
                "give both the same dims, -1 for any size",
            )

    def _check_flow(self) -> Iterator[Finding]:
        """Is every tensor made once, and used?"""
        inputs = [str(tensor.name) for tensor in self._config.input]
        made: dict[str, int] = {}
        for index, step in enumerate(self._steps):
            for key, name in sorted(step.output_map.items()):
                if name in made:
                    yield self._finding(
                        "ensemble-tensor-repeated",
                        f"tensor {name!r} is made by steps {made[name] + 1} and {index + 1}",
                        ("ensemble_scheduling", "step", index, "output_map", key),
                        "give each its own name",
                    )
                made.setdefault(name, index)
        known = {*inputs, *made}
        complete = True
        for index, step in enumerate(self._steps):
            for key, name in sorted(step.input_map.items()):
                if name not in known:
                    complete = False
                    yield self._unknown(name, known, f"step {index + 1} takes", index, key)
        for index, tensor in enumerate(self._config.output):
            if tensor.name not in known:
                complete = False
                yield self._finding(
                    "ensemble-tensor-unknown",
                    f"no step makes the output {tensor.name!r}{did_you_mean(tensor.name, known)}",
                    ("output", index, "name"),
                    f"name it as the value of an output_map; the steps make {', '.join(sorted(made)) or 'nothing'}",
                )
        used = {name for step in self._steps for name in step.input_map.values()}
        outputs = {str(tensor.name) for tensor in self._config.output}
        for index, name in enumerate(inputs):
            if name not in used:
                yield self._unused(f"input {name!r}", ("input", index, "name"))
        for name, index in made.items():
            if name not in used | outputs:
                key = next(key for key, value in self._steps[index].output_map.items() if value == name)
                yield self._unused(f"tensor {name!r}", ("ensemble_scheduling", "step", index, "output_map", key))
        if complete:
            yield from self._check_loop(set(inputs))

    def _unknown(self, name: str, known: set[str], who: str, index: int, key: str) -> Finding:
        return self._finding(
            "ensemble-tensor-unknown",
            f"{who} tensor {name!r}, which is neither an input nor made by a step{did_you_mean(name, known)}",
            ("ensemble_scheduling", "step", index, "input_map", key),
            f"the ensemble has {', '.join(sorted(known)) or 'none'}",
        )

    def _unused(self, what: str, steps: tuple[str | int, ...]) -> Finding:
        return self._finding(
            "ensemble-tensor-unused",
            f"nothing uses the ensemble's {what}",
            steps,
            "use it in an input_map, make it an output, or leave it out",
        )

    def _check_loop(self, ready: set[str]) -> Iterator[Finding]:
        """A step can run when all that it takes is there."""
        waiting = dict(enumerate(self._steps))
        while runnable := [index for index, step in waiting.items() if set(step.input_map.values()) <= ready]:
            for index in runnable:
                ready |= set(waiting.pop(index).output_map.values())
        if waiting:
            index = next(iter(waiting))
            yield self._finding(
                "ensemble-loop",
                f"steps {', '.join(str(each + 1) for each in waiting)} wait for each other",
                ("ensemble_scheduling", "step", index),
                "let the data flow in one direction: a step may only take what comes before it",
            )

    def _check_circle(self) -> Iterator[Finding]:
        """An ensemble may run ensembles, but not itself."""
        seen, waiting = set[str](), [self._model.name]
        while waiting:
            model = self._models.get(waiting.pop())
            if model is None or not model.is_ensemble or not model.config:
                continue
            for step in model.config.message.ensemble_scheduling.step:
                if step.model_name == self._model.name:
                    yield self._finding(
                        "ensemble-loop",
                        f"ensemble {self._model.name!r} runs itself, by {model.name!r}",
                        ("ensemble_scheduling",),
                        "take it out of the steps",
                    )
                    return
                if step.model_name not in seen:
                    seen.add(step.model_name)
                    waiting.append(step.model_name)

    def _tensor(self, model: Model, tensor: Any) -> _Known:
        assert model.config
        has_reshape = model is self._model and tensor.HasField("reshape")
        dims = tensor.reshape.shape if has_reshape else tensor.dims
        filled = model.is_dali and self._context.completes and not model.config.has("max_batch_size")
        batched = None if filled else model.config.message.max_batch_size > 0
        return _Known(model.name, type_name(tensor), tuple(dims), batched)

    def _finding(self, code: str, what: str, steps: tuple[str | int, ...], remedy: str) -> Finding:
        return self._model.finding(code, what, self._model.place(*steps), remedy)


def _fit(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two shapes can be the same."""
    return len(one) == len(other) and all(a == b or _ANY_SIZE in (a, b) for a, b in zip(one, other, strict=True))
