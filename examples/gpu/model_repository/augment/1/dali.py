"""The pipeline of the model `augment`: JPEG files to what a network takes, all of it on the GPU."""

from nvidia.dali import fn, pipeline_def, plugin_manager, types
from nvidia.dali.plugin.triton import autoserialize

plugin_manager.load_library("/models/libnormalizepermute.so")

# Those of ImageNet, for values from 0 to 255.
MEAN = [123.675, 116.28, 103.53]
STD = [58.395, 57.12, 57.375]


# device_id=None: serialized without a GPU; the server places the pipeline.
@autoserialize
@pipeline_def(batch_size=64, num_threads=4, device_id=None)
def pipeline():
    files = fn.external_source(device="cpu", name="JPEG", dtype=types.UINT8, ndim=1)
    # Colours are interpolated as libjpeg-turbo does it, so that the GPU sees what the network was trained on.
    images = fn.decoders.image(files, device="mixed", output_type=types.RGB, jpeg_fancy_upsampling=True)
    images = fn.resize(images, device="gpu", size=[224, 224])
    return fn.normalize_permute(images, device="gpu", mean=MEAN, std=STD, name="IMAGE")
