from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import numpy
import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection, GNUVerSymSection
from elftools.elf.sections import SymbolTableSection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder import elf
from builder.elf import BadLibrary, Demand, Library

# A real one that is always here, and small: an extension module of NumPy's that needs the C library.
REAL = min(
    (path for path in Path(numpy.__file__).parent.rglob("*.so") if b"\0GLIBC_2" in path.read_bytes()),
    key=lambda path: path.stat().st_size,
)


@pytest.fixture(scope="module")
def real() -> bytes:
    return REAL.read_bytes()


def library(tmp_path: Path, data: bytes) -> Library:
    path = tmp_path / "libx.so"
    path.write_bytes(data)
    return elf.read(path)


def test_a_library_is_read_as_pyelftools_reads_it() -> None:
    read = elf.read(REAL)
    with REAL.open("rb") as stream:
        file = ELFFile(stream)
        dynamic, symbols = file.get_section_by_name(".dynamic"), file.get_section_by_name(".dynsym")
        needs, versions = file.get_section_by_name(".gnu.version_r"), file.get_section_by_name(".gnu.version")
        assert isinstance(dynamic, DynamicSection)
        assert isinstance(symbols, SymbolTableSection)
        assert isinstance(needs, GNUVerNeedSection)
        assert isinstance(versions, GNUVerSymSection)
        assert list(read.needed) == [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]
        assert [(each.library, each.version) for each in read.versions] == [
            (need.name, version.name) for need, found in needs.iter_versions() for version in found
        ]
        by_number = {version["vna_other"]: version.name for _, found in needs.iter_versions() for version in found}
        wanted = {
            (symbol.name, by_number.get(versions.get_symbol(index)["ndx"], ""))
            for index, symbol in enumerate(symbols.iter_symbols())
            if symbol.name and symbol["st_shndx"] == "SHN_UNDEF" and symbol["st_info"]["bind"] != "STB_LOCAL"
        }
    assert {(symbol.name, symbol.version) for symbol in read.undefined} == wanted
    assert any(symbol.name.startswith("PyInit_") for symbol in read.defined)
    assert (read.machine, read.bits) == (os.uname().machine, 64)
    assert read.gpu == ()


def demanding(*versions: str) -> Library:
    demands = tuple(Demand("libx.so", version, version.endswith("-weak")) for version in versions)
    return Library("libx.so", "x86_64", 64, "", (), demands, (), (), ())


@pytest.mark.parametrize(
    ("versions", "demands"),
    [
        (["GLIBC_2.4", "GLIBC_2.34", "GLIBC_2.17"], {"GLIBC": "2.34"}),
        (["DALI_1.53.0", "DALI_CORE_1.53.0"], {"DALI": "1.53.0", "DALI_CORE": "1.53.0"}),
        (["GLIBCXX_3.4", "GLIBCXX_3.4.9", "CXXABI_1.3"], {"CXXABI": "1.3", "GLIBCXX": "3.4.9"}),
        (["GLIBC_PRIVATE", "CXXABI_FLOAT128", "Base", ""], {}),
        (["GLIBC_2.14", "GLIBC_ABI_DT_RELR"], {"GLIBC": "2.36"}),
        (["GLIBC_2.99-weak", "GLIBC_2.14"], {"GLIBC": "2.14"}),
        (["GLIBC_" + "9" * 5000], {}),
    ],
)
def test_the_highest_version_of_each_family_counts(versions: list[str], demands: dict[str, str]) -> None:
    assert demanding(*versions).demands == demands


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b"hello, world" * 100, "is not an ELF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is not an ELF file but a pointer of Git LFS"),
        (b"INPUT(libx.so.1)\n", "is not an ELF file but a script of the linker"),
        (b"!<arch>\n", "is not an ELF file but a static library"),
        (b"MZ\x90\0", "is not an ELF file but a library of Windows"),
        (b"\x7fELF", "is cut off"),
        (b"\x7fELF" + b"\xff" * 200, "is damaged"),
    ],
)
def test_other_files_are_named(tmp_path: Path, data: bytes, what: str) -> None:
    with pytest.raises(BadLibrary, match=f"^{what}"):
        library(tmp_path, data)


def test_a_folder_a_pipe_and_nothing_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.so")
    for path, what in (
        (tmp_path, "is not a file"),
        (tmp_path / "pipe.so", "is not a file"),
        (tmp_path / "no", "No such"),
    ):
        with pytest.raises(BadLibrary, match=what):
            elf.read(path)


@pytest.mark.parametrize(("kind", "what"), [(1, "an object file"), (2, "a program"), (4, "a core dump")])
def test_other_elf_files_are_named(tmp_path: Path, real: bytes, kind: int, what: str) -> None:
    with pytest.raises(BadLibrary, match=f"is {what}, not a shared library"):
        library(tmp_path, real[:16] + struct.pack("<H", kind) + real[18:])


@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.99])
def test_a_part_of_a_library_is_cut_off(tmp_path: Path, real: bytes, part: float) -> None:
    with pytest.raises(BadLibrary, match="is cut off"):
        library(tmp_path, real[: int(len(real) * part)])


def with_gpu_code(real: bytes, code: bytes) -> bytes:
    """The library with one of its sections made into `.nv_fatbin`, which lies behind its end."""
    with REAL.open("rb") as stream:
        file = ELFFile(stream)
        index = file.get_section_index(".eh_frame_hdr")
        assert index is not None
        name = file.get_section(file.get_shstrndx())["sh_offset"] + file.get_section(index)["sh_name"]
        header = file["e_shoff"] + index * file["e_shentsize"]
    data = bytearray(real) + code
    data[name : name + 11] = b".nv_fatbin\0"
    struct.pack_into("<QQ", data, header + 0x18, len(real), len(code))  # sh_offset, sh_size
    return bytes(data)


def test_its_gpu_code_is_read(tmp_path: Path, real: bytes) -> None:
    header = struct.pack("<HHIQ12xI8xQ", 2, 0x101, 64, 0, 90, 1 << 20) + bytes(16)
    code = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 64) + header
    read = library(tmp_path, with_gpu_code(real, code))
    assert read.gpu == (("sm_90a",),)
    assert read.architectures == ("sm_90a",)


def test_gpu_code_that_is_none_is_told(tmp_path: Path, real: bytes) -> None:
    with pytest.raises(BadLibrary, match="is damaged: at byte 0 of its GPU code there is no container"):
        library(tmp_path, with_gpu_code(real, b"no container at all"))


def survives(path: Path) -> None:
    """Reads everything there is to read, or refuses it."""
    started = time.monotonic()
    try:
        read = elf.read(path)
    except BadLibrary:
        pass
    else:
        assert read.demands is not None
        assert read.architectures is not None
    assert time.monotonic() - started < 5


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0), st.binary(min_size=1, max_size=8)), min_size=1, max_size=8),
    st.integers(0, 3),
)
def test_a_damaged_library_is_read_or_refused(
    tmp_path: Path, real: bytes, changes: list[tuple[int, bytes]], where: int
) -> None:
    (sections,) = struct.unpack_from("<Q", real, 0x28)
    start, length = [(0, 64), (sections, len(real) - sections), (0, 0x2000), (0, len(real))][where]
    data = bytearray(real)
    for offset, noise in changes:
        offset = start + offset % length
        data[offset : offset + len(noise)] = noise
    path = tmp_path / "libx.so"
    path.write_bytes(data[: len(real)])
    survives(path)


def test_sections_that_claim_to_be_huge_are_refused_at_once(tmp_path: Path, real: bytes) -> None:
    (sections,) = struct.unpack_from("<Q", real, 0x28)
    (count,) = struct.unpack_from("<H", real, 0x3C)
    path = tmp_path / "libx.so"
    for index in range(count):
        data = bytearray(real)
        struct.pack_into("<Q", data, sections + index * 64 + 0x20, 1 << 62)  # sh_size
        path.write_bytes(data)
        survives(path)


def test_a_file_with_a_hole_that_makes_it_huge_takes_no_memory(tmp_path: Path, real: bytes) -> None:
    (sections,) = struct.unpack_from("<Q", real, 0x28)
    (count,) = struct.unpack_from("<H", real, 0x3C)
    data = bytearray(real)
    for index in range(count):
        struct.pack_into("<Q", data, sections + index * 64 + 0x20, 1 << 39)
    path = tmp_path / "libx.so"
    path.write_bytes(data)
    os.truncate(path, 1 << 40)
    with pytest.raises(BadLibrary, match="larger than any library's"):
        elf.read(path)
