"""What a forward pass leaves for its backward pass: the same fields from both backends, so forward
on one and backward on the other works.

Letters: N batch, T steps, D input, H hidden, V vocabulary, W word vector. A step's cache has the
fields of the sequence's without the T axis, h0 and c0 being the states before the step.
"""

from typing import NamedTuple

import numpy as np


class RNNCache(NamedTuple):
    x: np.ndarray  # (N, T, D)
    h0: np.ndarray  # (N, H)
    Wx: np.ndarray  # (D, H)
    Wh: np.ndarray  # (H, H)
    h: np.ndarray  # (N, T, H)


class LSTMCache(NamedTuple):
    x: np.ndarray  # (N, T, D)
    h0: np.ndarray  # (N, H)
    c0: np.ndarray | None  # (N, H); None stands for zeros
    Wx: np.ndarray  # (D, 4*H)
    Wh: np.ndarray  # (H, 4*H)
    h: np.ndarray  # (N, T, H)
    c: np.ndarray  # (N, T, H), all cell states
    activations: np.ndarray  # (N, T, 4*H), sigmoid and tanh applied, in the order of gates
    gates: str  # i, f, o, g as they lie in Wx, Wh, b, activations


class EmbeddingCache(NamedTuple):
    x: np.ndarray  # (...) word indices
    shape: tuple[int, int]  # (V, W)
    dtype: np.dtype


class AffineCache(NamedTuple):
    x: np.ndarray  # (N, d_1, ..., d_k), D = d_1 ... d_k
    w: np.ndarray  # (D, M)


class TemporalAffineCache(NamedTuple):
    x: np.ndarray  # (N, T, D)
    w: np.ndarray  # (D, M)
