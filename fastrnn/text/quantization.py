"""Weights in a byte: a matrix as int8 and a scale a row; where rows are short, a scale a column."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fastrnn import storage

SCALE = ".scale"  # ends the name of a matrix's scales
MOST = 127
SHORT = 16  # a row of fewer elements is not worth a scale


def quantized(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix (R, C) as int8 and scales (R, 1) or (1, C) float32, whose product is within half a
    scale of it.
    A matrix that is such a product gives the same again: scales have 16 bits, so that products are
    exact.

    Raises ValueError for what is not finite.
    """
    axis = int(w.shape[1] >= SHORT)
    largest = abs(w).max(axis=axis, initial=0, keepdims=True)
    if not np.isfinite(largest).all():
        raise ValueError("expected finite numbers to quantize")
    bits = (largest / MOST).astype(np.float32).view(np.uint32)
    scale = ((bits + 0xFF) & ~np.uint32(0xFF)).view(np.float32)
    return np.rint(w / np.where(scale, scale, 1)).astype(np.int8), scale


def dequantized(q: np.ndarray, scale: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The matrix of quantized."""
    return q.astype(dtype) * scale.astype(dtype)


def scale_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Of the scales of a matrix of this shape."""
    R, C = shape
    return (1, C) if C < SHORT else (R, 1)


def rounded_params(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters whose matrices are what int8 can say; vectors are as they are."""
    return {
        name: dequantized(*quantized(w), w.dtype) if w.ndim == 2 else w
        for name, w in params.items()
    }


def packed(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters as a file holds them: int8 matrices, scales beside them, vectors."""
    tensors = {}
    for name, w in params.items():
        if w.ndim == 2:
            tensors[name], tensors[name + SCALE] = quantized(w)
        else:
            tensors[name] = w
    return tensors


def unpacked(
    path: Path | str,
    tensors: Mapping[str, np.ndarray],
    prefix: str,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: np.dtype,
) -> dict[str, np.ndarray]:
    """Of a file's tensors called PREFIX/NAME the parameters that packed made them of. Raises
    ValueError as storage.take does."""
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    vectors = {name: shape for name, shape in shapes.items() if name not in matrices}
    scales = {name + SCALE: scale_shape(shape) for name, shape in matrices.items()}
    q = storage.take(path, tensors, prefix, matrices, np.dtype(np.int8))
    scale = storage.take(path, tensors, prefix, scales, np.dtype(np.float32))
    params = storage.take(path, tensors, prefix, vectors, dtype)
    params |= {name: dequantized(q[name], scale[name + SCALE], dtype) for name in matrices}
    return {name: params[name] for name in shapes}
