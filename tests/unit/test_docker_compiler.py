from __future__ import annotations

import pytest

from builder.docker.compiler import is_error, messages

ONE = """\
/src/plugin/a.cc:7:5: error: no such thing
    7 |   thing;
      |   ^~~~~
"""
OTHER = """\
CMake Error at CMakeLists.txt:3 (message):
  ValueError: error: no such library
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/src/plugin/a.cc:7:5: error: no such thing", True),
        ("a.cu(1): error #20: identifier", True),
        ("CMake Error at CMakeLists.txt:3 (message):", True),
        ("ninja: error: loading 'build.ninja'", False),
        ("/src/plugin/a.cc:7:5: warning: unused", False),
    ],
)
def test_an_error_is_told_by_its_first_line(line: str, expected: bool) -> None:
    assert is_error(line) is expected


def test_each_message_has_the_lines_that_show_its_place() -> None:
    log = f"[1/2] Building\n{ONE}ninja: build stopped\n{OTHER}-- Configuring incomplete\n{ONE}"
    place = ["plugin/a.cc:7:5: error: no such thing", *ONE.splitlines()[1:]]
    assert list(messages(log.splitlines())) == [place, OTHER.splitlines(), place]


def test_two_messages_in_a_row_are_two() -> None:
    assert [len(message) for message in messages([*ONE.splitlines(), *ONE.splitlines()])] == [3, 3]


def test_a_log_without_an_error_has_no_message() -> None:
    assert list(messages(["[1/2] Building", "[2/2] Linking"])) == []
