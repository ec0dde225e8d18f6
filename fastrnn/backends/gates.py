"""What the equations of the reference share: gates by their letters, and the sigmoid."""

import numpy as np


def sigmoid(x):
    """1 / (1 + exp(-x)) without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def plus(u, bh):
    """u + bh, where there is one."""
    return u if bh is None else u + bh


def by_gate(a, order):
    """Each gate's columns by its letter, as they lie."""
    return dict(zip(order, np.split(a, len(order), axis=-1), strict=True))


def in_turn(a, order, gates):
    """Each gate's columns, by its place in `gates`."""
    parts = by_gate(a, order)
    return [parts[gate] for gate in gates]


def as_they_lie(order, **parts):
    """The inverse of by_gate."""
    return np.concatenate([parts[gate] for gate in order], axis=-1)
