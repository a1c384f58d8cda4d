"""Builds, proves and ships Triton Inference Server images with custom DALI operators."""

__version__ = "0.1.0"
