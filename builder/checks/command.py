"""Rules on the list of plugins that the server is told to load."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from builder import cmake, package
from builder.errors import did_you_mean
from builder.findings import Finding, Place
from builder.project import MODELS, Project

_NAMED = re.compile(rf"{MODELS}/lib(.+)\.so")
_STAGE = re.compile(r"^\s*FROM\s+.*\s+AS\s+(\S+)\s*$", re.MULTILINE | re.IGNORECASE)
_STAGES = ("artifacts", "runtime")
"""What a build asks of a Dockerfile."""
_SERVED_ON = re.compile(r"^\s*FROM\s+\$\{SERVED_ON\}\s+AS\s+runtime\s*$", re.MULTILINE | re.IGNORECASE)
"""How `runtime` must begin: otherwise the base's layers are in the image twice, its own and those that it is put on."""
_LISTED = re.compile(r"--backend-config(?:=|\"\s*,\s*\")dali,plugin_libs=([^\"\s]*)")


def expected(project: Project) -> tuple[str, ...] | None:
    """The libraries that the image will have, as paths in it: those that plugin/ makes and those that are in
    model_repository/ as they are. None where that cannot be told before they are built."""
    declared = cmake.libraries(project.plugin_folder)
    if declared is None or _lacks_build_file(project):
        return None
    built_before = (f"{MODELS}/{path.name}" for path in project.repository_folder.glob("*.so"))
    return tuple(sorted({*(library.path for library in declared), *built_before}))


def check_list(project: Project, present: Sequence[str] | None, used: Collection[str] | None) -> Iterator[Finding]:
    """
    Args:
        present: the libraries that the image will have; None where that is not known.
        used: those of them that register an operator of some pipeline; None where that is not known.
    """
    if _lacks_build_file(project):
        yield Finding(
            "plugin-sources-missing",
            "plugin/ has no CMakeLists.txt, so nothing is compiled",
            Place("plugin"),
            "add one with a line add_dali_plugin(NAME SOURCES ...) for each library, or remove the folder",
        )
    listed = project.listed or present or ()
    for name, path in zip(project.plugins, project.listed, strict=True):
        if present is not None and path not in present:
            known = [found[1] for each in present if (found := _NAMED.fullmatch(each))]
            yield Finding(
                "plugin-sources-missing",
                f"nothing makes {path}{did_you_mean(name, known)}",
                project.place("plugins"),
                f"the image will have {', '.join(known) or 'no plugin'}; mend the name, or add it to "
                "plugin/CMakeLists.txt",
            )
    made = {library.path: library for library in cmake.libraries(project.plugin_folder) or ()}
    for file in project.repository_folder.glob("*.so"):
        if library := made.get(f"{MODELS}/{file.name}"):
            yield Finding(
                "plugin-shadowed",
                f"model_repository/{file.name} takes the place of the {file.name} that plugin/ makes",
                Place.within(project.root, library.file, library.line),
                f"remove model_repository/{file.name}, or give one of them another name",
            )
    for path in listed:
        if used is not None and path not in used and (present is None or path in present):
            yield Finding(
                "plugin-unused",
                f"no pipeline uses an operator of {path}",
                _declaration(project, path),
                "remove it, or list in builder.toml the plugins that the server shall load",
            )
    own = package.dockerfile(project.root)
    if own.parent == project.root:
        text = own.read_text(encoding="utf-8", errors="replace")
        told = present is not None and set(project.listed) <= set(present)
        yield from _check_dockerfile(text, listed if told else None)


def _lacks_build_file(project: Project) -> bool:
    folder = project.plugin_folder
    return folder.is_dir() and not (folder / cmake.FILE_NAME).is_file()


def _check_dockerfile(text: str, listed: Sequence[str] | None) -> Iterator[Finding]:
    stages = {match[1].lower() for match in _STAGE.finditer(text)}
    if lacking := [name for name in _STAGES if name not in stages]:
        yield Finding(
            "dockerfile-foreign",
            f"the Dockerfile has no stage {' and no stage '.join(lacking)}, so it is not this program's",
            Place("Dockerfile"),
            "move it away; `builder eject` writes one to own and change",
        )
        return
    if not _SERVED_ON.search(text):
        yield Finding(
            "dockerfile-foreign",
            "the Dockerfile's stage runtime does not begin with FROM ${SERVED_ON}, so that it cannot be put on a base",
            Place("Dockerfile"),
            "let it begin with that, and put ARG SERVED_ON=triton above the first FROM; or move it away and write one "
            "anew with `builder eject`",
        )
    if listed is None:
        return
    found = list(_LISTED.finditer(text))
    last = found[-1] if found else None
    written = [path for path in last[1].split(":") if path] if last else []
    if written != list(listed):
        yield Finding(
            "command-differs",
            f"the Dockerfile's CMD lists {':'.join(written) or 'no plugin'}, not {':'.join(listed) or 'none'}",
            Place("Dockerfile", text.count("\n", 0, last.start()) + 1 if last else 0),
            f"let it have --backend-config=dali,plugin_libs={':'.join(listed)}"
            if listed
            else "remove --backend-config=dali,plugin_libs= from it",
        )


def _declaration(project: Project, path: str) -> Place:
    declared = cmake.libraries(project.plugin_folder)
    for library in declared or ():
        if library.path == path:
            return Place.within(project.root, library.file, library.line)
    if project.plugins:
        return project.place("plugins")
    return Place(f"model_repository/{path.rsplit('/', 1)[-1]}")
