from __future__ import annotations

import importlib
import pkgutil
import re
from collections import Counter

import pytest

import builder
from builder import catalogue, errors
from builder.errors import BuilderError, PortInUse, did_you_mean, family

# Classes of other modules would count too.
for module in pkgutil.walk_packages(builder.__path__, "builder."):
    if module.name not in ("builder.__main__",) and not module.name.startswith("builder.stages"):
        importlib.import_module(module.name)


def test_every_code_is_one_error_s_alone() -> None:
    assert [code for code, count in Counter(error.code for error in family()).items() if count > 1] == []


@pytest.mark.parametrize("error", family(), ids=lambda error: error.__name__)
def test_codes_are_kebab_case(error: type[BuilderError]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", error.code)


@pytest.mark.parametrize("error", family(), ids=lambda error: error.__name__)
def test_codes_can_be_explained(error: type[BuilderError]) -> None:
    assert error.code in catalogue.codes()


@pytest.mark.parametrize(
    ("head", "exit_code"),
    [
        (errors.ProjectError, 2),
        (errors.MachineError, 3),
        (errors.BuildError, 4),
        (errors.VerificationError, 5),
        (errors.PushError, 6),
        (errors.Interrupted, 130),
    ],
)
def test_a_family_shares_its_exit_code(head: type[BuilderError], exit_code: int) -> None:
    assert {error.exit_code for error in family(head)} == {exit_code}


def test_every_error_belongs_to_one_of_the_families() -> None:
    assert {error.__name__ for error in BuilderError.__subclasses__()} == {
        "ProjectError",
        "MachineError",
        "BuildError",
        "VerificationError",
        "PushError",
        "Interrupted",
    }


def test_an_error_as_json_has_all_that_a_user_is_told() -> None:
    error = PortInUse("port 8000 is in use", where="mydali", remedy="stop it", detail=["bind: in use"])
    assert error.as_json() == {
        "code": "port-in-use",
        "what": "port 8000 is in use",
        "where": "mydali",
        "remedy": "stop it",
        "detail": ["bind: in use"],
    }


@pytest.mark.parametrize(
    ("name", "hint"), [("embeded", "; did you mean embedded?"), ("zzz", ""), ("ngc", "; did you mean ngc?")]
)
def test_a_hint_names_what_is_close_and_nothing_else(name: str, hint: str) -> None:
    assert did_you_mean(name, iter(["embedded", "ngc"])) == hint
