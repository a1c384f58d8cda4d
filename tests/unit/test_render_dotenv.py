from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import MachineError
from builder.render import dotenv

IMAGE = "localhost:5000/mydali@sha256:" + "a" * 64
LINE = f"IMAGE={IMAGE}\n"


def written(folder: Path, before: str | bytes | None) -> bytes:
    """What the file holds after IMAGE was written into it."""
    path = folder / ".env"
    if before is not None:
        path.write_bytes(before.encode() if isinstance(before, str) else before)
    assert dotenv.write(folder, {"IMAGE": IMAGE}) == path
    assert [each.name for each in folder.iterdir()] == [".env"]  # nothing temporary stays
    return path.read_bytes()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, LINE),
        ("", LINE),
        ("# ports\nHTTP_PORT=9000\n", "# ports\nHTTP_PORT=9000\n" + LINE),
        ("HTTP_PORT=9000", "HTTP_PORT=9000\n" + LINE),
        ("A=1\n\n# the image\nIMAGE=old:1\n\nB='x # y'\n", "A=1\n\n# the image\n" + LINE + "\nB='x # y'\n"),
        ("\n\n  IMAGE=old\nB=2\n", "\n\n  " + LINE + "B=2\n"),
        ("export IMAGE='old'\n", "export " + LINE),
        ('IMAGE="old\nmore"\nB=2\n', LINE + "B=2\n"),
        ("IMAGE=old", LINE.rstrip("\n")),
        ("IMAGE=\nIMAGE=b\n", LINE + LINE),
        ("A=1\r\nIMAGE=old\r\nB=2\r\n", f"A=1\r\nIMAGE={IMAGE}\r\nB=2\r\n"),
        ("A=1\r\n", f"A=1\r\nIMAGE={IMAGE}\r\n"),
        ("#IMAGE=old\nMY_IMAGE=x\nIMAGE_2=y\n", "#IMAGE=old\nMY_IMAGE=x\nIMAGE_2=y\n" + LINE),
        ("this is no line of an env file\n", "this is no line of an env file\n" + LINE),
        ("\ufeffA=1\n", "\ufeffA=1\n" + LINE),
        (b"A=\xff\xfe\n", b"A=\xff\xfe\n" + LINE.encode()),
    ],
)
def test_one_line_is_set_and_all_others_stay(tmp_path: Path, before: str | bytes | None, after: str | bytes) -> None:
    expected = after.encode() if isinstance(after, str) else after
    assert written(tmp_path, before) == expected
    assert written(tmp_path, None) == expected  # a second time changes nothing


LINES = st.lists(st.sampled_from(["A=1", "# x", "", "B='a b'", 'C="x\ny"', "  D = 4 # four", "E", "export F=6"]))


@given(above=LINES, below=LINES)
def test_whatever_is_around_it_stays(
    tmp_path_factory: pytest.TempPathFactory, above: list[str], below: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("project")
    head, tail = ("".join(f"{line}\n" for line in lines) for lines in (above, below))
    assert written(folder, f"{head}IMAGE=old\n{tail}").decode() == f"{head}{LINE}{tail}"


def test_a_file_that_only_its_owner_reads_stays_so(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("PASSWORD=x\n")
    path.chmod(0o600)
    dotenv.write(tmp_path, {"IMAGE": IMAGE})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("A=1\n")

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(MachineError, match="No space left"):
        dotenv.write(tmp_path, {"IMAGE": IMAGE})
    assert [each.read_text() for each in tmp_path.iterdir()] == ["A=1\n"]


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(MachineError) as refused:
        dotenv.write(tmp_path, {"IMAGE": IMAGE})
    assert refused.value.where == str(tmp_path / ".env")


@pytest.mark.parametrize("values", [{"IMAGE": "a b"}, {"IMAGE": "$(x)"}, {"IMAGE": "a\nB=1"}, {"A B": "x"}])
def test_what_would_need_quotes_is_no_reference(tmp_path: Path, values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="needs quotes"):
        dotenv.write(tmp_path, values)
