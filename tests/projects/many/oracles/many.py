"""What the models must answer, in NumPy."""

import numpy as np


def reverse(inputs):
    return {"REVERSED": inputs["BYTES"][:, ::-1]}


def reverse_all(inputs):
    """Of a model that takes no batches."""
    return {"REVERSED": inputs["BYTES"][::-1]}


def scale(inputs, version):
    factor, summand = {1: (2, 1), 2: (3, -1)}[version]
    return {"SCALED": inputs["VALUES"] * np.float32(factor) + np.float32(summand)}


def both(inputs):
    data = inputs["BYTES"]
    return {"REVERSED": data[:, ::-1], "SUM": data.sum(axis=1, dtype=np.int64, keepdims=True)}


def builtin(inputs):
    return {"UNIT": inputs["BYTES"].astype(np.float32) / np.float32(255)}


def pair(inputs):
    left, right = inputs["LEFT"], inputs["RIGHT"]
    return {"SUM": left + right.astype(np.float32), "LEFT_PLUS_ONE": left + np.float32(1)}


def upper(inputs):
    text = inputs["TEXT"]
    return {"UPPER": np.array([each.upper() for each in text.ravel()], object).reshape(text.shape)}


def chain(inputs):
    return {"INVERTED": 255 - inputs["BYTES"][:, ::-1]}
