"""The models, over HTTP: right from 1 byte to 1 GiB, and images a second."""

from __future__ import annotations

import concurrent.futures
import functools
import shutil
import statistics
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.http

from bench.gpu.report import Report
from bench.load import Connection, Request, drive
from builder import triton
from builder.triton import Endpoint
from builder.unpacked.image import UnpackedImage
from builder.unpacked.server import ProcessServer, serving

Array = npt.NDArray[Any]
MODELS = "/mnt/models"
SHARED_MEMORY = "8g"
ALONE = "augment_of_one"
"""`augment` with one instance instead of two."""
GIB, MIB, KIB = 1 << 30, 1 << 20, 1 << 10
CLIENT_PROCESSES, CLIENT_THREADS = 8, 4
_SECONDS = 8.0


def main(folder: Path, project: Path, models: Path, gpu: bool, quick: bool) -> Report:
    """
    Args:
        folder: of the unpacked image.
        models: what `alone.py` wrote.
    """
    report = Report()
    names = ["copy_cpu", "ragged_cpu", "types_cpu", "augment_cpu"]
    on_gpu = ["copy_gpu", "ragged_gpu", "types_gpu", "mydali_gpu", "augment", ALONE]
    if gpu:
        one_instance(models)
    loaded = names + (on_gpu if gpu else [])
    arguments = [
        f"--model-repository={MODELS}",
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in loaded),
    ]
    image = UnpackedImage.read(folder)
    with serving(
        image,
        gpus="all" if gpu else "",
        arguments=arguments,
        folders={MODELS: str(models)},
        shared_memory=SHARED_MEMORY,
    ) as server:
        endpoint = server.endpoint()
        seconds = triton.wait_until_ready(endpoint, server, timeout=120, where=image.reference)
        report.figures["ready_seconds"] = {"models": len(loaded), "seconds": round(seconds, 2)}
        ask = Asking(endpoint)
        tests = {
            "every type": ("types", ask.types),
            "1 byte to 1 GiB": ("copy", ask.sizes),
            "empty samples": ("copy", ask.empty),
            "ragged batches of many clients": ("ragged", ask.ragged),
        }
        for name, (model, test) in tests.items():
            for device in ("cpu", "gpu"):
                _test(report, f"served: {name}, {device}", functools.partial(test, f"{model}_{device}"), device, gpu)
        _test(report, "served: mydali_gpu, 1 byte to 1 GiB", functools.partial(ask.sizes, "mydali_gpu"), "gpu", gpu)
        for model, device in (("augment_cpu", "cpu"), ("augment", "gpu")):
            _test(report, f"served: {model}", functools.partial(ask.augment, model, project), device, gpu)
        if not quick:
            for model in ["augment_cpu"] + (["augment", ALONE] if gpu else []):
                report.measure(
                    f"{model} over HTTP, 32 clients", functools.partial(images_per_second, endpoint, model, project)
                )
            report.measure(
                "custom_copy on the CPU over HTTP, 32 clients, as many bytes as an answer of augment",
                functools.partial(copies_per_second, endpoint),
            )
            for model in ["copy_cpu"] + (["copy_gpu"] if gpu else []):
                report.measure(f"{model}, one request at a time", functools.partial(latency, endpoint, model))
        report.test("served: the server is alive at the end", functools.partial(_alive, server))
    return report


def one_instance(models: Path) -> None:
    shutil.copytree("/models/augment", models / ALONE)
    config = models / ALONE / "config.pbtxt"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('"augment"', f'"{ALONE}"').replace("count: 2", "count: 1"), encoding="utf-8")


def _test(report: Report, name: str, test: functools.partial[str], device: str, gpu: bool) -> None:
    if device == "gpu" and not gpu:
        report.not_run(name, "no GPU")
    else:
        report.test(name, test)


def _alive(server: ProcessServer) -> None:
    assert server.exited() is None, server.log()


class Asking:
    """Requests and what must come of them."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._address = endpoint.http
        self._random = np.random.default_rng(1)

    def types(self, model: str) -> str:
        from tritonclient.utils import triton_to_np_dtype

        names = (
            "BOOL",
            "UINT8",
            "UINT16",
            "UINT32",
            "UINT64",
            "INT8",
            "INT16",
            "INT32",
            "INT64",
            "FP16",
            "FP32",
            "FP64",
        )
        compared = 0
        for shape in ((1, 1, 3), (5, 7, 3), (2, 0, 3), (64, 100, 3)):
            given = {}
            for name in names:
                dtype = np.dtype(triton_to_np_dtype(name))
                raw = self._bytes(int(np.prod(shape)) * dtype.itemsize)
                given[name] = (raw & 1 if name == "BOOL" else raw).view(dtype).reshape(shape)
            answers = self._ask(model, {f"IN_{name}": (name, array) for name, array in given.items()})
            for name, array in given.items():
                _same(array, answers[f"OUT_{name}"], f"{model} {name} {shape}")
                compared += 1
        return f"{compared} tensors of {len(names)} types, byte for byte"

    def sizes(self, model: str) -> str:
        shapes = [(1, 1), (1, 2), (1, 255), (7, 1), (64, 3), (1, KIB), (64, KIB), (3, 65537), (8, MIB), (32, 2 * MIB)]
        shapes += [(1, 64 * MIB), (4, 256 * MIB), (1, GIB)]
        name_in, name_out = ("DALI_INPUT_0", "DALI_OUTPUT_0") if model.startswith("mydali") else ("IN", "OUT")
        for shape in shapes:
            given = self._bytes(shape[0] * shape[1]).reshape(shape)
            _same(given, self._ask(model, {name_in: ("UINT8", given)})[name_out], f"{model} {shape}")
        return f"{len(shapes)} requests, the largest of 1 GiB, byte for byte"

    def empty(self, model: str) -> str:
        for shape in ((1, 0), (3, 0), (64, 0)):
            given = np.empty(shape, np.uint8)
            _same(given, self._ask(model, {"IN": ("UINT8", given)})["OUT"], f"{model} {shape}")
        return "batches of 1, 3 and 64"

    def ragged(self, model: str) -> str:
        """Requests of different sizes at once, which the server joins."""
        shapes = [(1, 5), (2, 70000), (1, 77), (2, 0), (1, 100000), (4, MIB), (3, 1)]

        def one(number: int) -> None:
            shape = shapes[number % len(shapes)]
            given = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
            _same(given, self._ask(model, {"IN": ("UINT8", given)})["OUT"], f"{model} {shape}")

        before = _statistics(self._address, model)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(one, range(600)))
        after = _statistics(self._address, model)
        joined = (after["requests"] - before["requests"]) / (after["executions"] - before["executions"])
        assert joined > 1, "no two requests were joined"
        return f"600 requests, {joined:.1f} to a batch on average, byte for byte"

    def augment(self, model: str, project: Path) -> str:
        allowed = tomllib.loads((project / "builder.toml").read_text(encoding="utf-8"))["models"][model]["atol"]
        worst, mean = 0.0, []
        for jpeg, image in golden(project):
            for batch in (1, 5):
                answer = self._ask(model, {"JPEG": ("UINT8", np.repeat(jpeg[None], batch, 0))})["IMAGE"]
                assert (answer.dtype, answer.shape) == (image.dtype, (batch, *image.shape))
                difference = np.abs(answer.astype(np.float32) - image.astype(np.float32))
                worst = max(worst, float(difference.max()))
                mean.append(float(difference.mean()))
        told = f"differs from the oracle by {worst:.4f} at most, {statistics.mean(mean):.6f} on average"
        assert worst <= allowed, f"{told}; {allowed} is allowed"
        return f"{told}; {allowed} is allowed"

    def _bytes(self, count: int) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self._random.bytes(count), np.uint8)

    def _ask(self, model: str, given: dict[str, tuple[str, Array]]) -> dict[str, Array]:
        inputs = []
        for name, (datatype, array) in given.items():
            inputs.append(tritonclient.http.InferInput(name, list(array.shape), datatype))
            inputs[-1].set_data_from_numpy(array)
        # A connection each: the threads ask at once.
        client = tritonclient.http.InferenceServerClient(self._address, network_timeout=300.0, connection_timeout=300.0)
        try:
            result = client.infer(model, inputs)
        finally:
            client.close()
        return {output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]}


def _same(given: Array, got: Array, what: str) -> None:
    assert (got.shape, got.dtype) == (given.shape, given.dtype), f"{what}: {got.dtype} {got.shape}"
    assert np.array_equal(got.reshape(-1).view(np.uint8), given.reshape(-1).view(np.uint8)), f"{what} differs"


def golden(project: Path) -> Iterator[tuple[Array, Array]]:
    """JPEG files, and what must come of them."""
    with np.load(project / "tests" / "augment.npz") as arrays:
        for name in arrays.files:
            if name.endswith("/JPEG"):
                yield arrays[name][0], arrays[name.replace("/JPEG", "/IMAGE")][0]


def images_per_second(endpoint: Endpoint, model: str, project: Path) -> dict[str, Any]:
    """32 clients, each with one image in flight, plain sockets and prepared requests."""
    jpegs = [jpeg for jpeg, _ in golden(project)]
    requests = [_request(model, "JPEG", jpeg) for jpeg in jpegs]
    return _driven(endpoint, model, requests)


def copies_per_second(endpoint: Endpoint) -> dict[str, Any]:
    """What the way there and back costs without an image to decode: the server, the protocol, the model's process."""
    given = np.frombuffer(np.random.default_rng(2).bytes(3 * 224 * 224 * 2), np.uint8)
    return _driven(endpoint, "copy_cpu", [_request("copy_cpu", "IN", given)])


def _request(model: str, name: str, array: Array) -> Request:
    tensor = tritonclient.http.InferInput(name, [1, array.size], "UINT8")
    tensor.set_data_from_numpy(array[None])
    body, header = tritonclient.http.InferenceServerClient.generate_request_body([tensor])
    lines = (
        f"POST /v2/models/{model}/infer HTTP/1.1",
        "Host: localhost",
        f"Inference-Header-Content-Length: {header}",
        f"Content-Length: {len(body)}",
    )
    # No bytes are expected: a decoder may give others in another batch. That they are right is another test.
    return Request("\r\n".join([*lines, "", ""]).encode() + bytes(body), b"")


def _driven(endpoint: Endpoint, model: str, requests: Sequence[Request]) -> dict[str, Any]:
    def of(number: int) -> list[Request]:
        at = number % len(requests)
        return [*requests[at:], *requests[:at]]

    load = functools.partial(drive, endpoint.http, of, processes=CLIENT_PROCESSES, threads=CLIENT_THREADS)
    load(seconds=2.0)
    before, cpu = _statistics(endpoint.http, model), _cpu_seconds()
    done = load(seconds=_SECONDS)
    after, used = _statistics(endpoint.http, model), _cpu_seconds()
    count = after["requests"] - before["requests"]
    executions = after["executions"] - before["executions"]
    spent = {name: (after[name] - before[name]) / 1e3 for name in ("queue", "input", "infer", "output")}
    return {
        "per_second": round(done.per_second, 1),
        "batch_on_average": round(count / executions, 2),
        "us_in_the_queue": round(spent["queue"] / count, 1),
        "us_of_a_batch": {name: round(spent[name] / executions, 1) for name in ("input", "infer", "output")},
        # How much of the time the model works: close to 1, it is what limits.
        "busy": round(sum(spent[name] for name in ("input", "infer", "output")) / done.seconds / 1e6, 3),
        "cores": {name: round((used.get(name, 0.0) - cpu.get(name, 0.0)) / done.seconds, 2) for name in sorted(used)},
        "cores_of_the_clients": round(done.client_cpu_seconds / done.seconds, 2),
    }


def _statistics(address: str, model: str) -> dict[str, int]:
    """Requests, executions, and nanoseconds, since the server began; those of a batch count once for each execution."""
    client = tritonclient.http.InferenceServerClient(address)
    try:
        told = client.get_inference_statistics(model)["model_stats"][0]
    finally:
        client.close()
    batches = told["batch_stats"]
    return {
        "requests": int(told["inference_stats"]["success"]["count"]),
        "executions": int(told["execution_count"]),
        "queue": int(told["inference_stats"]["queue"]["ns"]),
        "input": sum(int(each["compute_input"]["ns"]) for each in batches),
        "infer": sum(int(each["compute_infer"]["ns"]) for each in batches),
        "output": sum(int(each["compute_output"]["ns"]) for each in batches),
    }


def _cpu_seconds() -> dict[str, float]:
    """Processor time of the server's process and of those of its models."""
    used: dict[str, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(encoding="utf-8")
        except OSError:
            continue  # it has ended
        name = text[text.index("(") + 1 : text.rindex(")")]
        fields = text[text.rindex(")") + 2 :].split()
        if name.startswith("triton"):
            used[name] = used.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / 100
    return used


def latency(endpoint: Endpoint, model: str) -> dict[str, float]:
    """Milliseconds, medians, plain sockets."""
    answers = {}
    for label, size, count in (("1 KiB", KIB, 500), ("8 MiB", 8 * MIB, 40)):
        request = _request(model, "IN", np.frombuffer(np.random.default_rng(3).bytes(size), np.uint8))
        connection = Connection(endpoint.http)
        times = []
        for _ in range(count + 20):
            began = time.perf_counter()
            connection.ask(request)
            times.append(time.perf_counter() - began)
        connection.close()
        answers[label] = round(statistics.median(times[20:]) * 1e3, 3)
    return answers
