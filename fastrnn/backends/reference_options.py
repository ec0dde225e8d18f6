"""The equations of reference.py's cells with options: in each, how says what is done otherwise."""

from typing import NamedTuple

import numpy as np

from fastrnn.backends.gates import as_they_lie, by_gate, in_turn, plus, sigmoid
from fastrnn.options import (
    DROPOUT_CANDIDATE,
    DROPOUT_H,
    ZONEOUT_C,
    ZONEOUT_H,
    LayerNorm,
    Options,
    below,
)


class How(NamedTuple):
    """The options of one step."""

    options: Options
    vectors: dict[str, np.ndarray]  # (H,) by gate; none: zeros
    projection: np.ndarray | None  # (H, P)
    relu: bool
    random: bool  # masks are drawn
    step: int = 0
    norm: LayerNorm | None = None
    biases: tuple[np.ndarray | None, ...] = ()  # b and bh, of a step forward with norm

    def _below(self, kind, p, v):
        step = 0 if kind == DROPOUT_H else self.options.first_step + self.step
        return below(self.options.seed, kind, p, range(len(v)), v.shape[-1], step)

    def _drop(self, kind, p, v):
        if not self.random or p == 0:
            return v
        dropped = self._below(kind, p, v)
        if v.ndim == 3:  # at all steps
            dropped = dropped[:, None]
        return np.where(dropped, 0, v * v.dtype.type(1 / (1 - p)))

    def dropped_h(self, h):
        """What of h reaches Wh; backward, what of its gradient comes back."""
        return self._drop(DROPOUT_H, self.options.dropout_h, h)

    def dropped_candidate(self, candidate):
        return self._drop(DROPOUT_CANDIDATE, self.options.dropout_candidate, candidate)

    def _zoneout(self, s):
        o = self.options
        return (ZONEOUT_H, o.zoneout_h) if s == 0 else (ZONEOUT_C, o.zoneout_c)

    def zoneout(self, s, before, after):
        kind, p = self._zoneout(s)
        if p == 0:
            return after
        if self.random:
            return np.where(self._below(kind, p, after), before, after)
        return before.dtype.type(p) * before + before.dtype.type(1 - p) * after

    def zoneout_gradient(self, s, d):
        """Gradients of what formulas made of a state, and of what stays of the one before."""
        kind, p = self._zoneout(s)
        stays = self._below(kind, p, d) if p else np.zeros(d.shape, bool)
        return np.where(stays, 0, d), np.where(stays, d, 0)

    def times(self, gate, v):
        """What a gate gets of a state by its vector."""
        return v * self.vectors[gate] if self.vectors else np.zeros_like(v)

    def projected(self, h):
        return h if self.projection is None else h @ self.projection

    def unprojected(self, dh):
        """The gradient of what was projected."""
        return dh if self.projection is None else dh @ self.projection.T

    def _clipped(self, a):
        clip = self.options.clip
        return a if clip is None else np.clip(a, -clip, clip)

    def gate(self, a):
        a, slope = self._clipped(a), self.options.hard_sigmoid
        return sigmoid(a) if slope is None else np.clip(a.dtype.type(slope) * a + 0.5, 0, 1)

    def candidate(self, a):
        return np.tanh(self._clipped(a))

    def nonlinearity(self, a):
        """Of a vanilla RNN."""
        if not self.relu:
            return self.candidate(a)
        a, cap = np.maximum(self._clipped(a), 0), self.options.cap
        return a if cap is None else np.minimum(a, cap)

    def _gradient(self, activation, d, y):
        """d but where y is a value at a clip, then clipped itself."""
        clip, most = self.options.clip, self.options.clip_gradient
        if clip is not None:
            low, high = activation(np.array([-clip, clip], y.dtype))
            rounding = 8 * np.finfo(y.dtype).eps
            d = np.where((y <= low + rounding) | (y >= high - rounding), 0, d)
        return d if most is None else np.clip(d, -most, most)

    def gate_gradient(self, d, y):
        slope = self.options.hard_sigmoid
        inside = y * (1 - y)
        if slope is not None:
            inside = np.where((y > 0) & (y < 1), y.dtype.type(slope), 0)
        return self._gradient(self.gate, d * inside, y)

    def candidate_gradient(self, d, y):
        return self._gradient(self.candidate, d * (1 - y**2), y)

    def nonlinearity_gradient(self, d, y):
        if not self.relu:
            return self.candidate_gradient(d, y)
        most = self.options.clip_gradient
        d = np.where((y <= 0) | (y >= self.nonlinearity(y.dtype.type(np.inf))), 0, d)
        return d if most is None else np.clip(d, -most, most)


def rnn(a, states, Wh, bh, order, how):
    (prev_h,) = states
    y = how.nonlinearity(plus(a + how.dropped_h(prev_h) @ Wh, bh))
    return [how.zoneout(0, prev_h, y)], [y]


def rnn_backward(dstates, before, after, saved, Wh, order, how):
    (dh,), (y,) = dstates, saved
    dy, dprev_h = how.zoneout_gradient(0, dh)
    da = how.nonlinearity_gradient(dy, y)
    return da, da, [dprev_h + how.dropped_h(da @ Wh.T)]


def h_alone(prev_h, saved, order, how):
    return [how.dropped_h(prev_h)]


def lstm(a, states, Wh, bh, order, how):
    prev_h, prev_c = states
    a = by_gate(plus(a + how.dropped_h(prev_h) @ Wh, bh), order)
    i, f = (how.gate(a[gate] + how.times(gate, prev_c)) for gate in "if")
    g = how.candidate(a["g"])
    c = f * prev_c + i * how.dropped_candidate(g)
    o = how.gate(a["o"] + how.times("o", c))
    h = how.projected(o * np.tanh(c))
    after = [how.zoneout(0, prev_h, h), how.zoneout(1, prev_c, c)]
    return after, [as_they_lie(order, i=i, f=f, o=o, g=g)]


def lstm_backward(dstates, before, after, saved, Wh, order, how):
    (dh, dc), (_, prev_c), (activations,) = dstates, before, saved
    i, f, o, g = in_turn(activations, order, "ifog")
    c = f * prev_c + i * how.dropped_candidate(g)
    tanh_c = np.tanh(c)
    (dh, dprev_h), (dc, dprev_c) = (how.zoneout_gradient(n, d) for n, d in enumerate((dh, dc)))
    dout = how.unprojected(dh)
    do = how.gate_gradient(dout * tanh_c, o)
    dc = dc + dout * o * (1 - tanh_c**2) + how.times("o", do)
    di = how.gate_gradient(dc * how.dropped_candidate(g), i)
    df = how.gate_gradient(dc * prev_c, f)
    dg = how.candidate_gradient(how.dropped_candidate(dc * i), g)
    da = as_they_lie(order, i=di, f=df, o=do, g=dg)
    dprev_c = dprev_c + dc * f + how.times("i", di) + how.times("f", df)
    of_vectors = {"i": di * prev_c, "f": df * prev_c, "o": do * c}
    dvectors = [of_vectors[gate] for gate in order if gate in of_vectors]
    dprev_h = dprev_h + how.dropped_h(da @ Wh.T)
    return da, da, [dprev_h, dprev_c], np.concatenate(dvectors, axis=1), o * tanh_c, dh


def _gru_h(prev_h, z, n, how):
    return how.zoneout(0, prev_h, (1 - z) * how.dropped_candidate(n) + z * prev_h)


def gru(a, states, Wh, bh, order, how):
    (prev_h,) = states
    (a_r, a_z, a_n), (u_r, u_z, u_n) = (
        in_turn(v, order, "rzn") for v in (a, plus(how.dropped_h(prev_h) @ Wh, bh))
    )
    r, z = how.gate(a_r + u_r), how.gate(a_z + u_z)
    n = how.candidate(a_n + r * u_n)
    return [_gru_h(prev_h, z, n, how)], [as_they_lie(order, r=r, z=z, n=n), u_n]


def gru_original(a, states, Wh, bh, order, how):
    (prev_h,) = states
    h = how.dropped_h(prev_h)
    (a_r, a_z, a_n), (W_r, W_z, W_n) = in_turn(a, order, "rzn"), in_turn(Wh, order, "rzn")
    b_r, b_z, b_n = (None,) * 3 if bh is None else in_turn(bh, order, "rzn")
    r, z = how.gate(plus(a_r + h @ W_r, b_r)), how.gate(plus(a_z + h @ W_z, b_z))
    n = how.candidate(plus(a_n + (r * h) @ W_n, b_n))
    return [_gru_h(prev_h, z, n, how)], [as_they_lie(order, r=r, z=z, n=n)]


def gru_backward(dstates, before, after, saved, Wh, order, how):
    (dh,), (prev_h,), (activations, *u_n) = dstates, before, saved
    (r, z, n), (W_r, W_z, W_n) = in_turn(activations, order, "rzn"), in_turn(Wh, order, "rzn")
    dh, dprev_h = how.zoneout_gradient(0, dh)
    dz = how.gate_gradient(dh * (prev_h - how.dropped_candidate(n)), z)
    dn = how.candidate_gradient(how.dropped_candidate(dh * (1 - z)), n)
    if u_n:
        dr, du_n = how.gate_gradient(dn * u_n[0], r), dn * r
        dleft = du_n @ W_n.T
    else:
        du_n, d = dn, dn @ W_n.T
        dr, dleft = how.gate_gradient(d * how.dropped_h(prev_h), r), d * r
    dleft = dleft + dr @ W_r.T + dz @ W_z.T
    dprev_h = dprev_h + dh * z + how.dropped_h(dleft)
    return as_they_lie(order, r=dr, z=dz, n=dn), as_they_lie(order, r=dr, z=dz, n=du_n), [dprev_h]


def gru_original_starts(prev_h, saved, order, how):
    h = how.dropped_h(prev_h)
    r, _, _ = in_turn(saved[0], order, "rzn")
    return [h, h, r * h]
