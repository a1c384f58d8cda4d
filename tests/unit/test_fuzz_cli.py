"""`check` on projects that a machine broke: whatever it reads, it ends with one JSON document and no bug of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, example, given, settings
from hypothesis import strategies as st

from builder import cli
from tests.broken import load

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
"""How long each of these tests goes on; 0: a few examples, as in every run of the tests."""
FILES = (
    "builder.toml",
    "model_repository/mydali/config.pbtxt",
    "model_repository/mydali/1/dali.py",
    "model_repository/measure/config.pbtxt",
    "plugin/CMakeLists.txt",
    "plugin/custom_copy.cc",
)
# What files of these kinds are made of, so that many of the broken ones are nearly right.
WORDS = (
    b"=", b":", b"[", b"]", b"[[", b"{", b"}", b"<", b">", b"(", b")", b",", b";", b"#", b"\\", b'"', b"'", b'"""',
    b"'''", b"\n", b"\r", b"\t", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"0", b"-1", b"1e999", b"0x", b"nan",
    b"true", b"99999999999999999999", b"2024-13-45", b"9" * 5000, b"[" * 300, b"{" * 300, b"-" * 300, b"a." * 300,
    b"targets", b"models", b"plugins", b"oracle", b"input", b"output", b"dims", b"parameters", b"instance_group",
    b"ensemble_scheduling { step { } }", b"version_policy { specific { versions: -1 } }", b"TYPE_STRING", b"backend",
    b"platform: \"ensemble\"", b"max_batch_size: 0", b"fn.", b"@", b"def ", b"lambda: ", b"return", b"yield ",
    b"import ", b"*", b"**", b"for x in y:", b"external_source", b"name=", b"device='gpu'", b"if(", b"endif()",
    b"foreach(", b"add_dali_plugin(", b"add_subdirectory(.)", b"include(CMakeLists.txt)", b"${",
    b"DALI_REGISTER_OPERATOR(", b"/*",
)  # fmt: skip


@st.composite
def broken(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with parts of it taken out, doubled, moved, or replaced by something else."""
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.sampled_from([0, 1, 2, 5, 20, 200])))
        new = draw(
            st.one_of(
                st.sampled_from(WORDS),
                st.binary(max_size=8),
                st.text(max_size=8).map(lambda text: text.encode(errors="surrogatepass")),
                st.just(data[begin:end] * 2),
                st.integers(0, len(data)).map(lambda other, data=data: data[other : other + 40]),
            )
        )
        data = data[:begin] + new + data[end:]
    return data


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped example and an ensemble; each test breaks a file of it and mends it again."""
    return load("good-ensemble").make(tmp_path_factory.mktemp("fuzz") / "project")


def check(root: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """`check --json`: the exit status and the document."""
    out, err = io.StringIO(), io.StringIO()
    arguments = ["check", "-C", str(root), "--json", *options]
    before, sys.argv = sys.argv, ["builder", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli._run(arguments)
    finally:
        sys.argv = before
    assert "Traceback" not in out.getvalue() + err.getvalue()
    return status, json.loads(out.getvalue())


@contextlib.contextmanager
def replaced(path: Path, data: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def holds(root: Path, name: str, data: bytes) -> None:
    began = time.monotonic()
    with replaced(root / name, data):
        status, document = check(root)
    assert status in (0, 2), document
    assert document.get("error", {}).get("code") != "failed", document
    if "error" not in document:
        assert document["passed"] is (status == 0)
    for each in document.get("findings", []):
        assert each["code"]
        assert each["what"]
        assert each["remedy"]
        assert each["place"]["file"]
        assert each["place"]["line"] >= 0
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_anything_in_it_is_read_or_refused(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(root.parent))
    original = (root / name).read_bytes()
    until = time.monotonic() + SECONDS

    @settings(
        max_examples=500 if SECONDS else 25,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        verbosity=Verbosity.quiet,
    )
    @given(broken(original))
    @example(b"")
    @example(b"\0")
    @example(b"\xef\xbb\xbf" + original)
    @example(original.replace(b"\n", b"\r"))
    @example(original + b"\nx = " + b"9" * 5000)
    @example(original + b"[" * 5000)
    @example(original + b"(" * 5000)
    @example(original + b"{" * 5000)
    @example(original + b"-" * 5000 + b"1")
    @example(original * 100)
    def one(data: bytes) -> None:
        holds(root, name, data)

    one()
    while time.monotonic() < until:
        one()


@settings(max_examples=500 if SECONDS else 50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        st.text(max_size=20),
        st.tuples(
            st.sampled_from(
                ["repository", "targets", "targets.embedded", "targets.embedded.dali", "models.a.b", "tags"]
            ),
            st.one_of(
                st.text(max_size=12), st.sampled_from(["[", "{}", "[1]", '["a"]', "{a = 1}", "true", "9" * 5000])
            ),
        ).map("=".join),
    )
)
@example("=")
@example(".=1")
@example('"="=1')
@example("a.b.c.d=1")
@example("x=[" + "9" * 5000 + "]")
@example("x=" + "[" * 5000)
def test_an_option_with_anything_in_it_is_taken_or_refused(root: Path, option: str) -> None:
    status, document = check(root, f"--set={option}")
    assert status in (0, 2), document
    assert "this is a bug" not in document.get("error", {}).get("what", "")
