"""Everything that a pipeline can declare of its inputs and outputs."""

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.triton import autoserialize


@autoserialize
@pipeline_def(batch_size=16, num_threads=3, device_id=None, output_dtype=[types.FLOAT, types.UINT8], output_ndim=[1, 3])
def pipeline():
    wave = fn.external_source(name="WAVE", dtype=types.FLOAT, ndim=1)
    image = fn.external_source(name="IMAGE", dtype=types.UINT8, layout="HWC")
    return fn.cast(wave, dtype=types.FLOAT, name="LOUD"), fn.flip(image)
