"""Tells when something in a project's folder may have changed."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from watchfiles import Change, watch

from builder.dev.snapshot import FOLDERS, is_ignored, oracle_files
from builder.errors import MachineError
from builder.project import Project

_QUIET_MS = 20
"""An editor that saves writes, renames and removes within a few milliseconds."""
_AT_MOST_MS = 500
_LOOK_ANYWAY_MS = 2000
"""Network file systems tell of nobody else's changes, and what changes while a watch begins is told by no event."""

Watched = Mapping[Path, tuple[int, bool]]


class Watcher:
    """Watches in threads of its own: signals come to the main thread alone, and end its wait."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[float | OSError] = queue.SimpleQueue()
        self._watched: Watched = {}
        self._stop = threading.Event()

    def follow(self, project: Project) -> None:
        """Watches what the project has now; a folder that was replaced by another is watched anew."""
        wanted = watched(project)
        if wanted == self._watched:
            return
        self.close()
        self._stop, self._watched = threading.Event(), wanted
        for recursive in (True, False):
            folders = [path for path, (_, deep) in wanted.items() if deep is recursive]
            if folders:
                arguments = (project.root, folders, recursive, self._stop)
                threading.Thread(target=self._watch, args=arguments, daemon=True).start()

    def wait(self) -> float:
        """Waits until there may be something new; when the last event came (seconds since the epoch).

        Raises:
            MachineError: the folders cannot be watched.
        """
        event = self._events.get()
        while not self._events.empty() and not isinstance(event, OSError):
            event = self._events.get_nowait()
        if isinstance(event, OSError):
            raise MachineError(
                "the project's folders cannot be watched",
                where=", ".join(str(path) for path in self._watched),
                remedy="see the message; WATCHFILES_FORCE_POLLING=1 does without the system's events",
                detail=[str(event)],
            )
        return event

    def close(self) -> None:
        """Ends the threads, within a moment."""
        self._stop.set()

    def _watch(self, root: Path, folders: list[Path], recursive: bool, stop: threading.Event) -> None:
        def counts(_: Change, path: str) -> bool:
            changed = Path(path)
            return not (changed.is_relative_to(root) and is_ignored(changed.relative_to(root).as_posix()))

        try:
            for _ in watch(
                *folders,
                watch_filter=counts,
                debounce=_AT_MOST_MS,
                step=_QUIET_MS,
                rust_timeout=_LOOK_ANYWAY_MS,
                yield_on_timeout=True,
                stop_event=stop,
                recursive=recursive,
            ):
                self._events.put(time.time())
        except FileNotFoundError:  # a folder went before it could be watched, and the next look finds that
            self._events.put(time.time())
        except OSError as error:
            self._events.put(error)


def watched(project: Project) -> Watched:
    """The folders to watch: each with what tells it from another of that name, and whether those below it count too."""
    deep = [project.root / name for name in FOLDERS]
    flat = {project.root, *((project.root / name).parent for name in oracle_files(project))}
    found = {path: (path.stat().st_ino, True) for path in deep if path.is_dir()}
    return found | {path: (path.stat().st_ino, False) for path in sorted(flat) if path.is_dir() and path not in found}
