"""Vanilla RNN, LSTM and GRU: forward, and back-propagation through time.

Letters: N batch, T steps, D input, H hidden. Inputs are float32 or float64 arrays of one dtype,
which is the dtype of every result; they are never modified. Non-contiguous inputs are copied once.
Every function takes backend="numpy" or "cython" (None: the current one) and raises ValueError for a
shape, a length or an unknown name, TypeError for a dtype, a flag that is no bool or a foreign
cache, IndexError for an index. A cache holds the inputs and outputs themselves, not copies: do not
change them before the backward pass.

Every sequence function takes lengths (N,), integers in [0, T]: row n has the steps before
lengths[n]; what x and dh hold after them is not looked at, and h, c and dx are 0 there. With
reverse=True time runs from the last of these steps to the first, and h[n, t] is the state after
step t is taken. In place of Wx, Wh and b every forward function takes the result of prepare
alone. The last states cache.hT and cache.cT (N, H) are those after all of a row's steps;
of a row without steps they are h0 and c0. Of the gradients dh, dhT and dcT each may be None, for
zeros.

With index (N, T), integers in [0, U), x is a table (U, D), and row n reads x[index[n, t]] at step
t, as words read their vectors: x Wx + b is then computed once a row of the table, however often it
is read, and so are the gradients, of which dx is (U, D). A row that no step reads counts 0 times:
it has to be finite.

Formulas: the course notes on captioning with RNNs and LSTMs; Cho et al. (2014) for the GRU; for
back-propagation through time Werbos (1990).
"""

import numpy as np

from fastrnn.backends import get_backend
from fastrnn.backends.caches import GRUCache, LSTMCache, RNNCache
from fastrnn.layers import checks
from fastrnn.layers.prepared import PreparedWeights


def _sequence(**shapes: str) -> tuple[checks.Signature, checks.Signature]:
    """What is expected without and with index."""
    return checks.signature(x="N T D", **shapes), checks.signature(x="U D", **shapes)


_RNN_STEP = checks.signature(x="N D", prev_h="N H", Wx="D H", Wh="H H", b="H")
_RNN = _sequence(h0="N H", Wx="D H", Wh="H H", b="H")
_LSTM_STEP = checks.signature(x="N D", prev_h="N H", prev_c="N H", Wx="D 4*H", Wh="H 4*H", b="4*H")
_LSTM = _sequence(h0="N H", c0="N H?", Wx="D 4*H", Wh="H 4*H", b="4*H")
_GRU_STEP = checks.signature(x="N D", prev_h="N H", Wx="D 3*H", Wh="H 3*H", b="3*H", bh="3*H?")
_GRU = _sequence(h0="N H", Wx="D 3*H", Wh="H 3*H", b="3*H", bh="3*H?")

_RNN_STEP_CACHE = checks.signature(x="N D", h0="N H", Wx="D H", Wh="H H", h="N H")
_RNN_CACHE = _sequence(h0="N H", Wx="D H", Wh="H H", h="N T H", hT="N H")
_LSTM_STEP_CACHE = checks.signature(
    x="N D", h0="N H", c0="N H", Wx="D 4*H", Wh="H 4*H", h="N H", c="N H", activations="N 4*H"
)
_LSTM_CACHE = _sequence(
    h0="N H",
    c0="N H?",
    Wx="D 4*H",
    Wh="H 4*H",
    h="N T H",
    c="N T H",
    activations="N T 4*H",
    hT="N H",
    cT="N H",
)
_GRU_STEP_CACHE = checks.signature(
    x="N D", h0="N H", Wx="D 3*H", Wh="H 3*H", h="N H", activations="N 3*H", candidate="N H?"
)
_GRU_CACHE = _sequence(
    h0="N H",
    Wx="D 3*H",
    Wh="H 3*H",
    h="N T H",
    activations="N T 3*H",
    candidate="N T H?",
    hT="N H",
)

GATES = {"rnn": 1, "lstm": 4, "gru": 3}

Gradients = tuple[np.ndarray, ...]
Weights = np.ndarray | PreparedWeights


# ---- vanilla RNN ---------------------------------------------------------------------------------


def rnn_step_forward(
    x: np.ndarray,
    prev_h: np.ndarray,
    Wx: Weights,
    Wh: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    backend: str | None = None,
) -> tuple[np.ndarray, RNNCache]:
    """One time step: next_h = tanh(x Wx + prev_h Wh + b).

    Inputs: x (N, D), prev_h (N, H), Wx (D, H), Wh (H, H), b (H,).
    Returns: next_h (N, H), cache for rnn_step_backward.
    """
    packed = None
    if type(Wx) is PreparedWeights:
        Wx, Wh, b, packed = Wx.alone("rnn", Wh, b).arrays
    args = checks.arrays(_RNN_STEP, x, prev_h, Wx, Wh, b)
    return get_backend(backend).rnn_step_forward(*args, packed)


def rnn_step_backward(
    dnext_h: np.ndarray, cache: RNNCache, *, backend: str | None = None
) -> Gradients:
    """Gradients of one time step.

    Inputs: dnext_h (N, H), cache of rnn_step_forward.
    Returns: dx (N, D), dprev_h (N, H), dWx (D, H), dWh (H, H), db (H,).
    """
    cache = checks.step_cache("rnn_step_forward", RNNCache, _RNN_STEP_CACHE, cache)
    dnext_h = checks.gradient("dnext_h", dnext_h, cache.h)
    return get_backend(backend).rnn_step_backward(dnext_h, cache)


def rnn_forward(
    x: np.ndarray,
    h0: np.ndarray,
    Wx: Weights,
    Wh: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    lengths: np.ndarray | None = None,
    reverse: bool = False,
    index: np.ndarray | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, RNNCache]:
    """All time steps of a vanilla RNN: h_t = tanh(x_t Wx + h_{t-1} Wh + b).

    Inputs: x (N, T, D), h0 (N, H), Wx (D, H), Wh (H, H), b (H,); lengths (N,), reverse, index.
    Returns: h (N, T, H), cache for rnn_backward; cache.hT (N, H) is the last state.
    """
    packed = None
    if type(Wx) is PreparedWeights:
        Wx, Wh, b, packed = Wx.alone("rnn", Wh, b).arrays
    args = checks.arrays(_RNN[index is not None], x, h0, Wx, Wh, b)
    order = checks.order(lengths, reverse, index, args[0], len(args[1]))
    return get_backend(backend).rnn_forward(*args, *order, packed)


def rnn_backward(
    dh: np.ndarray | None,
    cache: RNNCache,
    *,
    dhT: np.ndarray | None = None,
    backend: str | None = None,
) -> Gradients:
    """Back-propagation through time.

    Inputs: dh (N, T, H), the gradient of every h_t from outside the recurrence; cache of
    rnn_forward; dhT (N, H), the gradient of cache.hT.
    Returns: dx (N, T, D), dh0 (N, H), dWx (D, H), dWh (H, H), db (H,).
    """
    cache = checks.recurrent_cache("rnn_forward", RNNCache, _RNN_CACHE, cache)
    dh = checks.optional_gradient("dh", dh, cache.h)
    dhT = checks.optional_gradient("dhT", dhT, cache.hT)
    return get_backend(backend).rnn_backward(dh, dhT, cache)


# ---- LSTM ----------------------------------------------------------------------------------------


def lstm_step_forward(
    x: np.ndarray,
    prev_h: np.ndarray,
    prev_c: np.ndarray,
    Wx: Weights,
    Wh: np.ndarray | None = None,
    b: np.ndarray | None = None,
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
    packed, order = None, checks.gate_order(gates)
    if type(Wx) is PreparedWeights:
        order = Wx.gates
        Wx, Wh, b, packed = Wx.alone("lstm", Wh, b, gates=gates).arrays
    args = checks.arrays(_LSTM_STEP, x, prev_h, prev_c, Wx, Wh, b)
    return get_backend(backend).lstm_step_forward(*args, order, packed)


def lstm_step_backward(
    dnext_h: np.ndarray, dnext_c: np.ndarray, cache: LSTMCache, *, backend: str | None = None
) -> Gradients:
    """Gradients of one time step.

    Inputs: dnext_h (N, H), dnext_c (N, H), cache of lstm_step_forward.
    Returns: dx (N, D), dprev_h (N, H), dprev_c (N, H), dWx (D, 4*H), dWh (H, 4*H), db (4*H,), the
    gates in the order of the forward pass.
    """
    cache = checks.step_cache("lstm_step_forward", LSTMCache, _LSTM_STEP_CACHE, cache)
    checks.gate_places(cache.gates)
    dnext_h = checks.gradient("dnext_h", dnext_h, cache.h)
    dnext_c = checks.gradient("dnext_c", dnext_c, cache.c)
    return get_backend(backend).lstm_step_backward(dnext_h, dnext_c, cache)


def lstm_forward(
    x: np.ndarray,
    h0: np.ndarray,
    Wx: Weights,
    Wh: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    c0: np.ndarray | None = None,
    gates: str = "ifog",
    lengths: np.ndarray | None = None,
    reverse: bool = False,
    index: np.ndarray | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, LSTMCache]:
    """All time steps of an LSTM from h0 and c0; the step is lstm_step_forward's.

    Inputs: x (N, T, D), h0 (N, H), Wx (D, 4*H), Wh (H, 4*H), b (4*H,); c0 (N, H), zeros where it is
    None; gates, the order in which the gates lie in Wx, Wh and b: "ifog", "fico" (f i c~ o), "ifgo"
    (PyTorch) or "iofg" (ONNX); lengths (N,), reverse, index.
    Returns: h (N, T, H), cache for lstm_backward; cache.c (N, T, H) holds all cell states, cache.hT
    and cache.cT (N, H) the last states.
    """
    packed, places = None, checks.gate_order(gates)
    if type(Wx) is PreparedWeights:
        places = Wx.gates
        Wx, Wh, b, packed = Wx.alone("lstm", Wh, b, gates=gates).arrays
    args = checks.arrays(_LSTM[index is not None], x, h0, c0, Wx, Wh, b)
    order = checks.order(lengths, reverse, index, args[0], len(args[1]))
    return get_backend(backend).lstm_forward(*args, places, *order, packed)


def lstm_backward(
    dh: np.ndarray | None,
    cache: LSTMCache,
    *,
    dhT: np.ndarray | None = None,
    dcT: np.ndarray | None = None,
    backend: str | None = None,
) -> Gradients:
    """Back-propagation through time.

    Inputs: dh (N, T, H), the gradient of every h_t from outside the recurrence; cache of
    lstm_forward; dhT and dcT (N, H), the gradients of cache.hT and cache.cT.
    Returns: dx (N, T, D), dh0 (N, H), dWx (D, 4*H), dWh (H, 4*H), db (4*H,), the gates in the order
    of the forward pass; and dc0 (N, H) where c0 was given.
    """
    cache = checks.recurrent_cache("lstm_forward", LSTMCache, _LSTM_CACHE, cache)
    checks.gate_places(cache.gates)
    dh = checks.optional_gradient("dh", dh, cache.h)
    dhT = checks.optional_gradient("dhT", dhT, cache.hT)
    dcT = checks.optional_gradient("dcT", dcT, cache.cT)
    dx, dh0, dc0, *weights = get_backend(backend).lstm_backward(dh, dhT, dcT, cache)
    return (dx, dh0, *weights) if cache.c0 is None else (dx, dh0, *weights, dc0)


# ---- GRU -----------------------------------------------------------------------------------------


def gru_step_forward(
    x: np.ndarray,
    prev_h: np.ndarray,
    Wx: Weights,
    Wh: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    bh: np.ndarray | None = None,
    reset_after: bool = True,
    backend: str | None = None,
) -> tuple[np.ndarray, GRUCache]:
    """One time step: with the gates r, z, n in this order in a = x Wx + b and u = prev_h Wh + bh,
    r, z = sigmoid(a_r + u_r, a_z + u_z), n = tanh(a_n + r u_n) and next_h = (1 - z) n + z prev_h.

    Inputs: x (N, D), prev_h (N, H), Wx (D, 3*H), Wh (H, 3*H), b (3*H,); bh (3*H,), zeros where it
    is None; reset_after, False for the original form, in which u_n is (r prev_h) Wh_n + bh_n and
    n = tanh(a_n + u_n).
    Returns: next_h (N, H), cache for gru_step_backward.
    """
    packed = None
    if type(Wx) is PreparedWeights:
        weights = Wx.alone("gru", Wh, b, bh=bh, reset_after=reset_after)
        bh, reset_after = weights.bh, weights.reset_after
        Wx, Wh, b, packed = weights.arrays
    args = checks.arrays(_GRU_STEP, x, prev_h, Wx, Wh, b, bh)
    reset_after = checks.flag("reset_after", reset_after)
    return get_backend(backend).gru_step_forward(*args, reset_after, packed)


def gru_step_backward(
    dnext_h: np.ndarray, cache: GRUCache, *, backend: str | None = None
) -> Gradients:
    """Gradients of one time step.

    Inputs: dnext_h (N, H), cache of gru_step_forward.
    Returns: dx (N, D), dprev_h (N, H), dWx (D, 3*H), dWh (H, 3*H), db (3*H,); and dbh (3*H,) where
    bh was given.
    """
    cache = checks.step_cache("gru_step_forward", GRUCache, _GRU_STEP_CACHE, cache)
    _check_candidate(cache)
    dnext_h = checks.gradient("dnext_h", dnext_h, cache.h)
    *gradients, dbh = get_backend(backend).gru_step_backward(dnext_h, cache)
    return (*gradients, dbh) if cache.bias else tuple(gradients)


def gru_forward(
    x: np.ndarray,
    h0: np.ndarray,
    Wx: Weights,
    Wh: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    bh: np.ndarray | None = None,
    reset_after: bool = True,
    lengths: np.ndarray | None = None,
    reverse: bool = False,
    index: np.ndarray | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, GRUCache]:
    """All time steps of a GRU; the step is gru_step_forward's.

    Inputs: x (N, T, D), h0 (N, H), Wx (D, 3*H), Wh (H, 3*H), b (3*H,), the gates in the order r, z,
    n; bh (3*H,), zeros where it is None; reset_after, False for the original form; lengths (N,),
    reverse, index.
    Returns: h (N, T, H), cache for gru_backward; cache.hT (N, H) is the last state.
    """
    packed = None
    if type(Wx) is PreparedWeights:
        weights = Wx.alone("gru", Wh, b, bh=bh, reset_after=reset_after)
        bh, reset_after = weights.bh, weights.reset_after
        Wx, Wh, b, packed = weights.arrays
    args = checks.arrays(_GRU[index is not None], x, h0, Wx, Wh, b, bh)
    reset_after = checks.flag("reset_after", reset_after)
    order = checks.order(lengths, reverse, index, args[0], len(args[1]))
    return get_backend(backend).gru_forward(*args, reset_after, *order, packed)


def gru_backward(
    dh: np.ndarray | None,
    cache: GRUCache,
    *,
    dhT: np.ndarray | None = None,
    backend: str | None = None,
) -> Gradients:
    """Back-propagation through time.

    Inputs: dh (N, T, H), the gradient of every h_t from outside the recurrence; cache of
    gru_forward; dhT (N, H), the gradient of cache.hT.
    Returns: dx (N, T, D), dh0 (N, H), dWx (D, 3*H), dWh (H, 3*H), db (3*H,); and dbh (3*H,) where
    bh was given.
    """
    cache = checks.recurrent_cache("gru_forward", GRUCache, _GRU_CACHE, cache)
    _check_candidate(cache)
    dh = checks.optional_gradient("dh", dh, cache.h)
    dhT = checks.optional_gradient("dhT", dhT, cache.hT)
    *gradients, dbh = get_backend(backend).gru_backward(dh, dhT, cache)
    return (*gradients, dbh) if cache.bias else tuple(gradients)


def _check_candidate(cache: GRUCache) -> None:
    if checks.flag("reset_after", cache.reset_after) is (cache.candidate is None):
        wanted = "an array" if cache.reset_after else "None"
        got = "None" if cache.candidate is None else "an array"
        raise ValueError(
            f"candidate: expected {wanted} with reset_after={cache.reset_after}, got {got}"
        )
