"""The GPUs of this machine, as NVIDIA's driver describes them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import MachineError
from builder.process import run

DRIVERS = {11: 450, 12: 525, 13: 580}
"""The oldest driver for each CUDA (its release notes, "CUDA Toolkit and Minimum Required Driver Version for CUDA Minor
Version Compatibility")."""
CUDA = 13
"""With which GPU operators are compiled, where no build says otherwise."""
SERVERS = {
    70: "V100",
    75: "T4",
    80: "A100",
    86: "A10",
    89: "L4",
    90: "H100",
    100: "B200",
    103: "B300",
    120: "RTX PRO 6000 Blackwell",
}
"""GPUs of servers by compute capability, one for each (https://developer.nvidia.com/cuda-gpus)."""
_CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    name: str
    driver: str
    memory_mib: int
    capability: str
    """Compute capability, such as 9.0."""


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver, and what it drives."""

    gpus: tuple[Gpu, ...]
    cuda: str
    """The newest CUDA that it can run; empty where it does not say."""

    @property
    def version(self) -> str:
        return self.gpus[0].driver if self.gpus else ""

    def runs(self, cuda: int) -> bool:
        """Whether it runs what was compiled with that CUDA (its major version)."""
        major = re.match(r"\d+", self.version)
        return major is not None and int(major[0]) >= driver_for(cuda)


def driver_for(cuda: int) -> int:
    """The oldest driver for a CUDA, or for the newest that is known."""
    return DRIVERS.get(cuda, DRIVERS[max(DRIVERS)])


def find() -> Driver | None:
    """The driver and its GPUs; None on a machine without any.

    Raises:
        MachineError: there is a driver, and it does not work.
    """
    if shutil.which("nvidia-smi") is None:
        return None
    query = "--query-gpu=name,driver_version,memory.total,compute_cap"
    listed = run(["nvidia-smi", query, "--format=csv,noheader,nounits"])
    if listed.returncode:
        raise MachineError(
            "NVIDIA's driver does not work",
            where=listed.command,
            remedy="restart the machine if the driver was updated since, or install it anew",
            detail=listed.stderr or listed.stdout.strip().splitlines(),  # nvidia-smi complains on stdout
        )
    overview = run(["nvidia-smi"]).stdout
    return Driver(parse(listed.stdout), cuda_version(overview))


def parse(text: str) -> tuple[Gpu, ...]:
    """The GPUs in the answer to nvidia-smi's query, one a line."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4:
            name, driver, memory, capability = fields
            found.append(Gpu(name, driver, int(memory) if memory.isdecimal() else 0, capability))
    return tuple(found)


def cuda_version(overview: str) -> str:
    """The newest CUDA that the driver can run, from the head of nvidia-smi's table."""
    match = re.search(r"CUDA(?: UMD)? Version: *(\d+\.\d+)", overview)
    return match[1] if match else ""


def toolkit(info: Mapping[str, Any]) -> str:
    """How the engine gives GPUs to containers: 'runtime' or 'CDI'; empty where it cannot.

    Args:
        info: the engine's description of itself.
    """
    if any("nvidia" in name for name in info.get("Runtimes") or {}):
        return "runtime"
    devices = info.get("DiscoveredDevices") or ()
    if any("nvidia.com/gpu" in str(device.get("ID", "")) for device in devices):
        return "CDI"
    folders = info.get("CDISpecDirs") or ()
    specs = (path for folder in folders if folder in _CDI_FOLDERS for path in Path(folder).glob("*nvidia*"))
    return "CDI" if any(specs) else ""
