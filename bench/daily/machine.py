"""What a figure was measured on, without what tells whose machine it is."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from bench.daily.commands import run


def describe() -> dict[str, str | int | float]:
    """Processor, memory, kernel and the versions of what builds."""
    versions = run(["docker", "version", "--format={{.Server.Version}} {{.Server.Os}}/{{.Server.Arch}}"]).stdout.split()
    return {
        "processor": _field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(int((_field(Path("/proc/meminfo"), "MemTotal") or "0 kB").split()[0]) / (1 << 20), 1),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "kernel": platform.release(),
        "engine": versions[0],
        "platform": versions[1],
        "buildx": run(["docker", "buildx", "version"]).stdout.split()[1],
        "python": platform.python_version(),
    }


def load() -> float:
    """How many processes wanted the processor, on the average of the last minute."""
    return round(os.getloadavg()[0], 1)


def _field(path: Path, name: str) -> str:
    """The first value under a name in one of /proc's tables; empty where there is none."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
