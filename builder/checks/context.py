"""What a target's image will have: what its models are checked against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.artifacts import Operator


@dataclass(frozen=True)
class Context:
    """A target, as far as it is known. Rules are silent on what is not."""

    target: str
    libraries: tuple[str, ...] | None = None
    """The paths in the image that the server will load, in that order; None: unknown."""
    available: tuple[str, ...] | None = None
    """Every plugin library that the image has, loaded or not; None: those in `libraries`."""
    operators: Mapping[str, tuple[Operator, ...] | None] = field(default_factory=dict)
    """What each library registers, by its path; None: unknown."""
    recorded: Path | None = None
    """The model repository of the target's last build, with a model.dali beside each dali.py."""
    has_gpu: bool = True
    """Whether the image may run on a GPU."""
    backends: frozenset[str] | None = None
    """Those of the base; None: unknown, or too many to list."""
    dali: str | None = None
    """DALI's version; None: unknown."""
    completes: bool = True
    """Whether the server fills in what a config.pbtxt of DALI's leaves out."""
    embedded: bool = False
    """Whether the backend is the embedded one, not NVIDIA's."""

    @property
    def present(self) -> tuple[str, ...] | None:
        """Every library that the image has."""
        return self.libraries if self.available is None else self.available

    def registered(self) -> dict[str, dict[str, Operator]] | None:
        """The operators of all libraries that the server will load: {key: {path: operator}}; None if one is unknown."""
        if self.libraries is None:
            return None
        return self._registered(self.libraries)

    def registered_elsewhere(self) -> dict[str, dict[str, Operator]]:
        """Those of the libraries that the server will not load, as far as they are known."""
        others = [path for path in self.present or () if path not in (self.libraries or ())]
        return self._registered([path for path in others if self.operators.get(path) is not None]) or {}

    def _registered(self, paths: list[str] | tuple[str, ...]) -> dict[str, dict[str, Operator]] | None:
        from builder.dali_operators import key

        found: dict[str, dict[str, Operator]] = {}
        for path in paths:
            operators = self.operators.get(path)
            if operators is None:
                return None
            for operator in operators:
                found.setdefault(key(operator.name), {})[path] = operator
        return found
