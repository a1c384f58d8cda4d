"""What a shared library needs of the system that loads it, and what it offers."""

from __future__ import annotations

import mmap
import re
import stat
import struct
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from builder import fatbin

# What no library comes near, and damaged or hostile files can claim.
_SMALLEST = 64  # bytes of a header
_MOST_SECTIONS = 65_536
_MOST_SYMBOLS = 2_000_000
_MOST_NAMES = 1 << 28  # bytes of a string table

_VERSION = re.compile(r"(?P<family>\w+?)_(?P<number>\d{1,9}(?:\.\d{1,9})*)")
# A version that is no number, and the first C library that has it (its NEWS, 2.36).
_MARKERS = {"GLIBC_ABI_DT_RELR": ("GLIBC", "2.36")}
_WEAK_VERSION = 2  # VER_FLG_WEAK
_PIE = 0x08000000  # DF_1_PIE
_HIDDEN = 0x7FFF  # the upper bit of a symbol's version only says that it is not the default one
_LOCAL, _WEAK = 0, 2
_INVISIBLE = (1, 2)  # STV_INTERNAL, STV_HIDDEN


class BadLibrary(ValueError):
    """Not a shared library that a loader could take. The message goes on after the file's name: "is empty"."""


class Demand(NamedTuple):
    """A version of another library's symbols that must be there."""

    library: str
    """The file that must have it, such as libdali.so."""
    version: str
    """DALI_1.53.0"""
    weak: bool
    """The loader goes on without it."""


class Symbol(NamedTuple):
    """A function or a variable, by the name that the linker uses."""

    name: str
    version: str
    """Empty where it has none."""
    library: str
    """Of an undefined symbol: the file that must have that version of it. Empty where it has none."""
    weak: bool


@dataclass(frozen=True)
class Library:
    """A shared library, as its file describes it."""

    name: str
    """The file's."""
    machine: str
    """x86_64, aarch64 and so on."""
    bits: int
    soname: str
    needed: tuple[str, ...]
    """The libraries that are loaded with it."""
    versions: tuple[Demand, ...]
    defined: tuple[Symbol, ...] = field(repr=False)
    undefined: tuple[Symbol, ...] = field(repr=False)
    gpu: tuple[fatbin.Container, ...]
    """Each compiled source's code for GPUs; empty where there is none."""

    @cached_property
    def demands(self) -> dict[str, str]:
        """The highest version needed of each family: {"DALI": "1.53.0", "GLIBC": "2.34", ...}."""
        found: dict[str, str] = {}
        for demand in self.versions:
            match = _VERSION.fullmatch(demand.version)
            family, number = _MARKERS.get(demand.version) or ((match["family"], match["number"]) if match else ("", ""))
            if family and not demand.weak and number_of(number) > number_of(found.get(family, "")):
                found[family] = number
        return dict(sorted(found.items()))

    @property
    def architectures(self) -> tuple[str, ...]:
        """What it has GPU code for: sm_90 is machine code, compute_120 is PTX."""
        return fatbin.architectures(self.gpu)


def number_of(version: str) -> tuple[int, ...]:
    """`2.34` as what it sorts by; nothing is lower than the empty version."""
    return tuple(int(part) for part in version.split(".") if part)


def read(path: Path) -> Library:
    """The library in a file.

    Raises:
        BadLibrary: it is none, or damaged.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BadLibrary("is not a file")
        with path.open("rb") as stream:
            return _Reader(stream, path.stat().st_size).library(path.name)
    except BadLibrary:
        raise
    except OSError as error:
        raise BadLibrary(f"cannot be read: {error.strerror or error}") from None
    except Exception as error:  # pyelftools raises nearly anything when the bytes are wrong
        raise BadLibrary(f"is damaged ({error or type(error).__name__})") from None


def cuda(path: Path) -> str:
    """The CUDA that a library's code for GPUs was compiled with, such as 13.0; empty where nothing tells.

    Not a part of `read`: it looks at every byte, and DALI's own libraries have hundreds of megabytes.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return fatbin.toolkit(content)


class _Reader:
    """Walks a file's tables, none of which is believed to be as long as it says.

    pyelftools knows the layouts. Its own walks over symbols and versions trust the file, and take seconds for DALI's.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        from elftools.common.utils import struct_parse
        from elftools.elf.elffile import ELFFile

        self._stream = stream
        self._size = size
        stream.seek(0)
        magic = stream.read(4)
        if not magic:
            raise BadLibrary("is empty")
        if magic != b"\x7fELF":
            raise BadLibrary("is not an ELF file" + _what_else(magic, stream))
        if size < _SMALLEST:
            raise BadLibrary("is cut off: its header is not whole")
        stream.seek(0)
        self._elf = ELFFile(stream)
        self._parse = struct_parse
        self._order = "<" if self._elf.little_endian else ">"

    def library(self, name: str) -> Library:
        elf = self._elf
        if elf.header.e_type != "ET_DYN":
            kinds = {"ET_REL": "an object file", "ET_EXEC": "a program", "ET_CORE": "a core dump"}
            raise BadLibrary(f"is {kinds.get(elf.header.e_type, 'an ELF file of another kind')}, not a shared library")
        self._sections = self._section_headers()
        dynamic = self._find("SHT_DYNAMIC")
        symbols = self._find("SHT_DYNSYM")
        if dynamic is None or symbols is None:
            raise BadLibrary("has no dynamic section, or no symbol table")
        tags = self._tags(dynamic)
        if any(tag == "DT_FLAGS_1" and value & _PIE for tag, value in tags):
            raise BadLibrary("is a program, not a shared library")
        names = self._strings(dynamic)
        demands, needed_versions = self._needed_versions()
        defined, undefined = self._symbols(symbols, needed_versions | self._own_versions())
        return Library(
            name=name,
            machine=str(elf.header.e_machine).removeprefix("EM_").lower(),
            bits=elf.elfclass,
            soname=next((names.at(value) for tag, value in tags if tag == "DT_SONAME"), ""),
            needed=tuple(names.at(value) for tag, value in tags if tag == "DT_NEEDED"),
            versions=demands,
            defined=defined,
            undefined=undefined,
            gpu=self._gpu(),
        )

    def _section_headers(self) -> list[Any]:
        header = self._elf.header
        count = self._elf.num_sections()
        size = self._elf.structs.Elf_Shdr.sizeof()
        if count == 0:
            raise BadLibrary("has no section headers")
        if count > _MOST_SECTIONS or header.e_shentsize < size:
            raise BadLibrary("is damaged: its table of sections cannot be right")
        if header.e_shoff + count * header.e_shentsize > self._size:
            raise BadLibrary("is cut off: its table of sections lies behind its end")
        offsets = (header.e_shoff + index * header.e_shentsize for index in range(count))
        return [self._parse(self._elf.structs.Elf_Shdr, self._stream, offset) for offset in offsets]

    def _find(self, kind: str) -> Any:
        return next((section for section in self._sections if section.sh_type == kind), None)

    def _bytes(self, section: Any, most: int) -> bytes:
        """The section's own bytes, which are never compressed in what a loader reads."""
        if section.sh_offset + section.sh_size > self._size:
            raise BadLibrary("is cut off: a section lies behind its end")
        if section.sh_size > most:
            raise BadLibrary("is damaged: a table is larger than any library's")
        self._stream.seek(section.sh_offset)
        return self._stream.read(section.sh_size)

    def _strings(self, section: Any) -> _Strings:
        """The names that a section's numbers point to."""
        if not 0 < section.sh_link < len(self._sections):
            raise BadLibrary("is damaged: a table has no names")
        return _Strings(self._bytes(self._sections[section.sh_link], _MOST_NAMES))

    def _tags(self, section: Any) -> list[tuple[Any, int]]:
        layout = self._elf.structs.Elf_Dyn
        tags: list[tuple[Any, int]] = []
        for offset in range(0, min(section.sh_size, self._size) - layout.sizeof() + 1, layout.sizeof()):
            entry = self._parse(layout, self._stream, section.sh_offset + offset)
            if entry.d_tag == "DT_NULL" or len(tags) == _MOST_SECTIONS:
                break
            tags.append((entry.d_tag, entry.d_val))
        return tags

    def _chain(self, kind: str, layout: Any, following: str) -> tuple[list[tuple[int, Any]], Any]:
        """(offset in the file, entry) of each entry of a section of versions, and that section."""
        section = self._find(kind)
        found: list[tuple[int, Any]] = []
        if section is None:
            return found, None
        offset, end = section.sh_offset, min(section.sh_offset + section.sh_size, self._size)
        while offset + layout.sizeof() <= end and len(found) < _MOST_SECTIONS:
            entry = self._parse(layout, self._stream, offset)
            found.append((offset, entry))
            if entry[following] == 0:
                break
            offset += entry[following]
        return found, section

    def _needed_versions(self) -> tuple[tuple[Demand, ...], dict[int, tuple[str, str]]]:
        """What is demanded, and the (version, library) that a symbol's number stands for."""
        structs = self._elf.structs
        needs, section = self._chain("SHT_GNU_verneed", structs.Elf_Verneed, "vn_next")
        demands: list[Demand] = []
        numbers: dict[int, tuple[str, str]] = {}
        if section is None:
            return (), numbers
        names = self._strings(section)
        for start, need in needs:
            library = names.at(need.vn_file)
            offset = start + need.vn_aux
            for _ in range(need.vn_cnt):
                if len(demands) == _MOST_SECTIONS:
                    raise BadLibrary("is damaged: it needs more versions than there are")
                version = self._parse(structs.Elf_Vernaux, self._stream, offset)
                name = names.at(version.vna_name)
                demands.append(Demand(library, name, bool(version.vna_flags & _WEAK_VERSION)))
                numbers[version.vna_other & _HIDDEN] = (name, library)
                if version.vna_next == 0:
                    break
                offset += version.vna_next
        return tuple(demands), numbers

    def _own_versions(self) -> dict[int, tuple[str, str]]:
        structs = self._elf.structs
        versions, section = self._chain("SHT_GNU_verdef", structs.Elf_Verdef, "vd_next")
        if section is None:
            return {}
        names = self._strings(section)
        numbers: dict[int, tuple[str, str]] = {}
        for start, version in versions:
            if version.vd_ndx & _HIDDEN > 1:  # the first is the library's own name
                named = self._parse(structs.Elf_Verdaux, self._stream, start + version.vd_aux)
                numbers[version.vd_ndx & _HIDDEN] = (names.at(named.vda_name), "")
        return numbers

    def _symbols(self, section: Any, versions: dict[int, tuple[str, str]]) -> tuple[tuple[Symbol, ...], ...]:
        """Those that others may use, and those that others must have."""
        # st_name, st_info, st_other, st_shndx of Elf64_Sym and Elf32_Sym; pyelftools takes 60 µs for each.
        layout = struct.Struct(self._order + ("IBBH16x" if self._elf.elfclass == 64 else "I8xBBH"))
        data = self._bytes(section, _MOST_SYMBOLS * layout.size)
        names = self._strings(section)
        versym = self._find("SHT_GNU_versym")
        numbers = self._bytes(versym, _MOST_SYMBOLS * 2) if versym is not None else b""
        number_of_symbol = struct.unpack_from(f"{self._order}{len(numbers) // 2}H", numbers)
        defined: list[Symbol] = []
        undefined: list[Symbol] = []
        symbols = layout.iter_unpack(data[: len(data) - len(data) % layout.size])
        for index, (name, info, other, where) in enumerate(symbols):
            binding, hidden = info >> 4, other & 3 in _INVISIBLE
            if name == 0 or binding == _LOCAL or (where and hidden):
                continue
            number = number_of_symbol[index] & _HIDDEN if index < len(number_of_symbol) else 0
            version, library = versions.get(number, ("", ""))
            symbol = Symbol(names.at(name), version, library, binding == _WEAK)
            (defined if where else undefined).append(symbol)
        return tuple(defined), tuple(undefined)

    def _gpu(self) -> tuple[fatbin.Container, ...]:
        index = self._elf.get_shstrndx()
        if not 0 < index < len(self._sections):
            return ()
        names = _Strings(self._bytes(self._sections[index], _MOST_NAMES))
        for section in self._sections:
            if section.sh_type == "SHT_PROGBITS" and names.at(section.sh_name) == fatbin.SECTION:
                if section.sh_offset + section.sh_size > self._size:
                    raise BadLibrary("is cut off: its GPU code lies behind its end")
                try:
                    return fatbin.read(self._stream, section.sh_offset, section.sh_size)
                except ValueError as error:
                    raise BadLibrary(f"is damaged: {error}") from None
        return ()


class _Strings:
    """A table of names, each of which ends with a zero; many may share an end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        # Names may share their ends, but hostile ones could all be the whole table.
        self._left = 16 * len(data) + 1_000_000

    def at(self, offset: int) -> str:
        end = self._data.find(b"\0", offset) if offset < len(self._data) else -1
        if end < 0:
            raise BadLibrary("is damaged: a name lies outside its table")
        self._left -= end - offset + 1
        if self._left < 0:
            raise BadLibrary("is damaged: its names are longer than their table")
        return self._data[offset:end].decode("utf-8", "backslashreplace")


def _what_else(magic: bytes, stream: BinaryIO) -> str:
    """What a file is that often lies where a library should."""
    if (magic + stream.read(40)).startswith(b"version https://git-lfs.github.com/"):
        return " but a pointer of Git LFS"
    if magic.startswith(b"INPU") or magic.startswith(b"GROU") or magic.startswith(b"/* G"):
        return " but a script of the linker"
    if magic == b"!<ar":
        return " but a static library"
    if magic.startswith(b"MZ"):
        return " but a library of Windows"
    if magic in (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"):
        return " but a library of macOS"
    return ""
