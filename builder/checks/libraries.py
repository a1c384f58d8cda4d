"""Libraries, held against the system that will load them.

NVIDIA's backend says one line when a library does not load, skips those after it, and goes on.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from pathlib import Path

from builder import cmake, elf, fatbin, process
from builder.artifacts import Operator, Parts
from builder.elf import Library, number_of
from builder.findings import Finding, Place, errors
from builder.project import MODELS, Project, Target

_STAGE = Path(__file__).parents[1] / "stages" / "facts.py"
_PLATFORMS = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
# The versions of DALI's symbols carry DALI's own; its bundled libraries have families such as DALI_LIBAVUTIL too.
_DALI = ("DALI", "DALI_CORE", "DALI_KERNELS", "DALI_OPERATORS")
_SYSTEM = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+|util)\.so.*)")
_MOST_LINES = 8
# Debian 12 under the embedded base: libc6 2.36, and libstdc++6 of GCC 12.
_DEBIAN = ("2.36", "3.4.30")

_DALI_VERSION = re.compile(r"^__version__ = ['\"]([^'\"]+)['\"]", re.MULTILINE)
_UNDEFINED = re.compile(r"undefined symbol: (\w+)")
_TAKEN = re.compile(r'Operator "(\w+)" already registered')
# What only this machine lacks: the image has libraries of its own, and their versions are judged from the file.
_ONLY_HERE = re.compile(
    r"^(ImportError|ModuleNotFoundError): |cannot open shared object file|wrong ELF"
    r"|version `(GLIBC|GLIBCXX|CXXABI|GCC|DALI)\w*_[\d.]+' not found"
)


@dataclass(frozen=True)
class Runtime:
    """What an image has for the libraries that it loads. None is not known before the image's base is."""

    dali: str | None
    glibc: str | None = None
    """Such as 2.36."""
    glibcxx: str | None = None
    """Such as 3.4.30."""
    machine: str = "x86_64"


def check(project: Project, targets: Mapping[str, Target], parts: Mapping[str, Parts | None]) -> Iterator[Finding]:
    """Everything that is wrong with the libraries of some targets; `parts` is what their last builds recorded."""
    for name, target in targets.items():
        yield from _check_target(project, name, target, parts.get(name))


def runtime_of(target: Target, parts: Parts | None) -> Runtime:
    """What the target's image has, as far as builder.toml and the last build tell."""
    machine = _PLATFORMS[target.platform]
    if parts is None and target.is_embedded:
        return Runtime(target.dali_version, *_DEBIAN, machine=machine)
    if parts is None:
        return Runtime(target.dali_version, machine=machine)
    return Runtime(parts.dali_version, parts.glibc, parts.glibcxx, machine)


def files(project: Project, target: str, parts: Parts | None) -> dict[str, Path]:
    """The libraries that are there to be read, by their path in the image.

    Those that came with the models, and those of the last build where it is still `current`.
    """
    found: dict[str, Path] = {}
    if parts is not None:
        built = project.state / target / "parts" / "models"
        found |= {f"{MODELS}/{file.name}": file for file in sorted(built.glob("*.so"))}
    given = {f"{MODELS}/{file.name}": file for file in sorted(project.repository_folder.glob("*.so"))}
    return dict(sorted((found | given).items()))


def known_operators(
    project: Project, name: str, target: Target, parts: Parts | None
) -> dict[str, tuple[Operator, ...] | None]:
    """What each library of the image registers, by its path, as far as sources and the last build tell; else None."""
    declared = cmake.libraries(project.plugin_folder) or ()
    found = cmake.operators(project.plugin_folder, declared, cuda=target.cuda != "OFF")
    recorded = {plugin.path: plugin for plugin in parts.plugins} if parts else {}
    for path, file in files(project, name, parts).items():
        record = recorded.get(path)
        if record and record.sha256 == sha256(file.read_bytes()).hexdigest():
            found[path] = record.operators
        else:
            found.setdefault(path, None)
    return found


def _check_target(project: Project, name: str, target: Target, parts: Parts | None) -> Iterator[Finding]:
    runtime = runtime_of(target, parts)
    dali = dali_folder(runtime.dali) if runtime.machine == platform.machine() else None
    libraries = list(_readable(dali.glob("libdali*.so"))) if dali else []
    operators = known_operators(project, name, target, parts)
    places = {
        each.path: Place.within(project.root, each.file, each.line)
        for each in cmake.libraries(project.plugin_folder) or ()
    }
    linked: set[str] = set()
    for path, file in files(project, name, parts).items():
        place = Place.within(project.root, file)
        places.setdefault(path, place)
        try:
            library = elf.read(file)
        except elf.BadLibrary as error:
            yield _not_elf(file.name, error, place, name)
            continue
        found = list(check_library(library, place, runtime, target.cuda_architectures, name))
        found += check_undefined(library, libraries, place, name)
        yield from found
        if operators[path] is None and not errors(found) and dali:
            operators[path], problem = check_loading(file, place, name)
            yield from problem
        libraries.append(library)
        linked.update(library.needed)
    loaded = [path for path in operators if not project.listed or path in project.listed]
    # A library that others are linked to need not have operators of its own.
    known = {path: operators[path] for path in loaded if operators[path] or Path(path).name not in linked}
    yield from check_operators(known, places, name)


def check_library(
    library: Library, place: Place, runtime: Runtime, architectures: Sequence[str], target: str
) -> Iterator[Finding]:
    """What in a library does not fit the target.

    Args:
        place: the library's file.
        architectures: the GPUs of the target as CMake names them, such as 90-real; empty for any.
    """
    name = library.name
    if (library.machine, library.bits) != (runtime.machine, 64):
        yield Finding(
            "library-wrong-machine",
            f"{name} is for {library.machine} ({library.bits} bit), and the image for {runtime.machine}",
            place,
            f"compile it for {runtime.machine}, or set the target's platform in builder.toml",
            target=target,
        )
        return
    yield from _abi(library, place, runtime, target)
    yield from _gpu(library, place, architectures, target)


def _abi(library: Library, place: Place, runtime: Runtime, target: str) -> Iterator[Finding]:
    name, demands = library.name, library.demands
    foreign = sorted({demands[family] for family in _DALI if family in demands} - {runtime.dali})
    if runtime.dali and foreign:
        yield Finding(
            "library-abi-dali",
            f"{name} was compiled against DALI {' and '.join(foreign)}, and the image has {runtime.dali}",
            place,
            f"compile it against DALI {runtime.dali}: sources in plugin/ are, by every build",
            _lines(library, _DALI),
            target=target,
        )
    for code, family, has, what in (
        ("library-abi-glibc", "GLIBC", runtime.glibc, "C library"),
        ("library-abi-glibcxx", "GLIBCXX", runtime.glibcxx, "libstdc++"),
    ):
        if has and number_of(demands.get(family, "")) > number_of(has):
            yield Finding(
                code,
                f"{name} needs {family}_{demands[family]}, and the image's {what} ends at {family}_{has}",
                place,
                "compile it on the image's base: sources in plugin/ are, by every build; or choose a newer base",
                _lines(library, (family,), has),
                target=target,
            )


def _lines(library: Library, families: Sequence[str], above: str = "") -> tuple[str, ...]:
    """The demands of some families, as readelf would list them."""
    found = []
    for demand in library.versions:
        family, _, number = demand.version.rpartition("_")
        numeric = number.replace(".", "").isdecimal() and len(number) < 40
        if family in families and numeric and number_of(number) > number_of(above):
            found.append(f"needs {demand.version} of {demand.library}")
    return tuple(sorted(found)[:_MOST_LINES])


def _gpu(library: Library, place: Place, architectures: Sequence[str], target: str) -> Iterator[Finding]:
    if not library.gpu:
        return  # operators for the CPU alone
    fits: dict[str, list[str]] = {"no": [], "partly": [], "jit": [], "native": []}
    for architecture in architectures:
        gpu = fatbin.wanted(architecture)
        if gpu is not None:
            sm, only_ptx = gpu
            fit: str = fatbin.runs_everywhere(library.gpu, sm)
            if fit == "no" and fatbin.runs_on(library.architectures, sm) != "no":
                fit = "partly"
            fits["native" if fit == "jit" and only_ptx else fit].append(f"{sm // 10}.{sm % 10}")
    detail = [f"it has {' '.join(library.architectures)}"]
    if len(set(library.gpu)) > 1:
        each = sorted({" ".join(container) for container in library.gpu})
        detail += [f"a source has only {names}" for names in each[:_MOST_LINES]]
    if fits["no"]:
        yield Finding(
            "library-gpu-architecture-missing",
            f"{library.name} has no code for GPUs of compute capability {_listed(fits['no'])}",
            place,
            "compile it for all of the target's cuda_architectures, or take those away that are not served",
            tuple(detail),
            target=target,
        )
    if fits["partly"]:
        yield Finding(
            "library-gpu-architecture-partial",
            f"a part of {library.name} has no code for GPUs of compute capability {_listed(fits['partly'])}",
            place,
            "compile all of its sources for all of the target's cuda_architectures, unless this is meant",
            tuple(detail),
            target=target,
        )
    if fits["jit"]:
        yield Finding(
            "library-gpu-jit",
            f"{library.name} has only PTX for GPUs of compute capability {_listed(fits['jit'])}",
            place,
            "compile it for them as well, unless the first start may take longer",
            tuple(detail),
            target=target,
        )


def check_undefined(library: Library, providers: Iterable[Library], place: Place, target: str) -> Iterator[Finding]:
    """The symbols that a library needs and that none of the `providers` has, among those that they should have."""
    known = list(providers)
    if not known:
        return
    named = {name: each for each in known for name in (each.name, each.soname) if name}
    versions = {name: {symbol.version for symbol in each.defined} for name, each in named.items()}
    versioned = {name: {(symbol.name, symbol.version) for symbol in each.defined} for name, each in named.items()}
    plain = {symbol.name for each in known for symbol in each.defined}
    # Without a version nobody says whose a symbol is. One of the namespace dali is DALI's, or of a library that is
    # not known.
    complete = any(name.startswith("libdali") for name in named) and all(
        needed in named or _SYSTEM.fullmatch(needed) for needed in library.needed
    )
    missing = []
    for symbol in library.undefined:
        if symbol.library in versioned:
            # A version that is not there at all is another finding.
            lacks = symbol.version in versions[symbol.library]
            lacks = lacks and (symbol.name, symbol.version) not in versioned[symbol.library]
        else:
            lacks = not symbol.version and complete and "4dali" in symbol.name and symbol.name not in plain
        if lacks and not symbol.weak:
            missing.append(symbol.name)
    if missing:
        yield _undefined(library.name, sorted(missing), place, target)


def check_loading(file: Path, place: Place, target: str) -> tuple[tuple[Operator, ...] | None, list[Finding]]:
    """Loads a library into a process of its own, with this Python's DALI, as the server would.

    Returns the operators that it registers, or None and why it does not load. What this machine alone lacks is no
    finding.
    """
    # -P: nothing of the current folder is imported.
    done = process.run([sys.executable, "-P", str(_STAGE), "--load", str(file.resolve())])
    said = [line.removeprefix("facts: error: ").removeprefix(f"{file.resolve()}: ") for line in done.stderr]
    if done.returncode == 0:
        told = json.loads(done.stdout)
        if not told["failed"]:
            added = told["operators"][str(file.resolve())]
            return tuple(Operator(name=each, devices=tuple(on)) for each, on in sorted(added.items())), []
        message = said[-1] if said else "no reason given"
    else:
        how = f"exit status {done.returncode}"
        if done.returncode < 0:
            how = signal.Signals(-done.returncode).name
        reason = next((line.strip() for line in said if "what():" in line), said[-1].strip() if said else "")
        message = f"the process that loaded it ended with {how}" + (f": {reason}" if reason else "")
    if any(_ONLY_HERE.search(line) for line in (message, *said[-1:])):
        return None, []
    if symbol := _UNDEFINED.search(message):
        return None, [_undefined(file.name, [symbol[1]], place, target)]
    if taken := _TAKEN.search(message):
        what = f"{file.name} registers the operator {taken[1]}, which DALI has already"
        return None, [Finding("operator-duplicate", what, place, "give it another name", (message,), target=target)]
    return None, [
        Finding(
            "library-unloadable",
            f"{file.name} does not load",
            place,
            "mend what the message names; static initializers run as the library is loaded",
            (message,),
            target=target,
        )
    ]


def check_operators(
    operators: Mapping[str, Sequence[Operator] | None], places: Mapping[str, Place], target: str
) -> Iterator[Finding]:
    """Libraries without operators, and operators of two libraries.

    Args:
        operators: of each library that the server loads, by its path in the image; None where they are not known.
        places: where each library comes from.
    """
    for path, registered in operators.items():
        if registered is not None and not registered:
            yield Finding(
                "library-no-operators",
                f"{Path(path).name} registers no operator",
                places[path],
                "add DALI_REGISTER_OPERATOR to its sources (where cuda is OFF, GPU_SOURCES and .cu files are none), "
                "or take it from the list of plugins",
                target=target,
            )
    for one, other in combinations(operators, 2):
        first = {each.name: set(each.devices) for each in operators[one] or ()}
        for each in operators[other] or ():
            devices = sorted(first.get(each.name, set()) & set(each.devices))
            if devices:
                yield Finding(
                    "operator-duplicate",
                    f"{Path(one).name} and {Path(other).name} both register the operator {each.name} "
                    f"for {_listed([device.upper() for device in devices])}",
                    places[other],
                    f"give one of them another name, or list only one of the libraries; the other is {places[one]}",
                    target=target,
                )


def dali_folder(version: str | None) -> Path | None:
    """The folder of this Python's nvidia.dali, if it is exactly of that version. It is not imported."""
    spec = importlib.util.find_spec("nvidia") if version else None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        package = Path(folder) / "dali"
        try:
            found = _DALI_VERSION.search((package / "__init__.py").read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        return package if found and found[1] == version else None
    return None


def _readable(paths: Iterable[Path]) -> Iterator[Library]:
    for path in sorted(paths):
        try:
            yield elf.read(path)
        except elf.BadLibrary:
            continue  # DALI's own: whoever imports it will be told


def _not_elf(name: str, error: elf.BadLibrary, place: Place, target: str) -> Finding:
    return Finding(
        "library-not-elf",
        f"{name} {error}",
        place,
        "put the compiled library there, or compile it in plugin/",
        target=target,
    )


def _undefined(name: str, symbols: Sequence[str], place: Place, target: str) -> Finding:
    more = f" (and {len(symbols) - 1} more)" if len(symbols) > 1 else ""
    return Finding(
        "library-undefined-symbol",
        f"{name} needs the symbol {symbols[0]}, which nothing in the image has{more}",
        place,
        "compile what defines it into the library, or link the library that has it; c++filt shows the name in C++",
        tuple(symbols[:_MOST_LINES]),
        target=target,
    )


def _listed(words: Sequence[str]) -> str:
    return " and ".join(", ".join(words).rsplit(", ", 1))
