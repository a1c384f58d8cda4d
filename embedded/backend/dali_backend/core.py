"""DALI's extension module, without the Python package around it.

`import nvidia.dali` makes a Python function of each of its operators, for people who write pipelines: most of a second,
and nothing that running a serialized pipeline needs.
"""

from __future__ import annotations

import os
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any

# Libraries that DALI would load beside those of the server's command; NVIDIA's backend does not.
_PRELOAD = "DALI_PRELOAD_PLUGINS"

FOLDER = Path(__file__).resolve().parents[1] / "wheel" / "dali" / "nvidia" / "dali"


@cache
def load() -> Any:
    """The module `nvidia.dali.backend_impl`, ready to run pipelines."""
    # Packages of these names without their own code, so that the module is found in them.
    for name, folder in (("nvidia", FOLDER.parent), ("nvidia.dali", FOLDER)):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules.setdefault(name, package)
    preload = os.environ.pop(_PRELOAD, None)
    import nvidia.dali.backend_impl as core

    core.Init(core.OpSpec("CPUAllocator"), core.OpSpec("PinnedCPUAllocator"), core.OpSpec("GPUAllocator"))
    if preload is not None:
        os.environ[_PRELOAD] = preload  # a dali.py that is serialized has a use for it
    return core


def version() -> str:
    """DALI's, as its package states it."""
    for line in (FOLDER / "__init__.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.partition("=")[2].strip(" '\"")
    return "unknown"


def build(
    serialized: bytes, *, batch_size: int, num_threads: int | None, device_id: int | None, dynamic: bool = False
) -> Any:
    """A pipeline that runs one batch at a time.

    Args:
        num_threads: None for what the pipeline says.
        device_id: the GPU; None for none, where the pipeline needs none.
        dynamic: by the executor that can take what the GPU made back to the host. A small batch takes it twice as long.
    """
    core = load()
    # Requests come one batch at a time: nothing to prefetch, and no stages that could overlap.
    parameters = core._PipelineParams(
        max_batch_size=batch_size,
        num_threads=num_threads,
        device_id=device_id,
        executor_type=core._MakeExecutorType(False, False, False, dynamic),
        prefetch_queue_depths=(1, 1),
    )
    pipeline = core.Pipeline(serialized, parameters)
    pipeline.Build()
    return pipeline
