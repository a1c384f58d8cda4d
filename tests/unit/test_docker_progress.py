from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from builder.docker.progress import BuildProgress

BASE, COMPILE, OTHER = (f"sha256:{letter * 64}" for letter in "abc")
STARTED, COMPLETED = "2026-01-02T03:04:05.066086811Z", "2026-01-02T03:04:07.566117987Z"
COMPILE_NAME = "[plugins 3/3] RUN --mount=type=cache,target=/root/.cache   cmake --build /build"

# As `docker buildx build --progress=rawjson` 0.13 prints it.
PRETTY = """\
{
  "vertexes": [
    {
      "digest": "sha256:cccc",
      "inputs": [
        "sha256:aaaa"
      ],
      "name": "[b 2/2] RUN echo err \\u003e\\u00262; false",
      "started": "2026-01-02T03:04:05.028102456Z",
      "completed": "2026-01-02T03:04:05.477010544Z",
      "error": "process \\"/bin/sh -c echo err \\u003e\\u00262; false\\" did not complete successfully: exit code: 1"
    }
  ],
  "statuses": [
    {
      "id": "transferring context:",
      "vertex": "sha256:aaaa",
      "name": "transferring",
      "current": 2,
      "timestamp": "2026-01-02T03:04:05.101286873Z",
      "started": "2026-01-02T03:04:05.098793051Z"
    }
  ],
  "logs": [
    {
      "vertex": "sha256:cccc",
      "stream": 2,
      "data": "ZXJyCg==",
      "timestamp": "2026-01-02T03:04:05.454743822Z"
    }
  ]
}
"""


def vertex(digest: str, name: str, **state: Any) -> dict[str, Any]:
    return {"vertexes": [{"digest": digest, "name": name, **state}]}


def log(digest: str, text: bytes) -> dict[str, Any]:
    entry = {"vertex": digest, "stream": 1, "data": base64.b64encode(text).decode(), "timestamp": STARTED}
    return {"logs": [entry]}


def lines(documents: Sequence[dict[str, Any]], indent: int | None = None) -> list[str]:
    return [line for document in documents for line in json.dumps(document, indent=indent).splitlines()]


@pytest.fixture
def progress(console: Console) -> BuildProgress:
    return BuildProgress(console)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def feed(progress: BuildProgress, *documents: dict[str, Any]) -> None:
    for line in lines(documents):
        progress.feed(line)


def test_documents_over_many_lines_are_read_as_buildx_0_13_prints_them(progress: BuildProgress) -> None:
    for line in (PRETTY * 2).splitlines():
        progress.feed(line)
    assert list(progress.steps) == ["sha256:cccc"]
    step = progress.steps["sha256:cccc"]
    assert (step.stage, step.title) == ("b", "b 2/2  RUN echo err >&2; false")
    assert step.error.endswith("exit code: 1")
    assert list(step.log) == ["err", "err"]
    assert not progress.messages


@pytest.mark.parametrize("indent", [None, 2])
def test_lines_that_are_no_document_are_messages(progress: BuildProgress, indent: int | None) -> None:
    before, after = (lines([vertex(digest, "[a 1/1] RUN x", started=STARTED)], indent) for digest in (BASE, OTHER))
    for line in (*before, "Dockerfile:2", "", "   2 | >>> RUN {false}", *after, "ERROR: failed to solve"):
        progress.feed(line)
    assert list(progress.messages) == ["Dockerfile:2", "   2 | >>> RUN {false}", "ERROR: failed to solve"]
    assert list(progress.steps) == [BASE, OTHER]


def test_a_line_that_only_looks_like_a_document_is_a_message(progress: BuildProgress) -> None:
    feed_again = vertex(BASE, "[a 1/1] RUN x")
    progress.feed("{not json}")
    feed(progress, feed_again)
    assert list(progress.messages) == ["{not json}"]
    assert list(progress.steps) == [BASE]


def test_a_step_lasts_from_its_start_to_its_end(progress: BuildProgress) -> None:
    feed(progress, vertex(COMPILE, COMPILE_NAME, started=STARTED))
    feed(progress, vertex(COMPILE, COMPILE_NAME, started=STARTED, completed=COMPLETED))
    assert progress.steps[COMPILE].seconds == pytest.approx(2.5, abs=0.001)


@pytest.mark.parametrize(
    ("name", "stage", "title"),
    [
        (COMPILE_NAME, "plugins", "plugins 3/3  RUN cmake --build /build"),
        ("[ngc plugins 3/3] RUN a", "plugins", "plugins 3/3  RUN a"),
        ("[stage-2 1/1] RUN <<EOF (set -e...)", "stage-2", "stage-2 1/1  RUN <<EOF (set -e...)"),
        ("[models  2/10] COPY a\n b", "models", "models 2/10  COPY a b"),
        ("[internal] load .dockerignore", "", "[internal] load .dockerignore"),
        ("exporting to image", "", "exporting to image"),
    ],
)
def test_a_step_is_told_by_its_stage_and_its_command(
    progress: BuildProgress, name: str, stage: str, title: str
) -> None:
    feed(progress, vertex(COMPILE, name))
    assert (progress.steps[COMPILE].stage, progress.steps[COMPILE].title) == (stage, title)


def test_steps_of_the_dockerfile_from_the_cache_are_counted_and_not_printed(
    progress: BuildProgress, console: Console
) -> None:
    feed(progress, vertex(BASE, "[a 1/2] FROM debian", started=STARTED, completed=COMPLETED, cached=True))
    feed(progress, vertex(OTHER, "importing cache", started=STARTED, completed=COMPLETED, cached=True))
    assert progress.cached == 1
    assert printed(console) == ""


def test_a_step_that_is_done_is_one_line(progress: BuildProgress, console: Console) -> None:
    for _ in range(2):
        feed(progress, vertex(COMPILE, COMPILE_NAME, started=STARTED, completed=COMPLETED))
    assert printed(console) == "✓    2.5 s  plugins 3/3  RUN cmake --build /build\n"


# With one target, and with several.
@pytest.mark.parametrize("name", ["[internal] load .dockerignore", "[ngc internal] load .dockerignore"])
def test_buildkit_s_own_steps_are_not_printed(progress: BuildProgress, console: Console, name: str) -> None:
    feed(progress, vertex(BASE, name, started=STARTED, completed=COMPLETED))
    assert printed(console) == ""


@pytest.mark.parametrize(
    "cancelled", ["context canceled", 'process "/bin/sh -c x" did not complete: exit code: 137: context canceled']
)
@pytest.mark.parametrize("cancelled_first", [True, False])
def test_the_failed_step_is_not_one_that_was_cancelled(
    progress: BuildProgress, console: Console, cancelled: str, cancelled_first: bool
) -> None:
    documents = [
        vertex(OTHER, "[a 1/1] RUN slow", started=STARTED, completed=COMPLETED, error=cancelled),
        vertex(COMPILE, COMPILE_NAME, started=STARTED, completed=COMPLETED, error="exit code: 1"),
    ]
    feed(progress, *(documents if cancelled_first else reversed(documents)))
    assert progress.failed is progress.steps[COMPILE]
    assert printed(console) == "✗    2.5 s  plugins 3/3  RUN cmake --build /build\n"


def test_a_build_without_an_error_has_no_failed_step(progress: BuildProgress) -> None:
    feed(progress, vertex(COMPILE, COMPILE_NAME, started=STARTED, completed=COMPLETED))
    assert progress.failed is None


def test_a_log_is_put_together_from_its_chunks(progress: BuildProgress) -> None:
    feed(progress, vertex(COMPILE, COMPILE_NAME, started=STARTED))
    feed(progress, log(COMPILE, b"one\nha"), log(COMPILE, b"lf"), log(COMPILE, b" more\r\n\nla"), log(OTHER, b"no\n"))
    step = progress.steps[COMPILE]
    assert list(step.log) == ["one", "half more", ""]
    assert step.unfinished_line == "la"


def test_no_password_is_in_what_a_step_said_not_even_in_its_last_line(progress: BuildProgress) -> None:
    feed(progress, vertex(COMPILE, COMPILE_NAME, started=STARTED))
    feed(progress, log(COMPILE, b"http://ann:one@example.com\n\nhttp://ann:two@example.com"))
    assert progress.steps[COMPILE].said == ["http://***@example.com", "http://***@example.com"]


def test_a_character_that_two_chunks_share_is_whole(progress: BuildProgress) -> None:
    first, second = "ä\n".encode()[:1], "ä\n".encode()[1:]
    feed(progress, vertex(COMPILE, COMPILE_NAME, started=STARTED), log(COMPILE, first), log(COMPILE, second))
    assert list(progress.steps[COMPILE].log) == ["ä"]


def test_a_terminal_shows_the_running_steps_with_their_last_words(progress: BuildProgress, console: Console) -> None:
    feed(progress, vertex(COMPILE, COMPILE_NAME, started=STARTED), log(COMPILE, b"[1/2] Building\n"))
    console.print(progress._render())
    assert "plugins 3/3  RUN cmake --build /build  [1/2] Building" in printed(console)
