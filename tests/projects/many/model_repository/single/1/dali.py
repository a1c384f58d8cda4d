"""Takes no batches."""

from nvidia.dali import fn, pipeline_def, plugin_manager
from nvidia.dali.plugin.triton import autoserialize

plugin_manager.load_library("/models/libbytereverse.so")


@autoserialize
@pipeline_def(batch_size=1, num_threads=2, device_id=None)
def pipeline():
    data = fn.external_source(device="cpu", name="BYTES")
    return fn.byte_reverse(data, name="REVERSED")
