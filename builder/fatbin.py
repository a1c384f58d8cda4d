"""Code for GPUs in a library: which machine code (SASS) and which PTX, and what runs where.

NVIDIA does not document the format. This is from public descriptions (fatbin/FORMAT_SPECIFICATION.md of
https://github.com/GrigoryEvko/nvopen-tools, and https://github.com/n-eiling/cuda-fatbin-decompression) and from what
nvcc 13.0 writes, compared with what cuobjdump 13.5 says of it:

    container  u32 magic, u16 version, u16 bytes of this header, u64 bytes of what follows it; containers lie one after
               another, filled with zeros to a multiple of 8
    entry      u16 kind, u16 version, u32 bytes of this header, u64 bytes of the code; at 28 u32 the architecture; at 40
               u64 flags

Each container is the code of one compiled source file (or of all of them, where device code is linked).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from mmap import mmap
from typing import BinaryIO, Literal

SECTION = ".nv_fatbin"

_MAGIC = 0xBA55ED50
_CONTAINER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQ12xI8xQ")
_PREFIX = {1: "compute_", 2: "sm_"}  # other kinds are for the linker
_EXACT, _FAMILY = 1 << 20, 1 << 21  # compiled for sm_90a, sm_100f
_MOST_ENTRIES = 1_000_000  # cuBLAS has some 5,000

# Of Jetson and DRIVE. NVIDIA promises machine code of these nothing but the very same architecture
# (CUDA's "Binary Compatibility"; 101 is what CUDA 12 called 110).
_TEGRA = {32, 53, 62, 72, 87, 88, 101, 110}

_TOOLKIT = re.compile(rb"Cuda compilation tools, release (\d+)\.(\d+)")
_NAME = re.compile(r"(?P<kind>sm|compute)_(?P<number>\d+)(?P<suffix>[af]?)")
_WANTED = re.compile(r"(\d{2,3})[af]?(-real|-virtual)?")

Container = tuple[str, ...]
"""What a container has code for, as nvcc names it: sm_90 is machine code, compute_120 is PTX."""
Fit = Literal["native", "jit", "no"]


def read(stream: BinaryIO, offset: int, size: int) -> tuple[Container, ...]:
    """The containers in `size` bytes of `stream` from `offset` on, which must be those of the section `.nv_fatbin`.

    Raises:
        ValueError: it is something else, or cut off.
    """
    containers: list[Container] = []
    entries = 0
    position, end = offset, offset + size
    while end - position >= _CONTAINER.size:
        magic, _, header, length = _unpack(_CONTAINER, stream, position)
        if magic == 0:  # filling
            position += 8
            continue
        if magic != _MAGIC or header < _CONTAINER.size:
            raise ValueError(f"at byte {position - offset} of its GPU code there is no container of NVIDIA's")
        inside, position = position + header, position + header + length
        if position > end:
            raise ValueError("its GPU code is cut off")
        found: list[str] = []
        while position - inside >= _ENTRY.size:
            kind, _, header, length, architecture, flags = _unpack(_ENTRY, stream, inside)
            entries += 1
            if header < _ENTRY.size or inside + header + length > position or entries > _MOST_ENTRIES:
                raise ValueError(f"at byte {inside - offset} of its GPU code an entry has a wrong size")
            if kind in _PREFIX:
                suffix = "a" if flags & _EXACT else "f" if flags & _FAMILY else ""
                found.append(f"{_PREFIX[kind]}{architecture}{suffix}")
            inside += header + length
        if found:
            containers.append(_in_order(found))
    return tuple(containers)


def toolkit(data: bytes | mmap) -> str:
    """The CUDA that a library's GPU code was compiled with, such as 13.0: the newest that it names.

    ptxas writes its release into machine code. Empty where there is none, and where all of it is compressed.
    """
    found = {(int(major), int(minor)) for major, minor in _TOOLKIT.findall(data)}
    return "{}.{}".format(*max(found)) if found else ""


def architectures(containers: Iterable[Container]) -> Container:
    """Everything that any container has code for: machine code first, then PTX, each from the oldest."""
    return _in_order(name for container in containers for name in container)


def runs_on(architectures: Iterable[str], sm: int) -> Fit:
    """Whether a GPU of compute capability `sm` (90 for 9.0) runs the code as it is, compiles it first, or cannot.

    Machine code runs on the same major version from its minor version on, and PTX on everything newer. With the
    suffix `a` both run on exactly that GPU, with `f` on its family: the same major version from that minor on.
    """
    fits = {_fit(name, sm) for name in architectures}
    return "native" if "native" in fits else "jit" if "jit" in fits else "no"


def runs_everywhere(containers: Iterable[Container], sm: int) -> Fit:
    """The worst of `runs_on` over the containers: one kernel that is missing is enough to fail."""
    fits = {runs_on(container, sm) for container in containers}
    return "no" if "no" in fits else "jit" if "jit" in fits else "native"


def wanted(architecture: str) -> tuple[int, bool] | None:
    """The GPU that CMake's `90`, `90a-real` or `120-virtual` asks for, and whether PTX alone is meant.

    None for what names no GPU, such as `native`.
    """
    match = _WANTED.fullmatch(architecture)
    return (int(match[1]), match[2] == "-virtual") if match else None


def _fit(name: str, sm: int) -> Fit:
    match = _NAME.fullmatch(name)
    if not match:
        return "no"
    built, suffix = int(match["number"]), match["suffix"]
    same_family = built // 10 == sm // 10 and built <= sm
    if match["kind"] == "compute":
        fits = {"": built <= sm, "f": same_family, "a": built == sm}[suffix]
        return "jit" if fits else "no"
    exactly = suffix == "a" or built in _TEGRA or sm in _TEGRA
    return "native" if (built == sm if exactly else same_family) else "no"


def _unpack(layout: struct.Struct, stream: BinaryIO, position: int) -> tuple[int, ...]:
    stream.seek(position)
    data = stream.read(layout.size)
    if len(data) < layout.size:
        raise ValueError("its GPU code is cut off")
    return layout.unpack(data)


def _in_order(names: Iterable[str]) -> Container:
    def rank(name: str) -> tuple[bool, int, str]:
        match = _NAME.fullmatch(name)
        assert match is not None  # made here
        return (match["kind"] == "compute", int(match["number"]), match["suffix"])

    return tuple(sorted(set(names), key=rank))
