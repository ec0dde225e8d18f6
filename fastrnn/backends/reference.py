"""backend="numpy": the specification, in as few lines as the equations.

It is not made fast, it takes what the layers have checked, and it is what every compiled kernel is
tested against. Equations: the course notes on RNN and LSTM captioning, from which the default gate
order i f o g comes; Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000);
the GRU of Cho et al. (2014), and the one of PyTorch and Keras that resets after the product; the
MGU of Zhou et al. (2016), the minGRU and the minLSTM of Feng et al. (2024), the IndRNN of Li et al.
(2018).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastrnn.backends import reference_norm
from fastrnn.backends import reference_options as otherwise
from fastrnn.backends.gates import as_they_lie, by_gate, in_turn, plus, sigmoid
from fastrnn.backends.reference_options import How
from fastrnn.cells import ALL_STEPS, Weights, batch_first, laid_out, steps_taken
from fastrnn.options import below

# ---- the cells -----------------------------------------------------------------------------------


class Equations(NamedTuple):
    """One step of a cell. a is x Wx + b; order, where the gates lie. Of cells with options each
    function has one parameter more, how, and step_backward more results: the gradients of the
    vectors, where there are any, and both sides of a projection's; with layer normalisation see
    reference_norm.

    step(a, states, Wh, bh, order) -> states, saved: after the step, and what else backward needs.
    step_backward(dstates, before, after, saved, Wh, order) -> da, du, dstates: the gradients of a,
    of the product with Wh, and of the states before.
    starts(prev_h, saved, order): what multiplies the column blocks of Wh, as many as there are.
    Wh is what multiplies h, if anything: of an IndRNN a vector.
    """

    step: Callable
    step_backward: Callable
    starts: Callable


def _rnn(a, states, Wh, bh, order):
    (prev_h,) = states
    return [np.tanh(plus(a + prev_h @ Wh, bh))], []


def _rnn_backward(dstates, before, after, saved, Wh, order):
    (dh,), (h,) = dstates, after
    da = dh * (1 - h**2)
    return da, da, [da @ Wh.T]


def _rnn_relu(a, states, Wh, bh, order):
    (prev_h,) = states
    return [np.maximum(plus(a + prev_h @ Wh, bh), 0)], []


def _rnn_relu_backward(dstates, before, after, saved, Wh, order):
    (dh,), (h,) = dstates, after
    da = np.where(h <= 0, 0, dh)
    return da, da, [da @ Wh.T]


def _h_alone(prev_h, saved, order):
    return [prev_h]


def _lstm(a, states, Wh, bh, order):
    prev_h, prev_c = states
    s = by_gate(plus(a + prev_h @ Wh, bh), order)
    s = {gate: np.tanh(z) if gate == "g" else sigmoid(z) for gate, z in s.items()}
    c = s["f"] * prev_c + s["i"] * s["g"]
    return [s["o"] * np.tanh(c), c], [as_they_lie(order, **s)]


def _lstm_backward(dstates, before, after, saved, Wh, order):
    (dh, dc), (_, prev_c), (_, c), (activations,) = dstates, before, after, saved
    i, f, o, g = in_turn(activations, order, "ifog")
    tanh_c = np.tanh(c)
    dc = dc + dh * o * (1 - tanh_c**2)
    da = {
        "i": dc * g * i * (1 - i),
        "f": dc * prev_c * f * (1 - f),
        "o": dh * tanh_c * o * (1 - o),
        "g": dc * i * (1 - g**2),
    }
    da = as_they_lie(order, **da)
    return da, da, [da @ Wh.T, dc * f]


def _rz_and_n(*arrays):
    """Each array's columns of r and z, in one order or the other, and those of n."""
    return [np.split(a, [a.shape[-1] // 3 * 2], axis=-1) for a in arrays]


def _r_and_z(rz, order):
    r, z = np.split(rz, 2, axis=-1)
    return (r, z) if order == "rzn" else (z, r)


def _gru_gates(a, prev_h, Wh, bh, order):
    """a_n, Wh_n and bh_n, and the activated r and z, also as they lie."""
    (a_rz, a_n), (W_rz, W_n) = _rz_and_n(a, Wh)
    b_rz, b_n = (None, None) if bh is None else _rz_and_n(bh)[0]
    rz = sigmoid(plus(a_rz + prev_h @ W_rz, b_rz))
    return a_n, W_n, b_n, *_r_and_z(rz, order), rz


def _gru(a, states, Wh, bh, order):
    (prev_h,) = states
    a_n, W_n, b_n, r, z, rz = _gru_gates(a, prev_h, Wh, bh, order)
    u_n = plus(prev_h @ W_n, b_n)
    n = np.tanh(a_n + r * u_n)
    return [(1 - z) * n + z * prev_h], [np.concatenate([rz, n], axis=1), u_n]


def _gru_original(a, states, Wh, bh, order):
    (prev_h,) = states
    a_n, W_n, b_n, r, z, rz = _gru_gates(a, prev_h, Wh, bh, order)
    n = np.tanh(plus(a_n + (r * prev_h) @ W_n, b_n))
    return [(1 - z) * n + z * prev_h], [np.concatenate([rz, n], axis=1)]


def _gru_backward(dstates, before, after, saved, Wh, order):
    (dh,), (prev_h,), (activations, *u_n) = dstates, before, saved
    ((rz, n),), ((W_rz, W_n),) = _rz_and_n(activations), _rz_and_n(Wh)
    r, z = _r_and_z(rz, order)
    dz = dh * (prev_h - n) * z * (1 - z)
    dn = dh * (1 - z) * (1 - n**2)
    if u_n:
        du_n = dn * r
        dr, dprev_h = dn * u_n[0], du_n @ W_n.T
    else:
        du_n = dn
        dreset = dn @ W_n.T
        dr, dprev_h = dreset * prev_h, dreset * r
    dr = dr * r * (1 - r)
    drz = np.concatenate([dr, dz] if order == "rzn" else [dz, dr], axis=1)
    dprev_h = dprev_h + drz @ W_rz.T + dh * z
    return np.concatenate([drz, dn], axis=1), np.concatenate([drz, du_n], axis=1), [dprev_h]


def _gru_original_starts(prev_h, saved, order):
    ((rz, _),) = _rz_and_n(saved[0])
    return [prev_h, prev_h, _r_and_z(rz, order)[0] * prev_h]


def _mgu(a, states, Wh, bh, order):
    (prev_h,) = states
    (a_f, a_n), (W_f, W_n) = (in_turn(v, order, "fn") for v in (a, Wh))
    f = sigmoid(a_f + prev_h @ W_f)
    n = np.tanh(a_n + (f * prev_h) @ W_n)
    return [(1 - f) * prev_h + f * n], [as_they_lie(order, f=f, n=n)]


def _mgu_backward(dstates, before, after, saved, Wh, order):
    (dh,), (prev_h,) = dstates, before
    (f, n), (W_f, W_n) = (in_turn(v, order, "fn") for v in (saved[0], Wh))
    dn = dh * f * (1 - n**2)
    dkept = dn @ W_n.T  # of f prev_h
    df = (dh * (n - prev_h) + dkept * prev_h) * f * (1 - f)
    da = as_they_lie(order, f=df, n=dn)
    return da, da, [dh * (1 - f) + dkept * f + df @ W_f.T]


def _mgu_starts(prev_h, saved, order):
    f, _ = in_turn(saved[0], order, "fn")
    return [f * prev_h if gate == "n" else prev_h for gate in order]


def _linear(a):
    return a


def _linear_slope(n):
    return np.ones_like(n)


def _positive(a):
    return np.where(a >= 0, a + 0.5, sigmoid(a))


def _positive_slope(n):
    return np.where(n >= 0.5, 1, n * (1 - n))


def _without_product(prev_h, saved, order):
    return []


def _min_gru(g, slope):
    """With n = g(a_n), and the derivative of g by what it is."""

    def step(a, states, Wh, bh, order):
        (prev_h,), (a_z, a_n) = states, in_turn(a, order, "zn")
        z, n = sigmoid(a_z), g(a_n)
        return [(1 - z) * prev_h + z * n], [as_they_lie(order, z=z, n=n)]

    def step_backward(dstates, before, after, saved, Wh, order):
        (dh,), (prev_h,), (z, n) = dstates, before, in_turn(saved[0], order, "zn")
        da = as_they_lie(order, z=dh * (n - prev_h) * z * (1 - z), n=dh * z * slope(n))
        return da, da, [dh * (1 - z)]

    return Equations(step, step_backward, _without_product)


def _parts_of_sum(f, i):
    """f / (f + i) and i / (f + i); halves where both are 0."""
    least = np.finfo(f.dtype).tiny
    total = f + i + 2 * least
    return (f + least) / total, (i + least) / total


def _min_lstm(g, slope):
    """As _min_gru."""

    def step(a, states, Wh, bh, order):
        (prev_h,), (a_f, a_i, a_n) = states, in_turn(a, order, "fin")
        f, i, n = sigmoid(a_f), sigmoid(a_i), g(a_n)
        old, new = _parts_of_sum(f, i)
        return [old * prev_h + new * n], [as_they_lie(order, f=f, i=i, n=n)]

    def step_backward(dstates, before, after, saved, Wh, order):
        (dh,), (prev_h,), (f, i, n) = dstates, before, in_turn(saved[0], order, "fin")
        old, new = _parts_of_sum(f, i)
        d = dh * (prev_h - n) * old * new
        da = as_they_lie(order, f=d * (1 - f), i=-d * (1 - i), n=dh * new * slope(n))
        return da, da, [dh * old]

    return Equations(step, step_backward, _without_product)


def _ind_rnn(a, states, u, bh, order):
    (prev_h,) = states
    return [np.maximum(a + u * prev_h, 0)], []


def _ind_rnn_backward(dstates, before, after, saved, u, order):
    (dh,), (h,) = dstates, after
    da = np.where(h <= 0, 0, dh)
    return da, da, [da * u]


def _ind_rnn_tanh(a, states, u, bh, order):
    (prev_h,) = states
    return [np.tanh(a + u * prev_h)], []


def _ind_rnn_tanh_backward(dstates, before, after, saved, u, order):
    (dh,), (h,) = dstates, after
    da = dh * (1 - h**2)
    return da, da, [da * u]


EQUATIONS = {
    "rnn": Equations(_rnn, _rnn_backward, _h_alone),
    "rnn_relu": Equations(_rnn_relu, _rnn_relu_backward, _h_alone),
    "lstm": Equations(_lstm, _lstm_backward, _h_alone),
    "gru": Equations(_gru, _gru_backward, _h_alone),
    "gru_original": Equations(_gru_original, _gru_backward, _gru_original_starts),
    "mgu": Equations(_mgu, _mgu_backward, _mgu_starts),
    "min_gru": _min_gru(_linear, _linear_slope),
    "min_gru_positive": _min_gru(_positive, _positive_slope),
    "min_lstm": _min_lstm(_linear, _linear_slope),
    "min_lstm_positive": _min_lstm(_positive, _positive_slope),
    "ind_rnn": Equations(_ind_rnn, _ind_rnn_backward, _h_alone),
    "ind_rnn_tanh": Equations(_ind_rnn_tanh, _ind_rnn_tanh_backward, _h_alone),
    "rnn_options": Equations(otherwise.rnn, otherwise.rnn_backward, otherwise.h_alone),
    "lstm_options": Equations(otherwise.lstm, otherwise.lstm_backward, otherwise.h_alone),
    "gru_options": Equations(otherwise.gru, otherwise.gru_backward, otherwise.h_alone),
    "gru_original_options": Equations(
        otherwise.gru_original, otherwise.gru_backward, otherwise.gru_original_starts
    ),
    "lstm_projected": Equations(otherwise.lstm, otherwise.lstm_backward, otherwise.h_alone),
    "lstm_norm": Equations(reference_norm.lstm, reference_norm.lstm_backward, otherwise.h_alone),
    "gru_norm": Equations(reference_norm.gru, reference_norm.gru_backward, otherwise.h_alone),
}


def _how(cell, options, vectors, projection, order, random, biases=()):
    """What the equations get beside their arguments, as a function of the step."""
    if options is None:
        return lambda t: ()
    relu = cell.constants.get("nonlinearity") == "relu"
    how = How(options, {}, projection, relu, random)
    if cell.norm:
        how = how._replace(norm=vectors, biases=biases)
    elif vectors is not None:
        gates = [gate for gate in order if gate in cell.vectors]
        parts = np.split(vectors, len(gates))
        how = how._replace(vectors=dict(zip(gates, parts, strict=True)))
    return lambda t: (how._replace(step=t),)


def _as_columns(W, transposed):
    return W.T if transposed and W is not None else W


def _projection_gradient(left, right, transposed):
    """From both sides of it at all steps."""
    left, right = (a.reshape(-1, a.shape[-1]) for a in (left, right))
    return np.ascontiguousarray(_as_columns(left.T @ right, transposed))


def _of_x(cell, x, Wx, b):
    """What the equations get of x."""
    return x @ Wx if cell.norm else x @ Wx + b


def _term_widths(cell, vectors, G_times_H):
    """Of what step_backward has beside the products, side by side."""
    if not cell.norm:
        return [len(vectors)]
    return [G_times_H] * 2 + [len(a) for a in vectors[:-1] if a is not None]


def _beside_products(cell, weights, vectors, terms):
    """Gradients of Wx, Wh, b, bh and of the vectors, from the products' and these sums of what
    step_backward has beside them."""
    if vectors is None:
        return *weights, None
    if not cell.norm:
        return *weights, terms
    ends = np.cumsum(_term_widths(cell, vectors, len(weights[2])))[:-1]
    db, dbh, *dnorm = np.split(terms, ends)
    return *weights[:2], db, dbh, tuple(dnorm)


def _product_gradients(da, du, x, starts, Wx, Wh, transposed):
    """Gradients of x, Wx, Wh, b, bh from da and du, those of the two products."""
    dx = da @ _as_columns(Wx, transposed).T
    da, du, x, *starts = (a.reshape(-1, a.shape[-1]) for a in (da, du, x, *starts))
    dWx = np.ascontiguousarray(_as_columns(x.T @ da, transposed))
    dWh = None if Wh is None else _recurrent_gradient(du, starts, Wh, transposed)
    return dx, dWx, dWh, da.sum(axis=0), du.sum(axis=0)


def _recurrent_gradient(du, starts, Wh, transposed):
    if Wh.ndim == 1:
        return (starts[0] * du).sum(axis=0)
    blocks = zip(starts, np.split(du, len(starts), axis=1), strict=True)
    dWh = np.concatenate([start.T @ block for start, block in blocks], axis=1)
    return np.ascontiguousarray(_as_columns(dWh, transposed))


# ---- one step ------------------------------------------------------------------------------------


def _cache(cell, x, initial, weights, kept, last, steps):
    fields = weights._asdict() | {
        "x": x,
        cell.recurrent: weights.Wh,
        "bias": weights.bh is not None,
    }
    fields |= steps._asdict() | cell.constants | {cell.vectors_name: weights.vectors}
    fields |= zip(cell.initial_fields, initial, strict=True)
    fields |= zip(cell.kept_fields, kept, strict=True)
    fields |= zip(cell.last_fields, last, strict=True)
    return cell.cache(**{name: fields.get(name) for name in cell.cache._fields})


def _unpacked(cell, args, rest):
    """x, the states before, and the Weights."""
    n = 1 + len(cell.states)
    return args[0], args[1:n], Weights(*args[n : n + 4], *rest, *args[n + 4 :])


def step_forward(cell, args, rest, training):
    """args: x, the states before, Wx, Wh, b, bh; rest: of Weights."""
    x, states, weights = _unpacked(cell, args, rest)
    Wx, Wh, b, bh, order, transposed, _, options, vectors, projection = weights
    Wx, Wh, projection = (_as_columns(W, transposed) for W in (Wx, Wh, projection))
    how = _how(cell, options, vectors, projection, order, training, (b, bh))
    a = _of_x(cell, x, Wx, b)
    after, saved = EQUATIONS[cell.kernel].step(a, states, Wh, bh, order, *how(0))
    if not training:
        return *after, cell.nothing_kept
    last = [None] * len(after)
    return *after, _cache(cell, x, states, weights, (*after, *saved), last, ALL_STEPS)


def _beside(cell, cache):
    """The vectors, and the projection (H, P), or None."""
    vectors = getattr(cache, cell.vectors_name, None)
    projection = cache.projection if cell.projection else None
    return vectors, _as_columns(projection, cache.transposed)


def step_backward(cell, dstates, cache):
    equations, order = EQUATIONS[cell.kernel], cell.order_of(cache)
    before, saved = cell.initial_states(cache), cell.kept_beside(cache)
    Wh = _as_columns(cell.recurrent_of(cache), cache.transposed)
    vectors, projection = _beside(cell, cache)
    how = _how(cell, cell.options_of(cache), vectors, projection, order, True)(0)
    da, du, dbefore, *beside = equations.step_backward(
        dstates, before, cell.kept_states(cache), saved, Wh, order, *how
    )
    starts = equations.starts(before[0], saved, order, *how)
    dx, *weights = _product_gradients(da, du, cache.x, starts, cache.Wx, Wh, cache.transposed)
    terms = None if vectors is None else beside[0].sum(axis=0)
    dprojection = None
    if projection is not None:
        dprojection = _projection_gradient(*beside[1:], cache.transposed)
    return dx, dbefore, *_beside_products(cell, weights, vectors, terms), dprojection


# ---- all steps -----------------------------------------------------------------------------------


def _in_order(a, lengths, reverse):
    """(N, T, ...) with the steps of each row in the order they are taken, and zeros past its
    length, whatever was there. It is its own inverse."""
    if lengths is None or not len(a):
        return np.ascontiguousarray(a[:, ::-1]) if reverse else a
    t, end = np.arange(a.shape[1]), lengths[:, None]
    if reverse:
        a = np.take_along_axis(a, np.where(t < end, end - 1 - t, t)[..., None], axis=1)
    return np.where((t < end)[..., None], a, 0)


def _times(a):
    """Of a (N, T, ...): without rows none, however large T is."""
    return range(a.shape[1] if len(a) else 0)


def _resets_in_order(reset, lengths, reverse):
    return None if reset is None else _in_order(reset[..., None], lengths, reverse) != 0


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


def _flat(gradients):
    """Those of a LayerNorm, a tuple, one by one."""
    return [a for d in gradients for a in (d if isinstance(d, tuple) else (d,))]


def _or_zeros(a, like):
    return np.zeros_like(like) if a is None else a


def _widths(cell, H, projection):
    """Those of the states."""
    sizes = {"H": H, "P": H if projection is None else projection.shape[1]}
    return [sizes[axis] for axis in cell.state_axes]


def _all_or_zeros(states, widths, N, dtype):
    pairs = zip(states, widths, strict=True)
    return [np.zeros((N, width), dtype) if a is None else a for a, width in pairs]


def _starts_of(initial, reset_to):
    """From what the states start anew."""
    return initial if reset_to == "initial" else [np.zeros_like(state) for state in initial]


def _inputs(x, index, lengths):
    """x (N, T, D), which with an index lies in the rows of x (U, D); then 0 past the lengths."""
    if index is None:
        return x
    taken = steps_taken(index.shape, lengths)
    inputs = np.zeros((*index.shape, x.shape[1]), x.dtype)
    inputs[taken] = x[index[taken]]
    return inputs


def forward(cell, args, rest, steps, training, return_sequence):
    x, initial, weights = _unpacked(cell, args, rest)
    Wx, Wh, b, bh, order, transposed, _, options, vectors, projection = weights
    Wx, Wh, projection = (_as_columns(W, transposed) for W in (Wx, Wh, projection))
    how = _how(cell, options, vectors, projection, order, training, (b, bh))
    time = steps.lengths, steps.reverse
    x_in_order = _in_order(_inputs(batch_first(x, steps), steps.index, steps.lengths), *time)
    a = _of_x(cell, x_in_order, Wx, b)
    reset = _resets_in_order(batch_first(steps.reset, steps), *time)
    shape, H = a.shape[:2], len(b) // len(cell.gates)
    widths = _widths(cell, H, projection)
    first = _all_or_zeros(initial, widths, len(a), a.dtype)
    anew = _starts_of(first, steps.reset_to)
    kept = [np.empty((*shape, width), a.dtype) for width in widths[: None if training else 1]]
    saved = [np.empty((*shape, n * H), a.dtype) for n in cell.saved.values() if training]

    def step(t, *states):
        if reset is not None:
            states = [
                np.where(reset[:, t], s, state) for s, state in zip(anew, states, strict=True)
            ]
        after, beside = EQUATIONS[cell.kernel].step(a[:, t], states, Wh, bh, order, *how(t))
        values = *after[: len(kept)], *beside[: len(saved)]
        for array, value in zip((*kept, *saved), values, strict=True):
            array[:, t] = value
        return after

    last = tuple(_scan(step, first, _times(a), steps.lengths))
    kept, saved = (
        [laid_out(_in_order(v, *time), steps) for v in arrays] for arrays in (kept, saved)
    )
    h = kept[0] if return_sequence else last[0]
    if not training:
        return h, cell.only_last(last)
    return h, _cache(cell, x, initial, weights, (*kept, *saved), last, steps)


def _before(states, first, reset, anew):
    """The states (N, T, H) from which the steps start, where `states` are those they lead to."""
    T = states.shape[1]
    before = np.concatenate([first[:, None], states[:, :-1]], axis=1)[:, :T]
    return before if reset is None else np.where(reset, anew[:, None], before)


def backward(cell, dh, dlast, cache, onto=None):
    equations, order, transposed = EQUATIONS[cell.kernel], cell.order_of(cache), cache.transposed
    time = cache.lengths, cache.reverse
    Wh = _as_columns(cell.recurrent_of(cache), transposed)
    reset = _resets_in_order(batch_first(cache.reset, cache), *time)
    dh = _in_order(batch_first(_or_zeros(dh, cache.h), cache), *time)
    after, saved = (
        [_in_order(batch_first(v, cache), *time) for v in arrays]
        for arrays in (cell.kept_states(cache), cell.kept_beside(cache))
    )
    vectors, projection = _beside(cell, cache)
    H = cache.Wx.shape[0 if transposed else 1] // len(cell.gates)
    widths = _widths(cell, H, projection)
    first = _all_or_zeros(cell.initial_states(cache), widths, len(dh), dh.dtype)
    anew = _starts_of(first, cache.reset_to)
    before = [_before(*v, reset, s) for *v, s in zip(after, first, anew, strict=True)]
    columns = len(cell.gates) * H
    da, du = (np.empty((*dh.shape[:2], columns), dh.dtype) for _ in "au")
    dinitial = [np.zeros_like(state) for state in first]
    how = _how(cell, cell.options_of(cache), vectors, projection, order, True)
    width = 0 if vectors is None else sum(_term_widths(cell, vectors, columns))
    terms = np.zeros((*dh.shape[:2], width), dh.dtype)
    sides = [] if projection is None else [np.zeros_like(a) for a in (after[1], dh)]

    def step(t, dnext_h, *others):
        at = ([v[:, t] for v in arrays] for arrays in (before, after, saved))
        dstates = [dh[:, t] + dnext_h, *others]
        found = equations.step_backward(dstates, *at, Wh, order, *how(t))
        da[:, t], du[:, t], dbefore, *beside = found
        if vectors is not None:
            terms[:, t] = beside[0]
        for side, value in zip(sides, beside[1:], strict=bool(sides)):
            side[:, t] = value
        if reset is None:
            return dbefore
        for d, into in zip(dbefore, dinitial, strict=True):
            into += np.where(reset[:, t], d, 0)
        return [np.where(reset[:, t], 0, d) for d in dbefore]

    last = _all_or_zeros(dlast, widths, len(dh), dh.dtype)
    back_to_first = _scan(step, last, reversed(_times(dh)), cache.lengths)
    if cache.reset_to != "initial":
        dinitial = back_to_first
    else:
        dinitial = [a + b for a, b in zip(dinitial, back_to_first, strict=True)]

    x = batch_first(cache.x, cache)
    x = _in_order(_inputs(x, cache.index, cache.lengths), *time)
    starts = equations.starts(before[0], saved, order, *how(0))
    da, du, *starts = (_in_order(a, cache.lengths, False) for a in (da, du, *starts))
    dx, *weights = _product_gradients(da, du, x, starts, cache.Wx, Wh, transposed)
    dx = laid_out(_in_order(dx, *time), cache)
    if cache.index is not None:
        taken = steps_taken(cache.index.shape, cache.lengths)
        dx = word_embedding_backward(dx[taken], cache.index[taken], None, False, len(cache.x))
    terms = _in_order(terms, cache.lengths, False).sum(axis=(0, 1))
    *weights, dbh, dvectors = _beside_products(cell, weights, vectors, terms)
    dprojection = None
    if projection is not None:
        sides = (_in_order(side, cache.lengths, False) for side in sides)
        dprojection = _projection_gradient(*sides, transposed)
    dbh = dbh if getattr(cache, "bias", False) else None  # one gradient of one bias
    weights = *weights, dbh, dvectors, dprojection
    if onto is not None:
        for into, d in zip(_flat(onto), _flat(weights), strict=True):
            if into is not None:
                into += d
        weights = onto
    return dx, dinitial, *weights


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
        scaled = weight * x.dtype.type(scale)
        dx = np.exp(shifted - log_sum) * scaled[:, None]
        dx[rows, y] -= scaled
    loss = losses.sum(where=weight != 0, dtype=np.float64)
    dx[weight == 0] = 0
    return scale * float(loss), dx


# ---- attention -----------------------------------------------------------------------------------


def attention_forward(query, keys, values, w, index):
    """Additive with w (Bahdanau et al. 2015), else by scaled dot products (Vaswani et al. 2017)."""
    _, keys, values = _looked_at(query, keys, values, index)
    if w is not None:
        scores = np.tanh(keys + query[:, None]) @ w
    else:
        scores = np.einsum("nla,na->nl", keys, query) * _dot_scale(query)
    with np.errstate(invalid="ignore"):
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights = e / e.sum(axis=1, keepdims=True)
    return np.einsum("nl,nld->nd", weights, values), weights


def attention_backward(dcontext, dweights, query, keys, values, w, index, weights, dkeys, dvalues):
    """dquery, and dw or None; dkeys, and dvalues unless it is None, gain theirs in place."""
    at, keys, values = _looked_at(query, keys, values, index)
    dweights = np.einsum("nd,nld->nl", dcontext, values) + (0 if dweights is None else dweights)
    if dvalues is not None:
        np.add.at(dvalues, at, weights[:, :, None] * dcontext[:, None])
    dscores = weights * (dweights - (weights * dweights).sum(axis=1, keepdims=True))
    if w is None:
        scaled = dscores * _dot_scale(query)
        np.add.at(dkeys, at, scaled[:, :, None] * query[:, None])
        return np.einsum("nl,nla->na", scaled, keys), None
    t = np.tanh(keys + query[:, None])
    da = dscores[:, :, None] * w * (1 - t**2)
    np.add.at(dkeys, at, da)
    return da.sum(axis=1), np.einsum("nl,nla->a", dscores, t)


def _looked_at(query, keys, values, index):
    """Which each query looks at, its keys and its values."""
    at = np.arange(len(query)) if index is None else index
    return at, keys[at], values[at]


def _dot_scale(query):
    return query.dtype.type(query.shape[1] ** -0.5)


# ---- dropout -------------------------------------------------------------------------------------


def drop(a, seed, kind, first_row, p, out):
    """a (rows, repeats, columns) but for what is dropped with probability p, alike in all repeats,
    into out."""
    rows, _, columns = a.shape
    dropped = below(seed, kind, p, range(first_row, first_row + rows), columns)
    out[...] = np.where(dropped[:, None], 0, a * a.dtype.type(1 / (1 - p)))


# ---- update rules --------------------------------------------------------------------------------
# What follows w and the arrays of the state, of the rows that dw is of.


def _decayed(c, w):
    return (1 - c["learning_rate"] * c["weight_decay"]) * w


def _sgd(c, w, dw):
    return (_decayed(c, w) - c["learning_rate"] * dw,)


def _sgd_momentum(c, w, dw, v):
    v = c["momentum"] * v - c["learning_rate"] * dw
    return _decayed(c, w) + v, v


def _rmsprop(c, w, dw, cache):
    cache = c["decay_rate"] * cache + (1 - c["decay_rate"]) * dw**2
    return _decayed(c, w) - c["learning_rate"] * dw / (np.sqrt(cache) + c["epsilon"]), cache


def _adam(c, w, dw, m, v):
    beta1, beta2, t = c["beta1"], c["beta2"], c["t"]
    m = beta1 * m + (1 - beta1) * dw
    v = beta2 * v + (1 - beta2) * dw**2
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    step = c["learning_rate"] * m_hat / (np.sqrt(v_hat) + c["epsilon"])
    return _decayed(c, w) - step, m, v


_RULES = {"sgd": _sgd, "sgd_momentum": _sgd_momentum, "rmsprop": _rmsprop, "adam": _adam}


def update(rule, w, dw, config, state, out, at=...):
    """out, which may be w, and the arrays of the state receive what follows; at: all, or the rows
    that dw is of."""
    after = _RULES[rule.name](config, w[at], dw, *(a[at] for a in state))
    for array, new in zip((out, *state), after, strict=True):
        array[at] = new
