"""Which models want a GPU, by their configurations."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def of_gpus(configs: Mapping[str, Any]) -> dict[str, str]:
    """The models that do not run without a GPU, each with the reason: its own place, or that of a step of it.

    Args:
        configs: each model's ModelConfig.
    """
    left_out = {
        name: "no GPU"
        for name, config in configs.items()
        if any(group.kind == group.KIND_GPU for group in config.instance_group)
    }
    # An ensemble may be a step of another one: once more, for as long as there was one more.
    while more := {
        name: f"its step {step} is not run"
        for name, config in configs.items()
        if name not in left_out and (step := _first_step(config, left_out))
    }:
        left_out |= more
    return left_out


def _first_step(config: Any, models: Collection[str]) -> str:
    """The first step of an ensemble that is one of `models`; empty for none."""
    return next((step.model_name for step in config.ensemble_scheduling.step if step.model_name in models), "")
