"""What a forward pass leaves for its backward pass: the same fields from both backends, so forward
on one and backward on the other works.

Letters: N batch, T steps, D input, H hidden, V vocabulary, W word vector. h, c, activations and
candidate are 0 past a row's length. A step's cache has the fields of the sequence's without the T
axis, h0 and c0 being the states before the step, and no last states.
"""

from typing import NamedTuple

import numpy as np


class RNNCache(NamedTuple):
    x: np.ndarray  # (N, T, D)
    h0: np.ndarray  # (N, H)
    Wx: np.ndarray  # (D, H)
    Wh: np.ndarray  # (H, H)
    h: np.ndarray  # (N, T, H)
    hT: np.ndarray | None = None  # (N, H), last hidden state
    lengths: np.ndarray | None = None  # (N,), np.intp; None stands for T
    reverse: bool = False  # time runs backwards
    index: np.ndarray | None = None  # (N, T), np.intp: rows of x, which then is (U, D)


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
    hT: np.ndarray | None = None  # (N, H), last hidden state
    cT: np.ndarray | None = None  # (N, H), last cell state
    lengths: np.ndarray | None = None  # (N,), np.intp; None stands for T
    reverse: bool = False  # time runs backwards
    index: np.ndarray | None = None  # (N, T), np.intp: rows of x, which then is (U, D)


class GRUCache(NamedTuple):
    x: np.ndarray  # (N, T, D)
    h0: np.ndarray  # (N, H)
    Wx: np.ndarray  # (D, 3*H)
    Wh: np.ndarray  # (H, 3*H)
    h: np.ndarray  # (N, T, H)
    activations: np.ndarray  # (N, T, 3*H): r, z, n, sigmoid and tanh applied
    candidate: np.ndarray | None  # (N, T, H): h_{t-1} Un + bhn, which r resets; if reset_after
    bias: bool  # bh was given
    reset_after: bool
    hT: np.ndarray | None = None  # (N, H), last hidden state
    lengths: np.ndarray | None = None  # (N,), np.intp; None stands for T
    reverse: bool = False  # time runs backwards
    index: np.ndarray | None = None  # (N, T), np.intp: rows of x, which then is (U, D)


class EmbeddingCache(NamedTuple):
    x: np.ndarray  # (...) word indices
    shape: tuple[int, int]  # (V, W)
    dtype: np.dtype


class EmbeddingBagCache(NamedTuple):
    x: np.ndarray  # (words,) word indices
    first: np.ndarray  # (N+1,): bag i has the words first[i]..first[i+1]
    mean: bool  # of a bag's vectors, not their sum
    shape: tuple[int, int]  # (V, W)
    dtype: np.dtype


class RowGradient(NamedTuple):
    """The gradient of a matrix that is 0 but for some rows, those of the words in a batch. The
    rules of fastrnn.optim take it as it is, and leave the other rows and their state alone."""

    rows: np.ndarray  # (R,) indices, each once
    values: np.ndarray  # (R, W)


class AffineCache(NamedTuple):
    x: np.ndarray  # (N, d_1, ..., d_k), D = d_1 ... d_k
    w: np.ndarray  # (D, M)


class TemporalAffineCache(NamedTuple):
    x: np.ndarray  # (N, T, D)
    w: np.ndarray  # (D, M)
