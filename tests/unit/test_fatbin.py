from __future__ import annotations

import contextlib
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder import fatbin

# Headers of entries as nvcc 13.0 wrote them, with the name that cuobjdump 13.5 gives each (of the family variants of
# machine code it leaves the `f` off).
ENTRIES = {
    "sm_75": "0200010140000000e83d0000000000000000000000000000080001004b00000000000000000000001100000000000000",
    "sm_90a": "0200010140000000700e0000000000000000000000000000080001005a00000000000000000000001100100000000000",
    "sm_100": "0200010170000000885c0000000000000000000040000000080001006400000000000000000000001100000100000000",
    "sm_100f": "020001017000000098140000000000000000000040000000080001006400000000000000000000001100200100000000",
    "sm_103a": "020001017000000098140000000000000000000040000000080001006700000000000000000000001100100100000000",
    "compute_75": "01000101500000000001000000000000fd00000040000000000009004b00000000000000000000001180000000000000",
    "compute_90a": "01000101500000000001000000000000fc00000040000000000009005a00000000000000000000001180100000000000",
    "compute_100f": "010001015000000008010000000000000201000040000000000009006400000000000000000000001180200000000000",
}


def entry(name: str) -> bytes:
    start = bytes.fromhex(ENTRIES[name])
    header, code = struct.unpack_from("<IQ", start, 4)
    return start + bytes(header - len(start)) + bytes(code)


def container(*names: str) -> bytes:
    entries = b"".join(entry(name) for name in names)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries


def read(data: bytes) -> tuple[fatbin.Container, ...]:
    return fatbin.read(io.BytesIO(data), 0, len(data))


@pytest.mark.parametrize("name", ENTRIES)
def test_each_kind_of_entry_has_nvcc_s_name(name: str) -> None:
    assert read(container(name)) == ((name,),)


def test_machine_code_comes_before_ptx_each_from_the_oldest() -> None:
    assert read(container("compute_100f", "sm_100", "compute_75", "sm_75")) == (
        ("sm_75", "sm_100", "compute_75", "compute_100f"),
    )


def test_every_source_has_a_container_and_empty_ones_do_not_count() -> None:
    data = container("sm_75") + bytes(8) + container() + container("sm_90a", "compute_75") + bytes(16)
    assert read(data) == (("sm_75",), ("sm_90a", "compute_75"))
    assert fatbin.architectures(read(data)) == ("sm_75", "sm_90a", "compute_75")


def test_it_may_lie_anywhere_in_a_file() -> None:
    data = container("sm_100")
    assert fatbin.read(io.BytesIO(b"before" + data + b"behind"), 6, len(data)) == (("sm_100",),)


@pytest.mark.parametrize("size", [17, 40, 80, 1000])
def test_what_is_cut_off_is_no_code(size: int) -> None:
    with pytest.raises(ValueError, match="cut off"):
        read(container("sm_75")[:size])


def test_other_bytes_are_no_code() -> None:
    with pytest.raises(ValueError, match="at byte 0 of its GPU code there is no container"):
        read(b"x" * 32)


def test_an_entry_that_is_larger_than_its_container_is_found() -> None:
    data = bytearray(container("sm_75"))
    data[24:28] = b"\xff\xff\xff\x7f"
    with pytest.raises(ValueError, match="wrong size"):
        read(bytes(data))


@given(st.binary(max_size=300), st.integers(0, 200))
def test_bytes_of_any_kind_are_read_or_refused(noise: bytes, where: int) -> None:
    data = container("sm_75", "compute_75")
    with contextlib.suppress(ValueError):
        assert len(read(data[:where] + noise + data[where + len(noise) :])) <= 2


@pytest.mark.parametrize(
    ("architectures", "sm", "fit"),
    [
        ("sm_80", 80, "native"),
        ("sm_80", 86, "native"),
        ("sm_86", 80, "no"),
        ("sm_80", 90, "no"),
        ("sm_75", 80, "no"),
        ("compute_75", 75, "jit"),
        ("compute_75", 121, "jit"),
        ("compute_90", 80, "no"),
        ("sm_90a", 90, "native"),
        ("sm_100a", 103, "no"),
        ("compute_90a", 90, "jit"),
        ("compute_90a", 100, "no"),
        ("sm_100f", 103, "native"),
        ("sm_103f", 100, "no"),
        ("sm_100f", 120, "no"),
        ("compute_100f", 103, "jit"),
        ("compute_100f", 120, "no"),
        ("sm_120", 121, "native"),
        ("sm_86", 87, "no"),  # Orin
        ("sm_87", 89, "no"),
        ("sm_87", 87, "native"),
        ("compute_80", 87, "jit"),
        ("sm_80 compute_80", 80, "native"),
        ("sm_80 compute_80", 90, "jit"),
        ("", 90, "no"),
    ],
)
def test_what_runs_where(architectures: str, sm: int, fit: str) -> None:
    assert fatbin.runs_on(architectures.split(), sm) == fit


def test_one_source_without_the_right_code_is_enough_to_fail() -> None:
    both, one = ("sm_80", "sm_90"), ("sm_80",)
    assert fatbin.runs_everywhere([both, one], 80) == "native"
    assert fatbin.runs_everywhere([both, one], 90) == "no"
    assert fatbin.runs_everywhere([both, ("compute_80",)], 90) == "jit"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("90", (90, False)),
        ("90-real", (90, False)),
        ("120-virtual", (120, True)),
        ("90a-real", (90, False)),
        ("native", None),
        ("all-major", None),
        ("9", None),
    ],
)
def test_cmake_s_architectures(written: str, meant: tuple[int, bool] | None) -> None:
    assert fatbin.wanted(written) == meant
