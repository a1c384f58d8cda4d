"""The plugin libraries that CMake would make, and the operators in their sources, told without running it.

CMake and C++ are languages: what cannot be told by reading is None here, and is known after a build.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.artifacts import Operator

FILE_NAME = "CMakeLists.txt"

_PLUGIN = "add_dali_plugin"
_LIBRARY = "add_library"
_NOT_LOADED = {"STATIC", "OBJECT", "INTERFACE", "IMPORTED", "ALIAS"}
_SUBDIRECTORY = "add_subdirectory"
_MAKERS = {_PLUGIN, _LIBRARY, _SUBDIRECTORY, "include"}
_HERE = ("CMAKE_CURRENT_SOURCE_DIR", "CMAKE_CURRENT_LIST_DIR")
_TOP = ("CMAKE_SOURCE_DIR", "PROJECT_SOURCE_DIR")
# A library is libNAME.so only where nobody says otherwise.
_RENAMES = re.compile(r"(CMAKE_SHARED_MODULE_|CMAKE_SHARED_LIBRARY_|LIBRARY_)?(OUTPUT_NAME(_\w+)?|PREFIX|SUFFIX)")
# Commands that leave no file in a source folder. Of others, and of functions of CMake's modules, nobody knows.
_HARMLESS = """
add_compile_definitions add_compile_options add_dali_plugin add_definitions add_dependencies add_library
add_link_options add_subdirectory add_test block break check_language cmake_minimum_required cmake_parse_arguments
cmake_path cmake_policy continue else elseif enable_language enable_testing endblock endforeach endfunction endif
endmacro endwhile find_file find_library find_package find_path find_program foreach function get_cmake_property
get_directory_property get_filename_component get_property get_source_file_property get_target_property if include
include_directories include_guard install link_directories link_libraries list macro mark_as_advanced math message
option project return separate_arguments set set_directory_properties set_property set_source_files_properties
set_target_properties source_group string target_compile_definitions target_compile_features target_compile_options
target_include_directories target_link_directories target_link_libraries target_link_options target_sources unset
while
"""
_READS = {"GLOB", "GLOB_RECURSE", "READ", "RELATIVE_PATH", "SIZE", "STRINGS", "TO_CMAKE_PATH", "TO_NATIVE_PATH"}
"""What file() may do and is harmless still."""
_DEEPEST = 50  # folders; a loop of includes ends here

_REGISTER = "DALI_REGISTER_OPERATOR"
_REGISTRATION = re.compile(
    r"\bDALI_REGISTER_OPERATOR\s*\(\s*(\w+)\s*,.*?,\s*(?:::)?(?:dali::)?(\w+)\s*\)\s*;?", re.DOTALL
)
_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|//(?:\\\n|[^\n])*|/\*.*?\*/', re.DOTALL)
_CONTINUED = re.compile(r"\\[ \t]*\n")
_DIRECTIVE = re.compile(r"[ \t]*#[ \t]*(\w+)[^\n]*")
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)
_DEVICES = ("cpu", "gpu", "mixed")
_CUDA = ".cu"


@dataclass(frozen=True)
class Declared:
    """A library that plugin/ makes."""

    name: str
    path: str
    """Where the image will have it."""
    sources: tuple[Path, ...] | None
    """None where they cannot be told."""
    line: int
    file: Path
    """The CMake file that declares it."""
    written: tuple[Path, ...] = ()
    """The sources that are written out, beside others that are not."""
    gpu_sources: frozenset[Path] = frozenset()
    """Those of them that are sources by GPU_SOURCES alone."""

    def compiles(self, source: Path, *, cuda: bool) -> bool:
        """Whether `add_dali_plugin` takes the source: without `cuda` it leaves out GPU_SOURCES and `.cu` files."""
        return cuda or (source.suffix != _CUDA and source not in self.gpu_sources)


class _Unknown(Exception):
    """Only running CMake would tell."""


def libraries(plugin_folder: Path) -> tuple[Declared, ...] | None:
    """The libraries of plugin/CMakeLists.txt in its order, or None where only running CMake would tell."""
    if not (plugin_folder / FILE_NAME).is_file():
        return ()
    try:
        return tuple(_Reading(plugin_folder).file(plugin_folder / FILE_NAME, plugin_folder, 0))
    except _Unknown:
        return None


def may_make_sources(plugin_folder: Path) -> bool:
    """Whether sources may come to be while CMake or the build runs; yes where that cannot be told."""
    from cmake_parser import CMakeParseError, parse_raw

    harmless, defined = set(_HARMLESS.split()), set[str]()
    called: dict[str, bool] = {}
    for path in sorted({*plugin_folder.rglob(FILE_NAME), *plugin_folder.rglob("*.cmake")}):
        try:
            commands = list(parse_raw(path.read_text(encoding="utf-8"), skip_comments=True))
        except (OSError, UnicodeDecodeError, CMakeParseError, RecursionError):
            return True
        for command in commands:
            name, words = command.identifier.lower(), [token.value for token in command.args]
            if name in ("function", "macro"):
                defined.update(word.lower() for word in words[:1])
            reads = name == "file" and bool(words) and words[0] in _READS
            called[name] = called.get(name, True) and (name in harmless or reads) and "GENERATED" not in words
    return any(not known for name, known in called.items() if name not in defined)


def operators(
    plugin_folder: Path, declared: Sequence[Declared], *, cuda: bool = True
) -> dict[str, tuple[Operator, ...] | None]:
    """The operators that each library registers, by its path in the image, or None where that cannot be told.

    Without `cuda` the sources of GPU operators are left out, as `add_dali_plugin` does.
    """
    hidden = _hides_registrations(plugin_folder)
    return {each.path: None if hidden else _registered(each, cuda) for each in declared}


class _Reading:
    """One walk over the files of a CMake tree."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._makers = set(_MAKERS)

    def file(self, path: Path, folder: Path, depth: int) -> Iterator[Declared]:
        """The libraries of a file whose relative paths start from `folder`."""
        from cmake_parser import CMakeParseError, parse_tree

        if depth > _DEEPEST:
            raise _Unknown
        try:
            nodes = list(parse_tree(path.read_text(encoding="utf-8"), skip_comments=True))
        except (OSError, UnicodeDecodeError, CMakeParseError, RecursionError):
            raise _Unknown from None
        for node in nodes:
            yield from self._node(node, path, folder, depth)

    def _node(self, node: Any, path: Path, folder: Path, depth: int) -> Iterator[Declared]:
        from cmake_parser import ast

        if isinstance(node, ast.Function | ast.Macro):
            # What it makes is known by its calls; that of add_dali_plugin itself is known.
            name = node.args[0].value.lower() if node.args else ""
            if name != _PLUGIN and self._makes(node.body):
                self._makers.add(name)
        elif isinstance(node, ast.If):
            if self._makes([*node.if_true, *(node.if_false or [])]):
                raise _Unknown
        elif isinstance(node, ast.ForEach | ast.While | ast.Block):
            if self._makes(node.body):
                raise _Unknown
        elif isinstance(node, ast.Include):
            yield from self._include(node.args, folder, path, depth)
        elif isinstance(node, ast.Set):
            _keeps_names(node.args)
        elif isinstance(node, ast.Return):
            raise _Unknown
        elif isinstance(node, ast.Command):
            yield from self._command(node, path, folder, depth)

    def _command(self, node: Any, path: Path, folder: Path, depth: int) -> Iterator[Declared]:
        command = node.identifier.lower()
        words = [token.value for token in node.args]
        if command == _PLUGIN:
            yield self._declared(words, node.line, path, folder)
        elif command == _SUBDIRECTORY:
            inner = self._path(words[0] if words else "", folder, path)
            if inner is None or not (inner / FILE_NAME).is_file():
                raise _Unknown
            yield from self.file(inner / FILE_NAME, inner, depth + 1)
        elif command == _LIBRARY:
            if not _NOT_LOADED & set(words):
                raise _Unknown  # is it installed, and under which name?
        elif command in self._makers:
            raise _Unknown
        elif command == "install":
            if words[:1] != ["TARGETS"]:
                raise _Unknown  # may be a library that was made elsewhere
        elif command in ("set_target_properties", "set_property"):
            _keeps_names(node.args)

    def _declared(self, words: list[str], line: int, path: Path, folder: Path) -> Declared:
        if not words or _is_computed(words[0]):
            raise _Unknown
        name, *rest = words
        if rest[:1] not in (["SOURCES"], ["GPU_SOURCES"]):
            return Declared(name, f"/models/lib{name}.so", None, line, path)
        found: dict[str, list[Path | None]] = {"SOURCES": [], "GPU_SOURCES": []}
        under = ""
        for word in rest:
            if word in found:
                under = word
            else:
                found[under].append(self._path(word, folder, path))
        # In CMake's order, whatever theirs is here.
        every = [*found["SOURCES"], *found["GPU_SOURCES"]]
        known = tuple(each for each in every if each is not None)
        sources = known if len(known) == len(every) else None
        return Declared(
            name, f"/models/lib{name}.so", sources, line, path, known, frozenset(known).difference(found["SOURCES"])
        )

    def _include(self, arguments: Sequence[Any], folder: Path, path: Path, depth: int) -> Iterator[Declared]:
        included = self._path(arguments[0].value if arguments else "", folder, path)
        if included is None:
            raise _Unknown
        if included.is_file():  # otherwise a module of CMake's, which makes no library
            yield from self.file(included, folder, depth + 1)

    def _path(self, word: str, folder: Path, path: Path) -> Path | None:
        for variables, where in ((_HERE[:1], folder), (_HERE[1:], path.parent), (_TOP, self._top)):
            for variable in variables:
                word = word.replace(f"${{{variable}}}", str(where))
        # A semicolon parts several.
        return None if not word or _is_computed(word) or ";" in word else folder / word

    def _makes(self, nodes: Sequence[Any]) -> bool:
        """Whether a library comes from these commands, or from those inside them."""
        from cmake_parser import ast

        for node in nodes:
            if isinstance(node, ast.Include):
                if not node.args or _is_computed(node.args[0].value) or (self._top / node.args[0].value).is_file():
                    return True
            elif isinstance(node, ast.If):
                if self._makes([*node.if_true, *(node.if_false or [])]):
                    return True
            elif isinstance(node, ast.Function | ast.Macro | ast.ForEach | ast.While | ast.Block):
                if self._makes(node.body):
                    return True
            elif isinstance(node, ast.Command):
                words = {token.value for token in node.args}
                if node.identifier.lower() in self._makers and not _NOT_LOADED & words:
                    return True
        return False


def _keeps_names(arguments: Sequence[Any]) -> None:
    if any(_RENAMES.fullmatch(token.value) for token in arguments):
        raise _Unknown


def _is_computed(word: str) -> bool:
    return "$" in word or "@" in word


def _hides_registrations(plugin_folder: Path) -> bool:
    """Whether a macro, or a header, registers operators: its name alone would not tell how often."""
    for path in sorted(plugin_folder.rglob("*")):
        if path.suffix in (".h", ".hh", ".hpp", ".hxx", ".cuh", ".inc", ".inl", ".cc", ".cpp", ".cxx", _CUDA):
            text = _code(path)
            if text is None:
                return True
            if _REGISTER not in text:
                continue
            lines = [line for line in text.splitlines() if _REGISTER in line]
            is_header = path.suffix not in (".cc", ".cpp", ".cxx", _CUDA)
            if is_header or any(_DIRECTIVE.match(line) for line in lines):
                return True
    return False


def _registered(library: Declared, cuda: bool) -> tuple[Operator, ...] | None:
    if library.sources is None:
        return None
    devices: dict[str, set[str]] = {}
    for source in library.sources:
        if not library.compiles(source, cuda=cuda):
            continue
        text = _code(source)
        if text is None or _is_conditional(text) or _includes_sources(text):
            return None
        found = _REGISTRATION.findall(text)
        if len(found) != len(re.findall(rf"\b{_REGISTER}\b", text)):
            return None
        for name, device in found:
            if device.lower() not in _DEVICES:
                return None
            devices.setdefault(name, set()).add(device.lower())
    return tuple(
        Operator(name=name, devices=tuple(device for device in _DEVICES if device in on))
        for name, on in sorted(devices.items())
    )


def _code(path: Path) -> str | None:
    """A source without its comments, lines that go on made one; None where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    text = _COMMENT.sub(lambda match: " " if match[0].startswith("/") else match[0], text)
    return _CONTINUED.sub(" ", text)


def _is_conditional(text: str) -> bool:
    """Whether a registration lies between #if and #endif."""
    depth = 0
    for line in text.splitlines():
        directive = _DIRECTIVE.match(line)
        if directive and directive[1] in ("if", "ifdef", "ifndef"):
            depth += 1
        elif directive and directive[1] == "endif":
            depth -= 1
        elif depth and _REGISTER in line:
            return True
    return False


def _includes_sources(text: str) -> bool:
    return any(Path(name).suffix in (".cc", ".cpp", ".cxx", _CUDA) for name in _INCLUDE.findall(text))
