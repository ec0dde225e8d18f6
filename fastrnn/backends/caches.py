"""What a forward pass leaves for its backward pass: the same fields from both backends, so forward
on one and backward on the other works. Those of the recurrent cells stand in fastrnn.cells.

Letters: N batch, T steps, D input, V vocabulary, W word vector; of attention as layers.attention.
"""

from typing import NamedTuple

import numpy as np

from fastrnn.cells import (
    GRUCache,
    IndRNNCache,
    LSTMCache,
    MGUCache,
    MinGRUCache,
    MinLSTMCache,
    RNNCache,
)

__all__ = [
    "AffineCache",
    "AttentionCache",
    "EmbeddingBagCache",
    "EmbeddingCache",
    "GRUCache",
    "IndRNNCache",
    "LSTMCache",
    "MGUCache",
    "MinGRUCache",
    "MinLSTMCache",
    "RNNCache",
    "RowGradient",
    "TemporalAffineCache",
]


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


class AttentionCache(NamedTuple):
    query: np.ndarray  # (N, A)
    keys: np.ndarray  # (U, L, A)
    values: np.ndarray  # (U, L, D)
    w: np.ndarray | None  # (A,)
    index: np.ndarray | None  # (N,): which of the U
    weights: np.ndarray  # (N, L)
    context: np.ndarray  # (N, D)
