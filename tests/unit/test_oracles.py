from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builder import oracles, workload
from builder.errors import BuilderError, GoldenInvalid, OracleFailed, OracleMissing, VerificationError
from builder.oracles import Case, Oracle, difference, identity, problem
from builder.project import Model
from builder.triton import Array, ModelSpec, Tensors, TensorSpec

BYTES = ModelSpec("m", 8, (TensorSpec("IN", "UINT8", (-1,)),), (TensorSpec("OUT", "UINT8", (-1,)),))
SUM = ModelSpec("m", 8, (TensorSpec("IN", "UINT8", (-1,)),), (TensorSpec("OUT", "INT64", (1,)),), "3")
TEXT = ModelSpec("m", 8, (TensorSpec("IN", "BYTES", (-1,)),), (TensorSpec("OUT", "BYTES", (-1,)),))
SINGLE = ModelSpec("m", 0, (TensorSpec("IN", "UINT8", (-1,)),), (TensorSpec("OUT", "UINT8", (-1,)),))
TWO = ModelSpec(
    "m", 8, (TensorSpec("A", "FP32", (2,)), TensorSpec("x/A", "INT8", (-1,))), (TensorSpec("OUT", "FP32", (2,)),)
)


def told(oracle: str, rtol: float = 0.0, atol: float = 0.0) -> Model:
    return Model(oracle=oracle, rtol=rtol, atol=atol)


def python(root: Path, source: str, name: str = "right.py") -> Oracle:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("import numpy as np\n" + source)
    return oracles.load(root, told(f"{name}:answer"))


def golden(root: Path, **arrays: Any) -> Oracle:
    np.savez(root / "golden.npz", **arrays)
    return oracles.load(root, told("golden.npz"))


def numbers(count: int, size: int = 4) -> Array:
    return np.arange(count * size, dtype=np.uint8).reshape(count, size)


# --- signature and identity ---


@pytest.mark.parametrize(
    ("oracle", "file"),
    [
        ("identity", ""),
        ("signature", ""),
        ("tests/golden.npz", "tests/golden.npz"),
        ("tests/oracles.py:decode", "tests/oracles.py"),
    ],
)
def test_an_oracle_of_the_project_is_in_a_file(oracle: str, file: str) -> None:
    assert oracles.file_of(told(oracle)) == file


def test_a_signature_knows_no_value(tmp_path: Path) -> None:
    oracle = oracles.load(tmp_path, told("signature"))
    questions = oracle.ask(BYTES, 1)
    assert not oracle.compares_values
    assert {questions.case(ask).expected is None for ask in questions.sweep()[0]} == {True}


def test_an_identity_answers_by_position() -> None:
    inputs = {"A": np.zeros((1, 2), np.float32), "x/A": np.ones((1, 3), np.int8)}
    spec = ModelSpec("m", 8, TWO.inputs, (TensorSpec("P", "FP32", (2,)), TensorSpec("Q", "INT8", (-1,))))
    assert identity(spec, inputs)["P"] is inputs["A"]
    assert identity(spec, inputs)["Q"] is inputs["x/A"]


def test_a_model_that_is_no_identity_says_so() -> None:
    with pytest.raises(VerificationError, match="2 inputs and 1 outputs"):
        identity(TWO, {})


# --- the user's function ---


def test_a_function_says_what_is_right(tmp_path: Path) -> None:
    oracle = python(tmp_path, "def answer(inputs):\n    return {'OUT': inputs['IN'][:, ::-1]}")
    case = oracle.ask(BYTES, 1).small()
    assert case.expected is not None
    assert np.array_equal(case.expected["OUT"], case.inputs["IN"][:, ::-1])
    assert oracle.compares_values


def test_a_function_may_ask_for_the_version(tmp_path: Path) -> None:
    oracle = python(
        tmp_path, "def answer(inputs, version):\n    return {'OUT': np.full((len(inputs['IN']), 1), version)}"
    )
    case = oracle.ask(SUM, 1).small()
    assert case.expected is not None
    assert case.expected["OUT"].tolist() == [[3]]


def test_what_a_function_does_to_its_inputs_stays_there(tmp_path: Path) -> None:
    oracle = python(tmp_path, "def answer(inputs):\n    inputs['IN'] += 1\n    return {'OUT': inputs['IN']}")
    case = oracle.ask(BYTES, 1).small()
    assert case.expected is not None
    assert np.array_equal(case.expected["OUT"], case.inputs["IN"] + np.uint8(1))


def test_strings_may_be_of_any_of_numpy_s_types(tmp_path: Path) -> None:
    source = "def answer(inputs):\n    return {'OUT': np.array([[s.decode() for s in row] for row in inputs['IN']])}"
    case = python(tmp_path, source).ask(TEXT, 1).small()
    assert case.expected is not None
    assert case.expected["OUT"].dtype == object
    assert case.expected["OUT"].tolist() == case.inputs["IN"].tolist()


def test_a_function_finds_its_neighbours_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "beside_it.py").write_text("print('imported')\nTEN = 10")
    (tmp_path / "above_it.py").write_text("ONE = 1")
    source = (
        "from beside_it import TEN\ndef answer(inputs):\n    from above_it import ONE\n    print('called')\n"
        "    return {'OUT': np.full((1, 1), TEN + ONE)}"
    )
    before = list(sys.path)
    case = python(tmp_path, source, "deep/right.py").ask(SUM, 1).small()
    assert case.expected is not None
    assert case.expected["OUT"].tolist() == [[11]]
    assert sys.path == before
    assert not list(tmp_path.rglob("__pycache__"))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "imported\ncalled\n")


@pytest.mark.parametrize(
    ("source", "what", "where"),
    [
        ("def answer(inputs):\n    return 1 / 0", "ZeroDivisionError: division by zero", "right.py:3"),
        ("def answer(inputs):\n    return inputs['NAME']", "KeyError: 'NAME'", "right.py:3"),
        ("def answer(inputs):\n    raise SystemExit(3)", "SystemExit: 3", "right.py:3"),
        ("def answer(inputs):\n    return np.stack([])", "ValueError: need at least one array", "right.py:3"),
        ("def answer():\n    return {}", "TypeError: answer() takes 0 positional arguments", "right.py"),
        ("def answer(inputs):\n\n    return [1]", "a list, not a dict of arrays", "right.py:2"),
        ("def answer(inputs):\n    return {}", "output 'OUT' is missing", "right.py:2"),
        ("def answer(inputs):\n    return {'OUT': [[1]]}", "output 'OUT' is a list, not a NumPy array", "right.py:2"),
        (
            "def answer(inputs):\n    return {'OUT': np.ones((1, 1), np.int64), 'OUTT': 1}",
            "there is no output 'OUTT'; did you mean OUT?",
            "right.py:2",
        ),
        (
            "def answer(inputs):\n    return {'OUT': inputs['IN'].sum(axis=1)}",
            "output 'OUT' is uint64[1], and config.pbtxt declares int64[1, 1]",
            "right.py:2",
        ),
    ],
)
def test_a_function_that_fails_is_told_with_its_line(tmp_path: Path, source: str, what: str, where: str) -> None:
    with pytest.raises(OracleFailed, match=re.escape(what)) as failure:
        python(tmp_path, source).ask(SUM, 1).small()
    assert failure.value.where == where
    assert "IN uint8[1, 1024]" in failure.value.remedy
    assert "m/3" in failure.value.what


@pytest.mark.parametrize(
    ("source", "what", "where"),
    [
        ("def answer(inputs:\n    pass", "SyntaxError: '(' was never closed", "right.py:2"),
        ("\nimport no_such_module", "ModuleNotFoundError: No module named 'no_such_module'", "right.py:3"),
        ("raise SystemExit", "SystemExit", "right.py:2"),
    ],
)
def test_a_file_that_cannot_be_imported_is_told_with_its_line(
    tmp_path: Path, source: str, what: str, where: str
) -> None:
    with pytest.raises(OracleFailed, match=re.escape(f"right.py cannot be imported: {what}")) as failure:
        python(tmp_path, source)
    assert failure.value.where == where


def test_the_line_is_the_user_s_and_not_that_of_a_package_in_the_project(tmp_path: Path) -> None:
    package = tmp_path / ".venv" / "site-packages"
    package.mkdir(parents=True)
    (package / "deep.py").write_text("def fail():\n    raise ValueError('deep')")
    source = (
        f"import sys\ndef answer(inputs):\n    sys.path.insert(0, {str(package)!r})\n    import deep\n    deep.fail()"
    )
    with pytest.raises(OracleFailed, match="deep") as failure:
        python(tmp_path, source).ask(SUM, 1).small()
    sys.path.remove(str(package))
    assert failure.value.where == "right.py:6"


@pytest.mark.parametrize(
    ("named", "what"),
    [
        ("none.py:answer", "there is no none.py"),
        ("none.npz", "there is no none.npz"),
        ("right.py:answr", "right.py has no function answr; did you mean answer?"),
    ],
)
def test_an_oracle_that_is_not_there_is_named_with_its_place(tmp_path: Path, named: str, what: str) -> None:
    python(tmp_path, "def answer(inputs): pass")
    with pytest.raises(OracleMissing, match=re.escape(what)) as failure:
        oracles.load(tmp_path, told(named), "builder.toml:7:10")
    assert failure.value.where == "builder.toml:7:10"


# --- golden arrays ---


def asked(oracle: Oracle, model: ModelSpec) -> list[Case]:
    questions = oracle.ask(model, 1)
    needed, others = questions.sweep()
    return [questions.case(ask) for ask in (*needed, *others)]


def test_golden_samples_are_asked_in_batches_of_several_sizes(tmp_path: Path) -> None:
    data = numbers(10)
    oracle = golden(tmp_path, IN=data, OUT=data[:, ::-1])
    cases = asked(oracle, BYTES)
    assert oracle.has_requests
    assert {len(case.inputs["IN"]) for case in cases} == {1, 2, 3, 7, 8}
    for case in cases:
        assert case.expected is not None
        assert np.array_equal(case.expected["OUT"], case.inputs["IN"][:, ::-1])
    needed, _ = oracle.ask(BYTES, 1).sweep()
    assert needed == [(0, 8), (8, 2)]  # every sample once, whatever the time


def test_golden_samples_of_several_shapes_share_a_file(tmp_path: Path) -> None:
    short, long = numbers(3, 2), numbers(2, 9)
    oracle = golden(tmp_path, IN=short, OUT=short, **{"long/IN": long, "long/OUT": long})
    shapes = {case.inputs["IN"].shape for case in asked(oracle, BYTES)}
    assert shapes == {(1, 2), (2, 2), (3, 2), (1, 9), (2, 9)}
    mixed = oracle.ask(BYTES, 1).mixed(8)
    assert len(mixed) == 8
    assert {case.inputs["IN"].shape[1] for case in mixed} == {2, 9}


def test_golden_requests_of_a_model_without_batches_are_the_first_axis(tmp_path: Path) -> None:
    data = numbers(3)
    cases = asked(golden(tmp_path, IN=data, OUT=data), SINGLE)
    assert [case.inputs["IN"].tolist() for case in cases] == data.tolist()


def test_golden_strings_become_bytes(tmp_path: Path) -> None:
    oracle = golden(tmp_path, IN=np.array([["one"], ["zwölf"]]), OUT=np.array([[b"a"], [b"b"]]))
    case = asked(oracle, TEXT)[0]
    assert case.inputs["IN"].tolist() == [[b"one"], ["zwölf".encode()]]
    assert case.expected is not None
    assert case.expected["OUT"].tolist() == [[b"a"], [b"b"]]


def test_a_golden_tensor_s_own_name_may_have_a_slash(tmp_path: Path) -> None:
    a, b, out = np.zeros((2, 2), np.float32), np.ones((2, 3), np.int8), np.zeros((2, 2), np.float32)
    case = asked(golden(tmp_path, **{"A": a, "x/A": b, "OUT": out}), TWO)[0]
    assert (case.inputs["A"].dtype, case.inputs["x/A"].dtype) == (np.float32, np.int8)


def test_golden_requests_stay_within_the_bytes_of_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracles, "REQUEST_BYTES_AT_MOST", 8)
    data = numbers(6)
    questions = golden(tmp_path, IN=data, OUT=data).ask(BYTES, 1)
    cases = [questions.case(ask) for ask in (*questions.sweep()[0], *questions.sweep()[1])] + questions.mixed(8)
    assert max(case.inputs["IN"].nbytes for case in cases) == 8


@pytest.mark.parametrize(
    ("arrays", "problems"),
    [
        ({}, ["it has no arrays"]),
        ({"IN": numbers(2)}, ["array 'OUT' is missing"]),
        ({"IN": numbers(2), "OUT": numbers(2), "OTU": numbers(2)}, ["no input or output 'OTU'; did you mean OUT?"]),
        ({"IN": numbers(2), "OUT": numbers(3)}, ["as long in each array: 'IN' 2, 'OUT' 3"]),
        ({"IN": numbers(0), "OUT": numbers(0)}, ["has no sample"]),
        (
            {"IN": numbers(2).astype(float), "OUT": numbers(2)},
            ["'IN' is float64[2, 4], and config.pbtxt declares uint8"],
        ),
        ({"IN": np.uint8(3), "OUT": numbers(2)}, ["'IN' is uint8[], and config.pbtxt declares uint8[samples, -1]"]),
        (
            {"a/IN": numbers(2), "b/OUT": numbers(2)},
            ["array 'a/OUT' is missing", "array 'b/IN' is missing"],
        ),
    ],
)
def test_a_golden_file_that_does_not_fit_names_every_problem(
    tmp_path: Path, arrays: dict[str, Any], problems: list[str]
) -> None:
    oracle = golden(tmp_path, **arrays)
    with pytest.raises(GoldenInvalid) as failure:
        oracle.ask(BYTES, 1)
    told = [failure.value.what, *failure.value.detail]
    assert len(told) == len(problems)
    for line, expected in zip(told, problems, strict=True):
        assert expected in line
    assert "IN uint8[samples, -1], OUT uint8[samples, -1]" in failure.value.remedy
    assert failure.value.where == "golden.npz"


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "golden.npz").write_bytes(content)
    with pytest.raises(GoldenInvalid, match="not a file of NumPy arrays"):
        oracles.load(tmp_path, told("golden.npz"))


def test_a_single_array_is_no_npz(tmp_path: Path) -> None:
    with (tmp_path / "golden.npz").open("wb") as file:
        np.save(file, numbers(2))
    with pytest.raises(GoldenInvalid, match="not a file of NumPy arrays"):
        oracles.load(tmp_path, told("golden.npz"))


def test_a_damaged_npz_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "golden.npz", IN=np.random.default_rng(1).integers(0, 255, (100, 100)))
    path = tmp_path / "golden.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 8] = b"\0" * 8
    path.write_bytes(content)
    with pytest.raises(GoldenInvalid, match="not a file of NumPy arrays"):
        oracles.load(tmp_path, told("golden.npz"))


def test_python_objects_are_never_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "golden.npz", IN=np.array([b"x", None], object))
    with pytest.raises(GoldenInvalid, match="holds Python objects") as failure:
        oracles.load(tmp_path, told("golden.npz"))
    assert "numpy.bytes_" in failure.value.remedy


# --- right or wrong ---


def check(model: ModelSpec, got: Array | None, expected: Array | None = None, inputs: Tensors | None = None) -> str:
    case = Case(inputs or {"IN": numbers(2)}, {"OUT": expected} if expected is not None else None)
    return problem(model, oracles.SIGNATURE, case, {"OUT": got})


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (np.zeros((2, 1), np.int64), ""),
        (None, "output 'OUT' of model 'm/3' is missing"),
        (np.zeros((2, 1), np.int32), "is int32[2, 1], and config.pbtxt declares int64[2, 1]"),
        (np.zeros((2, 2), np.int64), "is int64[2, 2], and config.pbtxt declares int64[2, 1]"),
        (np.zeros((3, 1), np.int64), "is int64[3, 1], and config.pbtxt declares int64[2, 1]"),
        (np.zeros(2, np.int64), "is int64[2], and config.pbtxt declares int64[2, 1]"),
    ],
)
def test_an_answer_must_be_as_declared_though_no_value_is_known(got: Array | None, expected: str) -> None:
    found = check(SUM, got)
    assert expected in found
    assert bool(found) == bool(expected)


def test_an_answer_with_the_right_values_must_be_as_declared_too() -> None:
    """NVIDIA's backend serves what the pipeline makes, whatever config.pbtxt says."""
    values = np.zeros((2, 2), np.int64)
    assert "config.pbtxt declares int64[2, 1]" in check(SUM, values, values)


def test_a_model_without_batches_answers_without_a_batch() -> None:
    data = np.zeros(5, np.uint8)
    assert check(SINGLE, data, data, {"IN": data}) == ""
    assert "declares uint8[-1]" in check(SINGLE, data[None], None, {"IN": data})


@pytest.mark.parametrize(
    ("got", "expected", "rtol", "atol", "text"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0, 0, "differs at [1]: got 2.0, not 2.5; 1 of 2 elements differ, by 0.5 at most"),
        ([1.0, 2.0], [1.0, 2.5], 0, 0.5, ""),
        ([1.0, 2.0], [1.0, 2.5], 0.2, 0, ""),
        ([1.0, 2.0], [1.0, 2.5], 0.1, 0, "by 0.5 at most (rtol 0.1, atol 0)"),
        ([np.nan], [np.nan], 0, 0.1, ""),
        ([np.nan], [1.0], 0, 0.1, "got nan, not 1.0; 1 of 1 elements differ (rtol"),
        ([np.inf, -np.inf], [np.inf, np.inf], 0, 0.1, "differs at [1]: got -inf, not inf"),
        ([0.0, 1.0], [-0.0, 1.0], 0, 0, "differs at [0]: got 0.0, not -0.0; 1 of 2"),
        ([0.0], [-0.0], 0, 1e-9, ""),
        ([7.0, np.nan, 3.0], [1.0, 2.0, 3.0], 0, 0, "2 of 3 elements differ, by 6 at most"),
    ],
)
def test_floats_differ_by_bytes_or_beyond_a_tolerance(
    got: list[float], expected: list[float], rtol: float, atol: float, text: str
) -> None:
    found = difference(np.array(got, np.float32), np.array(expected, np.float32), rtol, atol)
    assert text in found
    assert bool(found) == bool(text)


@pytest.mark.parametrize(
    ("got", "expected", "atol", "text"),
    [
        (np.array([[0, 255]], np.uint8), np.array([[255, 255]], np.uint8), 0.0, "at [0, 0]: got 0, not 255; 1 of 2"),
        (np.array([0, 255], np.uint8), np.array([1, 254], np.uint8), 1.0, ""),
        (np.array([0], np.uint8), np.array([2], np.uint8), 1.0, "by 2 at most"),
        (np.array([60000], np.float16), np.array([-60000], np.float16), 1.0, "by 120000 at most"),
        (np.array(3, np.int32), np.array(4, np.int32), 0.0, "differs at []: got 3, not 4; 1 of 1 elements differ"),
        (np.array([True]), np.array([False]), 1.0, "got True, not False; 1 of 1 elements differ"),
        (
            np.array([[b"a", b"b"]], object),
            np.array([[b"a", b"c"]], object),
            1.0,
            "at [0, 1]: got b'b', not b'c'; 1 of 2",
        ),
        (np.array([[b"a"]], object), np.array([[b"a"]], object), 0.0, ""),
        (np.empty((2, 0), np.uint8), np.empty((2, 0), np.uint8), 0.0, ""),
    ],
)
def test_other_types_differ_by_what_they_are(got: Array, expected: Array, atol: float, text: str) -> None:
    found = difference(got, expected, 0.0, atol)
    assert text in found
    assert bool(found) == bool(text)


def test_long_strings_are_cut_in_the_message() -> None:
    found = difference(np.array([b"x" * 1000], object), np.array([b"y"], object), 0.0, 0.0)
    assert len(found) < 200


def test_a_whole_sweep_passes_its_own_oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "SAMPLE_BYTES", (1, 100, 1000))
    oracle = python(tmp_path, "def answer(inputs):\n    return {'OUT': inputs['IN'][:, ::-1]}")
    for case in asked(oracle, BYTES):
        assert case.expected is not None
        assert problem(BYTES, oracle, case, case.expected) == ""
        if not np.array_equal(case.inputs["IN"], case.expected["OUT"]):
            assert "differs" in problem(BYTES, oracle, case, {"OUT": case.inputs["IN"]})


def test_errors_of_the_project_and_of_the_verification_have_their_exit_codes() -> None:
    errors: list[tuple[type[BuilderError], int]] = [(GoldenInvalid, 2), (OracleMissing, 2), (OracleFailed, 5)]
    assert [error.exit_code for error, _ in errors] == [code for _, code in errors]
