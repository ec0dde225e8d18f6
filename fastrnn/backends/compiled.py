"""backend="cython": allocates outputs, chooses threads, calls the extension.

The functions, caches and results are those of reference.py.
"""

import functools

import numpy as np

from fastrnn.backends import reference
from fastrnn.backends.caches import GRUCache, LSTMCache, RNNCache
from fastrnn.backends.threads import for_work, short_spins

with short_spins():
    from fastrnn.backends import _kernels

# An element of an update counts as so many operations: it is bound by memory.
_UPDATE_WORK = 30
# Where the kernels' gates stand among the user's: of rnn and gru always so.
_RNN = (0,)
_GRU = (0, 1, 2)


@functools.cache
def _places(gates):
    """Where the kernels' i, f, o, g stand in a gate order."""
    return tuple(gates.index(gate) for gate in "ifog")


def _backward(places, dh, dhT, dcT, cache, c0=None, c=None, candidate=None, reset_before=False):
    """Gradients of x, h0, Wx, Wh, b, and of c0 and bh where the cell has them."""
    x, h0, Wx, Wh = cache.x, cache.h0, cache.Wx, cache.Wh
    rows = cache.h.shape[0] * cache.h.shape[1]
    x, index, used = _table(x, cache.index)
    dx = _kernels.empty_array(x.shape, x.dtype)
    dh0 = np.empty_like(h0)
    dWx, dWh = (_kernels.empty_array(W.shape, W.dtype) for W in (Wx, Wh))
    db = np.empty(Wx.shape[1], x.dtype)
    dc0 = None if c is None else np.empty_like(h0)
    dbh = np.empty_like(db) if places is _GRU else None
    activations = None if places is _RNN else cache.activations
    _kernels.cell_backward(
        places,
        reset_before,
        *(x.reshape(-1), dh, dhT, dcT, h0, c0, Wx, Wh, cache.h, c, activations, candidate),
        *(cache.lengths, cache.reverse, index, for_work(4 * rows * (Wx.size + Wh.size))),
        *(dx.reshape(-1), dh0, dWx, dWh, db, dc0, dbh),
    )
    if used is not None:
        dx_used, dx = dx, np.zeros_like(cache.x)
        dx[used] = dx_used
    return dx, dh0, dc0, dWx, dWh, db, dbh


def _table(x, index):
    """x and index of no more rows than index has elements, and which of x they are (None: all)."""
    if index is None or len(x) <= index.size:
        return x, index, None
    used, places = distinct(index.reshape(-1))
    return x[used], places.reshape(index.shape), used


def _as_sequence(cache):
    """A step's cache as that of a sequence of one step."""
    axes = {
        name: getattr(cache, name)
        for name in ("x", "h", "c", "activations", "candidate")
        if getattr(cache, name, None) is not None
    }
    return cache._replace(**{name: a[:, None] for name, a in axes.items()})


# ---- vanilla RNN ---------------------------------------------------------------------------------


def rnn_step_forward(x, prev_h, Wx, Wh, b, packed=None):
    h, *_ = _kernels.cell_forward(
        _RNN, False, x, prev_h, None, Wx, Wh, b, None, None, False, None, packed
    )
    return h, RNNCache(x, prev_h, Wx, Wh, h)


def rnn_step_backward(dnext_h, cache):
    dx, *others = rnn_backward(dnext_h[:, None], None, _as_sequence(cache))
    return dx[:, 0], *others


def rnn_forward(x, h0, Wx, Wh, b, lengths, reverse, index, packed=None):
    x_used, places, _ = _table(x, index)
    h, _, _, _, hT, _ = _kernels.cell_forward(
        _RNN, False, x_used, h0, None, Wx, Wh, b, None, lengths, reverse, places, packed
    )
    return h, RNNCache(x, h0, Wx, Wh, h, hT, lengths, reverse, index)


def rnn_backward(dh, dhT, cache):
    dx, dh0, _, dWx, dWh, db, _ = _backward(_RNN, dh, dhT, None, cache)
    return dx, dh0, dWx, dWh, db


# ---- LSTM ----------------------------------------------------------------------------------------


def lstm_step_forward(x, prev_h, prev_c, Wx, Wh, b, gates, packed=None):
    h, c, activations, _, _, _ = _kernels.cell_forward(
        _places(gates), False, x, prev_h, prev_c, Wx, Wh, b, None, None, False, None, packed
    )
    # Half the time of the constructor with its defaults.
    cache = LSTMCache._make(
        (x, prev_h, prev_c, Wx, Wh, h, c, activations, gates, None, None, None, False, None)
    )
    return h, c, cache


def lstm_step_backward(dnext_h, dnext_c, cache):
    dx, *others = lstm_backward(None, dnext_h, dnext_c, _as_sequence(cache))
    return dx[:, 0], *others


def lstm_forward(x, h0, c0, Wx, Wh, b, gates, lengths, reverse, index, packed=None):
    x_used, places, _ = _table(x, index)
    h, c, activations, _, hT, cT = _kernels.cell_forward(
        _places(gates), False, x_used, h0, c0, Wx, Wh, b, None, lengths, reverse, places, packed
    )
    order = lengths, reverse, index
    return h, LSTMCache(x, h0, c0, Wx, Wh, h, c, activations, gates, hT, cT, *order)


def lstm_backward(dh, dhT, dcT, cache):
    *gradients, _ = _backward(_places(cache.gates), dh, dhT, dcT, cache, cache.c0, cache.c)
    return gradients


# ---- GRU -----------------------------------------------------------------------------------------


def gru_step_forward(x, prev_h, Wx, Wh, b, bh, reset_after, packed=None):
    h, _, activations, candidate, _, _ = _kernels.cell_forward(
        _GRU, not reset_after, x, prev_h, None, Wx, Wh, b, bh, None, False, None, packed
    )
    given = bh is not None
    return h, GRUCache(x, prev_h, Wx, Wh, h, activations, candidate, given, reset_after)


def gru_step_backward(dnext_h, cache):
    dx, *others = gru_backward(dnext_h[:, None], None, _as_sequence(cache))
    return dx[:, 0], *others


def gru_forward(x, h0, Wx, Wh, b, bh, reset_after, lengths, reverse, index, packed=None):
    x_used, places, _ = _table(x, index)
    h, _, activations, candidate, hT, _ = _kernels.cell_forward(
        _GRU, not reset_after, x_used, h0, None, Wx, Wh, b, bh, lengths, reverse, places, packed
    )
    order = lengths, reverse, index
    given = bh is not None
    return h, GRUCache(x, h0, Wx, Wh, h, activations, candidate, given, reset_after, hT, *order)


def gru_backward(dh, dhT, cache):
    dx, dh0, _, *others = _backward(
        _GRU, dh, dhT, None, cache, candidate=cache.candidate, reset_before=not cache.reset_after
    )
    return dx, dh0, *others


# ---- prepared weights ----------------------------------------------------------------------------


def _places_of(cell, gates):
    return _RNN if cell == "rnn" else _GRU if cell == "gru" else _places(gates)


def prepare(cell, Wx, Wh, b, bh, gates, reset_after):
    reset_before = cell == "gru" and not reset_after
    return _kernels.prepare(_places_of(cell, gates), reset_before, Wx, Wh, b, bh, for_work(Wx.size))


def stream(weights, h, c=None):
    packed = weights.packed
    if packed is None:
        packed = prepare(
            weights.cell,
            *(weights.Wx, weights.Wh, weights.b, weights.bh),
            *(weights.gates, weights.reset_after),
        )
    reset_before = weights.cell == "gru" and not weights.reset_after
    places = _places_of(weights.cell, weights.gates)
    return _kernels.Stream(places, reset_before, packed, len(weights.Wx), h, c).step


# ---- layers of rows: x (M, D), dout (M, columns) -------------------------------------------------


def word_embedding_forward(x, first, mean, W):
    out = np.empty((len(x) if first is None else len(first) - 1, W.shape[1]), W.dtype)
    _kernels.embedding(x, first, mean, W, for_work(len(x) * W.shape[1]), out)
    return out


def word_embedding_backward(dout, x, first, mean, V):
    dW = np.empty((V, dout.shape[1]), dout.dtype)
    _kernels.embedding_grad(x, first, mean, dout, for_work(len(x) * dout.shape[1]), dW)
    return dW


def distinct(x):
    found, places = np.empty_like(x), np.empty_like(x)
    return found[: _kernels.distinct(x, found, places)], places


def affine_forward(x, w, b):
    out = np.empty((len(x), w.shape[1]), x.dtype)
    _kernels.matmul(x, w, b, False, for_work(2 * len(x) * w.size), out)
    return out


def affine_backward(dout, x, w):
    dx, dw, db = np.empty_like(x), np.empty_like(w), np.empty(w.shape[1], w.dtype)
    threads = for_work(2 * len(x) * w.size)
    _kernels.matmul(dout, w, None, True, threads, dx)
    _kernels.matmul_grad(x, dout, threads, dw, db)
    return dx, dw, db


def softmax_loss(x, y, weight, scale):
    losses, dx = np.empty(len(y)), np.empty_like(x)
    # An exponential counts as 30 operations.
    _kernels.softmax(x, y, weight, scale, for_work(30 * x.size), losses, dx)
    return scale * float(losses.sum()), dx


# ---- update rules --------------------------------------------------------------------------------


def _update(rule, w, dw, config, out, at, states, rate, *factors):
    """One pass over the elements, or the reference's many where the kernel does not take the
    arrays: of other dtypes than native float32 and float64, or not contiguous."""
    arrays = w, dw, out, *(config[name] for name in states if name)
    plain = w.dtype.char in "fd" and w.dtype.isnative
    if not plain or not all(a.flags.c_contiguous for a in arrays):
        getattr(reference, rule)(w, dw, config, out, at)
        return
    rows, width = (None, 0) if at is ... else (at, dw.size // max(1, len(at)))
    m, v = (config[name].reshape(-1) if name else None for name in states)
    flat = w.reshape(-1), dw.reshape(-1), for_work(_UPDATE_WORK * dw.size), out.reshape(-1)
    keep = 1 - config["learning_rate"] * config["weight_decay"]
    _kernels.update(_kernels.UPDATE_RULES[rule], rows, width, *flat, m, v, rate, keep, *factors)


def sgd(w, dw, config, out, at=...):
    rate = config["learning_rate"]
    _update("sgd", w, dw, config, out, at, (None, None), rate, 0, 0, 0, 0, 0, 0)


def sgd_momentum(w, dw, config, out, at=...):
    rate, factors = config["learning_rate"], (config["momentum"], 0, 0, 0, 0, 0)
    _update("sgd_momentum", w, dw, config, out, at, ("velocity", None), rate, *factors)


def rmsprop(w, dw, config, out, at=...):
    rate, decay, epsilon = (config[name] for name in ("learning_rate", "decay_rate", "epsilon"))
    factors = 0, 0, decay, 1 - decay, 0, epsilon
    _update("rmsprop", w, dw, config, out, at, (None, "cache"), rate, *factors)


def adam(w, dw, config, out, at=...):
    beta1, beta2, t = config["beta1"], config["beta2"], config["t"]
    rate = config["learning_rate"] / (1 - beta1**t)
    factors = beta1, 1 - beta1, beta2, 1 - beta2, 1 / (1 - beta2**t), config["epsilon"]
    _update("adam", w, dw, config, out, at, ("m", "v"), rate, *factors)
