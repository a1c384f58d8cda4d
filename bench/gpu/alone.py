"""The operators in DALI alone, without a server: `python3 -m bench.gpu.alone PROJECT MODELS gpu|cpu [--quick]`.

Runs under the image's own Python and NumPy. Writes models for `served.py` into the folder MODELS, and a report to
stdout.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali import Pipeline, fn, plugin_manager

from bench.gpu.report import Report

Array = npt.NDArray[Any]
DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "u2",
    "UINT32": "u4",
    "UINT64": "u8",
    "INT8": "i1",
    "INT16": "i2",
    "INT32": "i4",
    "INT64": "i8",
    "FP16": "f2",
    "FP32": "f4",
    "FP64": "f8",
}
"""Triton's names of all that DALI has."""
BATCH = 64
_RAGGED = [(1, 1, 3), (5, 7, 3), (0, 4, 3), (33, 1, 3), (17, 31, 3), (64, 64, 3), (1, 0, 3), (129, 127, 3)]
_SECONDS = 3.0


def main(project: Path, models: Path, gpu: bool, quick: bool) -> Report:
    for library in ("customcopy", "normalizepermute"):
        plugin_manager.load_library(f"/models/lib{library}.so")
    report = Report()
    for device in ("cpu", "gpu"):
        write_models(models, device)
        tests = {
            "custom_copy, every type, ragged and empty samples": functools.partial(copies, device),
            "custom_copy, 4,096 samples of 1 KiB": functools.partial(small_copies, device),
            "normalize_permute, 1 to 4 channels, all sizes": functools.partial(normalizes, device),
            "normalize_permute refuses what it cannot do": functools.partial(refuses, device),
        }
        for name, test in tests.items():
            if device == "cpu" or gpu:
                report.test(f"{name}, {device}", test)
            else:
                report.not_run(f"{name}, {device}", "no GPU")
    if not quick:
        lanes = {"augment_cpu": None} | ({"augment": 0} if gpu else {})
        for name, place in lanes.items():
            report.measure(f"{name} by DALI alone", functools.partial(augment_alone, project, name, place))
        if gpu:
            report.measure("4,096 samples of 1 KiB in a pipeline", small_copies_time)
    return report


def run(graph: Callable[[Any], Any], batch: Sequence[Array], device: str, layout: str = "") -> list[Array]:
    """The batch after `graph`, which gets it on `device`."""
    pipeline = Pipeline(batch_size=max(1, len(batch)), num_threads=4, device_id=0 if device == "gpu" else None)
    with pipeline:
        data = fn.external_source(name="IN", layout=layout)
        pipeline.set_outputs(graph(data.gpu() if device == "gpu" else data))
    pipeline.build()
    pipeline.feed_input("IN", list(batch))
    (output,) = pipeline.run()
    if device == "gpu":
        output = output.as_cpu()
    return [np.array(output.at(index)) for index in range(len(output))]


def random(generator: np.random.Generator, shape: Sequence[int], dtype: str) -> Array:
    raw = generator.integers(0, 256, int(np.prod(shape)) * np.dtype(dtype).itemsize, np.uint8)
    return (raw & 1 if dtype == "?" else raw).view(dtype).reshape(shape)


def same(given: Sequence[Array], got: Sequence[Array]) -> int:
    """How many samples are the same, byte for byte. Raises AssertionError if not all are."""
    for one, other in zip(given, got, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert one.tobytes() == other.tobytes(), f"{one.shape} {one.dtype} differs"
    return len(given)


def copies(device: str) -> str:
    generator = np.random.default_rng(1)
    compared = 0
    for dtype in DTYPES.values():
        batch = [random(generator, shape, dtype) for shape in _RAGGED]
        compared += same(batch, run(functools.partial(fn.custom_copy, device=device), batch, device))
    return f"{compared} samples of {len(DTYPES)} types, byte for byte"


def small_copies(device: str) -> str:
    generator = np.random.default_rng(2)
    batch = [random(generator, (1024,), "u1") for _ in range(4096)]
    return f"{same(batch, run(functools.partial(fn.custom_copy, device=device), batch, device))} samples, byte for byte"


def normalized(image: Array, mean: Any, std: Any, scale: float) -> Array:
    """The oracle: float, in the operator's order, and rounded once."""
    channels = image.shape[2]
    means = np.broadcast_to(np.float32(mean), channels)
    factors = np.float32(scale) / np.broadcast_to(np.float32(std), channels)
    return ((image.astype(np.float32) - means) * factors).astype(np.float16).transpose(2, 0, 1)


def normalizes(device: str) -> str:
    generator = np.random.default_rng(3)
    compared = 0
    for channels in (1, 2, 3, 4):
        several = list(generator.uniform(0, 255, channels)), list(generator.uniform(1, 255, channels))
        sizes = [(1, 1), (0, 3), (3, 0), (1, 7), (8, 1), (3, 3), (17, 31), (64, 65), (224, 224), (511, 513)]
        sizes += [(1, pixels) for edge in (8, 4096, 8192) for pixels in range(edge - 8, edge + 9)]
        sizes += [tuple(generator.integers(1, 300, 2)) for _ in range(100)]  # more than one launch has room for
        batch = [random(generator, (height, width, channels), "u1") for height, width in sizes]
        for mean, std, scale in ((0.0, 1.0, 1.0), (*several, 1.0), (several[0], 57.0, 3.7)):
            graph = functools.partial(fn.normalize_permute, device=device, mean=mean, std=std, scale=scale)
            got = run(graph, batch, device, "HWC")
            compared += same([normalized(each, mean, std, scale) for each in batch], got)
    return f"{compared} images, bit for bit as NumPy"


def refuses(device: str) -> str:
    good = np.zeros((2, 2, 3), np.uint8)
    cases: list[tuple[dict[str, Any], list[Array], str]] = [
        ({"std": 0.0}, [good], "above 0"),
        ({"mean": float("nan")}, [good], "finite"),
        ({"mean": [1.0, 2.0], "std": [1.0, 2.0, 3.0]}, [good], "as many values"),
        ({"mean": [1.0] * 5}, [good], "up to 4"),
        ({"mean": [1.0, 2.0]}, [good], "the images have 3 channels"),
        ({}, [np.zeros((2, 2, 5), np.uint8)], "1 to 4 are taken"),
        ({}, [good, np.zeros((2, 2, 1), np.uint8)], "all of a batch must have as many"),
        ({}, [good.astype(np.int8)], "must be uint8"),
    ]
    for arguments, batch, words in cases:
        try:
            run(functools.partial(fn.normalize_permute, device=device, **arguments), batch, device, "HWC")
        except RuntimeError as error:
            message = str(error)
        else:
            message = "no error"
        assert words in message, f"{arguments} {[each.shape for each in batch]}: {message}"
    return f"{len(cases)} messages"


def write_models(folder: Path, device: str) -> None:
    """Models for the server: every type, large samples, and requests that are joined to ragged batches."""
    kind = "KIND_GPU" if device == "gpu" else "KIND_CPU"

    def serialized(graph: Callable[[], Any]) -> bytes:
        pipeline = Pipeline(batch_size=BATCH, num_threads=4, device_id=None)
        with pipeline:
            outputs = graph()
            pipeline.set_outputs(*(outputs if isinstance(outputs, tuple) else (outputs,)))
        data: bytes = pipeline.serialize()
        return data

    def copied(name: str, to: str) -> Any:
        data = fn.external_source(name=name)
        return fn.custom_copy(data.gpu() if device == "gpu" else data, device=device, name=to)

    def tensor(name: str, type_: str, dims: str, more: str = "") -> str:
        return f'{{ name: "{name}" data_type: TYPE_{type_} dims: [ {dims} ] {more} }}'

    def model(name: str, data: bytes, inputs: list[str], outputs: list[str], *more: str) -> None:
        version = folder / f"{name}_{device}" / "1"
        version.mkdir(parents=True)
        (version / "model.dali").write_bytes(data)
        lines = [
            'backend: "dali"',
            f"max_batch_size: {BATCH}",
            f"input [ {', '.join(inputs)} ]",
            f"output [ {', '.join(outputs)} ]",
            f"instance_group [ {{ count: 1 kind: {kind} }} ]",
            *more,
        ]
        (version.parent / "config.pbtxt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    model(
        "types",
        serialized(lambda: tuple(copied(f"IN_{name}", f"OUT_{name}") for name in DTYPES)),
        [tensor(f"IN_{name}", name, "-1, 3") for name in DTYPES],
        [tensor(f"OUT_{name}", name, "-1, 3") for name in DTYPES],
    )
    copy = serialized(lambda: copied("IN", "OUT"))
    model("copy", copy, [tensor("IN", "UINT8", "-1")], [tensor("OUT", "UINT8", "-1")])
    model(
        "ragged",
        copy,
        [tensor("IN", "UINT8", "-1", "allow_ragged_batch: true")],
        [tensor("OUT", "UINT8", "-1")],
        "dynamic_batching { preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 20000 }",
    )


def files(project: Path) -> list[Array]:
    """The JPEG files of the golden arrays."""
    with np.load(project / "tests" / "augment.npz") as golden:
        return [golden[name][0] for name in golden.files if name.endswith("/JPEG")]


def augment_alone(project: Path, name: str, device: int | None) -> dict[str, Any]:
    """Images a second by batch size: files in, tensors in the host's memory out, as a server has to give them."""
    jpegs = files(project)
    rates: dict[str, float] = {}
    for batch in (1, 8, 16, 32, 64):
        pipeline = Pipeline.deserialize(
            filename=f"/models/{name}/1/model.dali",
            batch_size=batch,
            num_threads=4,
            device_id=device,
            prefetch_queue_depth=1,
            exec_async=False,
            exec_pipelined=False,
        )
        pipeline.build()
        given = [jpegs[index % len(jpegs)] for index in range(batch)]

        def once(pipeline: Any = pipeline, given: list[Array] = given) -> None:
            pipeline.feed_input("JPEG", given)
            (output,) = pipeline.run()
            np.array((output.as_cpu() if device is not None else output).as_array())

        for _ in range(10):
            once()
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < _SECONDS:
            once()
            done += batch
        rates[str(batch)] = round(done / (time.perf_counter() - began), 1)
    return {"images_per_second_by_batch": rates, "threads": 4}


def small_copies_time() -> dict[str, float]:
    """Microseconds that one custom_copy of 4,096 samples takes, beside DALI's own copy; by pipelines with 1 and 21."""
    generator = np.random.default_rng(4)
    batch = [random(generator, (1024,), "u1") for _ in range(4096)]
    return {
        name: round((_median(copy, 21, batch) - _median(copy, 1, batch)) / 20 * 1e6, 1)
        for name, copy in (("custom_copy_us", fn.custom_copy), ("copy_of_DALI_us", fn.copy))
    }


def _median(copy: Callable[..., Any], count: int, batch: list[Array]) -> float:
    """Seconds of a run of a pipeline with `count` copies one after another."""
    pipeline = Pipeline(batch_size=len(batch), num_threads=4, device_id=0, prefetch_queue_depth=1)
    with pipeline:
        data = fn.external_source(name="IN").gpu()
        for _ in range(count):
            data = copy(data, device="gpu")
        # One number a sample: what is timed is not how it gets to the host.
        pipeline.set_outputs(fn.reductions.max(data))
    pipeline.build()
    times = []
    for _ in range(30):
        pipeline.feed_input("IN", batch)
        began = time.perf_counter()
        (output,) = pipeline.run()
        output.as_cpu()
        times.append(time.perf_counter() - began)
    return statistics.median(times[5:])


if __name__ == "__main__":
    result = main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "gpu", "--quick" in sys.argv)
    print(json.dumps(result.as_json()))
