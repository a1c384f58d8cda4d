"""Runs inside the image, under DALI alone: CustomCopy against its inputs."""

import itertools

import numpy as np
from nvidia.dali import Pipeline, fn, plugin_manager

plugin_manager.load_library("/models/libcustomcopy.so")
assert fn.custom_copy.__doc__

random = np.random.default_rng(0)
WIDTHS = ["8", "16", "32", "64"]
TYPES = ["bool", *(f"{kind}{bits}" for kind in ("uint", "int") for bits in WIDTHS), "float16", "float32", "float64"]
SHAPES = [(), (1,), (0,), (7,), (4, 0), (3, 5), (2, 3, 4), (1, 2, 3, 4), (2, 1, 2, 3, 2), (1 << 20,)]
LAYOUTS = {0: "", 1: "A", 2: "HW", 3: "HWC", 4: "FHWC", 5: "DFHWC"}


def sample(shape, dtype):
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(bool)
    return np.frombuffer(random.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)


def check(batch, layout):
    pipeline = Pipeline(batch_size=len(batch), num_threads=4, device_id=None, prefetch_queue_depth=1)
    with pipeline:
        pipeline.set_outputs(fn.custom_copy(fn.external_source(name="x", layout=layout or None)))
    pipeline.build()
    pipeline.feed_input("x", batch, layout=layout or None)
    (output,) = pipeline.run()
    assert output.layout() == layout, (output.layout(), layout)
    for got, wanted in zip(output, batch, strict=True):
        got = np.array(got)
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        assert got.tobytes() == wanted.tobytes()


count = 0
for name, shape in itertools.product(TYPES, SHAPES):
    check([sample(shape, np.dtype(name)) for _ in range(3)], LAYOUTS[len(shape)])
    count += 1
for name in TYPES:  # ragged
    check([sample((n, 3), np.dtype(name)) for n in (0, 1, 1000, 2, 300_000, 5)], "HW")
    count += 1
check([sample((n,), np.dtype("uint8")) for n in range(256)], "A")
print(f"copied {count + 1} batches")
