"""The pipeline of the model `mydali_gpu`: gives back the bytes it was sent, through the custom operator on the GPU."""

from nvidia.dali import fn, pipeline_def, plugin_manager
from nvidia.dali.plugin.triton import autoserialize

plugin_manager.load_library("/models/libcustomcopy.so")


# device_id=None: serialized without a GPU; the server places the pipeline.
@autoserialize
@pipeline_def(batch_size=256, num_threads=4, device_id=None)
def pipeline():
    data = fn.external_source(device="cpu", name="DALI_INPUT_0")
    return fn.custom_copy(data.gpu(), device="gpu", name="DALI_OUTPUT_0")
