"""Which GPUs run a library as it is, which compile it first, and which cannot; and the driver that it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from builder import elf, fatbin, gpu
from builder.artifacts import Parts
from builder.checks.libraries import files
from builder.project import Project, Target


@dataclass(frozen=True)
class Support:
    """What a library with code for GPUs runs on."""

    target: str
    library: str
    """Its path in the image."""
    cuda: str
    """What it was compiled with, such as 13.0; empty: unknown."""
    dali_cuda: str
    """The major version of the CUDA of the image's DALI; empty: unknown."""
    native: tuple[int, ...]
    """The compute capabilities that run it as it is: 90 for 9.0."""
    jit: tuple[int, ...]
    """Those whose driver compiles its PTX first."""
    no: tuple[int, ...]

    @property
    def driver(self) -> int:
        """The oldest that runs both the library and DALI."""
        # What tells nothing counts as compiled here: DALI's older CUDA says nothing of a library beside it.
        ours = int(self.cuda.partition(".")[0]) if self.cuda else gpu.CUDA
        dali = int(self.dali_cuda) if self.dali_cuda else ours
        return max(gpu.driver_for(ours), gpu.driver_for(dali))

    def __str__(self) -> str:
        name = self.library.rpartition("/")[2]
        runs = [
            f"{does} {_named(which)}"
            for does, which in (("runs on", self.native), (self._compiled, self.jit), ("not on", self.no))
            if which
        ]
        return f"{name}: CUDA {self.cuda or 'unknown'}, {'; '.join(runs)}; driver {self.driver} or newer{self._why()}"

    @property
    def _compiled(self) -> str:
        """A driver runs machine code of its CUDA's newer minor versions too, but compiles no PTX of theirs.

        https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html, for PTX.
        """
        return f"compiled first, by a driver with CUDA {self.cuda or 'of its compiler'} or newer, on"

    def _why(self) -> str:
        """What is compiled with a newer CUDA than DALI asks more of a host than DALI does."""
        if not self.dali_cuda or self.driver == gpu.driver_for(int(self.dali_cuda)):
            return ""
        alone = gpu.driver_for(int(self.dali_cuda))
        return f", for DALI alone, which has CUDA {self.dali_cuda}, {alone} would do"

    def as_json(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "library": self.library,
            "cuda": self.cuda,
            "dali_cuda": self.dali_cuda,
            "driver": self.driver,
            **{name: [f"{each // 10}.{each % 10}" for each in getattr(self, name)] for name in ("native", "jit", "no")},
        }


def supports(project: Project, targets: Mapping[str, Target]) -> Iterator[Support]:
    """Of every library with code for GPUs that is there to be read: brought along, or of a last build that counts."""
    for name in targets:
        parts = Parts.current(project, name)
        for path, file in files(project, name, parts).items():
            try:
                library = elf.read(file)
            except elf.BadLibrary:
                continue  # told as a finding
            if library.gpu:
                fits = {sm: fatbin.runs_everywhere(library.gpu, sm) for sm in gpu.SERVERS}
                native, jit, no = (tuple(sm for sm in fits if fits[sm] == fit) for fit in ("native", "jit", "no"))
                dali = parts.dali_cuda if parts else ""
                yield Support(name, path, elf.cuda(file), dali, native, jit, no)


def _named(capabilities: tuple[int, ...]) -> str:
    return ", ".join(f"{gpu.SERVERS[each]} ({each // 10}.{each % 10})" for each in capabilities)
