"""Gives back what it gets, through the shipped operator."""

from nvidia.dali import fn, pipeline_def, plugin_manager
from nvidia.dali.plugin.triton import autoserialize

plugin_manager.load_library("/models/libcustomcopy.so")


@autoserialize
@pipeline_def(batch_size=8, num_threads=2, device_id=None)
def pipeline():
    return fn.custom_copy(fn.external_source(device="cpu", name="IN"), device="cpu", name="OUT")
