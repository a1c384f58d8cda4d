from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from builder.attest import sbom
from builder.attest.inventory import Inventory
from builder.errors import NothingBuilt
from builder.reference import Digest

from . import attested

DIGEST = Digest("sha256:" + "a" * 64)


@pytest.fixture
def document() -> dict[str, Any]:
    return attested.listed(DIGEST).predicate


def component(document: dict[str, Any], reference: str) -> dict[str, Any]:
    (found,) = [each for each in document["components"] if each["bom-ref"] == reference]
    return dict(found)


def problem(document: dict[str, Any]) -> str:
    """What CycloneDX's own schema has against it."""
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
    return str(found) if found else ""


def test_cyclonedx_s_own_schema_has_nothing_against_it(document: dict[str, Any]) -> None:
    assert document["specVersion"] == "1.6"
    assert problem(document) == ""


@pytest.mark.parametrize("change", [{"serialNumber": "1"}, {"components": [{"name": "x"}]}, {"colour": "red"}])
def test_the_schema_sees_what_is_wrong(document: dict[str, Any], change: dict[str, Any]) -> None:
    assert problem(document | change)


def test_the_smallest_image_has_one_too() -> None:
    document = sbom.document(
        "x",
        DIGEST,
        Inventory(),
        triton_version="",
        dali_version="1.53.0",
        plugins=[],
        plugin_files={"CMakeLists.txt": "1" * 64},
        model_files={},
        epoch=0,
    )
    assert problem(document) == ""
    assert [each["bom-ref"] for each in document["components"]] == ["dali", "triton"]
    assert sbom.plugins(document) == {}
    assert sbom.versions(document) == {"triton": "", "dali": "1.53.0"}


def test_it_names_its_image_and_its_time(document: dict[str, Any]) -> None:
    assert sbom.subject(document) == str(DIGEST)
    assert document["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    other = attested.listed(Digest("sha256:" + "9" * 64)).predicate
    assert other["serialNumber"] != document["serialNumber"]


def test_packages_are_found_by_scanners(document: dict[str, Any]) -> None:
    urls = sorted(each["purl"] for each in document["components"] if "purl" in each)
    assert urls == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12&upstream=glibc",
        "pkg:deb/debian/libgcc-s1@12.2.0-14?arch=amd64&distro=debian-12&upstream=gcc-12%4012.2.0-14%2Bx",
        "pkg:pypi/nvidia-dali-cuda120@1.53.0",
        "pkg:pypi/some-name@1",
    ]
    twice = component(document, "pkg:pypi/some-name@1")
    assert [each["value"] for each in twice["properties"]] == ["/opt/dali", "/opt/other"]


def test_a_plugin_comes_with_its_digest_and_with_what_it_was_compiled_from(document: dict[str, Any]) -> None:
    reference = "plugin:/models/libcustomcopy.so"
    plugin = component(document, reference)
    assert plugin["hashes"] == [{"alg": "SHA-256", "content": "d" * 64}]
    assert {"name": "triton-dali-builder:operators", "value": "CustomCopy (cpu, gpu)"} in plugin["properties"]
    sources = component(document, "plugin-sources")["components"]
    assert [(each["name"], each["hashes"][0]["content"]) for each in sources] == [
        ("plugin/CMakeLists.txt", "1" * 64),
        ("plugin/src/copy.cc", "2" * 64),
    ]
    (needs,) = [each["dependsOn"] for each in document["dependencies"] if each["ref"] == reference]
    assert needs == ["dali", "plugin-sources"]
    assert sbom.plugins(document) == {"/models/libcustomcopy.so": "d" * 64}


def test_a_model_comes_with_its_files(document: dict[str, Any]) -> None:
    model = component(document, "model:mydali")
    assert [(each["name"], each["hashes"][0]["content"]) for each in model["components"]] == [
        ("/models/mydali/config.pbtxt", "3" * 64)
    ]


@pytest.mark.parametrize("broken", [{}, {"components": 1}, {"components": [1, {}]}, {"metadata": {"component": []}}])
def test_a_document_of_others_has_none_of_it(broken: dict[str, Any]) -> None:
    assert (sbom.subject(broken), sbom.plugins(broken), sbom.versions(broken)) == ("", {}, {})


def test_an_inventory_that_is_not_there_or_damaged(tmp_path: Path) -> None:
    (tmp_path / "inventory.json").write_text('{"debian": [{}]}')
    for name in ("inventory.json", "none.json"):
        with pytest.raises(NothingBuilt, match="list of the image's packages"):
            Inventory.read(tmp_path / name)
    (tmp_path / "inventory.json").write_text(attested.INVENTORY.model_dump_json())
    assert Inventory.read(tmp_path / "inventory.json") == attested.INVENTORY
