"""Vanilla RNN and LSTM: forward, and back-propagation through time.

Letters: N batch, T steps, D input, H hidden. Inputs are float32 or float64 arrays of one dtype,
which is the dtype of every result; they are never modified. Non-contiguous inputs are copied once.
Every function takes backend="numpy" or "cython" (None: the current one) and raises ValueError for a
shape or an unknown name, TypeError for a dtype or a foreign cache. A cache holds the inputs and
outputs themselves, not copies: do not change them before the backward pass.

Formulas: the course notes on captioning with RNNs and LSTMs; for back-propagation through time
Werbos (1990).
"""

import numpy as np

from fastrnn.backends import get_backend
from fastrnn.backends.caches import LSTMCache, RNNCache
from fastrnn.layers import checks

_RNN_STEP = checks.signature(x="N D", prev_h="N H", Wx="D H", Wh="H H", b="H")
_RNN = checks.signature(x="N T D", h0="N H", Wx="D H", Wh="H H", b="H")
_LSTM_STEP = checks.signature(x="N D", prev_h="N H", prev_c="N H", Wx="D 4*H", Wh="H 4*H", b="4*H")
_LSTM = checks.signature(x="N T D", h0="N H", Wx="D 4*H", Wh="H 4*H", b="4*H")

_RNN_STEP_CACHE = checks.signature(x="N D", h0="N H", Wx="D H", Wh="H H", h="N H")
_RNN_CACHE = checks.signature(x="N T D", h0="N H", Wx="D H", Wh="H H", h="N T H")
_LSTM_STEP_CACHE = checks.signature(
    x="N D", h0="N H", c0="N H", Wx="D 4*H", Wh="H 4*H", h="N H", c="N H", activations="N 4*H"
)
_LSTM_CACHE = checks.signature(
    x="N T D", h0="N H", Wx="D 4*H", Wh="H 4*H", h="N T H", c="N T H", activations="N T 4*H"
)

Gradients = tuple[np.ndarray, ...]


def rnn_step_forward(
    x: np.ndarray,
    prev_h: np.ndarray,
    Wx: np.ndarray,
    Wh: np.ndarray,
    b: np.ndarray,
    *,
    backend: str | None = None,
) -> tuple[np.ndarray, RNNCache]:
    """One time step: next_h = tanh(x Wx + prev_h Wh + b).

    Inputs: x (N, D), prev_h (N, H), Wx (D, H), Wh (H, H), b (H,).
    Returns: next_h (N, H), cache for rnn_step_backward.
    """
    args = checks.arrays(_RNN_STEP, x, prev_h, Wx, Wh, b)
    return get_backend(backend).rnn_step_forward(*args)


def rnn_step_backward(
    dnext_h: np.ndarray, cache: RNNCache, *, backend: str | None = None
) -> Gradients:
    """Gradients of one time step.

    Inputs: dnext_h (N, H), cache of rnn_step_forward.
    Returns: dx (N, D), dprev_h (N, H), dWx (D, H), dWh (H, H), db (H,).
    """
    checks.cache_of("rnn_step_forward", RNNCache, cache, ndim=2)
    checks.cache_arrays(_RNN_STEP_CACHE, cache)
    dnext_h = checks.gradient("dnext_h", dnext_h, cache.h)
    return get_backend(backend).rnn_step_backward(dnext_h, cache)


def rnn_forward(
    x: np.ndarray,
    h0: np.ndarray,
    Wx: np.ndarray,
    Wh: np.ndarray,
    b: np.ndarray,
    *,
    backend: str | None = None,
) -> tuple[np.ndarray, RNNCache]:
    """All time steps of a vanilla RNN: h_t = tanh(x_t Wx + h_{t-1} Wh + b).

    Inputs: x (N, T, D), h0 (N, H), Wx (D, H), Wh (H, H), b (H,).
    Returns: h (N, T, H), cache for rnn_backward.
    """
    args = checks.arrays(_RNN, x, h0, Wx, Wh, b)
    return get_backend(backend).rnn_forward(*args)


def rnn_backward(dh: np.ndarray, cache: RNNCache, *, backend: str | None = None) -> Gradients:
    """Back-propagation through time.

    Inputs: dh (N, T, H), the gradient of every h_t from outside the recurrence; cache of
    rnn_forward.
    Returns: dx (N, T, D), dh0 (N, H), dWx (D, H), dWh (H, H), db (H,).
    """
    checks.cache_of("rnn_forward", RNNCache, cache, ndim=3)
    checks.cache_arrays(_RNN_CACHE, cache)
    dh = checks.gradient("dh", dh, cache.h)
    return get_backend(backend).rnn_backward(dh, cache)


def lstm_step_forward(
    x: np.ndarray,
    prev_h: np.ndarray,
    prev_c: np.ndarray,
    Wx: np.ndarray,
    Wh: np.ndarray,
    b: np.ndarray,
    *,
    gates: str = "ifog",
    backend: str | None = None,
) -> tuple[np.ndarray, np.ndarray, LSTMCache]:
    """One time step: with a = x Wx + prev_h Wh + b, i, f, o = sigmoid(a_i, a_f, a_o) and
    g = tanh(a_g), next_c = f prev_c + i g and next_h = o tanh(next_c).

    Inputs: x (N, D), prev_h (N, H), prev_c (N, H), Wx (D, 4*H), Wh (H, 4*H), b (4*H,); gates, the
    order in which the gates lie in Wx, Wh and b: "ifog", "fico" (f i c~ o), "ifgo" (PyTorch) or
    "iofg" (ONNX).
    Returns: next_h (N, H), next_c (N, H), cache for lstm_step_backward.
    """
    args = checks.arrays(_LSTM_STEP, x, prev_h, prev_c, Wx, Wh, b)
    return get_backend(backend).lstm_step_forward(*args, checks.gate_order(gates))


def lstm_step_backward(
    dnext_h: np.ndarray, dnext_c: np.ndarray, cache: LSTMCache, *, backend: str | None = None
) -> Gradients:
    """Gradients of one time step.

    Inputs: dnext_h (N, H), dnext_c (N, H), cache of lstm_step_forward.
    Returns: dx (N, D), dprev_h (N, H), dprev_c (N, H), dWx (D, 4*H), dWh (H, 4*H), db (4*H,), the
    gates in the order of the forward pass.
    """
    checks.cache_of("lstm_step_forward", LSTMCache, cache, ndim=2)
    checks.cache_arrays(_LSTM_STEP_CACHE, cache)
    dnext_h = checks.gradient("dnext_h", dnext_h, cache.h)
    dnext_c = checks.gradient("dnext_c", dnext_c, cache.c)
    return get_backend(backend).lstm_step_backward(dnext_h, dnext_c, cache)


def lstm_forward(
    x: np.ndarray,
    h0: np.ndarray,
    Wx: np.ndarray,
    Wh: np.ndarray,
    b: np.ndarray,
    *,
    gates: str = "ifog",
    backend: str | None = None,
) -> tuple[np.ndarray, LSTMCache]:
    """All time steps of an LSTM from h0 and a cell state of zeros; the step is lstm_step_forward's.

    Inputs: x (N, T, D), h0 (N, H), Wx (D, 4*H), Wh (H, 4*H), b (4*H,); gates, the order in which
    the gates lie in Wx, Wh and b: "ifog", "fico" (f i c~ o), "ifgo" (PyTorch) or "iofg" (ONNX).
    Returns: h (N, T, H), cache for lstm_backward; cache.c (N, T, H) holds all cell states.
    """
    args = checks.arrays(_LSTM, x, h0, Wx, Wh, b)
    return get_backend(backend).lstm_forward(*args, checks.gate_order(gates))


def lstm_backward(dh: np.ndarray, cache: LSTMCache, *, backend: str | None = None) -> Gradients:
    """Back-propagation through time.

    Inputs: dh (N, T, H), the gradient of every h_t from outside the recurrence; cache of
    lstm_forward.
    Returns: dx (N, T, D), dh0 (N, H), dWx (D, 4*H), dWh (H, 4*H), db (4*H,), the gates in the order
    of the forward pass.
    """
    checks.cache_of("lstm_forward", LSTMCache, cache, ndim=3)
    checks.cache_arrays(_LSTM_CACHE, cache)
    dh = checks.gradient("dh", dh, cache.h)
    return get_backend(backend).lstm_backward(dh, cache)
