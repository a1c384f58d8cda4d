"""What a model is asked, and what it must answer.

An oracle of builder.toml is one of

- `signature`: random requests; nothing but names, data types and shapes is known of the answers.
- `identity`: random requests; every output is the input at its position.
- `FILE.py:FUNCTION`: random requests; the function gets a dict of the inputs, each with the batch as its first axis (if
  the model takes batches), and returns a dict of the outputs. If it has a parameter `version`, it gets the model's.
- `FILE.npz`: the requests and their answers. An array is named as the input or output, and its first axis counts
  samples (of a model that takes no batches: requests). Samples of other shapes go into the same file under a prefix
  of their own: `cat/IN` and `cat/OUT` belong together. Strings are arrays of numpy.bytes_ or str.

Paths are those in the project's folder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from builder.errors import (
    GoldenInvalid,
    OracleFailed,
    OracleMissing,
    VerificationError,
    did_you_mean,
)
from builder.findings import Place
from builder.project import FILE_NAME, Model
from builder.triton import Array, ModelSpec, Tensors, TensorSpec
from builder.workload import KIB, REQUEST_BYTES_AT_MOST, Workload, batch_sizes


@dataclass(frozen=True)
class Case:
    """A request, and the answer that it must get."""

    inputs: Tensors
    expected: Tensors | None
    """None where the values are not known."""


Ask = tuple[int, int]
"""A case that is not made yet: sizes, or samples from and to."""


class Questions(Protocol):
    """The cases for one model."""

    def sweep(self) -> tuple[list[Ask], list[Ask]]:
        """Those that the model cannot do without, and all others."""

    def case(self, ask: Ask) -> Case:
        """One of the sweep."""

    def mixed(self, count: int) -> list[Case]:
        """`count` of several sizes, to be asked at once."""

    def small(self) -> Case:
        """One sample, of 1 KiB where that is open."""


@dataclass(frozen=True)
class Oracle:
    """Says what a model is asked and what is right."""

    name: str
    """As builder.toml has it."""
    rtol: float
    atol: float
    ask: Callable[[ModelSpec, int], Questions]
    """Of a model and a seed. Raises GoldenInvalid for a file that does not fit the model."""

    @property
    def compares_values(self) -> bool:
        return self.name != "signature"

    @property
    def has_requests(self) -> bool:
        """Of its own; otherwise they are random."""
        return self.name.endswith(".npz")


def _of_signature(model: ModelSpec, seed: int) -> Questions:
    return RandomQuestions(model, seed, unknown)


SIGNATURE = Oracle("signature", 0.0, 0.0, _of_signature)


def load(root: Path, told: Model, where: str = FILE_NAME) -> Oracle:
    """The oracle of a model, of the project in `root`; the user's files are read here and not later.

    Args:
        where: the line of builder.toml that names it.

    Raises:
        OracleMissing: the file or the function is not there.
        GoldenInvalid: the golden file cannot be read.
        OracleFailed: the user's file cannot be imported.
    """
    expect: Callable[[ModelSpec, Tensors], Tensors | None]
    if told.oracle == "signature":
        expect = unknown
    elif told.oracle == "identity":
        expect = identity
    elif told.oracle.endswith(".npz"):
        _require(root, told.oracle, where)
        golden = Golden.read(root, Path(told.oracle))
        return Oracle(told.oracle, told.rtol, told.atol, lambda spec, _: GoldenQuestions(spec, golden.fitted(spec)))
    else:
        expect = Function.load(root, told.oracle, where)
    return Oracle(told.oracle, told.rtol, told.atol, lambda spec, seed: RandomQuestions(spec, seed, expect))


def forget(root: Path) -> None:
    """Lets the next `load` read the user's files again, and what they import of the project."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        ours = name.partition(".")[0] in ("__main__", __package__)
        if file and not ours and Path(file).is_relative_to(root) and "site-packages" not in Path(file).parts:
            del sys.modules[name]


def file_of(told: Model) -> str:
    """The file of the project that an oracle is in; empty for one of this program's own."""
    name = told.oracle.partition(".py:")[0] + ".py" if ".py:" in told.oracle else told.oracle
    return name if name.endswith((".npz", ".py")) else ""


def _require(root: Path, file: str, where: str) -> None:
    if not (root / file).is_file():
        raise OracleMissing(
            f"there is no {file}", where=where, remedy=f"add it, or mend the name; it is seen from {root}"
        )


def unknown(_model: ModelSpec, _inputs: Tensors) -> None:
    """No value is known."""


def identity(model: ModelSpec, inputs: Tensors) -> Tensors:
    """Every output is the input at its position, byte for byte.

    Raises:
        VerificationError: the model has another number of outputs than of inputs.
    """
    if len(model.inputs) != len(model.outputs):
        raise VerificationError(
            f"model {model.title!r} has {len(model.inputs)} inputs and {len(model.outputs)} outputs: no identity",
            where=f"model {model.title}",
            remedy="the oracle 'identity' is for models that give back what they get; choose another in "
            f"[models.{model.name}]",
        )
    return {output.name: inputs[given.name] for given, output in zip(model.inputs, model.outputs, strict=True)}


class RandomQuestions:
    """Random inputs from the model's signature; the answers are what `expect` says."""

    def __init__(self, model: ModelSpec, seed: int, expect: Callable[[ModelSpec, Tensors], Tensors | None]) -> None:
        self._model = model
        self._workload = Workload(model, seed)
        self._expect = expect

    def sweep(self) -> tuple[list[Ask], list[Ask]]:
        return self._workload.sweep()

    def case(self, ask: Ask) -> Case:
        return self._case(self._workload.request(*ask))

    def mixed(self, count: int) -> list[Case]:
        return [self._case(inputs) for inputs in self._workload.mixed(count)]

    def small(self) -> Case:
        return self.case((KIB, 1))

    def _case(self, inputs: Tensors) -> Case:
        return Case(inputs, self._expect(self._model, inputs))


# --- The user's function ---


class Function:
    """A function of the user's, from a file of the project."""

    def __init__(self, root: Path, path: Path, function: Callable[..., Any]) -> None:
        self._root = root
        self._path = path
        self._function = function
        try:
            self._takes_version = "version" in inspect.signature(function).parameters
        except (TypeError, ValueError):  # a callable that does not tell
            self._takes_version = False

    @classmethod
    def load(cls, root: Path, named: str, where: str) -> Function:
        """Imports `named`, a FILE.py:FUNCTION. Raises OracleMissing and OracleFailed."""
        file, _, name = named.rpartition(":")
        path = root / file
        _require(root, file, where)
        with _blamed(root, path, f"{file} cannot be imported", "see that it runs by itself: python " + file):
            module = _imported(path, root)
        function = getattr(module, name, None)
        if not callable(function):
            known = [each for each, value in vars(module).items() if inspect.isfunction(value)]
            raise OracleMissing(
                f"{file} has no function {name}{did_you_mean(name, known)}",
                where=where,
                remedy=f"choose among {', '.join(known)}" if known else f"define {name}(inputs) in {file}",
            )
        return cls(root, path, function)

    def __call__(self, model: ModelSpec, inputs: Tensors) -> Tensors:
        """The outputs, of the declared types and shapes. Raises OracleFailed."""
        name = getattr(self._function, "__name__", "the oracle")
        given = ", ".join(f"{each} {shown(array)}" for each, array in inputs.items())
        more = {"version": int(model.version or 1)} if self._takes_version else {}
        with (
            _blamed(self._root, self._path, f"{name} failed for model {model.title!r}", f"it was given {given}"),
            _at_home(self._path, self._root),
        ):
            # Copies: what the function does to its inputs must not reach the server.
            answer = self._function({each: array.copy() for each, array in inputs.items()}, **more)
        if problems := list(_unfit(model, inputs, answer)):
            place = Place.within(self._root, self._path, getattr(self._function, "__code__", _NoCode).co_firstlineno)
            raise OracleFailed(
                f"{name} returned what cannot be an answer of model {model.title!r}: {problems[0]}",
                where=str(place),
                remedy=f"let it return {_declared(model, inputs)}; it was given {given}",
                detail=problems[1:],
            )
        return {spec.name: _plain(answer[spec.name]) for spec in model.outputs}


class _NoCode:
    co_firstlineno = 0


def _unfit(model: ModelSpec, inputs: Tensors, answer: Any) -> Iterator[str]:
    if not isinstance(answer, Mapping):
        yield f"a {type(answer).__name__}, not a dict of arrays"
        return
    names = [spec.name for spec in model.outputs]
    for name in answer:
        if name not in names:
            yield f"there is no output {name!r}{did_you_mean(str(name), names)}"
    for spec in model.outputs:
        if spec.name not in answer:
            yield f"output {spec.name!r} is missing"
        elif not isinstance(answer[spec.name], np.ndarray):
            yield f"output {spec.name!r} is a {type(answer[spec.name]).__name__}, not a NumPy array"
        elif problem := undeclared(spec, samples(model, inputs), _plain(answer[spec.name])):
            yield f"output {spec.name!r} {problem}"


def _imported(path: Path, root: Path) -> ModuleType:
    name = f"_oracle_{'_'.join(path.with_suffix('').parts[1:])}"
    if known := sys.modules.get(name):
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a path that ends in .py has one, and a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look for it there
    try:
        with _at_home(path, root):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _at_home(path: Path, root: Path) -> Iterator[None]:
    """The user's code finds what lies beside it; it writes no bytecode there, and its prints are not our results."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path[:0] = home = [str(path.parent), str(root)]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.dont_write_bytecode = before
        for folder in home:
            sys.path.remove(folder)


@contextlib.contextmanager
def _blamed(root: Path, path: Path, what: str, remedy: str) -> Iterator[None]:
    """Whatever the user's code raises becomes OracleFailed, with the line of the project that it came from."""
    try:
        yield
    except (Exception, SystemExit) as error:
        place = Place.within(root, path)
        if isinstance(error, SyntaxError) and error.filename:
            place = Place.within(root, Path(error.filename), error.lineno or 0)
        for frame in traceback.extract_tb(error.__traceback__):
            file = Path(frame.filename)
            if file.is_relative_to(root) and "site-packages" not in file.parts:
                place = Place.within(root, file, frame.lineno or 0)
        message = str(error.msg if isinstance(error, SyntaxError) else error)
        raise OracleFailed(
            f"{what}: {type(error).__name__}" + (f": {' '.join(message.split())}" if message else ""),
            where=str(place),
            remedy=f"mend it; {remedy}",
        ) from None


# --- Golden arrays ---


@dataclass(frozen=True)
class Group:
    """Arrays that belong together, each with as many samples."""

    inputs: Tensors
    outputs: Tensors
    samples: int


@dataclass(frozen=True)
class Golden:
    """A file of golden arrays, read as it is."""

    path: Path
    """In the project's folder."""
    arrays: Tensors

    @classmethod
    def read(cls, root: Path, path: Path) -> Golden:
        """Raises GoldenInvalid for a file that is no .npz, or holds Python objects."""
        remedy = "write it with numpy.savez(FILE, NAME=array, ...)"
        try:
            with np.load(root / path, allow_pickle=False) as loaded:
                return cls(path, {name: loaded[name] for name in loaded.files})
        except (OSError, EOFError, ValueError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
            if "Object arrays" in str(error):
                what, remedy = f"{path} holds Python objects", "save strings as arrays of numpy.bytes_"
            else:
                what = f"{path} is not a file of NumPy arrays (.npz)"
            raise GoldenInvalid(
                what, where=str(path), remedy=remedy, detail=[f"{type(error).__name__}: {error}"]
            ) from None

    def fitted(self, model: ModelSpec) -> list[Group]:
        """The arrays as requests and answers of `model`.

        Raises:
            GoldenInvalid: one is missing, unknown, or has another type or shape; the detail has a line for each.
        """
        problems: list[str] = []
        groups = self._groups(model, problems)
        fitted = [_group(model, prefix, arrays, problems) for prefix, arrays in groups.items()]
        if not groups and not problems:
            problems.append("it has no arrays")
        if problems:
            names = ", ".join(
                f"{spec.name} {_expected(spec, None, 'samples')}" for spec in model.inputs + model.outputs
            )
            raise GoldenInvalid(
                f"{self.path} does not fit model {model.title!r}: {problems[0]}",
                where=str(self.path),
                remedy=f"it must hold {names}, as many samples in each",
                detail=problems[1:],
            )
        return fitted

    def _groups(self, model: ModelSpec, problems: list[str]) -> dict[str, Tensors]:
        names = [spec.name for spec in model.inputs + model.outputs]
        groups: dict[str, Tensors] = {}
        for full, array in self.arrays.items():
            # Names of tensors may have slashes too: the longest that fits.
            fitting = [name for name in names if full == name or full.endswith(f"/{name}")]
            if not fitting:
                problems.append(f"there is no input or output {full!r}{did_you_mean(full, names)}")
                continue
            name = max(fitting, key=len)
            groups.setdefault(full.removesuffix(name), {})[name] = _plain(array)
        return groups


def _group(model: ModelSpec, prefix: str, arrays: Tensors, problems: list[str]) -> Group:
    for spec in model.inputs + model.outputs:
        if spec.name not in arrays:
            problems.append(f"array '{prefix}{spec.name}' is missing")
        elif problem := undeclared(spec, None, arrays[spec.name], "samples"):
            problems.append(f"array '{prefix}{spec.name}' {problem}")
    counts = {name: len(array) for name, array in arrays.items() if array.ndim}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{prefix}{name}' {count}" for name, count in counts.items())
        problems.append(f"the first axis counts samples, and must be as long in each array: {listed}")
    elif 0 in counts.values():
        problems.append(f"array '{prefix}{next(iter(counts))}' has no sample")
    return Group(
        {spec.name: arrays[spec.name] for spec in model.inputs if spec.name in arrays},
        {spec.name: arrays[spec.name] for spec in model.outputs if spec.name in arrays},
        min(counts.values(), default=0),
    )


class GoldenQuestions:
    """Golden samples in requests of several sizes. An ask is the number of a first sample, and how many from there.

    The samples of all groups are numbered through.
    """

    def __init__(self, model: ModelSpec, groups: Sequence[Group]) -> None:
        self._batched = model.max_batch_size > 0
        self._top = model.max_batch_size
        self._groups = groups
        self._next = 0

    def sweep(self) -> tuple[list[Ask], list[Ask]]:
        """Every sample in the largest batches that there can be; then in the smaller ones."""
        needed: list[Ask] = []
        others: list[Ask] = []
        first = 0
        for group in self._groups:
            largest = self._largest(group)
            for batch in sorted({min(batch, largest) for batch in batch_sizes(self._top)}, reverse=True):
                asks = [(first + at, min(batch, group.samples - at)) for at in range(0, group.samples, batch)]
                (needed if batch == largest else others).extend(asks)
            first += group.samples
        return needed, list(dict.fromkeys(others))

    def case(self, ask: Ask) -> Case:
        at, count = ask
        for group in self._groups:
            if at < group.samples:
                return Case(self._part(group.inputs, at, count), self._part(group.outputs, at, count))
            at -= group.samples
        raise IndexError(ask)

    def mixed(self, count: int) -> list[Case]:
        """Of one sample up to four, each time the next ones."""
        return [self._following(1 + index % 4) for index in range(count)]

    def small(self) -> Case:
        return self._following(1)

    def _following(self, count: int) -> Case:
        first = 0
        for group in self._groups:
            if self._next < first + group.samples:
                count = min(count, first + group.samples - self._next, self._largest(group))
                break
            first += group.samples
        case = self.case((self._next, count))
        self._next = (self._next + count) % sum(group.samples for group in self._groups)
        return case

    def _largest(self, group: Group) -> int:
        """The batch size that the model, the samples and the bytes of a request allow."""
        sample_bytes = sum(array.nbytes for array in group.inputs.values()) // group.samples
        return max(1, min(self._top, group.samples, REQUEST_BYTES_AT_MOST // max(1, sample_bytes)))

    def _part(self, arrays: Tensors, at: int, count: int) -> Tensors:
        # tritonclient sends an array's memory as it lies.
        parts = {name: np.ascontiguousarray(array[at : at + count]) for name, array in arrays.items()}
        return parts if self._batched else {name: part.reshape(part.shape[1:]) for name, part in parts.items()}


# --- Right or wrong ---


def problem(model: ModelSpec, oracle: Oracle, case: Case, outputs: Mapping[str, Array | None]) -> str:
    """What is wrong with an answer, in one sentence; empty for nothing.

    Every output must be as config.pbtxt declares it, and where its values are known, have these.
    """
    for spec in model.outputs:
        got = outputs[spec.name]
        expected = case.expected[spec.name] if case.expected is not None else None
        if got is None:
            found = "is missing"
        elif expected is not None and (got.shape != expected.shape or got.dtype != expected.dtype):
            found = f"is {shown(got)}, not {shown(expected)}"
        else:
            found = undeclared(spec, samples(model, case.inputs), got)
        if not found and got is not None and expected is not None:
            found = difference(got, expected, oracle.rtol, oracle.atol)
        if found:
            return f"output {spec.name!r} of model {model.title!r} {found}"
    return ""


def samples(model: ModelSpec, inputs: Tensors) -> int | None:
    """How many a request has; None for a model that takes no batches, or has no inputs."""
    return next((len(array) for array in inputs.values()), None) if model.max_batch_size else None


def undeclared(spec: TensorSpec, batch: int | None, got: Array, first_axis: str = "") -> str:
    """How an array differs from what config.pbtxt declares; empty for not at all.

    Args:
        batch: the length of the first axis; None if there is no such axis.
        first_axis: the name of a first axis that may be of any length.
    """
    dims = ((batch,) if batch is not None else (-1,) if first_axis else ()) + spec.dims
    fits = len(dims) == got.ndim and all(dim in (-1, size) for dim, size in zip(dims, got.shape, strict=True))
    if fits and got.dtype == spec.dtype:
        return ""
    return f"is {shown(got)}, and config.pbtxt declares {_expected(spec, batch, first_axis)}"


def difference(got: Array, expected: Array, rtol: float, atol: float) -> str:
    """Where two arrays of one type and shape differ first, and by how much; empty for nowhere.

    With both tolerances 0 every byte counts, so 0.0 is not -0.0; otherwise it is as numpy.allclose has it, and two NaNs
    are equal.
    """
    numeric = got.dtype.kind in "iuf"
    tolerant = numeric and (rtol or atol)
    if not tolerant and got.dtype.kind != "O" and got.tobytes() == expected.tobytes():
        return ""
    if tolerant:
        # In float64, so that neither unsigned numbers nor those of 16 bits overflow.
        close = np.isclose(got.astype(float), expected.astype(float), rtol=rtol, atol=atol, equal_nan=True)
        wrong = np.asarray(~close)
    elif got.dtype.kind == "O":
        wrong = np.asarray(got != expected, bool)
    else:
        wrong = (_bytes_of(got) != _bytes_of(expected)).any(axis=1).reshape(got.shape)
    count = int(np.count_nonzero(wrong))
    if not count:
        return ""
    index = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    text = f"differs at {[int(each) for each in index]}: got {_value(got[index])}, not {_value(expected[index])}"
    text += f"; {count} of {wrong.size} elements differ"
    if numeric:
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(got[wrong].astype(float) - expected[wrong].astype(float))
        if not np.isnan(apart).all():
            text += f", by {np.nanmax(apart):g} at most"
    return text + (f" (rtol {rtol:g}, atol {atol:g})" if tolerant else "")


def shown(array: Array) -> str:
    """An array's type and shape, as in `float32[4, 3]`."""
    return f"{_type(array.dtype)}{list(array.shape)}"


def _declared(model: ModelSpec, inputs: Tensors) -> str:
    return ", ".join(f"{spec.name} {_expected(spec, samples(model, inputs), '')}" for spec in model.outputs)


def _expected(spec: TensorSpec, batch: int | None, first_axis: str) -> str:
    first: list[object] = [batch] if batch is not None else [first_axis] if first_axis else []
    return f"{_type(spec.dtype)}[{', '.join(str(each) for each in [*first, *spec.dims])}]"


def _type(dtype: np.dtype[Any]) -> str:
    return "string" if dtype.kind == "O" else str(dtype)


def _plain(array: Array) -> Array:
    """Strings as tritonclient has them: objects that are bytes."""
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    if array.dtype.kind == "S":
        return array.astype(object)
    if array.dtype.kind == "O":
        found = [each.encode() if isinstance(each, str) else each for each in array.ravel()]
        plain = np.empty(len(found), object)
        plain[:] = found
        return plain.reshape(array.shape)
    return array


def _bytes_of(array: Array) -> Array:
    """A row of bytes for each element."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(array.size, array.dtype.itemsize)


def _value(element: Any) -> str:
    """An element for people; a long string is cut."""
    text = repr(element) if isinstance(element, bytes) else str(element)
    return text if len(text) <= 60 else text[:57] + "..."
