"""First-order update rules, all of one form: rule(w, dw, config) -> next_w, config.

w, dw and next_w are arrays of one shape and dtype; w and dw are not modified, unless out, which
receives next_w, is w. config is a dict that holds the hyperparameters (missing ones get the
defaults below) and the rule's state; it is updated in place and returned. Pass the same dict to the
next call for the same parameter. Without a config the rule starts afresh. Every rule also takes
weight_decay (0): a step first takes that much times learning_rate of w away (Loshchilov and Hutter
2019). backend= as in layers.recurrent. Raises ValueError where dw or out has not w's shape,
TypeError where it has not its dtype.

dw may be a RowGradient, as word_embedding_backward(..., sparse=True) returns it: only its rows of w
and of the state change, and, with out=w, nothing else is touched. Between two gradients of a row
its averages and its weight stand still (PyTorch's SparseAdam, "lazy" Adam elsewhere).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastrnn.backends import get_backend
from fastrnn.backends.caches import RowGradient

Config = dict[str, object]


class Rule(NamedTuple):
    """What the pass over the elements needs to know of a rule beside its formula."""

    name: str
    defaults: Config
    factors: Callable[[Config], dict[str, float]]  # of src_c/rules.h, in Python's precision
    m: str | None = None  # the moving average of the gradient, or its velocity, in the config
    v: str | None = None  # that of its square


def sgd(
    w: np.ndarray,
    dw: np.ndarray | RowGradient,
    config: Config | None = None,
    *,
    out: np.ndarray | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, Config]:
    """Stochastic gradient descent: next_w = w - learning_rate dw.

    config: learning_rate (1e-2).
    """
    return _update(_SGD, w, dw, config, out, backend)


_SGD = Rule("sgd", {"learning_rate": 1e-2}, lambda c: {"rate": c["learning_rate"]})


def sgd_momentum(
    w: np.ndarray,
    dw: np.ndarray | RowGradient,
    config: Config | None = None,
    *,
    out: np.ndarray | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, Config]:
    """Stochastic gradient descent with momentum: v = momentum v - learning_rate dw,
    next_w = w + v (Polyak 1964).

    config: learning_rate (1e-2), momentum (0.9); state velocity, like w.
    """
    return _update(_SGD_MOMENTUM, w, dw, config, out, backend)


_SGD_MOMENTUM = Rule(
    "sgd_momentum",
    {"learning_rate": 1e-2, "momentum": 0.9},
    lambda c: {"rate": c["learning_rate"], "decay_m": c["momentum"]},
    m="velocity",
)


def rmsprop(
    w: np.ndarray,
    dw: np.ndarray | RowGradient,
    config: Config | None = None,
    *,
    out: np.ndarray | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, Config]:
    """Step scaled by a moving average of squared gradients (Tieleman and Hinton 2012).

    config: learning_rate (1e-2), decay_rate (0.99), epsilon (1e-8); state cache, like w.
    """
    return _update(_RMSPROP, w, dw, config, out, backend)


_RMSPROP = Rule(
    "rmsprop",
    {"learning_rate": 1e-2, "decay_rate": 0.99, "epsilon": 1e-8},
    lambda c: {
        "rate": c["learning_rate"],
        "decay_v": c["decay_rate"],
        "gain_v": 1 - c["decay_rate"],
        "epsilon": c["epsilon"],
    },
    v="cache",
)


def adam(
    w: np.ndarray,
    dw: np.ndarray | RowGradient,
    config: Config | None = None,
    *,
    out: np.ndarray | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, Config]:
    """Adam: bias-corrected moving averages of the gradient and of its square (Kingma and Ba 2015).

    config: learning_rate (1e-3), beta1 (0.9), beta2 (0.999), epsilon (1e-8); state m and v, like w,
    and t, the number of steps taken.
    """
    return _update(_ADAM, w, dw, config, out, backend)


_ADAM = Rule(
    "adam",
    {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "t": 0},
    lambda c: {
        "rate": c["learning_rate"] / (1 - c["beta1"] ** c["t"]),
        "decay_m": c["beta1"],
        "gain_m": 1 - c["beta1"],
        "decay_v": c["beta2"],
        "gain_v": 1 - c["beta2"],
        "correct_v": 1 / (1 - c["beta2"] ** c["t"]),
        "epsilon": c["epsilon"],
    },
    m="m",
    v="v",
)


RULES = {rule.__name__: rule for rule in (sgd, sgd_momentum, rmsprop, adam)}


def _update(rule, w, dw, config, out, backend):
    at = ...
    if isinstance(dw, RowGradient):
        at, dw = _rows(w, dw, get_backend(backend))
    shape = w.shape if at is ... else (len(at), *w.shape[1:])
    for name, a, expected in (("dw", dw, shape), ("out", w if out is None else out, w.shape)):
        if a.shape != expected:
            raise ValueError(f"{name}: expected shape {expected} like w, got {a.shape}")
        if a.dtype != w.dtype:
            raise TypeError(f"{name}: expected {w.dtype} like w, got {a.dtype}")
    config = {} if config is None else config
    for name, value in (rule.defaults | {"weight_decay": 0.0}).items():
        value = config.get(name, value)
        # A NumPy scalar, unlike a Python number, would turn float32 parameters into its own dtype.
        config[name] = value.item() if isinstance(value, np.generic) else value
    for name in filter(None, (rule.m, rule.v)):
        if name not in config:
            config[name] = np.zeros_like(w)
        state = config[name]
        if state.shape != w.shape or state.dtype != w.dtype:
            raise ValueError(
                f"config: expected {name} like w, {w.dtype} {w.shape}, got {state.dtype} "
                f"{state.shape}; every parameter needs a config of its own"
            )
    if "t" in rule.defaults:
        config["t"] += 1
    if at is not ... and out is not w:
        out = _copied(w, out)
    out = np.empty_like(w) if out is None else out
    get_backend(backend).update(rule, w, dw, config, out, at)
    return out, config


def _rows(w, dw, backend):
    """The rows of a RowGradient, checked: a kernel trusts them."""
    rows, values = np.array(dw.rows), np.asarray(dw.values)
    if w.ndim < 1 or rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ValueError(f"dw: expected rows as integers (R,), got {rows.dtype} {rows.shape}")
    if rows.size and not 0 <= rows.min() <= rows.max() < len(w):
        raise IndexError(f"dw: expected rows in [0, {len(w)}), got {rows.min()}..{rows.max()}")
    rows = rows.astype(np.intp)
    if len(backend.distinct(rows)[0]) < len(rows):
        raise ValueError("dw: expected every row once, got one twice")
    return rows, values


def _copied(w, out):
    if out is None:
        return w.copy()
    out[...] = w
    return out
