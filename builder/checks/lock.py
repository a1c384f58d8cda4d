"""Rules on builder.lock: can builds still be held to it?"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from builder import lock
from builder.errors import LockInvalid, LockOutdated
from builder.findings import Finding, Place
from builder.project import Project


def check_lock(project: Project, targets: Collection[str]) -> Iterator[Finding]:
    """What can be told without the bases and the mirrors; `lock --check` asks those, too."""
    for name in targets:
        try:
            lock.held(project, name, required=False)
        except (LockInvalid, LockOutdated) as error:
            yield Finding(
                error.code,
                error.what,
                Place(lock.FILE_NAME),
                error.remedy,
                detail=error.detail,
                target=name if isinstance(error, LockOutdated) else "",
            )
