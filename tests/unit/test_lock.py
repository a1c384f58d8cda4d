from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from builder import lock, package
from builder.errors import LockInvalid, LockMissing, LockOutdated
from builder.lock import Lock, LockedImage, LockedTarget
from builder.project import Project, Target

SHA, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
DEBIAN = LockedImage(name="docker.io/library/debian:12-slim", digest=SHA)
NGC = LockedImage(name="nvcr.io/nvidia/tritonserver:26.06-py3", digest=OTHER)
REQUIREMENTS = package.ROOT / "embedded" / "requirements"


def locked(target: Target | None = None, **changes: Any) -> LockedTarget:
    """As `lock` writes it for the embedded base."""
    made = LockedTarget(
        debian_image=DEBIAN,
        wheels=lock.wheels(target or Target()),
        debian={"g++-12": "12.2.0-14+deb12u1", "libc6": "2.36-9+deb12u10"},
    )
    return made.model_copy(update=changes)


def changed(project: Project, **values: Any) -> Project:
    return Project.model_validate({**dict(project), **values})


def held(project: Project, name: str = "embedded", *, required: bool = True) -> LockedTarget | None:
    return lock.held(project, name, required=required)


def test_what_is_saved_is_what_is_loaded(project: Project) -> None:
    written = Lock(targets={"embedded": locked(), "ngc": locked(triton_image=NGC, debian_image=None)})
    lock.save(project, written)
    assert lock.load(project) == written
    text = (project.root / "builder.lock").read_text()
    assert text.startswith("# What `python -m builder lock` found")
    lock.save(project, lock.load(project))
    assert (project.root / "builder.lock").read_text() == text


def test_without_a_lock_no_target_is_held(project: Project) -> None:
    assert lock.load(project) == Lock()
    assert held(project, required=False) is None


@pytest.mark.parametrize(
    "text",
    [
        "targets = [",
        "<<<<<<< HEAD\n",
        'version = "new"\n',
        "[targets.embedded]\nwheels = {}\n",
        "[targets.embedded]\nwheels = {}\ndebian = {}\nmore = 1\n",
        "more = 1\n",
    ],
)
def test_a_lock_that_is_half_understood_is_none(project: Project, text: str) -> None:
    (project.root / "builder.lock").write_text(text)
    with pytest.raises(LockInvalid) as failure:
        lock.load(project)
    assert failure.value.where == str(project.root / "builder.lock")
    assert 1 <= len(failure.value.detail) <= 5


def test_a_lock_that_is_no_text_is_told(project: Project) -> None:
    (project.root / "builder.lock").write_bytes(b"\xff\xfe")
    with pytest.raises(LockInvalid):
        lock.load(project)


def test_a_target_is_held_to_its_own_lock(project: Project) -> None:
    lock.save(project, Lock(targets={"embedded": locked()}))
    assert held(project) == locked()
    assert held(project, "ngc", required=False) is None
    with pytest.raises(LockMissing, match="'ngc'") as failure:
        held(project, "ngc")
    assert failure.value.remedy == "python -m builder lock --target ngc"


def test_other_wheels_than_the_program_s_are_told(project: Project) -> None:
    wheels = lock.wheels(Target())
    name, told = next(iter(wheels.items()))
    version = told.split()[0]
    other = {**wheels, name: f"0.0.1 {SHA}", "gone": f"1.0 {SHA}"}
    del other[sorted(wheels)[-1]]
    lock.save(project, Lock(targets={"embedded": locked(wheels=other)}))
    for required in (True, False):
        with pytest.raises(LockOutdated) as failure:
            held(project, required=required)
        assert f"{name}: 0.0.1 → {version}" in failure.value.detail
        assert "gone: 1.0 → none" in failure.value.detail
        assert any(line.startswith(f"{sorted(wheels)[-1]}: none → ") for line in failure.value.detail)


def test_another_dali_than_the_locked_one_is_told(project: Project) -> None:
    lock.save(project, Lock(targets={"embedded": locked()}))
    newer = changed(project, targets={"embedded": {"dali": "2.1.1"}})
    with pytest.raises(LockOutdated) as failure:
        held(newer)
    assert any("dali" in line and line.endswith(" → 2.1.1") for line in failure.value.detail)


@pytest.mark.parametrize(
    ("values", "base", "line"),
    [
        # A tag's digest says nothing of another tag.
        (
            {"triton_image": "nvcr.io/nvidia/tritonserver:25.12-py3"},
            {"triton_image": NGC, "debian_image": None},
            f"triton_image: {NGC.name} → nvcr.io/nvidia/tritonserver:25.12-py3",
        ),
        ({"triton_image": NGC.name}, {"debian_image": None}, f"triton_image: none → {NGC.name}"),
        ({}, {"triton_image": NGC}, f"triton_image: {NGC.name} → none"),
    ],
)
def test_another_base_than_the_locked_one_is_told(
    project: Project, values: dict[str, str], base: dict[str, Any], line: str
) -> None:
    target = Target.model_validate(values)
    named = changed(project, targets={"embedded": target})
    lock.save(named, Lock(targets={"embedded": locked(target, **base)}))
    with pytest.raises(LockOutdated) as failure:
        held(named)
    assert failure.value.detail == (line,)


def test_another_debian_than_the_locked_one_is_told_where_one_is_named(project: Project) -> None:
    lock.save(project, Lock(targets={"embedded": locked()}))
    assert held(changed(project, debian_image=DEBIAN.name)) == locked()
    with pytest.raises(LockOutdated) as failure:
        held(changed(project, debian_image="mirror.example.com/debian:12"))
    assert failure.value.detail == (f"debian_image: {DEBIAN.name} → mirror.example.com/debian:12",)


def pins(*files: str) -> dict[str, str]:
    """NAME==VERSION in the files of requirements, read by other means than the lock's."""
    text = "".join((REQUIREMENTS / file).read_text() for file in files)
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)(?:\[.*?\])?==([^\s;\\]+)", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("values", "files"),
    [
        ({}, ("toolchain.txt", "triton.txt", "dali-1.53.0.txt")),
        ({"dali": "2.1.1"}, ("toolchain.txt", "triton.txt", "dali-2.1.1.txt")),
        ({"triton_image": NGC.name}, ("toolchain.txt",)),
        ({"triton_image": NGC.name, "toolchain": "wheel"}, ("toolchain.txt", "dali-2.1.1.txt")),
        ({"dali": "9.9.9"}, ("toolchain.txt", "triton.txt")),
    ],
)
def test_wheels_are_those_that_a_target_s_stages_install(values: dict[str, str], files: tuple[str, ...]) -> None:
    wheels = lock.wheels(Target.model_validate(values))
    assert {name: told.split()[0] for name, told in wheels.items()} == pins(*files)
    assert list(wheels) == sorted(wheels)
    for told in wheels.values():
        _, *hashes = told.split()
        assert hashes == sorted(hashes)
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes)


def test_packages_are_named_in_order() -> None:
    told = {"debian": [{"name": "zlib1g", "version": "1", "source": "x"}, {"name": "apt", "version": "2.6"}]}
    assert list(lock.packages(told).items()) == [("apt", "2.6"), ("zlib1g", "1")]


def test_packages_are_written_one_a_line_and_taken_back(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "lock"
    lock.write_packages(None, folder)
    assert list(folder.iterdir()) == []
    lock.write_packages(locked(), folder)
    assert (folder / "debian").read_text() == "g++-12=12.2.0-14+deb12u1\nlibc6=2.36-9+deb12u10\n"
    assert [path.name for path in folder.iterdir()] == ["debian"]
    for nothing in (locked(debian={}), None):
        lock.write_packages(locked(), folder)
        lock.write_packages(nothing, folder)
        assert list(folder.iterdir()) == []


def test_the_toolchain_is_compilers_and_what_builds_with_them() -> None:
    cmake, ninja, nvcc = (lock.wheels(Target())[name].split()[0] for name in ("cmake", "ninja", "nvidia-cuda-nvcc"))
    assert locked().toolchain == {
        "g++-12": "12.2.0-14+deb12u1",
        "nvidia-cuda-nvcc": nvcc,
        "cmake": cmake,
        "ninja": ninja,
    }
    assert locked(wheels={}, debian={}).toolchain == {}


def test_nothing_is_out_of_date_in_the_same() -> None:
    assert lock.differences(locked(), locked()) == []


def test_what_is_out_of_date_is_a_line_each() -> None:
    now = locked(
        debian_image=LockedImage(name=DEBIAN.name, digest=OTHER),
        wheels={**locked().wheels, "cmake": f"99.0 {SHA}"},
        debian={"g++-12": "12.2.0-14+deb12u1", "libc6": "2.36-9+deb12u11", "zlib1g": "1"},
    )
    cmake = locked().wheels["cmake"].split()[0]
    assert lock.differences(locked(), now) == [
        f"debian_image {DEBIAN.name} is {OTHER} now, not {SHA}: its tag has moved",
        f"cmake: {cmake} → 99.0",
        "libc6: 2.36-9+deb12u10 → 2.36-9+deb12u11",
        "zlib1g: none → 1",
    ]


def test_a_wheel_of_the_same_version_with_other_hashes_is_told() -> None:
    before, after = (locked(wheels={"cmake": f"1.0 {digest}"}) for digest in (SHA, OTHER))
    assert lock.differences(before, after) == ["cmake 1.0: other hashes"]


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (None, NGC, f"triton_image is {NGC.name}, not none"),
        (NGC, None, f"triton_image is none, not {NGC.name}"),
        (NGC, LockedImage(name="x:1", digest=NGC.digest), f"triton_image is x:1, not {NGC.name}"),
    ],
)
def test_another_base_is_told(before: LockedImage | None, after: LockedImage | None, line: str) -> None:
    assert lock.differences(locked(triton_image=before), locked(triton_image=after)) == [line]
