"""backend="numpy": the specification, in as few lines as the equations.

It is not made fast, it takes what the layers have checked, and it is what every compiled kernel is
tested against. Equations: the course notes on RNN and LSTM captioning, from which the default gate
order i f o g comes; Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000);
the GRU of Cho et al. (2014), and the one of PyTorch and Keras that resets after the product.
"""

import numpy as np

from fastrnn.backends.caches import GRUCache, LSTMCache, RNNCache


def sigmoid(x):
    """1 / (1 + exp(-x)) without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


# ---- time ----------------------------------------------------------------------------------------


def _in_order(a, lengths, reverse):
    """(N, T, ...) with the steps of each row in the order they are taken, and zeros past its
    length, whatever was there. It is its own inverse."""
    if lengths is None:
        return np.ascontiguousarray(a[:, ::-1]) if reverse else a
    t, end = np.arange(a.shape[1]), lengths[:, None]
    if reverse:
        a = np.take_along_axis(a, np.where(t < end, end - 1 - t, t)[..., None], axis=1)
    return np.where((t < end)[..., None], a, 0)


def _scan(step, states, times, lengths):
    """What step(t, *states) makes of the states over all times; past its length a row keeps its
    own."""
    for t in times:
        after = step(t, *states)
        if lengths is not None:
            within = (t < lengths)[:, None]
            after = [np.where(within, new, old) for new, old in zip(after, states, strict=True)]
        states = after
    return [state.copy() for state in states]


def _backward_in_time(dh):
    return reversed(range(dh.shape[1]))


def _before(states, first):
    """The states (N, T, H) from which the steps start, where `states` are those they lead to."""
    return np.concatenate([first[:, None], states], axis=1)[:, :-1]


def _or_zeros(a, like):
    return np.zeros_like(like) if a is None else a


def _inputs(x, index):
    """x (N, T, D), which with an index lies in the rows of x (U, D)."""
    return x if index is None else x[index]


# ---- the two products of a cell: x Wx + b and h_{t-1} Wh + bh ------------------------------------


def _product_gradients(da, du, x, starts, Wx):
    """Gradients of (x, Wx, Wh, b, bh) from da and du, those of the two products. The column blocks
    of Wh, as many as starts, multiply one of starts each."""
    dx = da @ Wx.T
    da, du, x, *starts = (a.reshape(-1, a.shape[-1]) for a in (da, du, x, *starts))
    blocks = zip(starts, np.split(du, len(starts), axis=1), strict=True)
    dWh = np.concatenate([start.T @ block for start, block in blocks], axis=1)
    return dx, x.T @ da, dWh, da.sum(axis=0), du.sum(axis=0)


def _sequence_gradients(da, du, starts, cache):
    """The same for all steps; da, du and starts have them in the order they are taken."""
    x = _in_order(_inputs(cache.x, cache.index), cache.lengths, cache.reverse)
    da, du, *starts = (_in_order(a, cache.lengths, False) for a in (da, du, *starts))
    dx, *others = _product_gradients(da, du, x, starts, cache.Wx)
    dx = _in_order(dx, cache.lengths, cache.reverse)
    if cache.index is not None:
        dx = word_embedding_backward(
            dx.reshape(-1, dx.shape[2]), cache.index.reshape(-1), None, False, len(cache.x)
        )
    return dx, *others


# ---- vanilla RNN ---------------------------------------------------------------------------------


def _rnn_cell(a, prev_h, Wh):
    return np.tanh(a + prev_h @ Wh)


def _rnn_cell_backward(dh, h, Wh):
    """Gradient of h_t to those of a and of h_{t-1}."""
    da = dh * (1 - h**2)
    return da, da @ Wh.T


def rnn_step_forward(x, prev_h, Wx, Wh, b, packed=None):
    next_h = _rnn_cell(x @ Wx + b, prev_h, Wh)
    return next_h, RNNCache(x, prev_h, Wx, Wh, next_h)


def rnn_step_backward(dnext_h, cache):
    da, dprev_h = _rnn_cell_backward(dnext_h, cache.h, cache.Wh)
    dx, *weights, _ = _product_gradients(da, da, cache.x, [cache.h0], cache.Wx)
    return dx, dprev_h, *weights


def rnn_forward(x, h0, Wx, Wh, b, lengths, reverse, index, packed=None):
    a = _in_order(_inputs(x, index), lengths, reverse) @ Wx + b
    h = np.empty_like(a)

    def step(t, prev_h):
        h[:, t] = _rnn_cell(a[:, t], prev_h, Wh)
        return [h[:, t]]

    (hT,) = _scan(step, [h0], range(a.shape[1]), lengths)
    h = _in_order(h, lengths, reverse)
    return h, RNNCache(x, h0, Wx, Wh, h, hT, lengths, reverse, index)


def rnn_backward(dh, dhT, cache):
    dh = _or_zeros(dh, cache.h)
    dh, h = (_in_order(a, cache.lengths, cache.reverse) for a in (dh, cache.h))
    da = np.empty_like(h)

    def step(t, dnext_h):
        da[:, t], dprev_h = _rnn_cell_backward(dh[:, t] + dnext_h, h[:, t], cache.Wh)
        return [dprev_h]

    (dh0,) = _scan(step, [_or_zeros(dhT, cache.h0)], _backward_in_time(dh), cache.lengths)
    dx, *weights, _ = _sequence_gradients(da, da, [_before(h, cache.h0)], cache)
    return dx, dh0, *weights


# ---- LSTM ----------------------------------------------------------------------------------------


def _lstm_cell(a, prev_h, prev_c, Wh, gates):
    """h_t, c_t and the activated gates."""
    s = dict(zip(gates, np.split(a + prev_h @ Wh, 4, axis=1), strict=True))
    s = {gate: np.tanh(z) if gate == "g" else sigmoid(z) for gate, z in s.items()}
    c = s["f"] * prev_c + s["i"] * s["g"]
    return s["o"] * np.tanh(c), c, np.concatenate(list(s.values()), axis=1)


def _lstm_cell_backward(dh, dc, prev_c, c, activations, Wh, gates):
    """Gradients of h_t and c_t to those of a, of h_{t-1} and of c_{t-1}."""
    s = dict(zip(gates, np.split(activations, 4, axis=1), strict=True))
    i, f, o, g = (s[gate] for gate in "ifog")
    tanh_c = np.tanh(c)
    dc = dc + dh * o * (1 - tanh_c**2)
    da = {
        "i": dc * g * i * (1 - i),
        "f": dc * prev_c * f * (1 - f),
        "o": dh * tanh_c * o * (1 - o),
        "g": dc * i * (1 - g**2),
    }
    da = np.concatenate([da[gate] for gate in gates], axis=1)
    return da, da @ Wh.T, dc * f


def lstm_step_forward(x, prev_h, prev_c, Wx, Wh, b, gates, packed=None):
    next_h, next_c, activations = _lstm_cell(x @ Wx + b, prev_h, prev_c, Wh, gates)
    cache = LSTMCache(x, prev_h, prev_c, Wx, Wh, next_h, next_c, activations, gates)
    return next_h, next_c, cache


def lstm_step_backward(dnext_h, dnext_c, cache):
    da, dprev_h, dprev_c = _lstm_cell_backward(
        dnext_h, dnext_c, cache.c0, cache.c, cache.activations, cache.Wh, cache.gates
    )
    dx, *weights, _ = _product_gradients(da, da, cache.x, [cache.h0], cache.Wx)
    return dx, dprev_h, dprev_c, *weights


def lstm_forward(x, h0, c0, Wx, Wh, b, gates, lengths, reverse, index, packed=None):
    a = _in_order(_inputs(x, index), lengths, reverse) @ Wx + b
    h = np.empty((*a.shape[:2], len(Wh)), x.dtype)
    c = np.empty_like(h)

    def step(t, prev_h, prev_c):
        h[:, t], c[:, t], a[:, t] = _lstm_cell(a[:, t], prev_h, prev_c, Wh, gates)
        return h[:, t], c[:, t]

    hT, cT = _scan(step, [h0, _or_zeros(c0, h0)], range(a.shape[1]), lengths)
    h, c, activations = (_in_order(v, lengths, reverse) for v in (h, c, a))
    order = lengths, reverse, index
    return h, LSTMCache(x, h0, c0, Wx, Wh, h, c, activations, gates, hT, cT, *order)


def lstm_backward(dh, dhT, dcT, cache):
    in_time = _or_zeros(dh, cache.h), cache.h, cache.c, cache.activations
    dh, h, c, activations = (_in_order(v, cache.lengths, cache.reverse) for v in in_time)
    prev_c = _before(c, _or_zeros(cache.c0, cache.h0))
    da = np.empty_like(activations)

    def step(t, dnext_h, dc):
        dh_t = dh[:, t] + dnext_h
        da[:, t], dprev_h, dprev_c = _lstm_cell_backward(
            dh_t, dc, prev_c[:, t], c[:, t], activations[:, t], cache.Wh, cache.gates
        )
        return dprev_h, dprev_c

    last = [_or_zeros(d, cache.h0) for d in (dhT, dcT)]
    dh0, dc0 = _scan(step, last, _backward_in_time(dh), cache.lengths)
    dx, *weights, _ = _sequence_gradients(da, da, [_before(h, cache.h0)], cache)
    return dx, dh0, dc0, *weights


# ---- GRU -----------------------------------------------------------------------------------------


def _rz_and_n(*arrays):
    """Each array's columns of r and z, and those of n."""
    return [np.split(a, [a.shape[-1] // 3 * 2], axis=-1) for a in arrays]


def _gru_cell(a, prev_h, Wh, bh, reset_after):
    """h_t, the activated gates and, where r resets after the product, that product."""
    (a_rz, a_n), (W_rz, W_n), (b_rz, b_n) = _rz_and_n(a, Wh, bh)
    r, z = np.split(sigmoid(a_rz + prev_h @ W_rz + b_rz), 2, axis=1)
    if reset_after:
        candidate = prev_h @ W_n + b_n
        n = np.tanh(a_n + r * candidate)
    else:
        candidate = None
        n = np.tanh(a_n + (r * prev_h) @ W_n + b_n)
    return (1 - z) * n + z * prev_h, np.concatenate([r, z, n], axis=1), candidate


def _gru_cell_backward(dh, prev_h, activations, candidate, Wh):
    """Gradient of h_t to those of a, of the product with Wh and of h_{t-1}."""
    r, z, n = np.split(activations, 3, axis=1)
    ((W_rz, W_n),) = _rz_and_n(Wh)
    dz = dh * (prev_h - n) * z * (1 - z)
    dn = dh * (1 - z) * (1 - n**2)
    if candidate is None:
        du_n = dn
        dreset = dn @ W_n.T
        dr, dprev_h = dreset * prev_h, dreset * r
    else:
        du_n = dn * r
        dr, dprev_h = dn * candidate, du_n @ W_n.T
    rz = np.concatenate([dr * r * (1 - r), dz], axis=1)
    dprev_h = dprev_h + rz @ W_rz.T + dh * z
    return np.concatenate([rz, dn], axis=1), np.concatenate([rz, du_n], axis=1), dprev_h


def _gru_starts(prev_h, activations, reset_after):
    r, _, _ = np.split(activations, 3, axis=-1)
    return [prev_h] if reset_after else [prev_h, prev_h, r * prev_h]


def gru_step_forward(x, prev_h, Wx, Wh, b, bh, reset_after, packed=None):
    next_h, *saved = _gru_cell(x @ Wx + b, prev_h, Wh, _or_zeros(bh, b), reset_after)
    return next_h, GRUCache(x, prev_h, Wx, Wh, next_h, *saved, bh is not None, reset_after)


def gru_step_backward(dnext_h, cache):
    x, prev_h, Wx, Wh, _, activations, candidate, _, reset_after, *_ = cache
    da, du, dprev_h = _gru_cell_backward(dnext_h, prev_h, activations, candidate, Wh)
    starts = _gru_starts(prev_h, activations, reset_after)
    dx, *weights = _product_gradients(da, du, x, starts, Wx)
    return dx, dprev_h, *weights


def gru_forward(x, h0, Wx, Wh, b, bh, reset_after, lengths, reverse, index, packed=None):
    a = _in_order(_inputs(x, index), lengths, reverse) @ Wx + b
    h = np.empty((*a.shape[:2], len(Wh)), x.dtype)
    candidate = np.empty_like(h) if reset_after else None
    bh_or_zeros = _or_zeros(bh, b)

    def step(t, prev_h):
        h[:, t], a[:, t], product = _gru_cell(a[:, t], prev_h, Wh, bh_or_zeros, reset_after)
        if reset_after:
            candidate[:, t] = product
        return [h[:, t]]

    (hT,) = _scan(step, [h0], range(a.shape[1]), lengths)
    h, activations = (_in_order(v, lengths, reverse) for v in (h, a))
    candidate = _in_order(candidate, lengths, reverse) if reset_after else None
    saved = activations, candidate, bh is not None, reset_after
    return h, GRUCache(x, h0, Wx, Wh, h, *saved, hT, lengths, reverse, index)


def gru_backward(dh, dhT, cache):
    order = cache.lengths, cache.reverse
    in_time = _or_zeros(dh, cache.h), cache.h, cache.activations
    dh, h, activations = (_in_order(v, *order) for v in in_time)
    candidate = _in_order(cache.candidate, *order) if cache.reset_after else None
    prev_h = _before(h, cache.h0)
    da, du = np.empty_like(activations), np.empty_like(activations)

    def step(t, dnext_h):
        state = prev_h[:, t], activations[:, t], candidate[:, t] if cache.reset_after else None
        da[:, t], du[:, t], dprev_h = _gru_cell_backward(dh[:, t] + dnext_h, *state, cache.Wh)
        return [dprev_h]

    (dh0,) = _scan(step, [_or_zeros(dhT, cache.h0)], _backward_in_time(dh), cache.lengths)
    starts = _gru_starts(prev_h, activations, cache.reset_after)
    dx, *weights = _sequence_gradients(da, du, starts, cache)
    return dx, dh0, *weights


# ---- prepared weights ----------------------------------------------------------------------------


def prepare(cell, Wx, Wh, b, bh, gates, reset_after):
    """Nothing: here weights are read as they lie."""


def stream(weights, h, c=None):
    """step(x, out) of the states h and c, which it changes; None where x or out is not what it has
    to be."""
    Wx, Wh, b, bh = weights.Wx, weights.Wh, weights.b, weights.bh
    x_shape = len(h), len(Wx)

    def fits(a, shape):
        return type(a) is np.ndarray and (a.shape, a.dtype) == (shape, h.dtype)

    def step(x, out):
        if not fits(x, x_shape):
            return None
        if out is not None and not (fits(out, h.shape) and out.flags.carray):
            return None
        if weights.cell == "rnn":
            h[...], _ = rnn_step_forward(x, h, Wx, Wh, b)
        elif weights.cell == "lstm":
            h[...], c[...], _ = lstm_step_forward(x, h, c, Wx, Wh, b, weights.gates)
        else:
            h[...], _ = gru_step_forward(x, h, Wx, Wh, b, bh, weights.reset_after)
        out = np.empty_like(h) if out is None else out
        out[...] = h
        return out

    return step


# ---- layers of rows: x (M, D), dout (M, columns) -------------------------------------------------


def _bags(x, first, mean, dtype):
    """The bag of every word of x, and what the word counts in it."""
    if first is None:
        return np.arange(len(x)), np.ones((len(x), 1), dtype)
    lengths = np.diff(first)
    weight = 1 / lengths[lengths > 0] if mean else np.ones(np.count_nonzero(lengths))
    weight = np.repeat(weight, lengths[lengths > 0]).astype(dtype)
    return np.repeat(np.arange(len(lengths)), lengths), weight[:, None]


def word_embedding_forward(x, first, mean, W):
    bag, weight = _bags(x, first, mean, W.dtype)
    out = np.zeros((len(x) if first is None else len(first) - 1, W.shape[1]), W.dtype)
    np.add.at(out, bag, weight * W[x])
    return out


def word_embedding_backward(dout, x, first, mean, V):
    bag, weight = _bags(x, first, mean, dout.dtype)
    dW = np.zeros((V, dout.shape[1]), dout.dtype)
    np.add.at(dW, x, weight * dout[bag])
    return dW


def distinct(x):
    """The different elements of x by first occurrence, and the place of each of x among them."""
    _, first, inverse = np.unique(x, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return x[first[order]], np.argsort(order)[inverse]


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


# ---- update rules --------------------------------------------------------------------------------
# out may be w; the state in config is changed in place; at: all, or the rows that dw is of.


def _decayed(w, config, at):
    return (1 - config["learning_rate"] * config["weight_decay"]) * w[at]


def sgd(w, dw, config, out, at=...):
    out[at] = _decayed(w, config, at) - config["learning_rate"] * dw


def sgd_momentum(w, dw, config, out, at=...):
    v = config["velocity"]
    v[at] = config["momentum"] * v[at] - config["learning_rate"] * dw
    out[at] = _decayed(w, config, at) + v[at]


def rmsprop(w, dw, config, out, at=...):
    cache, decay, rate = config["cache"], config["decay_rate"], config["learning_rate"]
    cache[at] = decay * cache[at] + (1 - decay) * dw**2
    out[at] = _decayed(w, config, at) - rate * dw / (np.sqrt(cache[at]) + config["epsilon"])


def adam(w, dw, config, out, at=...):
    m, v, t, rate = config["m"], config["v"], config["t"], config["learning_rate"]
    beta1, beta2 = config["beta1"], config["beta2"]
    m[at] = beta1 * m[at] + (1 - beta1) * dw
    v[at] = beta2 * v[at] + (1 - beta2) * dw**2
    m_hat, v_hat = m[at] / (1 - beta1**t), v[at] / (1 - beta2**t)
    out[at] = _decayed(w, config, at) - rate * m_hat / (np.sqrt(v_hat) + config["epsilon"])
