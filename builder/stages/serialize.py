"""Serializes the DALI pipelines of a model repository: `REPOSITORY/MODEL/VERSION/dali.py` → `model.dali` beside it.

Runs inside a build stage, under the Python of the Triton image, with `nvidia.dali` importable and the plugins where
the server will find them. It uses nothing but the standard library and DALI, and needs no GPU.

    python3 serialize.py REPOSITORY

Each `dali.py` gets a process of its own, as in Triton's autoserialization: two models may load plugins that do not
go together, and a plugin that aborts takes down its own model only. stdout stays empty; stderr has one line a model.
Exits with 1 if any pipeline could not be serialized; what could be is written all the same, whole or not at all.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

SOURCE = "dali.py"
SERIALIZED = "model.dali"

# Never part of what went wrong in the user's file: where DALI itself noticed it.
_DALI_NOISE = re.compile(
    r"^(Stacktrace \(|C\+\+ context: |Current pipeline object is no longer valid|\[frame \d+\]|\s+File \")",
    re.MULTILINE,
)


def sources(repository: Path) -> list[Path]:
    """Every `MODEL/VERSION/dali.py`, in the order of their names; a version is a number, as Triton reads it."""
    return sorted(path for path in repository.glob(f"*/*/{SOURCE}") if path.parent.name.isdecimal())


def main(arguments: list[str]) -> int:
    if len(arguments) == 2 and arguments[0] == "--one":
        return serialize_here(Path(arguments[1]))
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        return _complain("usage: python3 serialize.py REPOSITORY (a folder of MODEL/VERSION/dali.py)")
    found = sources(Path(arguments[0]))
    if not found:
        print(f"serialize: no {SOURCE} under {arguments[0]}: nothing to do", file=sys.stderr)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return max(pool.map(serialize_apart, found), default=0)


def serialize_apart(source: Path) -> int:
    """Serializes `source` in a child process; 0 or 1. Prints what the child reports, or how it died."""
    child = subprocess.run(
        [sys.executable, __file__, "--one", str(source)],
        capture_output=True,
        text=True,
        errors="replace",
    )
    lines = [line for line in child.stderr.splitlines() if line.startswith("serialize: ")]
    if lines:
        print("\n".join(lines), file=sys.stderr)
    if child.returncode in (0, 1) and (lines or child.returncode == 0):
        return child.returncode
    how = f"exit status {child.returncode}"
    if child.returncode < 0:
        how = signal.Signals(-child.returncode).name
    words = [line.strip() for line in child.stderr.splitlines() if line.strip()]
    # A C++ exception that nobody caught says `what():`, and is the reason; otherwise the last words have to do.
    reason = next((word for word in words if "what():" in word), words[-1] if words else "it said nothing")
    return _complain(f"{source}: the process that ran it ended with {how}: {reason}")


def serialize_here(source: Path) -> int:
    """Writes `model.dali` beside `source`, after checking that it loads again; 0 or 1 (reported on stderr)."""
    try:
        pipeline = _pipeline(source)
        data: bytes = pipeline.serialize()
        for warning in _input_warnings(pipeline):  # after serialize(), which builds the graph
            print(f"serialize: warning: {source}: {warning}", file=sys.stderr)
        note = _verify(data)
        _write_whole(source.with_name(SERIALIZED), data)
    except Exception as error:  # anything: the file is the user's, and so may be the exception
        return _complain(f"{source}{_line(error, source)}: {_words(error)}{_remedy(error)}")
    print(f"serialize: {source.with_name(SERIALIZED)}: {len(data)} bytes{note}", file=sys.stderr)
    return 0


def _pipeline(source: Path) -> Any:
    """The pipeline that Triton would serialize: that of the file's only @autoserialize function."""
    from nvidia.dali._utils.autoserialize import _discover_autoserialize

    marked = _discover_autoserialize(_load(source), visited=[])
    if len(marked) != 1:
        names = ", ".join(function.__name__ for function in marked) or "none"
        raise LookupError(
            f"exactly one function must be decorated with @autoserialize (above @pipeline_def), found: {names}"
        )
    # Whatever device the file names: serializing for a GPU needs one, and the server places the pipeline anyway.
    return marked[0](device_id=None)


def _load(source: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("dali_model", source)
    assert spec is not None  # a path that ends in .py has one, and a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True  # no __pycache__ in the model repository
    spec.loader.exec_module(module)
    return module


def _input_warnings(pipeline: Any) -> Iterator[str]:
    """What keeps a request's tensors from reaching an external_source."""
    for operator in getattr(pipeline, "_ops", None) or ():
        name = str(getattr(operator, "name", ""))
        if getattr(operator, "_callback", None) is not None:
            yield f"external_source {name!r} has a source=, which stays behind: the server can feed it by name only"
        elif name.startswith("__ExternalSource"):
            yield "an external_source has no name, so no request can feed it: external_source(name=<the input's name>)"


def _verify(data: bytes) -> str:
    """Loads the pipeline as the server will, from its bytes alone.

    Returns what to add to the report. Pipelines with GPU operators are not built where there is no GPU.
    """
    import nvidia.dali.backend as backend
    from nvidia.dali import Pipeline

    if _requires_gpu(backend, data) and not _has_gpu():
        return " (has GPU operators, and there is no GPU here: not tried)"
    Pipeline.deserialize(data, num_threads=1, prefetch_queue_depth=1)
    return ""


def _requires_gpu(backend: Any, data: bytes) -> bool:
    """DALI's own word where it gives it (1.53 and later); before, a look for operators placed on a GPU."""
    if hasattr(backend, "_PipelineParams") and hasattr(backend.Pipeline, "requires_gpu"):
        return bool(backend.Pipeline(data, backend._PipelineParams()).requires_gpu())
    return b"\x12\x03gpu" in data or b"*\x03gpu" in data or b"*\x05mixed" in data


def _has_gpu() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))


def _write_whole(target: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", suffix=".dali", delete=False) as temporary:
        try:
            temporary.write(data)
            temporary.flush()
            written = Path(temporary.name)
            written.chmod(0o644)  # the server may run as another user
            written.replace(target)
        except BaseException:
            Path(temporary.name).unlink(missing_ok=True)
            raise


def _line(error: BaseException, source: Path) -> str:
    """`:LINE` of `source` where the error came up, or nothing: DALI's own frames say nothing to its users."""
    name = str(source.absolute())  # as Python names it in frames
    if isinstance(error, SyntaxError) and error.filename == name:
        return f":{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    if lines:
        return f":{lines[-1]}"
    # DALI builds the graph later, and then names the line in its message.
    named = re.findall(rf'File "{re.escape(name)}", line (\d+)', str(error))
    return f":{named[-1]}" if named else ""


def _words(error: BaseException) -> str:
    """The type and the message on one line, without DALI's stack."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    if "encountered:" in message:  # DALI: "Error in CPU operator `X`, ... traceback: ... encountered: <the reason>"
        where, _, reason = message.partition("encountered:")
        operator = re.search(r"operator `([^`]+)`", where)
        message = (f"{operator.group(1)}: " if operator else "") + reason
    noise = _DALI_NOISE.search(message)
    if noise and noise.start() > 0:
        message = message[: noise.start()]
    return f"{type(error).__name__}: {' '.join(message.split())}"


def _remedy(error: BaseException) -> str:
    message = str(error)
    if isinstance(error, AttributeError) and "nvidia.dali." in message and "has no attribute" in message:
        return " (a custom operator? plugin_manager.load_library(...) must come before it in the file)"
    if "Failed to load library" in message and "version `DALI_" in message:
        return " (the plugin was compiled against another DALI: build it against the one of this image)"
    if "Failed to load library" in message:
        return " (plugins are expected at the path that the server will use)"
    if isinstance(error, ModuleNotFoundError):
        return " (only what the Triton image holds can be imported)"
    return ""


def _complain(message: str) -> int:
    print(f"serialize: error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
