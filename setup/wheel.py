"""Hatch's hook: a wheel also has what `builder.package` needs beside the program, in builder/shipped.

A table of forced files in pyproject.toml would not do: it moves files, and builder/dali_proto.py has to be in both
places; and an editable install would get copies of what it has in the checkout.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHIPPED = (
    "Dockerfile",
    "docker-compose.yml",
    ".dockerignore",
    "embedded",
    "plugin",
    "model_repository",
    "builder/stages",
    "builder/dali_proto.py",
)


class Shipped(BuildHookInterface[BuilderConfig]):
    """Copies the files to where hatch does not know them as the project's own."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "standard":
            return
        self._copies = tempfile.TemporaryDirectory()
        for name in SHIPPED:
            source, copy = Path(self.root) / name, Path(self._copies.name) / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, copy)
        build_data["force_include"][self._copies.name] = "builder/shipped"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        if version == "standard":
            self._copies.cleanup()
