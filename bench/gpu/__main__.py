"""`python -m bench.gpu`: packs what a machine with a GPU needs, and runs it here.

    python -m bench.gpu [--pack-only] [--archive FILE.tar] [--folder DIR] [--quick]

On a machine without a GPU the tests of the CPU run, and those of the GPU are reported as not run. The report goes to
stdout; the folder, or the archive of it, can be taken to a machine with a GPU, and begun there with `python3 run.py`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
from pathlib import Path

from rich.console import Console

from bench.gpu.pack import ROOT, pack
from builder.errors import BuilderError
from builder.output import print_error


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="Proves the GPU path.")
    parser.add_argument("--folder", type=Path, default=ROOT / ".builder" / "gpu-test", help="where to pack")
    parser.add_argument("--pack-only", action="store_true", help="pack, and run nothing")
    parser.add_argument("--archive", type=Path, help="also make one file of the folder, such as gpu-test.tar")
    parser.add_argument("--quick", action="store_true", help="correctness alone, no figures")
    arguments = parser.parse_args()
    console = Console(stderr=True, highlight=False)
    try:
        folder = pack(arguments.folder.resolve(), console)
    except BuilderError as error:
        print_error(error, console)
        return error.exit_code
    if arguments.archive:
        with tarfile.open(arguments.archive, "w") as archive:
            archive.add(folder, "gpu-test")
        console.print(
            f"{arguments.archive}: unpack it on a machine with a GPU, and run `python3 gpu-test/run.py` there"
        )
    if arguments.pack_only:
        console.print(f"{folder}: run `python3 {folder / 'run.py'}` on a machine with a GPU")
        return 0
    report = folder / "report.json"
    status = subprocess.run(
        [sys.executable, str(folder / "run.py"), "--report", str(report), *(["--quick"] * arguments.quick)],
        stdout=sys.stderr,
        check=False,
    ).returncode
    if report.is_file():
        print(report.read_text(encoding="utf-8"), end="")
    return status


if __name__ == "__main__":
    sys.exit(main())
