"""First-order update rules, all of one form: rule(w, dw, config) -> next_w, config.

w, dw and next_w are arrays of one shape and dtype; w and dw are not modified, unless out, which
receives next_w, is w. config is a dict that holds the hyperparameters (missing ones get the
defaults below) and the rule's state; it is updated in place and returned. Pass the same dict to the
next call for the same parameter. Without a config the rule starts afresh. Every rule also takes
weight_decay (0): a step first takes that much times learning_rate of w away (Loshchilov and Hutter
2019). Rates and weight_decay are at least 0, momentum, decay_rate and betas in [0, 1), epsilon is
above 0. backend= as in layers.recurrent.

Raises ValueError where dw, out or the state has not w's shape, out cannot be written to, or config
has a key that the rule does not know or a number out of range; TypeError for a dtype, a masked
array or what is no number. Then nothing has changed. Any two arrays may share memory, and the state
is copied where it cannot be changed in place.

dw may be a RowGradient, as word_embedding_backward(..., sparse=True) returns it: only its rows of w
and of the state change, and, with out=w, nothing else is touched. Between two gradients of a row
its averages and its weight stand still (PyTorch's SparseAdam, "lazy" Adam elsewhere).
"""

import sys
from collections.abc import Callable
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np

from fastrnn.backends import get_backend
from fastrnn.backends.caches import RowGradient
from fastrnn.layers import checks

Config = dict[str, object]


class Rule(NamedTuple):
    """What the pass over the elements needs to know of a rule beside its formula."""

    name: str
    defaults: Config
    factors: Callable[[Config], dict[str, float]]  # of src_c/rules.h, in Python's precision
    m: str | None = None  # the moving average of the gradient, or its velocity, in the config
    v: str | None = None  # that of its square

    @property
    def state(self) -> tuple[str, ...]:
        """Names of the arrays like w in the config."""
        return tuple(name for name in (self.m, self.v) if name is not None)


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


_FRACTIONS = ("momentum", "decay_rate", "beta1", "beta2")
# The largest number of a dtype, and the least above 0.
_LIMITS = {"f": (float(np.finfo("f").max), 2.0**-149), "d": (sys.float_info.max, 2.0**-1074)}


def _update(rule, w, dw, config, out, backend):
    backend, in_place, given, at = get_backend(backend), out is w, out, ...
    w = checks.array("w", w)
    checks.float_dtype("w", w.dtype)
    if isinstance(dw, RowGradient):
        at, dw = _rows(w, dw, backend)
    dw = checks.array("dw", dw)
    _check_like("dw", dw, w, w.shape if at is ... else (len(at), *w.shape[1:]))
    if out is not None:
        out = _writeable(out, w)
    config = {} if config is None else config
    numbers = _hyperparameters(rule, config, w.dtype)
    state = _state(rule, config, w, (w, dw) if in_place or out is None else (w, dw, out))
    # Up to here nothing has been changed, and from here on nothing is refused.
    if out is not None and np.may_share_memory(dw, out):
        dw = dw.copy()
    if at is not ... and not in_place:
        w = out = _copied(w, out)
    elif out is None:
        out = np.empty_like(w)
    elif not in_place and np.may_share_memory(w, out):
        w = w.copy()
    if "t" in numbers:
        numbers["t"] += 1
    backend.update(rule, w, dw, numbers, state, out, at)
    config.update(numbers, **dict(zip(rule.state, state, strict=True)))
    return out if given is None else given, config


def _check_like(name, a, w, shape):
    if a.shape != shape:
        raise ValueError(f"{name}: expected shape {shape} like w, got {a.shape}")
    if a.dtype != w.dtype:
        raise TypeError(f"{name}: expected {w.dtype} like w, got {a.dtype}")


def _writeable(out, w):
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out: expected an ndarray, got {type(out).__name__}")
    out = checks.array("out", out)
    _check_like("out", out, w, w.shape)
    if not out.flags.writeable:
        raise ValueError("out: expected a writeable array, got a read-only one")
    return out


def _hyperparameters(rule, config, dtype):
    if not isinstance(config, dict):
        raise TypeError(f"config: expected a dict, got {type(config).__name__}")
    defaults = rule.defaults | {"weight_decay": 0.0}
    known = [*defaults, *rule.state]
    for key in config:
        if key not in known:
            raise ValueError(f"config: expected keys among {known}, got {key!r}")
    return {name: _number(name, config.get(name, n), dtype) for name, n in defaults.items()}


def _number(name, value, dtype):
    """As Python's: NumPy's would turn float32 parameters into its own dtype."""
    if type(value) is not float and type(value) is not int:
        if isinstance(value, np.ndarray) and value.ndim == 0:  # as .npz files have numbers
            value = checks.array(name, value).item()
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name}: expected a number, got {value!r}")
    largest, least = _LIMITS[dtype.char]
    if name == "t":
        fits = isinstance(value, Integral) and 0 <= value < sys.maxsize
    elif name in _FRACTIONS:
        fits = 0 <= value < 1
    else:
        fits = (least if name == "epsilon" else 0) <= value <= largest
    if not fits:
        raise ValueError(f"{name}: expected {_wanted(name, dtype)}, got {value!r}")
    return int(value) if name == "t" else float(value)


def _wanted(name, dtype):
    if name == "t":
        return "an integer of at least 0"
    if name in _FRACTIONS:
        return "a number in [0, 1)"
    return f"a finite {dtype} above 0" if name == "epsilon" else f"a finite {dtype} of at least 0"


def _state(rule, config, w, others):
    """The arrays of the state; copies of those that cannot be changed, or not without another."""
    state = []
    for name in rule.state:
        a = checks.array(name, config[name]) if name in config else np.zeros_like(w)
        if a.shape != w.shape or a.dtype != w.dtype:
            raise ValueError(
                f"config: expected {name} like w, {w.dtype} {w.shape}, got {a.dtype} "
                f"{a.shape}; every parameter needs a config of its own"
            )
        shared = any(np.may_share_memory(a, other) for other in (*others, *state))
        state.append(a.copy() if shared or not a.flags.writeable else a)
    return state


def _rows(w, dw, backend):
    """The rows of a RowGradient, checked: a kernel trusts them."""
    rows = np.array(checks.array("dw", dw.rows, empty=np.intp))
    if w.ndim < 1 or rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ValueError(f"dw: expected rows as integers (R,), got {rows.dtype} {rows.shape}")
    if rows.size and not 0 <= rows.min() <= rows.max() < len(w):
        raise IndexError(f"dw: expected rows in [0, {len(w)}), got {rows.min()}..{rows.max()}")
    rows = rows.astype(np.intp)
    if len(backend.distinct(rows)[0]) < len(rows):
        raise ValueError("dw: expected every row once, got one twice")
    return rows, dw.values


def _copied(w, out):
    if out is None:
        return w.copy()
    out[...] = w
    return out
