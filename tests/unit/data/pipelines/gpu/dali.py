"""Operators that need a GPU."""

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.triton import autoserialize


@autoserialize
@pipeline_def(batch_size=4, num_threads=1, device_id=None)
def pipeline():
    encoded = fn.external_source(name="ENCODED", dtype=types.UINT8, ndim=1)
    image = fn.decoders.image(encoded, device="mixed")
    return fn.flip(image), encoded.gpu()
