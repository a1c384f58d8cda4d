"""Makes the model repository of test_backend.py: one model for each case. Runs in the image, with its DALI.

python3 backend_cases.py FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nvidia.dali import Pipeline, fn, plugin_manager, types

TYPES = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")
SOURCE = """
from nvidia.dali import fn, pipeline_def, plugin_manager, types
from nvidia.dali.plugin.triton import autoserialize

{load}


@autoserialize
@pipeline_def(batch_size=8, num_threads=2, device_id=None{outputs})
def pipeline():
    data = fn.external_source(name="IN", dtype=types.UINT8, ndim=1)
    return {result}
"""
LOAD = 'plugin_manager.load_library("/models/libcustomcopy.so")'
OUTPUTS = ", output_dtype=types.UINT8, output_ndim=1"
COPIES = 'fn.custom_copy(data, name="OUT")'
INVERTS = 'fn.cast(255 - data, dtype=types.UINT8, name="OUT")'


class Repository:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def model(
        self, name: str, files: dict[str, bytes | str], config: str | None = None, versions: Sequence[int] = (1,)
    ) -> None:
        """A model whose versions have these files; without `config` there is no config.pbtxt."""
        for version in versions:
            for file, content in files.items():
                path = self._folder / name / str(version) / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        (self._folder / name).mkdir(exist_ok=True)
        if config is not None:
            (self._folder / name / "config.pbtxt").write_text(config)


def source(name: str = "IN", **options: Any) -> Any:
    return fn.external_source(name=name, device="cpu", **options)


def serialized(graph: Callable[[], Any], *, batch_size: int = 8, **options: Any) -> bytes:
    made = Pipeline(batch_size=batch_size, num_threads=2, device_id=None, **options)
    with made:
        outputs = graph()
        made.set_outputs(*(outputs if isinstance(outputs, tuple) else (outputs,)))
    data: bytes = made.serialize()
    return data


def tensor(name: str, data_type: str = "TYPE_UINT8", dims: str = "-1", more: str = "") -> str:
    return f'{{ name: "{name}", data_type: {data_type}, dims: [ {dims} ]{more and ", " + more} }}'


def config(
    *more: str,
    batch: int | None = 8,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    backend: bool = True,
) -> str:
    lines = ['backend: "dali"'] if backend else []
    if batch is not None:
        lines.append(f"max_batch_size: {batch}")
    lines.append(f"input [ {', '.join([tensor('IN')] if inputs is None else inputs)} ]")
    lines.append(f"output [ {', '.join([tensor('OUT')] if outputs is None else outputs)} ]")
    return "\n".join([*lines, *more]) + "\n"


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


def joining(milliseconds: int = 300, size: int = 4) -> str:
    """Waits for requests to be joined, so that a test need not be lucky."""
    return f"dynamic_batching {{ preferred_batch_size: [ {size} ] max_queue_delay_microseconds: {milliseconds}000 }}"


def copy(**options: Any) -> Any:
    return fn.custom_copy(source(**options), name="OUT")


def make(folder: Path) -> None:
    models = Repository(folder)
    plain = serialized(copy)
    declared = serialized(
        lambda: copy(dtype=types.UINT8, ndim=1), batch_size=5, output_dtype=types.UINT8, output_ndim=1
    )
    inverting = serialized(lambda: fn.cast(255 - source(), dtype=types.UINT8, name="OUT"))
    trouble = serialized(lambda: fn.trouble(source(), name="OUT"))

    def files(data: bytes) -> dict[str, bytes | str]:
        return {"model.dali": data}

    ragged = tensor("IN", more="allow_ragged_batch: true")

    # Names, types and dims.
    models.model("plain", files(plain), config())
    models.model("invert", files(inverting), config())
    models.model("input_name", files(plain), config(inputs=[tensor("OTHER")]))
    models.model("input_missing", files(serialized(lambda: (copy(), source("MORE")))), config())
    models.model("output_name", files(plain), config(outputs=[tensor("ANOTHER")]))
    models.model("output_count", files(plain), config(outputs=[tensor("OUT"), tensor("MORE")]))
    models.model("input_dtype", files(declared), config(inputs=[tensor("IN", "TYPE_FP32")]))
    models.model("input_dtype_undeclared", files(plain), config(inputs=[tensor("IN", "TYPE_FP32")]))
    models.model("input_ndim", files(declared), config(inputs=[tensor("IN", dims="-1, -1")]))
    models.model("output_wrong", files(plain), config(outputs=[tensor("OUT", "TYPE_FP64", "7, 7, 7")]))
    models.model("dims_empty", files(plain), config(outputs=[tensor("OUT", dims="")]))
    models.model(
        "dims_fixed", files(plain), config(inputs=[tensor("IN", dims="16")], outputs=[tensor("OUT", dims="16")])
    )

    models.model("output_dtype_declared", files(declared), config(outputs=[tensor("OUT", "TYPE_FP64")]))
    models.model("output_ndim_declared", files(declared), config(outputs=[tensor("OUT", dims="-1, -1")]))

    # Batches.
    models.model("batch_smaller", files(plain), config(batch=2))
    models.model("batch_larger", files(plain), config(batch=64))
    models.model("batch_absent", files(declared), config(batch=None))
    models.model("unbatched", files(plain), config(batch=0))
    models.model(
        "unbatched_matrix",
        files(plain),
        config(batch=0, inputs=[tensor("IN", dims="-1, 3")], outputs=[tensor("OUT", dims="-1, 3")]),
    )
    models.model("joined", files(plain), config(joining()))
    models.model("empty", files(plain), config(joining()))
    models.model("joined_ragged", files(plain), config(joining(), inputs=[ragged]))

    # Auto-complete.
    for name in ("complete.dali", "complete"):
        models.model(name, files(declared))
    models.model("written", files(declared), config("dynamic_batching { }", batch=5, inputs=[ragged]))
    models.model("undeclared.dali", files(plain))
    models.model(
        "complete_partly", files(declared), 'backend: "dali"\nmax_batch_size: 3\noutput [ { name: "RENAMED" } ]\n'
    )
    models.model("complete_scheduler", files(plain), config("dynamic_batching { max_queue_delay_microseconds: 50 }"))
    models.model("complete_sequences", files(plain), config("sequence_batching { }"))

    # Model files and sources.
    autoserialized = SOURCE.format(load=LOAD, outputs=OUTPUTS, result=COPIES)
    builtin = SOURCE.format(load="", outputs=OUTPUTS, result=INVERTS)
    models.model("autoserialize", {"dali.py": autoserialized}, config())
    models.model("autoserialize_no_config.dali", {"dali.py": autoserialized})
    models.model("autoserialize_no_plugin", {"dali.py": SOURCE.format(load="", outputs="", result=COPIES)}, config())
    models.model("autoserialize_both", {"dali.py": builtin, "model.dali": plain}, config())
    models.model("autoserialize_bad_file", {"dali.py": builtin, "model.dali": b"garbage\n"}, config())
    models.model(
        "file_name", {"other.dali": inverting, "model.dali": plain}, config('default_model_filename: "other.dali"')
    )
    models.model(
        "file_name_py", {"other.py": builtin, "model.dali": plain}, config('default_model_filename: "other.py"')
    )
    models.model("file_name_gone", {"model.dali": plain}, config('default_model_filename: "other.dali"'))
    models.model("file_garbage", files(b"garbage\n"), config())
    models.model("file_empty", files(b""), config())
    models.model("file_truncated", files(plain[: len(plain) // 2]), config())
    models.model("file_missing", {"readme.txt": "no model"}, config())
    models.model("reload", files(plain), config())
    models.model("unregistered", files(serialized(copy).replace(b"CustomCopy", b"CustomKopy")), config())

    # Parameters and instances.
    models.model("threads", files(plain), config(parameter("num_threads", "3")))
    for name, value in (("threads_word", "many"), ("threads_none", "0")):
        models.model(name, files(plain), config(parameter("num_threads", value)))
    models.model("plugin_libs", files(plain), config(parameter("plugin_libs", "/models/libcustomcopy.so")))
    models.model("plugin_libs_unlisted", files(plain), config(parameter("plugin_libs", "/nowhere/libother.so")))

    def split() -> tuple[Any, ...]:
        data = source()
        return fn.reshape(data, shape=[-1, 2], name="OUT"), fn.copy(data, name="WHOLE")

    outputs = [tensor("OUT", dims="2"), tensor("WHOLE")]
    models.model("split", files(serialized(split)), config(parameter("split_along_outer_axis", "OUT"), outputs=outputs))
    models.model(
        "split_joined",
        files(serialized(split)),
        config(parameter("split_along_outer_axis", "OUT"), joining(), outputs=outputs, inputs=[ragged]),
    )
    flat = serialized(
        lambda: fn.reshape(source(dtype=types.UINT8, ndim=1), shape=[-1, 2], name="OUT"),
        output_dtype=types.UINT8,
        output_ndim=2,
    )
    models.model(
        "split_declared.dali",
        files(flat),
        'backend: "dali"\nmax_batch_size: 8\n' + parameter("split_along_outer_axis", "OUT"),
    )
    models.model("instances", files(trouble), config("instance_group [ { kind: KIND_CPU, count: 2 } ]"))
    models.model("kind_gpu", files(plain), config("instance_group [ { kind: KIND_GPU, count: 1 } ]"))
    models.model("versions", files(plain), config("version_policy { all { } }"))
    models.model("versions", files(inverting), config("version_policy { all { } }"), versions=[3])
    models.model("versions_latest", files(inverting), config())
    models.model("versions_latest", files(plain), config(), versions=[3])
    models.model("versions_specific", files(plain), config("version_policy { specific { versions: [ 1 ] } }"))
    models.model(
        "versions_specific", files(inverting), config("version_policy { specific { versions: [ 1 ] } }"), versions=[3]
    )

    # Tensors.
    models.model(
        "types",
        files(serialized(lambda: tuple(fn.custom_copy(source(f"IN_{name}")) for name in TYPES))),
        config(
            inputs=[tensor(f"IN_{name}", f"TYPE_{name}", "-1, 3") for name in TYPES],
            outputs=[tensor(f"OUT_{name}", f"TYPE_{name}", "-1, 3") for name in TYPES],
        ),
    )
    scalar = "reshape: { shape: [ ] }"
    models.model(
        "scalar",
        files(plain),
        config(inputs=[tensor("IN", dims="1", more=scalar)], outputs=[tensor("OUT", dims="1", more=scalar)]),
    )

    def several() -> tuple[Any, ...]:
        left, right = source("LEFT", dtype=types.FLOAT), source("RIGHT", dtype=types.INT32)
        return left + fn.cast(right, dtype=types.FLOAT), fn.custom_copy(right), fn.reductions.sum(left)

    models.model(
        "several",
        files(serialized(several)),
        config(
            inputs=[tensor("RIGHT", "TYPE_INT32"), tensor("LEFT", "TYPE_FP32")],
            outputs=[
                tensor("SUM", "TYPE_FP32"),
                tensor("COPY", "TYPE_INT32"),
                tensor("TOTAL", "TYPE_FP32", "1", scalar),
            ],
        ),
    )
    for number in range(10):
        models.model(f"churn_{number}", files(plain), config())
    models.model("large", files(plain), config(batch=256))

    # Operators that fail.
    models.model("trouble", files(trouble), config(joining(size=8)))
    models.model("trouble_alone", files(trouble), config())


if __name__ == "__main__":
    for library in ("customcopy", "trouble"):
        plugin_manager.load_library(f"/models/lib{library}.so")
    make(Path(sys.argv[1]))
