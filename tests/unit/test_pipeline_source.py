from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.pipeline_source import Reading, Unparsable, parse, read
from builder.signature import Signature, Tensor

HEAD = """from nvidia.dali import fn, pipeline_def, plugin_manager, types
from nvidia.dali.plugin.triton import autoserialize
import helpers_of_ours
"""
DEFINITION = "@autoserialize\n@pipeline_def(batch_size=4, num_threads=2)\ndef pipeline():\n"


def reading(text: str) -> Reading:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dali.py"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return read(path, Path(folder), "m")


def of(body: str, head: str = HEAD, definition: str = DEFINITION) -> Signature:
    """The signature of a pipeline with this body; nothing may be wrong with it."""
    found = reading(head + definition + "".join(f"    {line}\n" for line in body.splitlines()))
    assert found.findings == []
    assert found.signature is not None
    return found.signature


def codes(text: str) -> list[tuple[str, int]]:
    return [(finding.code, finding.place.line) for finding in reading(text).findings]


def names(signature: Signature) -> list[str | None] | None:
    return None if signature.outputs is None else [output.name for output in signature.outputs]


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("from nvidia.dali import fn, pipeline_def, types",
         "fn.custom_copy(fn.external_source(name='A', dtype=types.FLOAT))"),
        ("import nvidia.dali.fn as F\nfrom nvidia.dali import pipeline_def\nimport nvidia.dali.types as T",
         "F.custom_copy(F.external_source(name='A', dtype=T.FLOAT))"),
        ("import nvidia.dali as dali\nfrom nvidia.dali.pipeline import pipeline_def",
         "dali.fn.custom_copy(dali.fn.external_source(name='A', dtype=dali.types.FLOAT))"),
        ("import nvidia.dali\nimport nvidia.dali.fn\nfrom nvidia.dali import pipeline_def",
         "nvidia.dali.fn.custom_copy(nvidia.dali.fn.external_source(name='A', dtype=nvidia.dali.types.FLOAT))"),
        ("from nvidia.dali.fn import custom_copy, external_source as es\nfrom nvidia.dali import pipeline_def\n"
         "from nvidia.dali.types import DALIDataType\nimport nvidia.dali as d\nFLOAT = d.types.FLOAT",
         "custom_copy(es(name='A', dtype=FLOAT))"),
        ("from nvidia.dali import fn as F, pipeline_def, types\nfn = F\nNAME = 'A'",
         "fn.custom_copy(fn.external_source(name=NAME, dtype=types.FLOAT))"),
    ],
)  # fmt: skip
def test_imports_are_followed(head: str, body: str) -> None:
    signature = of(f"return {body}", head + "\nfrom nvidia.dali.plugin.triton import autoserialize\n")
    assert [(tensor.name, tensor.dtype) for tensor in signature.inputs] == [("A", "TYPE_FP32")]
    assert [use.key for use in signature.operators] == ["customcopy"]
    assert signature.complete


@pytest.mark.parametrize(
    ("definition", "batch_size", "num_threads", "outputs"),
    [
        ("batch_size=8, num_threads=2", 8, 2, (None, None)),
        ("max_batch_size=2 * N, num_threads=-1", 8, None, (None, None)),
        ("batch_size=1 << 3, output_dtype=types.FLOAT, output_ndim=2", 8, None, ("TYPE_FP32", 2)),
        ("batch_size=8, output_dtype=[types.UINT8], output_ndim=[N]", 8, None, ("TYPE_UINT8", 4)),
        ("batch_size=helpers_of_ours.size()", None, None, (None, None)),
        ("**helpers_of_ours.settings", None, None, None),
    ],
)
def test_settings_of_the_pipeline_are_read(
    definition: str, batch_size: int | None, num_threads: int | None, outputs: tuple[str | None, int | None] | None
) -> None:
    signature = of(
        "return fn.copy(fn.external_source(name='A'))",
        HEAD + "N = 4\n",
        f"@autoserialize\n@pipeline_def({definition})\ndef pipeline():\n",
    )
    assert (signature.batch_size, signature.num_threads) == (batch_size, num_threads)
    if outputs is None:
        assert signature.outputs is None
    else:
        assert signature.outputs == (Tensor(None, *outputs),)


def test_a_list_of_declared_outputs_tells_their_number() -> None:
    definition = "@autoserialize\n@pipeline_def(batch_size=1, output_ndim=[1, 2])\ndef pipeline():\n"
    signature = of("return helpers_of_ours.make()", definition=definition)
    assert signature.outputs == (Tensor(None, None, 1), Tensor(None, None, 2))
    assert not signature.complete


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("name='A', dtype=types.UINT8, ndim=1", Tensor("A", "TYPE_UINT8", 1, None, 7)),
        ("name='A', layout='HWC'", Tensor("A", None, 3, "HWC", 7)),
        ("name='A' + 'B', dtype=types.STRING", Tensor("AB", None, None, None, 7)),
        ("name=LOCAL, ndim=NDIM", Tensor("L", None, 2, None, 7)),
        ("name='A', ndim=helpers_of_ours.N, layout='HW'", Tensor("A", None, None, "HW", 7)),
        ("None, name='A', dtype=helpers_of_ours.T", Tensor("A", None, None, None, 7)),
        ("source=None, name='A'", Tensor("A", None, None, None, 7)),
    ],
)
def test_inputs_are_read(arguments: str, expected: Tensor) -> None:
    definition = "@autoserialize\n@pipeline_def(batch_size=1)\ndef pipeline(NDIM=2):\n"
    signature = of(f"LOCAL, OTHER = 'L', 2\nreturn fn.external_source({arguments})", definition=definition)
    assert signature.inputs == (Tensor(expected.name, expected.dtype, expected.ndim, expected.layout, 8),)


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("return a", ["A"]),
        ("return fn.custom_copy(a, name='OUT')", ["OUT"]),
        ("return a, fn.copy(a, name='B')", ["A", "B"]),
        ("x = fn.copy(a, name='X')\ny = x.gpu()\nreturn y, x", [None, "X"]),
        ("b, c = fn.readers.file(name='R')\nreturn c, a, b", [None, "A", None]),
        ("a = a * 2\nreturn a", [None]),
        ("return a[0], -a, a > 1", [None, None, None]),
        ("x = a\na = fn.copy(a, name='C')\nreturn x, a", ["A", "C"]),
        ("x, y = a, fn.copy(a, name='C')\nreturn y, x", ["C", "A"]),
        ("with helpers_of_ours.context():\n    b = fn.copy(a, name='W')\nreturn b", ["W"]),
        ("return tuple([a, a])", None),
        ("return helpers_of_ours.make(a)", None),
        ("return *a, a", None),
        ("outputs = (a, a)\nreturn outputs", None),
        ("if helpers_of_ours.X:\n    return a\nreturn a, a", None),
        ("for x in range(3):\n    a = fn.copy(a)\nreturn a", None),
        ("return a if helpers_of_ours.X else (a, a)", None),
    ],
)
def test_outputs_are_told_or_not(body: str, outputs: list[str | None] | None) -> None:
    assert names(of(f"a = fn.external_source(name='A')\n{body}")) == outputs


@pytest.mark.parametrize(
    "body",
    [
        "return helpers_of_ours.make()",
        "x = [fn.external_source(name=n) for n in 'ab']\nreturn x[0]",
        "for n in 'ab':\n    x = fn.external_source(name=n)\nreturn x",
        "if True:\n    x = fn.external_source(name='A')\nreturn x",
        "x = fn.external_source(name='A') if True else None\nreturn x",
        "x = fn.external_source(name=helpers_of_ours.NAME)\nreturn x",
        "x = fn.external_source(**helpers_of_ours.ARGUMENTS)\nreturn x",
        "unused = fn.external_source(name='B')\nreturn fn.external_source(name='A')",
        "x = fn.external_source(name='A')\nx = fn.external_source(name='B')\nreturn x",
        "fn.external_source(name='B')\nreturn fn.external_source(name='A')",
        "def inner():\n    return fn.external_source(name='A')\nreturn inner()",
        "f = lambda: fn.external_source(name='A')\nreturn f()",
        "import nvidia.dali.ops as ops\nreturn ops.ExternalSource(name='A')()",
        "fn = helpers_of_ours\nreturn fn.external_source(name='A')",
    ],
)
def test_what_cannot_be_told_is_unknown(body: str) -> None:
    assert not of(body).complete


def test_operators_have_devices_and_lines() -> None:
    signature = of(
        "a = fn.external_source(name='A', device='gpu')\nb = fn.decoders.image(a, device='mixed')\n"
        "c = fn.my_op(b.gpu(), device=helpers_of_ours.D)\n"
        "return fn.other_op(c, factor=fn.random.uniform(), device='cpu')"
    )
    assert [(use.name, use.device, use.line) for use in signature.operators] == [
        ("decoders.image", "mixed", 8),
        ("my_op", None, 9),
        ("random.uniform", None, 10),
        ("other_op", "cpu", 10),
    ]
    assert signature.gpu_lines == (7, 9)
    assert signature.gpu_line == 7


def test_plugins_that_are_loaded_are_told() -> None:
    signature = of(
        "return fn.external_source(name='A')",
        HEAD + "plugin_manager.load_library('/models/liba.so')\nplugin_manager.load_library(helpers_of_ours.PATH)\n",
    )
    assert [(plugin.path, plugin.line) for plugin in signature.plugins] == [("/models/liba.so", 4)]


SOURCES = "class Endless: ...\ndef generate():\n    yield 1\ndef perhaps():\n    return None\n\n\n"
SOURCED = "    return fn.external_source(source={}, name='A')\n"
BODY = "    return fn.external_source(name='A')\n"
SAFE = HEAD.replace("import helpers_of_ours\n", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def pipeline(:\n", [("pipeline-syntax", 1)]),
        ("x = 1\n\x00", [("pipeline-syntax", 0)]),
        (SAFE + DEFINITION.replace("@autoserialize\n", "") + BODY, [("autoserialize-missing", 1)]),
        (SAFE + DEFINITION + BODY + DEFINITION.replace("pipeline()", "other()") + BODY, [("autoserialize-several", 9)]),
        (HEAD + "@pipeline_def(batch_size=1)\n@autoserialize\ndef p():\n" + BODY, [("autoserialize-misplaced", 4)]),
        (HEAD + DEFINITION + "    return fn.external_source()\n", [("input-unnamed", 7)]),
        (HEAD + DEFINITION + "    return fn.external_source(print, name='A')\n", [("input-has-source", 7)]),
        (HEAD + DEFINITION + "    return fn.external_source(source=[1], name='A')\n", [("input-has-source", 7)]),
        (HEAD + DEFINITION + "    return fn.external_source(lambda: 1, name='A')\n", [("input-has-source", 7)]),
        (
            HEAD + SOURCES + DEFINITION + "    return fn.external_source(Endless(3), name='A')\n",
            [("input-has-source", 14)],
        ),
        (
            HEAD + SOURCES + DEFINITION + "    return fn.external_source(generate, name='A')\n",
            [("input-has-source", 14)],
        ),
        (
            HEAD + SOURCES + DEFINITION + "    return fn.external_source(generate(), name='A')\n",
            [("input-has-source", 14)],
        ),
        (HEAD + "@autoserialize\n@pipeline_def(num_threads=1)\ndef p():\n" + BODY, [("batch-size-missing", 5)]),
        (HEAD + "@autoserialize\n@pipeline_def\ndef p():\n" + BODY, [("batch-size-missing", 5)]),
    ],
)
def test_mistakes_are_found_with_their_lines(text: str, expected: list[tuple[str, int]]) -> None:
    found = codes(text)
    assert [code for code, _ in found] == [code for code, _ in expected]
    assert found[0][1] in (expected[0][1], expected[0][1] + 1)  # a decorated function's line is that of its `def`


@pytest.mark.parametrize(
    "text",
    [
        HEAD + DEFINITION.replace("@autoserialize\n", "") + BODY,  # helpers_of_ours may have the one
        SAFE + DEFINITION.replace("@autoserialize\n", "") + BODY + "pipeline = autoserialize(pipeline)\n",
        SAFE + "from elsewhere import *\n",
        HEAD + "SOURCE = None\n" + DEFINITION + SOURCED.format("SOURCE"),
        HEAD + DEFINITION.replace("()", "(source=None)") + SOURCED.format("source"),
        HEAD + DEFINITION.replace("()", "(source)") + SOURCED.format("source"),
        HEAD + DEFINITION + SOURCED.format("helpers_of_ours.SOURCE"),
        HEAD + DEFINITION + SOURCED.format("helpers_of_ours.source()"),
        HEAD + DEFINITION + SOURCED.format("nobody"),
        HEAD + SOURCES + DEFINITION + SOURCED.format("perhaps()"),
        HEAD + SOURCES + "generate = None\n" + DEFINITION + SOURCED.format("generate"),
        HEAD + SOURCES + DEFINITION.replace("()", "(generate=None)") + SOURCED.format("generate"),
        SAFE + "if True:\n    @autoserialize\n    @pipeline_def(batch_size=1)\n    def p(): pass\n",
        SAFE + "exec('from nvidia.dali.plugin.triton import autoserialize')\n",
        SAFE + DEFINITION + BODY + DEFINITION + BODY,  # the second of this name is the only one
        "import nvidia.dali.plugin as p\n@p.triton.autoserialize\ndef q(): pass\n",
    ],
)
def test_nothing_is_said_of_what_cannot_be_told(text: str) -> None:
    assert codes(text) == []


_PIECES = st.sampled_from(
    ["fn.external_source(name='A')", "fn.x(", ")", "a = ", "a, b = b, a\n", "return ", "if x:\n", "    ", "\n",
     "lambda: ",
     "a.gpu()", "a := 1", "[", "]", "for a in b:\n", "with a as b:\n", "-", "**", "1 << 64", "'''", "\\", "\x00", "é",
     "match a:\n", "case {'x': y, **z}:\n", "async ", "yield a", "global fn\n", "del fn\n", "*a, b"]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=12).map("".join), st.text(max_size=30))
def test_any_source_is_read_or_refused(body: str, tail: str) -> None:
    for text in (HEAD + DEFINITION + "    " + body, HEAD + DEFINITION + BODY + body, tail):
        found = reading(text)
        assert isinstance(found.findings, list)


@pytest.mark.parametrize(
    "text", ["(" * 5000, "x = " + "-" * 5000 + "1", "x = " + "a." * 5000 + "b", "x = [" + "1+" * 5000 + "1]"]
)
def test_a_source_nested_as_deep_as_no_one_writes_it_is_no_crash(text: str) -> None:
    reading(SAFE + text + "\n" + DEFINITION + BODY)


@pytest.mark.parametrize("text", ["x = " + "(" * 20_000, "x = " + "-" * 20_000 + "1", "x = '\\w'"])
def test_a_file_is_parsed_or_refused_without_a_warning(
    text: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "x.py"
    path.write_text(text)
    if text.endswith("w'"):
        assert parse(path).body
    else:
        with pytest.raises(Unparsable):
            parse(path)
    assert not recwarn.list
