from __future__ import annotations

import pytest

from builder.artifacts import Parts, Plugin
from builder.catalogue import story
from builder.checks import rebase
from builder.checks.libraries import Runtime
from builder.checks.rebase import Need
from builder.elf import Demand, Library
from builder.findings import Finding
from builder.project import Project, Target

from .records import parts, plugin

BASE = "registry.example.com/tritonserver:patched"
RUNTIME = Runtime("1.53.0", "2.36", "3.4.30")


def library(*versions: str, machine: str = "x86_64") -> Library:
    demands = tuple(Demand("libc.so.6", version, False) for version in versions)
    return Library("libcustomcopy.so", machine, 64, "", (), demands, (), (), ())


def check(read: Library, runtime: Runtime = RUNTIME, made: Parts | None = None) -> list[Finding]:
    found = list(rebase.check_base(made or parts(plugin()), [read], runtime, BASE))
    for each in found:
        assert story(each.code).text
        assert str(each.place) == BASE
        assert f'triton_image = "{BASE}"' in each.remedy
        assert "build --target embedded" in each.remedy
    return found


def test_a_base_with_all_that_is_needed_has_no_finding() -> None:
    assert check(library("DALI_1.53.0", "GLIBC_2.36", "GLIBCXX_3.4.30")) == []


@pytest.mark.parametrize(
    ("runtime", "code", "needed", "there"),
    [
        (Runtime("1.53.1", "2.36", "3.4.30"), "rebase-dali-differs", "1.53.0", "1.53.1"),
        (Runtime("1.53.0", "2.35", "3.4.30"), "library-abi-glibc", "GLIBC_2.36", "GLIBC_2.35"),
        (Runtime("1.53.0", "2.36", "3.4.29"), "library-abi-glibcxx", "GLIBCXX_3.4.30", "GLIBCXX_3.4.29"),
    ],
)
def test_what_a_base_lacks_is_told(runtime: Runtime, code: str, needed: str, there: str) -> None:
    [found] = check(library("DALI_1.53.0", "GLIBC_2.36", "GLIBCXX_3.4.30"), runtime)
    assert found.code == code
    assert needed in found.what
    assert there in found.what


def test_all_that_a_base_lacks_is_told_at_once() -> None:
    found = check(library("DALI_1.53.0", "GLIBC_2.36", "GLIBCXX_3.4.30"), Runtime("2.1.1", "2.31", "3.4.28"))
    assert [each.code for each in found] == ["rebase-dali-differs", "library-abi-glibc", "library-abi-glibcxx"]


def test_pipelines_alone_need_their_dali_too() -> None:
    [found] = list(rebase.check_base(parts(), [], Runtime("2.1.1", "2.36", "3.4.30"), BASE))
    assert found.code == "rebase-dali-differs"
    assert found.detail == ("the pipelines were serialized with DALI 1.53.0",)


def test_a_library_for_another_machine_is_told() -> None:
    [found] = check(library(machine="aarch64"))
    assert found.code == "library-wrong-machine"


def test_the_line_to_write_takes_the_place_of_a_dali_that_is_stated() -> None:
    made = parts(plugin()).model_copy(update={"built_as": Target(dali="1.53.0")})
    [found] = check(library(), Runtime("2.1.1"), made)
    assert 'in the place of dali = "1.53.0"' in found.remedy


@pytest.mark.parametrize(
    ("base", "codes"),
    [
        ("nvcr.io/nvidia/tritonserver:26.06-py3", ["rebase-dali-differs"]),
        ("mirror.example.com/tritonserver:26.06-py3-patched", ["rebase-dali-differs"]),
        ("nvcr.io/nvidia/tritonserver:99.01-py3", []),  # nobody knows before it is here
        (BASE, []),
        ("embedded", []),
    ],
)
def test_a_release_that_is_known_is_refused_before_it_is_pulled(base: str, codes: list[str]) -> None:
    assert [each.code for each in rebase.check_release(parts(), base)] == codes


def test_a_release_with_the_same_dali_is_not_refused() -> None:
    made = parts().model_copy(update={"dali_version": "2.1.1"})
    assert list(rebase.check_release(made, "nvcr.io/nvidia/tritonserver:26.06-py3")) == []


def test_an_embedded_base_must_be_one_that_can_be_made(project: Project) -> None:
    def on(target: Target) -> list[str]:
        moved = project.model_copy(update={"targets": {"embedded": target}})
        return [each.code for each in rebase.check_embedded(moved, "embedded")]

    assert on(Target(dali="1.53.0")) == []
    assert on(Target(dali="1.52.9")) == ["dali-unknown"]
    assert on(Target(dali="1.53.0", platform="linux/arm64")) == ["platform-unsupported"]
    assert on(Target(triton_image=BASE, dali="1.52.9")) == []


def other(**demands: str) -> Plugin:
    return plugin("/models/libother.so").model_copy(update={"demands": demands})


def test_the_highest_version_that_any_library_needs_counts() -> None:
    made = parts(plugin(), other(GLIBC="2.4", GLIBCXX="3.4.9"), other(GLIBC="2.35", GLIBCXX="3.4.21"))
    assert rebase.needs(made, RUNTIME) == (
        Need("DALI", "1.53.0", "1.53.0"),
        Need("GLIBC", "2.35", "2.36"),
        Need("GLIBCXX", "3.4.21", "3.4.30"),
    )


def test_without_a_library_no_version_is_needed_but_dali_s() -> None:
    assert [each.needs for each in rebase.needs(parts(), RUNTIME)] == ["1.53.0", "", ""]
