"""Version 2."""

from nvidia.dali import fn, pipeline_def, plugin_manager, types
from nvidia.dali.plugin.triton import autoserialize

plugin_manager.load_library("/models/libscaleadd.so")


@autoserialize
@pipeline_def(batch_size=16, num_threads=2, device_id=None)
def pipeline():
    data = fn.external_source(device="cpu", name="VALUES", dtype=types.FLOAT, ndim=2)
    return fn.scale_add(data, scale=3.0, offset=-1.0, name="SCALED")
