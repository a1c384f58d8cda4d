from __future__ import annotations

from pathlib import Path

import pytest

from builder import pbtxt
from builder.errors import BadConfig

GOOD = 'name: "mydali"\nbackend: "dali"\ninput [ { name: "IN" data_type: TYPE_UINT8 dims: [ -1 ] } ]\n'


def config(folder: Path, text: str) -> Path:
    path = folder / "config.pbtxt"
    path.write_text(text)
    return path


def test_a_config_is_read_as_triton_reads_it(tmp_path: Path) -> None:
    read = pbtxt.read(config(tmp_path, GOOD))
    assert (read.name, read.input[0].name, list(read.input[0].dims)) == ("mydali", "IN", [-1])
    assert pbtxt.is_dali(read)


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        (GOOD + "  inptu []\n", ":4:3", "inptu"),
        (GOOD.replace("TYPE_UINT8", "UINT8"), ":3:33", "UINT8"),
        (GOOD + "output [\n", ":", "cannot be read"),
    ],
)
def test_a_syntax_error_has_its_line_and_column(tmp_path: Path, text: str, place: str, what: str) -> None:
    path = config(tmp_path, text)
    with pytest.raises(BadConfig, match=what) as failure:
        pbtxt.read(path)
    assert failure.value.where.startswith(f"{path}{place}")


def test_a_config_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(BadConfig, match="cannot be read"):
        pbtxt.read(path)


@pytest.mark.parametrize(
    ("value", "libraries"),
    [
        ("/models/a.so", ("/models/a.so",)),
        ("/models/b.so:/models/a.so", ("/models/b.so", "/models/a.so")),
        (":/models/a.so::", ("/models/a.so",)),
        ("/a.so;/b.so", ("/a.so;/b.so",)),
        ("", ()),
    ],
)
def test_plugin_libs_is_split_at_colons(tmp_path: Path, value: str, libraries: tuple[str, ...]) -> None:
    parameter = f'parameters [ {{ key: "plugin_libs" value: {{ string_value: "{value}" }} }} ]'
    assert pbtxt.plugin_libs(pbtxt.read(config(tmp_path, GOOD + parameter))) == libraries


def test_a_model_without_the_parameter_needs_no_plugin(tmp_path: Path) -> None:
    assert pbtxt.plugin_libs(pbtxt.read(config(tmp_path, GOOD))) == ()
