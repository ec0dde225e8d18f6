"""Cells with fewer products: MGU, minGRU, minLSTM and IndRNN, forward, and back-propagation through
time.

Letters, keywords, caches and errors are those of fastrnn.layers.recurrent.

Of a minGRU, minLSTM and IndRNN no unit of h reaches another one: x Wx is one product over all
steps, and threads share rows or units without waiting for each other. The steps are then taken one
after the other, O(T) work that hardly counts beside x Wx. A parallel scan, which the paper on the
first two has for GPUs, would be more work, and its roundings would depend on T.

Formulas: Zhou et al. (2016), Minimal gated unit for recurrent neural networks; Feng et al. (2024),
Were RNNs all we needed?; Li et al. (2018), Independently recurrent neural network.
"""

import numpy as np

from fastrnn.cells import (
    IND_RNN,
    MGU,
    MIN_GRU,
    MIN_LSTM,
    IndRNNCache,
    MGUCache,
    MinGRUCache,
    MinLSTMCache,
)
from fastrnn.layers.recurrent import (
    AnyWeights,
    Gradients,
    backward,
    forward,
    step_backward,
    step_forward,
)

# ---- minimal gated unit --------------------------------------------------------------------------


def mgu_step_forward(
    x: np.ndarray,
    prev_h: np.ndarray,
    Wx: AnyWeights,
    Wh: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    gates: str = "fn",
    transposed: bool = False,
    training: bool = True,
    backend: str | None = None,
) -> tuple[np.ndarray, MGUCache]:
    """One time step: with a = x Wx + b, f = sigmoid(a_f + prev_h Wh_f),
    n = tanh(a_n + (f prev_h) Wh_n) and next_h = (1 - f) prev_h + f n.

    Inputs: x (N, D), prev_h (N, H), Wx (D, 2*H), Wh (H, 2*H), b (2*H,); gates, the order in which
    the gates lie in Wx, Wh and b: "fn" or "nf"; transposed, training: see fastrnn.layers.recurrent.
    Returns: next_h (N, H), cache for mgu_step_backward.
    """
    args = x, prev_h, Wx, Wh, b, None
    return step_forward(MGU, args, (gates, transposed), training, backend=backend)


def mgu_step_backward(
    dnext_h: np.ndarray, cache: MGUCache, *, backend: str | None = None
) -> Gradients:
    """Gradients of one time step.

    Inputs: dnext_h (N, H), cache of mgu_step_forward.
    Returns: dx (N, D), dprev_h (N, H), dWx (D, 2*H), dWh (H, 2*H), db (2*H,).
    """
    dx, (dprev_h,), *weights, _, _ = step_backward(MGU, (dnext_h,), cache, backend=backend)
    return dx, dprev_h, *weights


def mgu_forward(
    x: np.ndarray,
    h0: np.ndarray,
    Wx: AnyWeights,
    Wh: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    gates: str = "fn",
    lengths: np.ndarray | None = None,
    reverse: bool = False,
    index: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    reset_to: str = "zeros",
    layout: str = "batch_first",
    transposed: bool = False,
    training: bool = True,
    return_sequence: bool = True,
    backend: str | None = None,
) -> tuple[np.ndarray, MGUCache]:
    """All time steps of a minimal gated unit; the step is mgu_step_forward's.

    Inputs: x (N, T, D), h0 (N, H), Wx (D, 2*H), Wh (H, 2*H), b (2*H,); gates, "fn" or "nf"; lengths
    (N,), reverse, index (N, T), reset (N, T), reset_to, layout, transposed, training,
    return_sequence: see fastrnn.layers.recurrent.
    Returns: h (N, T, H), cache for mgu_backward; cache.hT (N, H) is the last state.
    """
    args, steps = (x, h0, Wx, Wh, b, None), (lengths, reverse, index, reset, reset_to, layout)
    form = gates, transposed
    return forward(MGU, args, form, steps, training, return_sequence, backend=backend)


def mgu_backward(
    dh: np.ndarray | None,
    cache: MGUCache,
    *,
    dhT: np.ndarray | None = None,
    backend: str | None = None,
) -> Gradients:
    """Back-propagation through time.

    Inputs: dh (N, T, H), the gradient of every h_t from outside the recurrence; cache of
    mgu_forward; dhT (N, H), the gradient of cache.hT.
    Returns: dx (N, T, D), dh0 (N, H), dWx (D, 2*H), dWh (H, 2*H), db (2*H,).
    """
    dx, (dh0,), *weights, _, _ = backward(MGU, dh, (dhT,), cache, backend=backend)
    return dx, dh0, *weights


# ---- minGRU --------------------------------------------------------------------------------------


def min_gru_step_forward(
    x: np.ndarray,
    prev_h: np.ndarray,
    Wx: AnyWeights,
    b: np.ndarray | None = None,
    *,
    gates: str = "zn",
    nonlinearity: str = "linear",
    transposed: bool = False,
    training: bool = True,
    backend: str | None = None,
) -> tuple[np.ndarray, MinGRUCache]:
    """One time step: with a = x Wx + b, z = sigmoid(a_z), n = a_n and
    next_h = (1 - z) prev_h + z n.

    Inputs: x (N, D), prev_h (N, H), Wx (D, 2*H), b (2*H,); gates, the order in which the gates lie
    in Wx and b: "zn" or "nz"; nonlinearity, "linear", or "positive" for n = a_n + 1/2 where
    a_n >= 0, else sigmoid(a_n); transposed, training: see fastrnn.layers.recurrent.
    Returns: next_h (N, H), cache for min_gru_step_backward.
    """
    args, form = (x, prev_h, Wx, None, b, None), (gates, transposed, True, nonlinearity)
    return step_forward(MIN_GRU, args, form, training, backend=backend)


def min_gru_step_backward(
    dnext_h: np.ndarray, cache: MinGRUCache, *, backend: str | None = None
) -> Gradients:
    """Gradients of one time step.

    Inputs: dnext_h (N, H), cache of min_gru_step_forward.
    Returns: dx (N, D), dprev_h (N, H), dWx (D, 2*H), db (2*H,).
    """
    dx, (dprev_h,), dWx, _, db, *_ = step_backward(MIN_GRU, (dnext_h,), cache, backend=backend)
    return dx, dprev_h, dWx, db


def min_gru_forward(
    x: np.ndarray,
    h0: np.ndarray,
    Wx: AnyWeights,
    b: np.ndarray | None = None,
    *,
    gates: str = "zn",
    nonlinearity: str = "linear",
    lengths: np.ndarray | None = None,
    reverse: bool = False,
    index: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    reset_to: str = "zeros",
    layout: str = "batch_first",
    transposed: bool = False,
    training: bool = True,
    return_sequence: bool = True,
    backend: str | None = None,
) -> tuple[np.ndarray, MinGRUCache]:
    """All time steps of a minGRU; the step is min_gru_step_forward's.

    Inputs: x (N, T, D), h0 (N, H), Wx (D, 2*H), b (2*H,); gates, "zn" or "nz"; nonlinearity,
    "linear" or "positive"; lengths (N,), reverse, index (N, T), reset (N, T), reset_to, layout,
    transposed, training, return_sequence: see fastrnn.layers.recurrent.
    Returns: h (N, T, H), cache for min_gru_backward; cache.hT (N, H) is the last state.
    """
    args, steps = (x, h0, Wx, None, b, None), (lengths, reverse, index, reset, reset_to, layout)
    form = gates, transposed, True, nonlinearity
    return forward(MIN_GRU, args, form, steps, training, return_sequence, backend=backend)


def min_gru_backward(
    dh: np.ndarray | None,
    cache: MinGRUCache,
    *,
    dhT: np.ndarray | None = None,
    backend: str | None = None,
) -> Gradients:
    """Back-propagation through time.

    Inputs: dh (N, T, H), the gradient of every h_t from outside the recurrence; cache of
    min_gru_forward; dhT (N, H), the gradient of cache.hT.
    Returns: dx (N, T, D), dh0 (N, H), dWx (D, 2*H), db (2*H,).
    """
    dx, (dh0,), dWx, _, db, *_ = backward(MIN_GRU, dh, (dhT,), cache, backend=backend)
    return dx, dh0, dWx, db


# ---- minLSTM -------------------------------------------------------------------------------------


def min_lstm_step_forward(
    x: np.ndarray,
    prev_h: np.ndarray,
    Wx: AnyWeights,
    b: np.ndarray | None = None,
    *,
    gates: str = "fin",
    nonlinearity: str = "linear",
    transposed: bool = False,
    training: bool = True,
    backend: str | None = None,
) -> tuple[np.ndarray, MinLSTMCache]:
    """One time step: with a = x Wx + b, f, i = sigmoid(a_f, a_i), n = a_n and
    next_h = (f prev_h + i n) / (f + i).

    Inputs: x (N, D), prev_h (N, H), Wx (D, 3*H), b (3*H,); gates, the order in which the gates lie
    in Wx and b: "fin" or "nfi"; nonlinearity, "linear", or "positive" for n = a_n + 1/2 where
    a_n >= 0, else sigmoid(a_n); transposed, training: see fastrnn.layers.recurrent.
    Returns: next_h (N, H), cache for min_lstm_step_backward.
    """
    args, form = (x, prev_h, Wx, None, b, None), (gates, transposed, True, nonlinearity)
    return step_forward(MIN_LSTM, args, form, training, backend=backend)


def min_lstm_step_backward(
    dnext_h: np.ndarray, cache: MinLSTMCache, *, backend: str | None = None
) -> Gradients:
    """Gradients of one time step.

    Inputs: dnext_h (N, H), cache of min_lstm_step_forward.
    Returns: dx (N, D), dprev_h (N, H), dWx (D, 3*H), db (3*H,).
    """
    dx, (dprev_h,), dWx, _, db, *_ = step_backward(MIN_LSTM, (dnext_h,), cache, backend=backend)
    return dx, dprev_h, dWx, db


def min_lstm_forward(
    x: np.ndarray,
    h0: np.ndarray,
    Wx: AnyWeights,
    b: np.ndarray | None = None,
    *,
    gates: str = "fin",
    nonlinearity: str = "linear",
    lengths: np.ndarray | None = None,
    reverse: bool = False,
    index: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    reset_to: str = "zeros",
    layout: str = "batch_first",
    transposed: bool = False,
    training: bool = True,
    return_sequence: bool = True,
    backend: str | None = None,
) -> tuple[np.ndarray, MinLSTMCache]:
    """All time steps of a minLSTM; the step is min_lstm_step_forward's.

    Inputs: x (N, T, D), h0 (N, H), Wx (D, 3*H), b (3*H,); gates, "fin" or "nfi"; nonlinearity,
    "linear" or "positive"; lengths (N,), reverse, index (N, T), reset (N, T), reset_to, layout,
    transposed, training, return_sequence: see fastrnn.layers.recurrent.
    Returns: h (N, T, H), cache for min_lstm_backward; cache.hT (N, H) is the last state.
    """
    args, steps = (x, h0, Wx, None, b, None), (lengths, reverse, index, reset, reset_to, layout)
    form = gates, transposed, True, nonlinearity
    return forward(MIN_LSTM, args, form, steps, training, return_sequence, backend=backend)


def min_lstm_backward(
    dh: np.ndarray | None,
    cache: MinLSTMCache,
    *,
    dhT: np.ndarray | None = None,
    backend: str | None = None,
) -> Gradients:
    """Back-propagation through time.

    Inputs: dh (N, T, H), the gradient of every h_t from outside the recurrence; cache of
    min_lstm_forward; dhT (N, H), the gradient of cache.hT.
    Returns: dx (N, T, D), dh0 (N, H), dWx (D, 3*H), db (3*H,).
    """
    dx, (dh0,), dWx, _, db, *_ = backward(MIN_LSTM, dh, (dhT,), cache, backend=backend)
    return dx, dh0, dWx, db


# ---- IndRNN --------------------------------------------------------------------------------------


def ind_rnn_step_forward(
    x: np.ndarray,
    prev_h: np.ndarray,
    Wx: AnyWeights,
    u: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    nonlinearity: str = "relu",
    transposed: bool = False,
    training: bool = True,
    backend: str | None = None,
) -> tuple[np.ndarray, IndRNNCache]:
    """One time step: next_h = max(x Wx + u prev_h + b, 0), each unit with an element of u.

    Inputs: x (N, D), prev_h (N, H), Wx (D, H), u (H,), b (H,); nonlinearity, "relu", or "tanh" in
    its place; transposed, training: see fastrnn.layers.recurrent.
    Returns: next_h (N, H), cache for ind_rnn_step_backward.
    """
    args, form = (x, prev_h, Wx, u, b, None), ("h", transposed, True, nonlinearity)
    return step_forward(IND_RNN, args, form, training, backend=backend)


def ind_rnn_step_backward(
    dnext_h: np.ndarray, cache: IndRNNCache, *, backend: str | None = None
) -> Gradients:
    """Gradients of one time step.

    Inputs: dnext_h (N, H), cache of ind_rnn_step_forward.
    Returns: dx (N, D), dprev_h (N, H), dWx (D, H), du (H,), db (H,).
    """
    dx, (dprev_h,), *weights, _, _ = step_backward(IND_RNN, (dnext_h,), cache, backend=backend)
    return dx, dprev_h, *weights


def ind_rnn_forward(
    x: np.ndarray,
    h0: np.ndarray,
    Wx: AnyWeights,
    u: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    nonlinearity: str = "relu",
    lengths: np.ndarray | None = None,
    reverse: bool = False,
    index: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    reset_to: str = "zeros",
    layout: str = "batch_first",
    transposed: bool = False,
    training: bool = True,
    return_sequence: bool = True,
    backend: str | None = None,
) -> tuple[np.ndarray, IndRNNCache]:
    """All time steps of an IndRNN: h_t = max(x_t Wx + u h_{t-1} + b, 0).

    Inputs: x (N, T, D), h0 (N, H), Wx (D, H), u (H,), b (H,); nonlinearity, "relu" or "tanh";
    lengths (N,), reverse, index (N, T), reset (N, T), reset_to, layout, transposed, training,
    return_sequence: see fastrnn.layers.recurrent.
    Returns: h (N, T, H), cache for ind_rnn_backward; cache.hT (N, H) is the last state.
    """
    args, steps = (x, h0, Wx, u, b, None), (lengths, reverse, index, reset, reset_to, layout)
    form = "h", transposed, True, nonlinearity
    return forward(IND_RNN, args, form, steps, training, return_sequence, backend=backend)


def ind_rnn_backward(
    dh: np.ndarray | None,
    cache: IndRNNCache,
    *,
    dhT: np.ndarray | None = None,
    backend: str | None = None,
) -> Gradients:
    """Back-propagation through time.

    Inputs: dh (N, T, H), the gradient of every h_t from outside the recurrence; cache of
    ind_rnn_forward; dhT (N, H), the gradient of cache.hT.
    Returns: dx (N, T, D), dh0 (N, H), dWx (D, H), du (H,), db (H,).
    """
    dx, (dh0,), *weights, _, _ = backward(IND_RNN, dh, (dhT,), cache, backend=backend)
    return dx, dh0, *weights
