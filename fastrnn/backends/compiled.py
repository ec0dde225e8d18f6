"""backend="cython": allocates outputs, chooses threads, calls the extension.

The functions, caches and results are those of reference.py.
"""

import functools

import numpy as np

from fastrnn.backends.caches import LSTMCache, RNNCache
from fastrnn.backends.threads import for_work, short_spins

with short_spins():
    from fastrnn.backends import _kernels

_RNN = (0,)


@functools.cache
def _places(gates):
    """Where the kernels' i, f, o, g stand in a gate order."""
    return tuple(gates.index(gate) for gate in "ifog")


def _cell_threads(x, Wx, Wh, passes=1):
    rows = x.size // max(1, x.shape[-1])
    return for_work(2 * rows * (Wx.size + Wh.size) * passes)


# ---- vanilla RNN ---------------------------------------------------------------------------------


def rnn_step_forward(x, prev_h, Wx, Wh, b):
    next_h = np.empty_like(prev_h)
    threads = _cell_threads(x, Wx, Wh)
    _kernels.cell_step_forward(_RNN, x, prev_h, None, Wx, Wh, b, threads, next_h)
    return next_h, RNNCache(x, prev_h, Wx, Wh, next_h)


def rnn_step_backward(dnext_h, cache):
    steps = RNNCache(cache.x[:, None], cache.h0, cache.Wx, cache.Wh, cache.h[:, None])
    dx, *others = rnn_backward(dnext_h[:, None], steps)
    return dx[:, 0], *others


def rnn_forward(x, h0, Wx, Wh, b):
    h = np.empty((*x.shape[:2], h0.shape[1]), x.dtype)
    _kernels.cell_forward(_RNN, x, h0, Wx, Wh, b, _cell_threads(x, Wx, Wh), h)
    return h, RNNCache(x, h0, Wx, Wh, h)


def rnn_backward(dh, cache):
    return _cell_backward(_RNN, dh, cache, None, None, None, None)


def _cell_backward(places, dh, cache, c0, c, activations, dc):
    """Gradients of (x, h0, Wx, Wh, b); dc enters as the gradient of the last cell state and leaves
    as that of the first."""
    x, h0, Wx, Wh = cache.x, cache.h0, cache.Wx, cache.Wh
    shapes = x.shape, h0.shape, Wx.shape, Wh.shape, Wx.shape[1]
    if x.size == 0:
        return tuple(np.zeros(shape, x.dtype) for shape in shapes)
    grads = tuple(np.empty(shape, x.dtype) for shape in shapes)
    threads = _cell_threads(x, Wx, Wh, passes=2)
    _kernels.cell_backward(
        places, dh, x, h0, c0, Wx, Wh, cache.h, c, activations, threads, *grads, dc
    )
    return grads


# ---- LSTM ----------------------------------------------------------------------------------------


def lstm_step_forward(x, prev_h, prev_c, Wx, Wh, b, gates):
    next_h, next_c = np.empty_like(prev_h), np.empty_like(prev_c)
    activations = np.empty((x.shape[0], Wx.shape[1]), x.dtype)
    threads = _cell_threads(x, Wx, Wh)
    _kernels.cell_step_forward(
        _places(gates), x, prev_h, prev_c, Wx, Wh, b, threads, next_h, next_c, activations
    )
    cache = LSTMCache(x, prev_h, prev_c, Wx, Wh, next_h, next_c, activations, gates)
    return next_h, next_c, cache


def lstm_step_backward(dnext_h, dnext_c, cache):
    steps = cache._replace(x=cache.x[:, None], h=cache.h[:, None])
    dprev_c = dnext_c.copy()
    dx, dprev_h, *others = _cell_backward(
        _places(cache.gates),
        dnext_h[:, None],
        steps,
        cache.c0,
        cache.c[:, None],
        cache.activations[:, None],
        dprev_c,
    )
    return dx[:, 0], dprev_h, dprev_c, *others


def lstm_forward(x, h0, Wx, Wh, b, gates):
    h = np.empty((*x.shape[:2], h0.shape[1]), x.dtype)
    c = np.empty_like(h)
    activations = np.empty((*x.shape[:2], Wx.shape[1]), x.dtype)
    threads = _cell_threads(x, Wx, Wh)
    _kernels.cell_forward(_places(gates), x, h0, Wx, Wh, b, threads, h, c, activations)
    return h, LSTMCache(x, h0, None, Wx, Wh, h, c, activations, gates)


def lstm_backward(dh, cache):
    dc = np.zeros_like(cache.h0)
    places = _places(cache.gates)
    return _cell_backward(places, dh, cache, cache.c0, cache.c, cache.activations, dc)


# ---- layers of rows: x (M, D), dout (M, columns) -------------------------------------------------


def word_embedding_forward(x, W):
    out = np.empty((len(x), W.shape[1]), W.dtype)
    _kernels.embedding(x, W, for_work(out.size), out)
    return out


def word_embedding_backward(dout, x, V):
    dW = np.empty((V, dout.shape[1]), dout.dtype)
    _kernels.embedding_grad(x, dout, for_work(dout.size), dW)
    return dW


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
