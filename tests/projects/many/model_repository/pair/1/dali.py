"""Several inputs and outputs, of fixed dims."""

from nvidia.dali import fn, pipeline_def, plugin_manager, types
from nvidia.dali.plugin.triton import autoserialize

plugin_manager.load_library("/models/libscaleadd.so")


@autoserialize
@pipeline_def(batch_size=8, num_threads=2, device_id=None)
def pipeline():
    left = fn.external_source(device="cpu", name="LEFT", dtype=types.FLOAT, ndim=2)
    right = fn.external_source(device="cpu", name="RIGHT", dtype=types.INT32, ndim=2)
    return left + fn.cast(right, dtype=types.FLOAT), fn.scale_add(left, offset=1.0, name="LEFT_PLUS_ONE")
