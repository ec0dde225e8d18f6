"""What of all states of a recurrent network describes the sentence.

Each has forward(h (N, T, H), hT (N, H), lengths) -> feature (N, H), cache, and backward(dfeature,
cell's cache, cache) -> the gradients of h and of the last state hT, None for zeros. A sentence
without words has the state from which the network starts, 0. joined(features (K, N, H), steps (K,))
makes of the features of K successive parts, each of so many steps, the whole sentence's.
"""

from typing import NamedTuple

import numpy as np


def last_forward(h, hT, lengths):
    return hT, None


def last_backward(dfeature, cell, cache):
    return None, dfeature


def mean_forward(h, hT, lengths):
    weight = 1 / np.maximum(lengths, 1)[:, None].astype(h.dtype)
    return weight * h.sum(axis=1), weight


def mean_backward(dfeature, cell, weight):
    return np.repeat((weight * dfeature)[:, None], cell.h.shape[1], axis=1), None


def mean_joined(features, steps):
    shares = (steps / steps.sum()).astype(features.dtype)
    return np.einsum("k,knh->nh", shares, features)


def max_forward(h, hT, lengths):
    """The largest value of each unit over time (Collobert and Weston 2008)."""
    within = np.arange(h.shape[1]) < np.maximum(lengths, 1)[:, None]
    if not h.shape[1]:
        return hT, None
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
    joined: object


POOLINGS = {
    "last": Pooling(last_forward, last_backward, lambda features, steps: features[-1]),
    "mean": Pooling(mean_forward, mean_backward, mean_joined),
    "max": Pooling(max_forward, max_backward, lambda features, steps: features.max(axis=0)),
}
