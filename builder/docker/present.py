"""What can be told of an engine that may not answer."""

from __future__ import annotations

import contextlib
import threading

from builder.docker.engine import Engine, translated
from builder.errors import BuilderError

_SECONDS = 3.0
"""To wait for an answer; one on this machine takes milliseconds, and one that is gone would take the SDK's minute."""


def engine() -> Engine | None:
    """The engine; None where none answers soon."""
    found: list[Engine] = []

    def connect() -> None:
        with contextlib.suppress(BuilderError):
            found.append(Engine.connect())

    # A thread that nobody waits for: neither a name that does not resolve nor `ssh` knows of a limit.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return found[0] if found else None


def images(found: Engine) -> set[str]:
    """The IDs of all its images, those without a name among them.

    Raises:
        MachineError: it does not tell.
    """
    with translated("the engine's images"):
        return {str(each["Id"]) for each in found.client.api.images(all=True)}
