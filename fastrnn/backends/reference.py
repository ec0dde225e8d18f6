"""backend="numpy": the specification, in as few lines as the equations.

It is not made fast, it takes what the layers have checked, and it is what every compiled kernel is
tested against. Equations: the course notes on RNN and LSTM captioning, from which the default gate
order i f o g comes; Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000).
"""

import numpy as np

from fastrnn.backends.caches import LSTMCache, RNNCache


def sigmoid(x):
    """1 / (1 + exp(-x)) without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


# ---- vanilla RNN ---------------------------------------------------------------------------------


def rnn_step_forward(x, prev_h, Wx, Wh, b):
    next_h = np.tanh(x @ Wx + prev_h @ Wh + b)
    return next_h, RNNCache(x, prev_h, Wx, Wh, next_h)


def rnn_step_backward(dnext_h, cache):
    da = dnext_h * (1 - cache.h**2)
    return da @ cache.Wx.T, da @ cache.Wh.T, cache.x.T @ da, cache.h0.T @ da, da.sum(axis=0)


def rnn_forward(x, h0, Wx, Wh, b):
    a = x @ Wx + b
    h = np.empty((*x.shape[:2], h0.shape[1]), x.dtype)
    prev_h = h0
    for t in range(x.shape[1]):
        h[:, t] = prev_h = np.tanh(a[:, t] + prev_h @ Wh)
    return h, RNNCache(x, h0, Wx, Wh, h)


def rnn_backward(dh, cache):
    da = np.empty_like(cache.h)
    dprev_h = np.zeros_like(cache.h0)
    for t in reversed(range(cache.h.shape[1])):
        da[:, t] = (dh[:, t] + dprev_h) * (1 - cache.h[:, t] ** 2)
        dprev_h = da[:, t] @ cache.Wh.T
    return _sequence_gradients(da, dprev_h, cache)


def _sequence_gradients(da, dh0, cache):
    """Gradients of (x, h0, Wx, Wh, b) from those of the pre-activations x Wx + h_prev Wh + b."""
    h_prev = np.concatenate([cache.h0[:, None], cache.h[:, :-1]], axis=1)[:, : da.shape[1]]
    dWx = np.tensordot(cache.x, da, axes=((0, 1), (0, 1)))
    dWh = np.tensordot(h_prev, da, axes=((0, 1), (0, 1)))
    return da @ cache.Wx.T, dh0, dWx, dWh, da.sum(axis=(0, 1))


# ---- LSTM ----------------------------------------------------------------------------------------


def _lstm_gates(a, prev_c, gates):
    """Pre-activations (N, 4*H) and c_{t-1} to h_t, c_t and the activated gates."""
    s = dict(zip(gates, np.split(a, 4, axis=1), strict=True))
    s = {name: np.tanh(z) if name == "g" else sigmoid(z) for name, z in s.items()}
    c = s["f"] * prev_c + s["i"] * s["g"]
    return s["o"] * np.tanh(c), c, np.concatenate([s[name] for name in gates], axis=1)


def _lstm_gates_backward(dh, dc, prev_c, c, activations, gates):
    """Gradients of h_t and c_t to those of the pre-activations and of c_{t-1}."""
    i, f, o, g = (
        dict(zip(gates, np.split(activations, 4, axis=1), strict=True))[n] for n in "ifog"
    )
    tanh_c = np.tanh(c)
    dc = dc + dh * o * (1 - tanh_c**2)
    da = {
        "i": dc * g * i * (1 - i),
        "f": dc * prev_c * f * (1 - f),
        "o": dh * tanh_c * o * (1 - o),
        "g": dc * i * (1 - g**2),
    }
    return np.concatenate([da[name] for name in gates], axis=1), dc * f


def lstm_step_forward(x, prev_h, prev_c, Wx, Wh, b, gates):
    next_h, next_c, activations = _lstm_gates(x @ Wx + prev_h @ Wh + b, prev_c, gates)
    cache = LSTMCache(x, prev_h, prev_c, Wx, Wh, next_h, next_c, activations, gates)
    return next_h, next_c, cache


def lstm_step_backward(dnext_h, dnext_c, cache):
    da, dprev_c = _lstm_gates_backward(
        dnext_h, dnext_c, cache.c0, cache.c, cache.activations, cache.gates
    )
    dx, dprev_h = da @ cache.Wx.T, da @ cache.Wh.T
    return dx, dprev_h, dprev_c, cache.x.T @ da, cache.h0.T @ da, da.sum(axis=0)


def lstm_forward(x, h0, Wx, Wh, b, gates):
    a = x @ Wx + b
    h = np.empty((*x.shape[:2], h0.shape[1]), x.dtype)
    c = np.empty_like(h)
    prev_h, prev_c = h0, np.zeros_like(h0)
    for t in range(x.shape[1]):
        prev_h, prev_c, a[:, t] = _lstm_gates(a[:, t] + prev_h @ Wh, prev_c, gates)
        h[:, t], c[:, t] = prev_h, prev_c
    return h, LSTMCache(x, h0, None, Wx, Wh, h, c, a, gates)


def lstm_backward(dh, cache):
    da = np.empty_like(cache.activations)
    dprev_h, dprev_c = np.zeros_like(cache.h0), np.zeros_like(cache.h0)
    zeros = np.zeros_like(cache.h0)
    for t in reversed(range(cache.h.shape[1])):
        prev_c = cache.c[:, t - 1] if t else zeros if cache.c0 is None else cache.c0
        da[:, t], dprev_c = _lstm_gates_backward(
            dh[:, t] + dprev_h, dprev_c, prev_c, cache.c[:, t], cache.activations[:, t], cache.gates
        )
        dprev_h = da[:, t] @ cache.Wh.T
    return _sequence_gradients(da, dprev_h, cache)


# ---- layers of rows: x (M, D), dout (M, columns) -------------------------------------------------


def word_embedding_forward(x, W):
    return W[x]


def word_embedding_backward(dout, x, V):
    dW = np.zeros((V, dout.shape[1]), dout.dtype)
    np.add.at(dW, x, dout)
    return dW


def affine_forward(x, w, b):
    return x @ w + b


def affine_backward(dout, x, w):
    return dout @ w.T, x.T @ dout, dout.sum(axis=0)


def softmax_loss(x, y, weight, scale):
    """scale times the weighted sum of the cross-entropies, and its gradient; weight None is 1."""
    rows = np.arange(len(y))
    weight = np.ones(len(y), x.dtype) if weight is None else weight
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        shifted = x - x.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        losses = weight * (log_sum[:, 0] - shifted[rows, y])
        dx = np.exp(shifted - log_sum)
        dx[rows, y] -= 1
        dx *= weight[:, None] * x.dtype.type(scale)
    loss = losses.sum(where=weight != 0, dtype=np.float64)
    dx[weight == 0] = 0
    return scale * float(loss), dx
