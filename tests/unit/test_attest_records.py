"""What is said of an image, out of the records that a build and its verification left."""

from __future__ import annotations

from typing import Any

import pytest

from builder import record
from builder.artifacts import Image, Parts
from builder.attest import records
from builder.attest.statement import PROVENANCE, SBOM, VERIFICATION, Statement
from builder.errors import NoRecord, NothingBuilt
from builder.project import Project, Target
from builder.recipe import Base, Bases
from builder.reference import Digest

from . import attested
from .built import DEBIAN, labels, parts_of
from .records import image, verification

DIGEST = Digest("sha256:" + "a" * 64)
TRITON = Base("nvcr.io/nvidia/tritonserver:26.06-py3", Digest("sha256:" + "9" * 64))


@pytest.fixture
def built(project: Project) -> tuple[Project, Image, Parts]:
    """What `build` leaves of the target `embedded`."""
    made = parts_of(project)
    return project, image(str(DIGEST), labels=labels(project, made)), made


def stated(built: tuple[Project, Image, Parts]) -> dict[str, Statement]:
    project, of, made = built
    return {each.predicate_type: each for each in records.of_build(project, of, made, "localhost:5000/mydali", DIGEST)}


def dependencies(said: Statement) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = said.predicate["buildDefinition"]["resolvedDependencies"]
    return found


def test_a_build_is_its_provenance_and_its_sbom(built: tuple[Project, Image, Parts]) -> None:
    said = stated(built)
    assert set(said) == {PROVENANCE, SBOM}
    assert all(each.is_about(DIGEST) for each in said.values())
    assert {each.subject[0].name for each in said.values()} == {"localhost:5000/mydali"}


def test_the_same_build_says_the_same(built: tuple[Project, Image, Parts]) -> None:
    first, second = stated(built), stated(built)
    assert [each.content for each in first.values()] == [each.content for each in second.values()]


def test_provenance_names_base_commit_sources_and_packages(built: tuple[Project, Image, Parts]) -> None:
    project, *_ = built
    found = dependencies(stated(built)[PROVENANCE])
    by_name = {each["name"]: each for each in found if "name" in each}
    assert by_name["base"]["digest"] == {"sha256": "b" * 64}
    assert by_name["base"]["uri"] == f"docker-image://{DEBIAN.name}"
    assert by_name["source"]["digest"] == {"gitCommit": "c" * 40}
    assert by_name["plugin"]["digest"] == {"sha256": record.digests(project)["plugin"]}
    assert {each["uri"] for each in found if each.get("uri", "").startswith("pkg:")} == {
        "pkg:pypi/cmake@4.0",
        "pkg:pypi/nobody-s@1",
    }


def test_a_wheel_that_can_be_one_file_only_is_told_with_its_hash(built: tuple[Project, Image, Parts]) -> None:
    found = {each.get("uri"): each for each in dependencies(stated(built)[PROVENANCE])}
    assert found["pkg:pypi/cmake@4.0"]["digest"] == {"sha256": "4" * 64}
    assert "digest" not in found["pkg:pypi/nobody-s@1"]


def test_a_wheel_that_may_be_one_of_two_files_has_no_hash(built: tuple[Project, Image, Parts]) -> None:
    project, of, made = built
    several = {"cmake": "4.0 sha256:" + "4" * 64 + " sha256:" + "5" * 64}
    told = labels(project, made, Bases(debian=DEBIAN), several)
    found = {
        each.get("uri"): each
        for each in dependencies(stated((project, of.model_copy(update={"labels": told}), made))[PROVENANCE])
    }
    assert "digest" not in found["pkg:pypi/cmake@4.0"]


def test_provenance_tells_the_settings_and_the_engine(built: tuple[Project, Image, Parts]) -> None:
    told = stated(built)[PROVENANCE].predicate
    assert told["buildDefinition"]["externalParameters"]["target"] == "embedded"
    assert told["buildDefinition"]["externalParameters"]["settings"]["repository"] == "localhost:5000/mydali"
    assert told["runDetails"]["builder"]["version"]["engine"] == "26.1.5"


def test_the_sbom_lists_plugins_models_and_the_image_s_packages(built: tuple[Project, Image, Parts]) -> None:
    components = stated(built)[SBOM].predicate["components"]
    urls = {each["purl"] for each in components if "purl" in each}
    assert any(url.startswith("pkg:deb/debian/libc6@") for url in urls)
    assert "pkg:pypi/cmake@4.0" not in urls  # the toolchain is not in the image
    assert "mydali" in {each["name"] for each in components}
    assert any("libcustomcopy.so" in each["name"] for each in components)


def test_the_toolchain_s_debian_is_not_that_of_a_base_elsewhere(built: tuple[Project, Image, Parts]) -> None:
    project, of, made = built
    ngc = Target(triton_image=TRITON.name, toolchain="wheel")
    far = project.model_copy(update={"targets": {"embedded": ngc}})
    told = labels(far, made, Bases(TRITON, DEBIAN))
    said = stated((far, of.model_copy(update={"labels": told}), made))
    urls = {each["purl"] for each in said[SBOM].predicate["components"] if "purl" in each}
    assert not any(url.startswith("pkg:deb/") for url in urls)
    [base] = [each for each in dependencies(said[PROVENANCE]) if each.get("name") == "base"]
    assert base["digest"] == {"sha256": "9" * 64}


def test_an_image_without_a_record_has_no_provenance(built: tuple[Project, Image, Parts]) -> None:
    project, of, made = built
    with pytest.raises(NoRecord) as failure:
        stated((project, of.model_copy(update={"labels": {}}), made))
    assert failure.value.where == "mydali:embedded"


@pytest.mark.parametrize("name", ["toolchain.json", "inventory.json"])
def test_what_the_build_left_must_still_be_there(built: tuple[Project, Image, Parts], name: str) -> None:
    (built[0].state / "embedded" / "parts" / name).unlink()
    with pytest.raises(NothingBuilt) as failure:
        stated(built)
    assert name in failure.value.where


def test_a_verification_is_told_as_it_was_recorded() -> None:
    passed = verification(str(DIGEST)).model_copy(update={"models": (attested.MODEL,)})
    said = records.of_verification(passed, "localhost:5000/mydali", DIGEST)
    assert (said.predicate_type, said.is_about(DIGEST)) == (VERIFICATION, True)
    assert said.predicate["result"] == "PASSED"
    assert said.predicate["configuration"] == [{"name": "builder.toml", "digest": {"sha256": "e" * 64}}]
    details = said.predicate["tritonDaliBuilder"]
    assert details["versions"] == passed.versions
    assert details["serverLog"] == {"digest": {"sha256": "f" * 64}, "lastLines": ["one", "two"]}
