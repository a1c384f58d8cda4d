"""The serialized pipeline of a model's version: its file, or what its source comes to."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from . import core
from .errors import BackendError
from .graph import Graph

DEFAULT_FILE = "model.dali"
SOURCE = "dali.py"
_SERIALIZE_SECONDS = 120
# In a Python of its own: DALI's package, which people write pipelines with, is not what runs them here.
_SERIALIZE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("dali_model", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from nvidia.dali._utils.autoserialize import invoke_autoserialize
invoke_autoserialize(module, sys.argv[2])
"""


def read(folder: Path, filename: str) -> bytes:
    """The pipeline in a version's folder: a file that may be a source, or else dali.py, as Triton's autoserialization
    has it. A source has to load its plugins itself.

    Args:
        filename: the configuration's default_model_filename; empty for model.dali.

    Raises:
        BackendError: there is none, or it cannot be serialized.
    """
    path = folder / (filename or DEFAULT_FILE)
    source = path if path.suffix == ".py" else folder / SOURCE
    reason = f"{path} ({_missing(path)})"
    if path.suffix != ".py" and path.is_file():
        data = path.read_bytes()
        try:
            Graph.parse(data)
            return data
        except BackendError as error:
            reason = f"{path} ({'the file is empty' if not data else error})"
    if source.is_file():
        return _serialized(source)
    raise BackendError(
        "Failed to load model file. The program looked in the following locations: "
        f"{reason}, {source} ({_missing(source)}). One must hold a serialized DALI pipeline, or its source"
    )


def _missing(path: Path) -> str:
    return "it is a folder" if path.is_dir() else "no such file"


def _serialized(source: Path) -> bytes:
    environment = {**os.environ, "PYTHONPATH": str(core.FOLDER.parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / DEFAULT_FILE
        try:
            done = subprocess.run(
                [_python(), "-c", _SERIALIZE, str(source), str(made)],
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SERIALIZE_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BackendError(f"Failed to autoserialize {source}: {error}") from None
        if done.returncode or not made.is_file():
            words = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
            raise BackendError(f"Failed to autoserialize {source}: {words[-1]}")
        return made.read_bytes()


def _python() -> str:
    """The Python of this process is the server's stub, which is no program to run files with."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = next((Path(folder) / version for folder in os.get_exec_path() if (Path(folder) / version).is_file()), None)
    return str(found or "python3")
