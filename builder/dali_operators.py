"""The operators that DALI itself registers: what uses one of these needs no plugin.

The names are what `nvidia.dali.backend` lists for any device (RegisteredCPUOps, RegisteredGPUOps, RegisteredMixedOps)
in the wheels 1.53.0 and 2.1.1, together, and those of operators that only its Python package knows. Older versions have
operators that these do not, and newer ones will.
"""

from __future__ import annotations

import re

_OLDEST, _NEWEST = (1, 53, 0), (2, 1, 1)
"""The versions that the names are of."""
_REGISTERED = """
ArithmeticGenericOp AudioDecoder AudioResample BBoxPaste BBoxRotate BatchPermutation BbFlip BoxEncoder Brightness
BrightnessContrast COCOReader Caffe2Reader CaffeReader Cast CastLike Cat Clahe CoinFlip ColorSpaceConversion
ColorTwist Constant Contrast CoordFlip CoordTransform Copy Crop CropMirrorNormalize Debayer DumpImage ElementExtract
Equalize Erase ExpandDims ExternalSource FastResizeCropMirror FileReader Filter Flip Full FullLike GaussianBlur
GetProperty GridMask Hsv Hue ImageDecoder ImageDecoderCrop ImageDecoderRandomCrop ImageDecoderSlice Jitter
JpegCompressionDistortion Laplacian LookupTable MFCC MXNetReader MelFilterBank MultiPaste NemoAsrReader
NonsilentRegion NormalDistribution Normalize NumpyReader OneHot Ones OnesLike OpticalFlow Pad Paste PeekImageShape
PerFrame PermuteBatch PowerSpectrum PreemphasisFilter ROIRandomCrop RandomBBoxCrop RandomCropGenerator
RandomResizedCrop Reinterpret Reshape Resize ResizeCropMirror Rotate SSDRandomCrop Saturation SequenceReader
SequenceRearrange Shapes Slice Spectrogram Sphere Squeeze Stack SubscriptDimCheck TensorResize TensorSubscript
ToDecibels TransformTranslation Transpose Uniform VideoReader VideoReaderResize WarpAffine Water Zeros ZerosLike
_ArithmeticGenericOp _Shape _SubscriptDimCheck _TensorSubscript _conditional__Merge _conditional__Not_
_conditional__Split _conditional__ValidateLogical decoders__Audio decoders__Image decoders__ImageCrop
decoders__ImageRandomCrop decoders__ImageSlice decoders__Inflate decoders__Numpy decoders__Video
experimental__AudioResample experimental__Debayer experimental__Dilate experimental__Equalize experimental__Erode
experimental__Filter experimental__Inflate experimental__MedianBlur experimental__PeekImageShape experimental__Remap
experimental__Resize experimental__TensorResize experimental__WarpPerspective experimental__decoders__Image
experimental__decoders__ImageCrop experimental__decoders__ImageRandomCrop experimental__decoders__ImageSlice
experimental__decoders__Video experimental__inputs__Video experimental__readers__Fits experimental__readers__Video
io__file__Read noise__Gaussian noise__SaltAndPepper noise__Shot random__Beta random__Choice random__CoinFlip
random__Normal random__Uniform readers__COCO readers__Caffe readers__Caffe2 readers__File readers__MXNet
readers__NemoAsr readers__Numpy readers__Sequence readers__Video readers__VideoResize readers__Webdataset
reductions__Max reductions__Mean reductions__MeanSquare reductions__Min reductions__RMS reductions__StdDev
reductions__Sum reductions__Variance segmentation__RandomMaskPixel segmentation__RandomObjectBBox
segmentation__SelectMasks transforms__Combine transforms__Crop transforms__Rotation transforms__Scale
transforms__Shear transforms__Translation
"""
_PYTHON_ONLY = """
DLTensorPythonFunction NumbaFunction PythonFunction TFRecordReader TorchPythonFunction experimental__NumbaFunction
readers__TFRecord
"""


def key(name: str) -> str:
    """One spelling for a schema's name (`readers__VideoResize`) and that of its function (`readers.video_resize`).

    DALI makes the second of the first by rules with exceptions (MXNetReader is mxnet_reader), which are avoided here.
    """
    return ".".join(part.replace("_", "").lower() for part in name.replace("__", ".").split("."))


KEYS = frozenset(key(name) for name in (_REGISTERED + _PYTHON_ONLY).split())


def are_known(version: str | None) -> bool:
    """Whether these are the operators of a version such as 1.53.0; None: nobody knows the version."""
    numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version or "")
    return numbers is not None and _OLDEST <= tuple(int(each or 0) for each in numbers.groups()) <= _NEWEST


def is_builtin(name: str) -> bool:
    """Whether DALI has an operator of this name without any plugin; internal ones count."""
    return key(name) in KEYS or name.startswith(("_", "hidden."))
