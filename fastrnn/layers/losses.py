"""Softmax cross-entropy, of rows and over time.

Letters: N batch, T steps, C classes, V vocabulary. dtypes, backend= and errors as in
layers.recurrent.
"""

import numpy as np

from fastrnn.backends import get_backend
from fastrnn.layers import checks

_SCORES = checks.signature(x="N C")
_TEMPORAL_SCORES = checks.signature(x="N T V")


def softmax_loss(
    x: np.ndarray, y: np.ndarray, *, backend: str | None = None
) -> tuple[float, np.ndarray]:
    """Cross-entropy averaged over the rows, and its gradient.

    Inputs: x (N, C) scores, y (N,) integer labels in [0, C).
    Returns: loss (float; 0 where N = 0), dx (N, C).
    Raises IndexError for a label outside [0, C).
    """
    (x,) = checks.arrays(_SCORES, (x,))
    N, C = x.shape
    y = checks.indices("y", y, (N,), C, "C")
    return get_backend(backend).softmax_loss(x, y, None, 1 / max(N, 1))


def temporal_softmax_loss(
    x: np.ndarray,
    y: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    label_smoothing: float = 0.0,
    verbose: bool = False,
    backend: str | None = None,
) -> tuple[float, np.ndarray]:
    """Cross-entropy of the words that mask counts, summed over time and averaged over the
    minibatch, and its gradient (course notes on captioning).

    Inputs: x (N, T, V) scores, y (N, T) integer words in [0, V), mask (N, T) bool or real: the
    weight of each word, in the dtype of x; scores and words where it is 0 are not looked at. None
    counts every word.
    label_smoothing, in [0, 1): how much of each word's target all V words share alike (Szegedy et
    al. 2016).
    verbose prints the shape of the gradient.
    Returns: loss (float; 0 where N = 0), dx (N, T, V).
    Raises IndexError for a word outside [0, V).
    """
    checks.flag("verbose", verbose)
    label_smoothing = checks.probability("label_smoothing", label_smoothing)
    (x,) = checks.arrays(_TEMPORAL_SCORES, (x,))
    N, T, V = x.shape
    unread = None
    if mask is not None:
        mask = checks.weights("mask", mask, (N, T), x.dtype)
        mask, unread = mask.reshape(-1), mask == 0
    y = checks.indices("y", y, (N, T), V, "V", unread)
    rows, words = x.reshape(-1, V), y.reshape(-1)
    loss, dx = get_backend(backend).softmax_loss(rows, words, mask, 1 / max(N, 1))
    if label_smoothing:
        loss += _smooth(rows, words, mask, label_smoothing / max(N, 1), dx)
    dx = dx.reshape(x.shape)
    if verbose:
        print("dx:", dx.shape)
    return loss, dx


def _smooth(x, y, weight, share, dx):
    """What loss gains where the target of row i loses share * weight[i] at y[i] to all classes
    alike: the target times the scores is all that changes. dx is changed in place."""
    counted = np.arange(len(y)) if weight is None else np.flatnonzero(weight)
    x, y = x[counted], y[counted]
    moved = np.full(len(y), share, x.dtype)
    if weight is not None:
        moved *= weight[counted]
    dx[counted] -= (moved / x.shape[1])[:, None]
    dx[counted, y] += moved
    with np.errstate(invalid="ignore", over="ignore"):
        gained = moved * (x[np.arange(len(y)), y] - x.mean(axis=1))
        return float(gained.sum(dtype=np.float64))
