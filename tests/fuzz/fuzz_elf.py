"""Feeds damaged libraries to builder.elf for some time: python tests/fuzz/fuzz_elf.py --seconds 600

Ends with 1, and the input in ./crash-*, when anything but BadLibrary comes out, when one takes more than 5 s, or when
512 MiB do not suffice.
"""

from __future__ import annotations

import argparse
import struct
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["builder.elf", "builder.fatbin", "elftools"]):
    import elftools.elf.elffile  # noqa: F401  imported late by builder.elf, and to be instrumented

    from builder import elf, fatbin

import numpy

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-elf-"))
LIBRARY = FOLDER / "libx.so"


def seeds() -> list[bytes]:
    """Small real libraries, and one with GPU code."""
    found = sorted(Path(numpy.__file__).parent.rglob("*.so"), key=lambda path: path.stat().st_size)
    libraries = [path.read_bytes() for path in found[:3]]
    entry = struct.pack("<HHIQ12xI8xQ", 2, 0x101, 64, 8, 90, 1 << 20) + bytes(24)
    container = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entry)) + entry
    # The smallest library, its last section being code for GPUs.
    data = bytearray(libraries[0]) + container
    (sections,) = struct.unpack_from("<Q", data, 0x28)
    (names,) = struct.unpack_from("<H", data, 0x3E)
    (offset,) = struct.unpack_from("<Q", data, sections + names * 64 + 0x18)
    for index in range(1, names):
        (name,) = struct.unpack_from("<I", data, sections + index * 64)
        if data[offset + name :].startswith(b".eh_frame_hdr\0"):
            data[offset + name : offset + name + 11] = f"{fatbin.SECTION}\0".encode()
            struct.pack_into("<QQ", data, sections + index * 64 + 0x18, len(libraries[0]), len(container))
    return [*libraries, bytes(data)]


def read(data: bytes) -> None:
    LIBRARY.write_bytes(data)
    try:
        library = elf.read(LIBRARY)
    except elf.BadLibrary:
        return
    _ = library.demands, library.architectures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60)
    seconds = parser.parse_args().seconds
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds()):
        (corpus / str(number)).write_bytes(seed)
        LIBRARY.write_bytes(seed)
        assert elf.read(LIBRARY).machine, "a seed must be a good library"
    options = [f"-max_total_time={seconds}", "-timeout=5", "-rss_limit_mb=512", "-max_len=200000", "-len_control=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
