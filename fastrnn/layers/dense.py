"""Layers without time: affine, temporal affine, word embedding, bags of words.

Letters: N batch, T steps, D features in, M features out, V vocabulary, W word vector. dtypes,
backend= and errors as in layers.recurrent.
"""

import math

import numpy as np

from fastrnn.backends import get_backend
from fastrnn.backends.caches import (
    AffineCache,
    EmbeddingBagCache,
    EmbeddingCache,
    RowGradient,
    TemporalAffineCache,
)
from fastrnn.layers import checks

_AFFINE = checks.signature(x="N D", w="D M", b="M")
_TEMPORAL = checks.signature(x="N T D", w="D M", b="M")
_AFFINE_CACHE = checks.signature(x="N D", w="D M")
_TEMPORAL_CACHE = checks.signature(x="N T D", w="D M")
_EMBEDDING = checks.signature(W="V W")


def affine_forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray, *, backend: str | None = None
) -> tuple[np.ndarray, AffineCache]:
    """out = x w + b for every row of x.

    Inputs: x (N, D), or (N, d_1, ..., d_k) with D = d_1 ... d_k; w (D, M), b (M,).
    Returns: out (N, M), cache for affine_backward.
    """
    rows, shape = _rows(x)
    rows, w, b = checks.arrays(_AFFINE, (rows, w, b))
    out = get_backend(backend).affine_forward(rows, w, b)
    return out, AffineCache(rows.reshape(shape), w)


def affine_backward(
    dout: np.ndarray, cache: AffineCache, *, backend: str | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of affine_forward.

    Inputs: dout (N, M), cache of affine_forward.
    Returns: dx in the shape of x, dw (D, M), db (M,).
    """
    checks.cache_of("affine_forward", AffineCache, cache)
    rows, shape = _rows(cache.x)
    rows, w = checks.arrays(_AFFINE_CACHE, (rows, cache.w))
    dx, dw, db = _affine_backward(dout, rows, w, backend)
    return dx.reshape(shape), dw, db


def _rows(x):
    """x as (N, D) where it has more axes, and its shape."""
    x = checks.array("x", x)
    return x.reshape(len(x), math.prod(x.shape[1:])) if x.ndim > 2 else x, x.shape


def temporal_affine_forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray, *, backend: str | None = None
) -> tuple[np.ndarray, TemporalAffineCache]:
    """out = x w + b at every time step.

    Inputs: x (N, T, D), w (D, M), b (M,).
    Returns: out (N, T, M), cache for temporal_affine_backward.
    """
    x, w, b = checks.arrays(_TEMPORAL, (x, w, b))
    out = get_backend(backend).affine_forward(x.reshape(-1, len(w)), w, b)
    return out.reshape(*x.shape[:2], len(b)), TemporalAffineCache(x, w)


def temporal_affine_backward(
    dout: np.ndarray, cache: TemporalAffineCache, *, backend: str | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of temporal_affine_forward.

    Inputs: dout (N, T, M), cache of temporal_affine_forward.
    Returns: dx (N, T, D), dw (D, M), db (M,).
    """
    checks.cache_of("temporal_affine_forward", TemporalAffineCache, cache)
    x, w = checks.arrays(_TEMPORAL_CACHE, tuple(cache))
    return _affine_backward(dout, x, w, backend)


temporal_fc_forward = temporal_affine_forward
temporal_fc_backward = temporal_affine_backward


def _affine_backward(dout, x, w, backend):
    D, M = w.shape
    dout = checks.gradient_of("dout", dout, (*x.shape[:-1], M), x.dtype)
    dx, dw, db = get_backend(backend).affine_backward(dout.reshape(-1, M), x.reshape(-1, D), w)
    return dx.reshape(x.shape), dw, db


def word_embedding_forward(
    x: np.ndarray, W: np.ndarray, *, backend: str | None = None
) -> tuple[np.ndarray, EmbeddingCache]:
    """The vector of every word.

    Inputs: x (N, T), or any shape, integer word indices in [0, V); W (V, W) word vectors.
    Returns: out (N, T, W), cache for word_embedding_backward.
    Raises IndexError for an index outside [0, V).
    """
    (W,) = checks.arrays(_EMBEDDING, (W,))
    x = checks.indices("x", x, None, len(W), "V")
    out = get_backend(backend).word_embedding_forward(x.reshape(-1), None, False, W)
    return out.reshape(*x.shape, W.shape[1]), EmbeddingCache(x, W.shape, W.dtype)


def word_embedding_backward(
    dout: np.ndarray, cache: EmbeddingCache, *, sparse: bool = False, backend: str | None = None
) -> np.ndarray | RowGradient:
    """Gradient of the word vectors; words that occur more than once add up.

    Inputs: dout (N, T, W), cache of word_embedding_forward; sparse, whether to return only the rows
    of the words in x, by first occurrence: that costs what x holds, whatever V is.
    Returns: dW (V, W), or with sparse a RowGradient.
    """
    checks.cache_of("word_embedding_forward", EmbeddingCache, cache)
    V, W = checks.vectors(cache.shape, cache.dtype)
    x = checks.indices("x", cache.x, None, V, "V")
    dout = checks.gradient_of("dout", dout, (*x.shape, W), cache.dtype)
    return _vectors_backward(dout.reshape(-1, W), x.reshape(-1), None, False, V, sparse, backend)


def embedding_bag_forward(
    x: np.ndarray,
    lengths: np.ndarray,
    W: np.ndarray,
    *,
    mode: str = "sum",
    backend: str | None = None,
) -> tuple[np.ndarray, EmbeddingBagCache]:
    """The sum or the mean of the vectors of each bag of words.

    Inputs: x (lengths.sum(),) integer word indices in [0, V), one bag after the other; lengths (N,)
    the words of each, 0 or more; W (V, W) word vectors; mode "sum" or "mean".
    Returns: out (N, W), 0 for a bag without words, cache for embedding_bag_backward.
    Raises IndexError for an index outside [0, V), ValueError for lengths that are not x's.
    """
    (W,) = checks.arrays(_EMBEDDING, (W,))
    x = checks.indices("x", x, ("lengths.sum()",), len(W), "V")
    if not isinstance(mode, str) or mode not in ("sum", "mean"):
        raise ValueError(f"mode: expected 'sum' or 'mean', got {mode!r}")
    first = checks.bags(lengths, len(x))
    cache = EmbeddingBagCache(x, first, mode == "mean", W.shape, W.dtype)
    return get_backend(backend).word_embedding_forward(x, first, cache.mean, W), cache


def embedding_bag_backward(
    dout: np.ndarray, cache: EmbeddingBagCache, *, sparse: bool = False, backend: str | None = None
) -> np.ndarray | RowGradient:
    """Gradient of the word vectors of embedding_bag_forward.

    Inputs: dout (N, W), cache of embedding_bag_forward; sparse as word_embedding_backward's.
    Returns: dW (V, W), or with sparse a RowGradient.
    """
    checks.cache_of("embedding_bag_forward", EmbeddingBagCache, cache)
    V, W = checks.vectors(cache.shape, cache.dtype)
    x = checks.indices("x", cache.x, ("lengths.sum()",), V, "V")
    first, mean = checks.bounds(cache.first, len(x)), checks.flag("mean", cache.mean)
    dout = checks.gradient_of("dout", dout, (len(first) - 1, W), cache.dtype)
    return _vectors_backward(dout, x, first, mean, V, sparse, backend)


def _vectors_backward(dout, x, first, mean, V, sparse, backend):
    backend = get_backend(backend)
    if not checks.flag("sparse", sparse):
        return backend.word_embedding_backward(dout, x, first, mean, V)
    rows, places = backend.distinct(x)
    values = backend.word_embedding_backward(dout, places, first, mean, len(rows))
    return RowGradient(rows, values)
