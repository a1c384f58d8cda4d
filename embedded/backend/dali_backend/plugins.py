"""Loads DALI plugins: the libraries that register custom operators."""

from __future__ import annotations

import os
import re
import resource
import signal
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from . import core
from .errors import BackendError

_MARK = b"\x00loading "  # on the trial's stderr: which library comes next


def load(libraries: Sequence[str]) -> str:
    """Loads the libraries, in order, up to the first that cannot be loaded, as NVIDIA's backend does.

    Returns:
        why that one could not be loaded, and what to do: models that do not use it serve all the same. Empty if all
        were loaded.

    Raises:
        BackendError: loading one ends the process; above all one that registers an operator that exists already.
    """
    if not libraries:
        return ""
    libraries = list(dict.fromkeys(libraries))
    load_library = core.load().LoadLibrary
    _try_apart(libraries, load_library)
    for library in libraries:
        try:
            load_library(library, False)
        except Exception as error:
            rest = libraries[libraries.index(library) + 1 :]
            return _explain(library, str(error), core.version()) + (
                f" (skipped after it: {', '.join(rest)})" if rest else ""
            )
    return ""


def _try_apart(libraries: Sequence[str], load_library: Callable[[str, bool], None]) -> None:
    """Loads the libraries in a forked process first: a C++ error in a library's static constructors (an operator
    registered twice, above all) ends the process without a word that Triton could pass on.

    Errors that come as Python exceptions are left to the real load.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork: the child only loads and leaves
        child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.alarm(60)
            os.dup2(writer, 2)
            for library in libraries:
                os.write(2, _MARK + os.fsencode(library) + b"\n")
                load_library(library, False)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        words = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        loading, _, said = words.rpartition(_MARK)[2].partition(b"\n")
        how = signal.Signals(os.WTERMSIG(status)).name
        what = re.search(rb"what\(\):\s*(.*)", said)
        reason = what.group(1).decode(errors="replace").strip(" .") if what else "it said nothing"
        if "already registered" in reason:
            remedy = "an operator can be registered once only: leave one of the libraries out, or rename the operator"
        else:
            remedy = "see what the library does when it is loaded"
        raise BackendError(
            f"Failed to load plugin library '{os.fsdecode(loading)}' (--backend-config=dali,plugin_libs): loading it "
            f"ends the process with {how}: {reason}. Remedy: {remedy}"
        )


def _explain(library: str, reason: str, dali_version: str) -> str:
    reason = reason.removeprefix(f"Failed to load library {library}: ").strip()
    if not Path(library).exists():
        remedy = "the server must have the library at this path; several are separated by ':'"
    elif built := re.search(r"version [`']DALI_([\d.]+)' not found", reason):
        remedy = f"it was built against DALI {built.group(1)}, this is {dali_version}: build it against {dali_version}"
    elif "undefined symbol" in reason:
        remedy = f"it was linked against something that this server lacks, or another DALI (this is {dali_version})"
    else:
        remedy = "see what it needs with ldd"
    return f"Failed to load plugin library '{library}' (--backend-config=dali,plugin_libs): {reason}. Remedy: {remedy}"
