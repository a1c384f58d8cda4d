"""The oracles that builder.toml names."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder import project
from builder.checks.verification import check_oracles

HEAD = 'repository = "localhost:5000/p"\n[targets.t]\ndali = "1.53.0"\n[models]\n'


def codes(root: Path, text: str, oracle: str = "o.py:f") -> list[tuple[str, str]]:
    (root / "builder.toml").write_text(f'{HEAD}m = {{ oracle = "{oracle}" }}\n')
    (root / "o.py").write_text(text)
    return [(each.code, str(each.place).partition(":")[0]) for each in check_oracles(project.load(root), ["m"])]


@pytest.mark.parametrize(
    "text", ["def f(x): ...", "from a import *", "import f", "f = g = len", "x = '\\w'\ndef f(): ..."]
)
def test_an_oracle_that_is_there(tmp_path: Path, text: str, recwarn: pytest.WarningsRecorder) -> None:
    assert codes(tmp_path, text) == []
    assert not recwarn.list


@pytest.mark.parametrize("text", ["def f(", "x = " + "-" * 20_000 + "1", "x = " + "(" * 20_000, "\0"])
def test_an_oracle_that_is_not_python(tmp_path: Path, text: str) -> None:
    assert codes(tmp_path, text) == [("oracle-unreadable", "o.py")]


def test_an_oracle_that_is_not_there(tmp_path: Path) -> None:
    assert codes(tmp_path, "def g(x): ...") == [("oracle-missing", "builder.toml")]
    assert codes(tmp_path, "", "p.py:f") == [("oracle-missing", "builder.toml")]
    assert codes(tmp_path, "", "g.npz") == [("oracle-missing", "builder.toml")]
