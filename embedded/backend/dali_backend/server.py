"""What the server was told about this backend on its command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .errors import BackendError

_OPTION = "--backend-config"
_SETTING = "dali,plugin_libs="


def listed_plugins() -> tuple[str, ...]:
    """The libraries of `--backend-config=dali,plugin_libs=A:B`, in their order.

    Triton hands a backend's settings to NVIDIA's backends, but not to those in Python. The server is the process that
    started this one, so they are read from its command.
    """
    try:
        command = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:
        return ()
    return in_command([os.fsdecode(word) for word in command.split(b"\0")])


def version_folder() -> Path:
    """The folder of the model's version. Triton tells it to `auto_complete_config` by this process's command alone:
    the path that a model in Python would have there.

    Raises:
        BackendError: the command is not what it is known to be.
    """
    words = Path("/proc/self/cmdline").read_bytes().split(b"\0")
    folder = Path(os.fsdecode(words[1])).parent if len(words) > 1 else Path()
    if not folder.is_dir():
        raise BackendError(f"Triton does not tell where the model is: {b' '.join(words)!r}")
    return folder


def in_command(words: Sequence[str]) -> tuple[str, ...]:
    """The libraries that a server's command lists: those of the last setting, as Triton has it."""
    listed = ""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        option, equals, value = word.partition("=")
        if option == _OPTION:
            setting = value if equals else following
            if setting.startswith(_SETTING):
                listed = setting.removeprefix(_SETTING)
    return tuple(path for path in listed.split(":") if path)
