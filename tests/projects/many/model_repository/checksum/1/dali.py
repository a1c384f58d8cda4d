"""Two plugins one after the other; has no oracle, so types and shapes alone are verified."""

from nvidia.dali import fn, pipeline_def, plugin_manager, types
from nvidia.dali.plugin.triton import autoserialize

plugin_manager.load_library("/models/libbytereverse.so")
plugin_manager.load_library("/models/libsamplesum.so")


@autoserialize
@pipeline_def(batch_size=64, num_threads=2, device_id=None)
def pipeline():
    data = fn.external_source(device="cpu", name="BYTES", dtype=types.UINT8, ndim=1)
    return fn.sample_sum(fn.byte_reverse(data), name="SUM")
