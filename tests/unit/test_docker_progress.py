from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from builder.docker.progress import BuildProgress, Step, timeline
from builder.views.live import Lines

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
    return BuildProgress(Lines(console))


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


class Recorder:
    """A view that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.builds: list[BuildProgress] = []

    def began(self, build: BuildProgress) -> None:
        self.builds.append(build)
        self.told.append("began")

    def finished(self, step: Step) -> None:
        self.told.append(step.title)

    def complained(self, step: Step, message: Sequence[str]) -> None:
        assert step.stage == "plugins"
        self.told.append(list(message))

    def ended(self, build: BuildProgress, *, well: bool) -> None:
        assert build is self.builds[-1]
        self.told.append("well" if well else "badly")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def recorded(recorder: Recorder) -> BuildProgress:
    return BuildProgress(recorder)


def test_a_view_hears_of_the_beginning_and_of_the_end(recorded: BuildProgress, recorder: Recorder) -> None:
    with recorded:
        feed(recorded, vertex(COMPILE, COMPILE_NAME, started=STARTED))
        feed(recorded, vertex(COMPILE, COMPILE_NAME, started=STARTED, completed=COMPLETED))
    assert recorder.told == ["began", "plugins 3/3  RUN cmake --build /build", "well"]


def test_a_build_of_which_nothing_was_heard_has_no_end_either(recorded: BuildProgress, recorder: Recorder) -> None:
    with recorded:
        recorded.feed("ERROR: no builder found")
    assert recorder.told == []


def test_a_build_ends_badly_by_a_failed_step(recorded: BuildProgress, recorder: Recorder) -> None:
    with recorded:
        feed(recorded, vertex(COMPILE, COMPILE_NAME, started=STARTED, completed=COMPLETED, error="exit code: 1"))
    assert recorder.told[-1] == "badly"


def test_a_build_that_is_interrupted_ends_badly(recorded: BuildProgress, recorder: Recorder) -> None:
    feed(recorded, vertex(BASE, "[a 1/2] RUN x", started=STARTED))
    with pytest.raises(KeyboardInterrupt), recorded:
        raise KeyboardInterrupt
    assert recorder.told == ["began", "badly"]


ERROR = ["plugin/a.cc:7:5: error: no such thing", "    7 |   thing;", "      |   ^~~~~"]
PRINTED = b"FAILED: a.o\n/src/plugin/a.cc:7:5: error: no such thing\n    7 |   thing;\n      |   ^~~~~\n"


def test_the_compiler_s_first_error_is_handed_on_while_others_are_compiled(
    recorded: BuildProgress, recorder: Recorder
) -> None:
    feed(recorded, vertex(COMPILE, COMPILE_NAME, started=STARTED), log(COMPILE, b"[1/3] Building a.o\n" + PRINTED))
    assert recorder.told == ["began", ERROR]
    feed(recorded, log(COMPILE, b"[2/3] Building b.o\n/src/plugin/b.cc:1:1: error: another\n 1 | x\n"))
    feed(recorded, vertex(COMPILE, COMPILE_NAME, started=STARTED, completed=COMPLETED, error="exit code: 1"))
    assert recorder.told == ["began", ERROR, "plugins 3/3  RUN cmake --build /build"]


def test_the_first_error_of_two_targets_is_handed_on_once(recorded: BuildProgress, recorder: Recorder) -> None:
    for digest, target in ((COMPILE, "one"), (OTHER, "two")):
        feed(recorded, vertex(digest, f"[{target} plugins 2/2] RUN x", started=STARTED), log(digest, PRINTED))
    assert recorder.told == ["began", ERROR]


def test_an_error_waits_for_the_lines_that_show_its_place(recorded: BuildProgress, recorder: Recorder) -> None:
    feed(recorded, vertex(COMPILE, COMPILE_NAME, started=STARTED))
    for line in PRINTED.splitlines(keepends=True)[:2]:
        feed(recorded, log(COMPILE, line))
    assert recorder.told == ["began"]
    feed(recorded, log(COMPILE, b"    7 |   th"))
    assert recorder.told == ["began"]
    feed(recorded, log(COMPILE, b"ing;\n      |   ^~~~~\n"))
    assert recorder.told == ["began", ERROR]


def test_an_error_without_a_place_is_handed_on_before_the_step_s_end(
    recorded: BuildProgress, recorder: Recorder
) -> None:
    feed(recorded, vertex(COMPILE, COMPILE_NAME, started=STARTED), log(COMPILE, b"a.cc: undefined reference to `k()'"))
    feed(recorded, vertex(COMPILE, COMPILE_NAME, started=STARTED, completed=COMPLETED, error="exit code: 1"))
    assert recorder.told[1:] == [["a.cc: undefined reference to `k()'"], "plugins 3/3  RUN cmake --build /build"]


def test_what_looks_like_an_error_elsewhere_is_no_compiler_s(recorded: BuildProgress, recorder: Recorder) -> None:
    feed(recorded, vertex(OTHER, "[toolchain 1/2] RUN x", started=STARTED), log(OTHER, PRINTED))
    assert recorder.told == ["began"]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("[plugins 2/2] RUN x", ""),
        ("[embedded-dali2 plugins 2/2] RUN x", "embedded-dali2"),
        ("[embedded-dali2_base pip 2/2] RUN x", "embedded-dali2"),
        ("[embedded_base] exporting to image", "embedded"),
        ("[embedded internal] load build context", "embedded"),
        ("[embedded context package] load from client", "embedded"),
        ("[internal] load build context", ""),
        ("[context package] load from client", ""),
        ("exporting to image", ""),
    ],
)
def test_a_step_knows_the_target_that_it_is_for(name: str, target: str) -> None:
    assert Step(name).target == target


def at(second: float) -> str:
    return f"2026-01-02T03:04:{second:09.6f}Z"


def test_a_step_that_begins_again_runs_again_and_its_spans_are_summed(progress: BuildProgress) -> None:
    feed(progress, vertex(BASE, "[a 1/2] COPY x /", started=at(1), completed=at(2)))
    feed(progress, vertex(BASE, "[a 1/2] COPY x /", started=at(5)))
    assert progress.steps[BASE].is_running
    feed(progress, vertex(BASE, "[a 1/2] COPY x /", started=at(5), completed=at(8)))
    # Two targets share it.
    feed(progress, vertex(BASE, "[b 1/2] COPY x /", started=at(6), completed=at(9)))
    assert not progress.steps[BASE].is_running
    assert progress.steps[BASE].seconds == pytest.approx(5)


def test_a_step_that_begins_again_is_one_line(progress: BuildProgress, console: Console) -> None:
    for began, ended in ((1, 2), (5, 8)):
        feed(progress, vertex(BASE, "[a 1/2] COPY x /", started=at(began)))
        feed(progress, vertex(BASE, "[a 1/2] COPY x /", started=at(began), completed=at(ended)))
    assert printed(console).count("\n") == 1


def test_a_running_step_s_time_is_this_machine_s_and_not_the_engine_s(progress: BuildProgress) -> None:
    feed(progress, vertex(BASE, "[a 1/2] COPY x /", started="2001-01-01T00:00:00Z"))
    assert progress.steps[BASE].seconds < 60


def status(digest: str, name: str, current: int, total: int = 0) -> dict[str, Any]:
    return {"statuses": [{"id": name, "vertex": digest, "name": "downloading", "current": current, "total": total}]}


def test_bytes_are_those_of_all_that_a_step_moves(progress: BuildProgress) -> None:
    feed(progress, vertex(BASE, "[a 1/1] FROM example.com/x", started=STARTED))
    feed(
        progress, status(BASE, "sha256:1", 10, 100), status(BASE, "sha256:1", 70, 100), status(BASE, "sha256:2", 5, 50)
    )
    # What is unpacked counts from the beginning again, under the same name.
    feed(progress, status(BASE, "sha256:1", 20, 100), status(OTHER, "sha256:3", 9))
    step = progress.steps[BASE]
    assert (step.bytes, sum(step.expected.values()), progress.bytes) == (75, 150, 75)


def test_buildx_s_reading_of_its_own_definition_is_no_transfer(progress: BuildProgress) -> None:
    feed(progress, vertex(BASE, "[internal] load local bake definitions", started=STARTED))
    feed(progress, status(BASE, "reading parts.bake.json", 20480, 26359))
    assert progress.bytes == 0


def test_a_base_that_was_downloaded_is_a_line_and_one_that_is_there_is_none(
    progress: BuildProgress, console: Console
) -> None:
    feed(progress, vertex(BASE, "[a 1/1] FROM example.com/x", started=STARTED, completed=COMPLETED))
    assert printed(console) == ""
    feed(progress, vertex(OTHER, "[a 1/1] FROM example.com/y", started=STARTED), status(OTHER, "sha256:1", 9))
    feed(progress, vertex(OTHER, "[a 1/1] FROM example.com/y", started=STARTED, completed=COMPLETED))
    assert printed(console) == "✓    2.5 s  a 1/1  FROM example.com/y\n"


BEGAN = datetime(2026, 1, 2, 3, 4, 0, tzinfo=UTC)
LOAD = "[internal] load build definition from Dockerfile"


def test_a_timeline_has_what_was_done_and_what_was_not(recorder: Recorder) -> None:
    progress = BuildProgress(recorder)
    script = 'process "/bin/sh -c set -e\ncmake" did not complete successfully: exit code: 1'
    documents = [
        vertex("1", LOAD, started=at(1), completed=at(1.1)),
        vertex("2", "[one internal] load build context", started=at(1), completed=at(3)),
        status("2", "transferring", 70),
        vertex("3", "[one pip 1/2] FROM debian", started=at(1), completed=at(2)),
        vertex("4", "[one pip 2/2] RUN x", started=at(2), completed=at(2), cached=True),
        vertex("5", "[one a 1/2] LINK COPY x /", started=at(2), completed=at(2.5)),
        vertex("6", "[one exporting", started=at(2), completed=at(2.01)),
        vertex("7", "[one] exporting to image", started=at(9), completed=at(9.5)),
        vertex("8", "[one_base plugins 2/2] RUN x", started=at(4), completed=at(7), error=script),
        vertex("9", "[one waits 2/2] RUN x"),
    ]
    feed(progress, *documents)
    shown = [step.model_dump(exclude_defaults=True) for step in timeline([progress], BEGAN)]
    of_one = {"targets": ("one",)}
    context, pip, compiled = "[one internal] load build context", "pip 2/2  RUN x", "plugins 2/2  RUN x"
    pulled = {"title": "pip 1/2  FROM debian", "stage": "pip", "began": 1.0, "seconds": 1.0, **of_one}
    assert shown == [
        {"title": context, "stage": "", "began": 1.0, "seconds": 2.0, "bytes": 70, **of_one},
        pulled,
        {"title": pip, "stage": "pip", "began": 2.0, "seconds": 0.0, "cached": True, **of_one},
        {"title": compiled, "stage": "plugins", "began": 4.0, "seconds": 3.0, "error": "exit code: 1", **of_one},
        {"title": "[one] exporting to image", "stage": "", "began": 9.0, "seconds": 0.5, **of_one},
    ]


def test_what_a_second_build_finds_in_the_cache_is_told_once(recorder: Recorder) -> None:
    first, second = BuildProgress(recorder), BuildProgress(recorder)
    feed(first, vertex("1", "[one a 1/2] RUN x", started=at(1), completed=at(2)))
    feed(first, vertex("2", "[one a 2/2] RUN y", started=at(2), completed=at(2), cached=True))
    feed(first, vertex("3", "[one_base a 2/2] RUN y", started=at(2), completed=at(2), cached=True))
    for number, command in enumerate("xyz"):
        name = f"[a {number + 1}/3] RUN {command}" if command == "z" else f"[a {number + 1}/2] RUN {command}"
        feed(second, vertex(str(number), name, started=at(5), completed=at(5), cached=True))
    found = timeline([first, second], BEGAN)
    assert [(step.title, step.cached) for step in found] == [
        ("a 1/2  RUN x", False),
        ("a 2/2  RUN y", True),
        ("a 3/3  RUN z", True),
    ]


def test_what_was_called_off_is_told_of_builds_that_failed_alone(recorder: Recorder) -> None:
    progress = BuildProgress(recorder)
    called_off = {"started": at(1), "completed": at(1), "error": "failed to calculate checksum: context canceled"}
    feed(progress, vertex("1", "[one a 1/1] RUN x", **called_off))
    feed(progress, vertex("2", "[one_layers a 1/1] RUN x", started=at(1), completed=at(2)))
    assert [step.error for step in timeline([progress], BEGAN)] == [""]
    feed(progress, vertex("3", "[one b 1/1] RUN x", started=at(2), completed=at(3), error="exit code: 1"))
    assert [step.error for step in timeline([progress], BEGAN)] == [called_off["error"], "", "exit code: 1"]


def test_what_another_build_did_before_took_no_time_of_this_one(recorder: Recorder) -> None:
    progress = BuildProgress(recorder)
    feed(progress, vertex("1", LOAD, started=at(20), completed=at(21)))
    feed(progress, vertex("2", "[a 1/2] RUN x", started=at(1), completed=at(9)))
    (shared, *_) = timeline([progress], BEGAN.replace(second=19))
    assert (shared.title, shared.began, shared.seconds, shared.cached) == ("a 1/2  RUN x", 0.0, 0.0, True)
