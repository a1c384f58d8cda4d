from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from builder import settings
from builder.errors import BadUsage, CheckFailed, ProjectError, ProjectMissing
from builder.findings import Place
from builder.settings import PREFIX, Settings

FILE = """\
repository = "localhost:5000/mydali"
tags = [
  "1.0",
  "latest",
]

[targets.embedded]
dali = "1.53.0"

[targets.embedded-dali2]
dali = "2.1.1"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "builder.toml").write_text(FILE)
    return tmp_path


def value(read: Settings, *key: str) -> Any:
    found: Any = read.values
    for part in key:
        found = found[part]
    return found


def test_values_of_the_file_have_its_lines(root: Path) -> None:
    read = settings.read(root)
    assert value(read, "targets", "embedded", "dali") == "1.53.0"
    assert read.place(("targets", "embedded", "dali")) == Place("builder.toml", 8)
    assert read.place(("tags", "1")) == Place("builder.toml", 4)


def test_what_was_not_given_is_placed_at_the_table_that_it_would_be_in(root: Path) -> None:
    read = settings.read(root)
    assert read.place(("targets", "embedded", "cuda")) == Place("builder.toml", 7)
    assert read.place(("server_args",)) == Place("builder.toml")


@pytest.mark.parametrize(
    ("name", "text", "key", "expected"),
    [
        ("TARGETS__EMBEDDED__DALI", "2.1.1", ("targets", "embedded", "dali"), "2.1.1"),
        # Variables have neither small letters nor hyphens.
        ("TARGETS__EMBEDDED_DALI2__DALI", "2.0.0", ("targets", "embedded-dali2", "dali"), "2.0.0"),
        ("TARGETS__NEW__DALI", "2.0.0", ("targets", "new", "dali"), "2.0.0"),
        ("TAGS", '["a", "b"]', ("tags",), ["a", "b"]),
        ("SOURCE", "", ("source",), ""),
        ("SERVER_ARGS", "[not TOML", ("server_args",), "[not TOML"),
        ("targets__embedded__dali", "2.1.1", ("targets", "embedded", "dali"), "2.1.1"),
    ],
)
def test_a_variable_overrides_the_file(root: Path, name: str, text: str, key: tuple[str, ...], expected: Any) -> None:
    read = settings.read(root, (), {PREFIX + name: text})
    assert value(read, *key) == expected
    assert str(read.place(key)) == f"the environment variable {PREFIX}{name}"


@pytest.mark.parametrize(
    ("option", "key", "expected"),
    [
        ("targets.embedded.dali=2.1.1", ("targets", "embedded", "dali"), "2.1.1"),
        ("targets.embedded-dali2.dali=2.0.0", ("targets", "embedded-dali2", "dali"), "2.0.0"),
        ('models."my.model".rtol=1e-3', ("models", "my.model", "rtol"), "1e-3"),
        ("models.'my.model'.oracle=identity", ("models", "my.model", "oracle"), "identity"),
        ("source=https://example.com/?a=b", ("source",), "https://example.com/?a=b"),
        ('tags=["a"]', ("tags",), ["a"]),
        ('targets={ a = { cuda = "OFF" } }', ("targets",), {"a": {"cuda": "OFF"}}),
        ("source=true", ("source",), True),
        ("source=", ("source",), ""),
    ],
)
def test_an_option_overrides_the_file(root: Path, option: str, key: tuple[str, ...], expected: Any) -> None:
    read = settings.read(root, [option])
    assert value(read, *key) == expected
    assert str(read.place(key)) == f"--set {option.partition('=')[0]}"


def test_the_last_word_counts(root: Path) -> None:
    environment = {f"{PREFIX}TARGETS__EMBEDDED__DALI": "1.0.0", f"{PREFIX}SOURCE": "https://example.com"}
    read = settings.read(root, ["targets.embedded.dali=2.0.0", "targets.embedded.dali=3.0.0"], environment)
    assert value(read, "targets", "embedded", "dali") == "3.0.0"
    assert read.place(("targets", "embedded", "dali")) == Place("--set targets.embedded.dali")
    assert read.place(("source",)).file.endswith("_SOURCE")
    # Its neighbours are the file's as before.
    assert read.place(("targets", "embedded-dali2", "dali")) == Place("builder.toml", 11)


def test_an_overridden_array_has_none_of_its_old_lines(root: Path) -> None:
    read = settings.read(root, ['tags=["a", "b", "c"]'])
    assert read.place(("tags", "1")) == Place("--set tags")


def test_debian_s_image_has_a_name_of_its_own_in_the_environment(root: Path) -> None:
    read = settings.read(root, (), {"DEBIAN_IMAGE": "mirror.example.com/debian:12"})
    assert value(read, "debian_image") == "mirror.example.com/debian:12"
    assert str(read.place(("debian_image",))) == "the environment variable DEBIAN_IMAGE"


@pytest.mark.parametrize(
    "name", ["DEBIAN_IMAGE", "TRITON_DALI_BUILDER_HOME", "TRITON_DALI_BUILDER_PIP_CONF", "TRITON_DALI_BUILDERS", "HOME"]
)
def test_other_variables_are_no_settings(root: Path, name: str) -> None:
    environment = {name: "" if name == "DEBIAN_IMAGE" else "x"}
    assert settings.read(root, (), environment) == settings.read(root)


@pytest.mark.parametrize("option", ["", "targets", "=x", " = x"])
def test_an_option_that_sets_nothing_is_refused(root: Path, option: str) -> None:
    with pytest.raises(BadUsage, match="is not KEY=VALUE") as failure:
        settings.read(root, [option])
    assert "--set targets.embedded.dali=" in failure.value.remedy


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('repository = "x"\ntags = \n', "builder.toml:2:8"),
        ("a = 1\na = 2\n", "builder.toml:2:6"),
        ("[a\n", "builder.toml:1:3"),
        ('a = """', "builder.toml"),
        ("a = " + "[" * 2000, "builder.toml"),
    ],
)
def test_what_is_no_toml_is_told_with_its_place(tmp_path: Path, text: str, place: str) -> None:
    (tmp_path / "builder.toml").write_text(text)
    with pytest.raises(CheckFailed, match="is not TOML") as failure:
        settings.read(tmp_path)
    assert (failure.value.code, failure.value.where) == ("toml-invalid", place)
    assert "(at" not in failure.value.what  # the place says it


def test_a_folder_without_a_project_file_is_said_to_have_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(ProjectMissing) as failure:
            settings.read(folder)
        assert failure.value.where == str(folder)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "builder.toml").write_bytes(b'repository = "\xff"')
    with pytest.raises(ProjectError, match="cannot be read"):
        settings.read(tmp_path)
    (tmp_path / "builder.toml").unlink()
    (tmp_path / "builder.toml").mkdir()
    with pytest.raises(ProjectError, match="cannot be read"):
        settings.read(tmp_path)


NAMES = some.text(max_size=8)


@given(some.lists(some.builds("{}={}".format, NAMES, NAMES), max_size=3), some.dictionaries(NAMES, NAMES, max_size=3))
def test_whatever_is_given_is_taken_or_refused_in_words(options: list[str], variables: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "builder.toml").write_text(FILE)
        environment = {PREFIX + name: each for name, each in variables.items()}
        try:
            read = settings.read(Path(folder), options, environment)
        except BadUsage:
            return
        for key in read.places:
            value(read, *(key if key[0] != "tags" else key[:1]))
