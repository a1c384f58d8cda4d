"""data/sarif-schema-2.1.0.json is OASIS's own, of SARIF 2.1.0 with errata 01."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from builder import sarif
from builder.catalogue import codes
from builder.findings import Finding, Place

SCHEMA = json.loads((Path(__file__).parent / "data" / "sarif-schema-2.1.0.json").read_text(encoding="utf-8"))
PLACES = [
    Place("builder.toml"),
    Place("builder.toml", 3),
    Place("model_repository/a b/config.pbtxt", 3, 7),
    Place("ünï/50%.txt", 1),
    Place("--set targets.embedded.dali"),
    Place("/usr/lib/x.so"),
]


def problems(document: Any) -> list[str]:
    checker = jsonschema.Draft4Validator.FORMAT_CHECKER
    return [error.message for error in jsonschema.Draft4Validator(SCHEMA, format_checker=checker).iter_errors(document)]


def of(*findings: Finding, root: Path = Path()) -> Any:
    return json.loads(json.dumps(sarif.document(findings, root)))


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_finding_anywhere_is_sarif(place: Place) -> None:
    document = of(Finding("plugin-unused", "w", place, "r", ("line",), model="m", target="t"))
    assert problems(document) == []
    assert document["$schema"] == SCHEMA["id"]


def test_every_code_is_a_rule(tmp_path: Path) -> None:
    document = of(*(Finding(code, "w", Place("a", 1), "r") for code in codes()), root=tmp_path)
    assert problems(document) == []
    run = document["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(codes())
    assert [rules[result["ruleIndex"]]["id"] for result in run["results"]] == [
        each["ruleId"] for each in run["results"]
    ]
    assert run["originalUriBaseIds"]["PROJECT"]["uri"] == f"file://{tmp_path}/"


def test_the_schema_finds_what_is_wrong() -> None:
    document = of(Finding("plugin-unused", "w", Place("a"), "r"))
    document["runs"][0]["results"][0]["level"] = "bad"
    assert problems(document)


def test_no_finding_is_a_run_without_results() -> None:
    document = of()
    assert problems(document) == []
    assert document["runs"][0]["results"] == []


def test_a_result_says_what_where_and_what_to_do() -> None:
    found = Finding("plugin-unused", "no model uses it", Place("a b.txt", 3, 7), "remove it", ("line",), target="ngc")
    [result] = of(found)["runs"][0]["results"]
    assert result["message"]["text"] == "no model uses it. Remove it\nline"
    assert (result["level"], result["properties"]) == ("warning", {"target": "ngc"})
    [location] = result["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "a%20b.txt", "uriBaseId": "PROJECT"},
        "region": {"startLine": 3, "startColumn": 7},
    }


def test_the_same_code_is_one_rule() -> None:
    document = of(*(Finding("plugin-unused", "w", Place("a", line), "r") for line in (1, 2)))
    assert len(document["runs"][0]["tool"]["driver"]["rules"]) == 1
