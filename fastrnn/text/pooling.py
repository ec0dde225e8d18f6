"""What of all states of a recurrent network describes the sentence.

Each has forward(cell's cache, lengths) -> feature (N, H), cache, and backward(dfeature, cell's
cache, cache) -> the gradients of h (N, T, H) and of the last state hT (N, H), None for zeros. A
sentence without words has the state from which the network starts, 0.
"""

from typing import NamedTuple

import numpy as np


def last_forward(cell, lengths):
    return cell.hT, None


def last_backward(dfeature, cell, cache):
    return None, dfeature


def mean_forward(cell, lengths):
    weight = 1 / np.maximum(lengths, 1)[:, None].astype(cell.h.dtype)
    return weight * cell.h.sum(axis=1), weight


def mean_backward(dfeature, cell, weight):
    return np.repeat((weight * dfeature)[:, None], cell.h.shape[1], axis=1), None


def max_forward(cell, lengths):
    """The largest value of each unit over time (Collobert and Weston 2008)."""
    h = cell.h
    within = np.arange(h.shape[1]) < np.maximum(lengths, 1)[:, None]
    if not h.shape[1]:
        return cell.hT, None
    at = np.where(within[..., None], h, -np.inf).argmax(axis=1)[:, None]
    return np.take_along_axis(h, at, axis=1)[:, 0], at


def max_backward(dfeature, cell, at):
    dh = np.zeros_like(cell.h)
    if at is not None:
        np.put_along_axis(dh, at, dfeature[:, None], axis=1)
    return dh, None


class Pooling(NamedTuple):
    forward: object
    backward: object


POOLINGS = {
    "last": Pooling(last_forward, last_backward),
    "mean": Pooling(mean_forward, mean_backward),
    "max": Pooling(max_forward, max_backward),
}
