"""The proof that an image's plugins are what does it: a server that cannot see them must fail, and for that reason."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from builder import triton
from builder.artifacts import NegativeControl
from builder.errors import NegativeControlServed, ServerDied, VerificationError
from builder.symptoms import blames_a_plugin
from builder.triton import ReachableServer, Server


@contextlib.contextmanager
def beside(
    serving: Callable[[], AbstractContextManager[ReachableServer]], image: str, plugins: Sequence[str], timeout: float
) -> Iterator[Callable[[], NegativeControl]]:
    """Starts the server without plugins; gives what waits for its end, and raises what `judged` raises."""
    # The server is taken away before the thread is waited for, which then has nothing more to wait for.
    with ThreadPoolExecutor(1) as pool, serving() as server:
        yield pool.submit(judged, server, image, plugins, timeout).result


def judged(server: ReachableServer, image: str, plugins: Sequence[str], timeout: float) -> NegativeControl:
    """Waits for the end of a server whose plugins are hidden.

    Raises:
        NegativeControlServed: it is ready all the same.
        NotReady: it neither ends nor is ready within `timeout` seconds.
        VerificationError: it fails, but not for want of its plugins.
    """
    try:
        triton.wait_until_ready(server.endpoint(), server, timeout=timeout, where=image)
    except ServerDied:  # as it must
        return judge(server, image)
    raise NegativeControlServed(
        "the image is ready even without its plugins, so inference proves nothing about them",
        where=image,
        remedy="use the plugin's operator in a pipeline, or remove the plugin from the image's command",
        detail=plugins,
    )


def judge(server: Server, image: str) -> NegativeControl:
    """What the log of a server says that ended without its plugins.

    Raises:
        VerificationError: it does not name them.
    """
    lines = server.log()
    blaming = [line.strip() for line in lines if blames_a_plugin(line)]
    if blaming:
        # The server repeats it in a table, cut to columns.
        evidence = min(blaming, key=lambda line: line.startswith("|"))
        return NegativeControl(applicable=True, passed=True, evidence=evidence.strip("| ")[:300])
    raise VerificationError(
        "without its plugins the server fails, but its log does not name them, so something else may be wrong",
        where=image,
        remedy="see the last lines of its log",
        detail=triton.last_words(lines),
    )
