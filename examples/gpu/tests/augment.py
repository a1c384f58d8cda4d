"""The oracle of `augment` and `augment_cpu`: writes augment.npz, JPEG files and what must come of them.

    pip install numpy pillow; python3 tests/augment.py

The files are decoded by Pillow (libjpeg-turbo); everything after that is NumPy, in float64. DALI's decoders differ from
Pillow's: chroma is interpolated in another way, and the inverse transform is rounded in another place. What is left of
that after the resize is compared with a tolerance; docs/gpu.md has what was measured.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

MEAN = np.array([123.675, 116.28, 103.53])
STD = np.array([58.395, 57.12, 57.375])
HEIGHT, WIDTH = 224, 224


def oracle(jpeg: bytes) -> np.ndarray:
    """What the models answer for a JPEG file: float16, (3, HEIGHT, WIDTH)."""
    image = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(np.float64)
    resized = weights(image.shape[0], HEIGHT) @ image.transpose(2, 0, 1) @ weights(image.shape[1], WIDTH).T
    levels = np.clip(np.floor(resized + 0.5), 0, 255)  # DALI's resize gives uint8
    return ((levels - MEAN[:, None, None]) / STD[:, None, None]).astype(np.float16)


def weights(size: int, wanted: int) -> np.ndarray:
    """A triangular filter, as wide as the pixels that a new one covers: rows of weights that add up to 1."""
    scale = max(1.0, size / wanted)
    centres = (np.arange(wanted) + 0.5) * size / wanted - 0.5
    raw = np.maximum(0, 1 - np.abs(np.arange(size)[None] - centres[:, None]) / scale)
    return raw / raw.sum(axis=1, keepdims=True)


def picture(height: int, width: int, seed: int) -> bytes:
    """A JPEG file of gradients, circles and a little texture: made of formulas, and yet with edges and colours."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    channels = []
    for _ in range(3):
        a, b, c, phase = random.uniform(-6, 6, 4)
        channels.append(128 + 90 * np.sin(a * x + b * y + phase) + 20 * np.cos(40 * (c * x * y)))
    image = np.stack(channels, -1)
    for _ in range(6):
        cy, cx, radius = random.uniform(0, 1, 3)
        inside = (y - cy) ** 2 + (x - cx) ** 2 < (radius / 6) ** 2
        image[inside] = random.uniform(0, 255, 3)
    file = io.BytesIO()
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    sizes = [(240, 320), (375, 500), (224, 224), (217, 333), (600, 400), (64, 48)]
    arrays = {}
    for number, (height, width) in enumerate(sizes):
        file = picture(height, width, number)
        arrays[f"{height}x{width}/JPEG"] = np.frombuffer(file, np.uint8)[None]
        arrays[f"{height}x{width}/IMAGE"] = oracle(file)[None]
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **arrays)
