"""DALI's own operators alone."""

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.triton import autoserialize


@autoserialize
@pipeline_def(batch_size=8, num_threads=2, device_id=None)
def pipeline():
    data = fn.external_source(device="cpu", name="BYTES")
    return fn.cast(data, dtype=types.FLOAT, name="FLOATS") / 255.0
