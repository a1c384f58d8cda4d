from __future__ import annotations

from pathlib import Path

import pytest

from builder.stages import serialize


def test_sources_are_the_numbered_versions_in_order(tmp_path: Path) -> None:
    for name in (
        "b/1/dali.py",
        "a/2/dali.py",
        "a/1/dali.py",
        "a/x/dali.py",
        "a/3/other.py",
        "dali.py",
        "a/1/1/dali.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in serialize.sources(tmp_path)]
    assert found == ["a/1/dali.py", "a/2/dali.py", "b/1/dali.py"]


DALI_ERROR = """\
Error in CPU operator `nvidia.dali.fn.custom_copy`,
which was used in the pipeline definition with the following traceback:

  File "/models/m/1/dali.py", line 9, in pipe
    return fn.custom_copy(data)

encountered:

[/opt/dali/x.cc:42] Assert on "x" failed:
the input is empty
Stacktrace (9 entries):
[frame 0]: /opt/libdali.so(+0x1)

Current pipeline object is no longer valid."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NameError("name 'x' is not defined"), "NameError: name 'x' is not defined"),
        (ValueError("one\n   two\n"), "ValueError: one two"),
        (
            RuntimeError(DALI_ERROR),
            'RuntimeError: nvidia.dali.fn.custom_copy: [/opt/dali/x.cc:42] Assert on "x" failed: the input is empty',
        ),
        (RuntimeError("no library\nStacktrace (2 entries):\n[frame 0]: x"), "RuntimeError: no library"),
        (SyntaxError("invalid syntax", ("dali.py", 3, 1, "def", 3, 4)), "SyntaxError: invalid syntax"),
    ],
)
def test_an_error_is_told_in_one_line_without_dali_s_stack(error: BaseException, words: str) -> None:
    assert serialize._words(error) == words


def failing(source: Path, text: str) -> BaseException:
    source.write_text(text)
    with pytest.raises(Exception) as failure:  # noqa: PT011  whatever the text raises
        exec(compile(text, str(source), "exec"), {})
    return failure.value


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1\nx = y\n", ":2"),
        ("def f():\n    raise ValueError\n\nf()\n", ":2"),
        ("import json\n\njson.loads('{')\n", ":3"),
        ("x = 1\ndef f(:\n", ":2"),
    ],
)
def test_an_error_has_its_line_of_the_user_s_file(tmp_path: Path, text: str, line: str) -> None:
    source = tmp_path / "dali.py"
    assert serialize._line(failing(source, text), source) == line


def test_a_line_that_dali_names_in_its_message_counts() -> None:
    assert serialize._line(RuntimeError(DALI_ERROR), Path("/models/m/1/dali.py")) == ":9"


def test_an_error_from_elsewhere_has_no_line(tmp_path: Path) -> None:
    assert serialize._line(ValueError("x"), tmp_path / "dali.py") == ""


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (AttributeError("module 'nvidia.dali.fn' has no attribute 'custom_copy'"), "load_library"),
        (RuntimeError("Failed to load library /models/a.so: version `DALI_1.53.0' not found"), "another DALI"),
        (RuntimeError("Failed to load library /models/a.so: no such file"), "the path"),
        (ModuleNotFoundError("No module named 'torch'"), "Triton image"),
    ],
)
def test_a_known_error_has_a_remedy(error: BaseException, remedy: str) -> None:
    assert remedy in serialize._remedy(error)


def test_an_unknown_error_has_no_remedy() -> None:
    assert serialize._remedy(ValueError("x")) == ""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline for a process whose `nvidia` package is the file beside it."""
    path = tmp_path / "m" / "1" / "dali.py"
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return path


# In place of DALI: what kills a process while it is imported.
@pytest.mark.parametrize(
    ("dali", "how"),
    [
        ("import os; os.abort()", "SIGABRT: it said nothing"),
        ("import os; os._exit(3)", "exit status 3: it said nothing"),
        ("import os; os._exit(1)", "exit status 1: it said nothing"),
        (
            "import os; os.write(2, b'terminate called\\n  what():  boom\\nlast\\n'); os.abort()",
            "SIGABRT: what():  boom",
        ),
        ("import os; os.write(2, b'first\\nlast\\n'); os._exit(9)", "exit status 9: last"),
    ],
)
def test_a_process_that_died_is_told_by_how(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], dali: str, how: str
) -> None:
    (tmp_path / "nvidia.py").write_text(dali)
    assert serialize.serialize_apart(source) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"serialize: error: {source}: the process that ran it ended with {how}\n"


def test_an_exception_in_the_process_is_one_line(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nvidia.py").write_text("print('noise'); raise ValueError('one\\ntwo')")
    assert serialize.serialize_apart(source) == 1
    assert capfd.readouterr() == ("", f"serialize: error: {source}: ValueError: one two\n")
    assert not source.with_name("model.dali").exists()


def test_a_repository_without_a_pipeline_needs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert serialize.main([str(tmp_path)]) == 0
    assert "nothing to do" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["/nonexistent"], ["/tmp", "/tmp"]])
def test_a_wrong_command_line_is_answered_with_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert serialize.main(arguments) == 1
    assert "usage" in capsys.readouterr().err


def test_a_pipeline_is_written_whole_and_for_all_to_read(tmp_path: Path) -> None:
    target = tmp_path / "model.dali"
    for data in (b"old", b"new"):
        serialize._write_whole(target, data)
        assert target.read_bytes() == data
    assert target.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [target]
