"""The equations of reference.py's cells with layer normalisation: their options by how, their
parameters by how.norm, their biases by how.biases.

What a step gets in place of x Wx + b is x Wx. Of a step backward da and du are the gradients of
x Wx and h Wh, and the last result has the rows whose sums are the gradients of b, of bh, and of the
parameters, one beside the other.
"""

import numpy as np

from fastrnn.backends.gates import as_they_lie, by_gate, in_turn, plus


def _normal(v, eps):
    """LN(v) by rows, and what its numbers were multiplied with."""
    shifted = v - v.mean(axis=1, keepdims=True)
    variance = (shifted**2).mean(axis=1, keepdims=True)
    scale = 1 / np.sqrt(variance + v.dtype.type(eps))
    return shifted * scale, scale


def _normal_backward(d, hat, scale):
    """The gradient of v from that of hat, LN(v)."""
    mean = d.mean(axis=1, keepdims=True)
    return (d - mean - hat * (d * hat).mean(axis=1, keepdims=True)) * scale


def _pre_activations(x_product, h_product, how):
    """LN(x Wx) gain_x + b and LN(h Wh) gain_h + bh."""
    norm, (b, bh) = how.norm, how.biases
    a, _ = _normal(x_product, norm.eps)
    u, _ = _normal(h_product, norm.eps)
    return a * norm.gain_x + b, plus(u * norm.gain_h, bh)


def _products_backward(da, du, x_product, h_product, norm):
    """Gradients of x Wx and h Wh, and the rows of those of b, bh, gain_x, gain_h."""
    (x_hat, x_scale), (h_hat, h_scale) = (_normal(v, norm.eps) for v in (x_product, h_product))
    dx_product = _normal_backward(da * norm.gain_x, x_hat, x_scale)
    dh_product = _normal_backward(du * norm.gain_h, h_hat, h_scale)
    return dx_product, dh_product, [da, du, da * x_hat, du * h_hat]


def lstm(x_product, states, Wh, bh, order, how):
    prev_h, prev_c = states
    h_product = how.dropped_h(prev_h) @ Wh
    a, u = _pre_activations(x_product, h_product, how)
    s = {
        gate: how.candidate(v) if gate == "g" else how.gate(v)
        for gate, v in by_gate(a + u, order).items()
    }
    c = s["f"] * prev_c + s["i"] * how.dropped_candidate(s["g"])
    h = s["o"] * np.tanh(_normal(c, how.norm.eps)[0] * how.norm.gain_c + how.norm.shift_c)
    after = [how.zoneout(0, prev_h, h), how.zoneout(1, prev_c, c)]
    return after, [as_they_lie(order, **s), x_product, h_product]


def lstm_backward(dstates, before, after, saved, Wh, order, how):
    (dh, dc), (_, prev_c), (activations, *products) = dstates, before, saved
    norm = how.norm
    i, f, o, g = in_turn(activations, order, "ifog")
    dropped_g = how.dropped_candidate(g)
    c_hat, c_scale = _normal(f * prev_c + i * dropped_g, norm.eps)
    tanh_c = np.tanh(c_hat * norm.gain_c + norm.shift_c)
    (dh, dprev_h), (dc, dprev_c) = (how.zoneout_gradient(n, d) for n, d in enumerate((dh, dc)))
    dtanh = dh * o * (1 - tanh_c**2)
    dc = dc + _normal_backward(dtanh * norm.gain_c, c_hat, c_scale)
    d = {
        "i": how.gate_gradient(dc * dropped_g, i),
        "f": how.gate_gradient(dc * prev_c, f),
        "o": how.gate_gradient(dh * tanh_c, o),
        "g": how.candidate_gradient(how.dropped_candidate(dc * i), g),
    }
    da = as_they_lie(order, **d)
    dx_product, dh_product, terms = _products_backward(da, da, *products, norm)
    dprev_h = dprev_h + how.dropped_h(dh_product @ Wh.T)
    terms = np.concatenate([*terms, dtanh * c_hat, dtanh], axis=1)
    return dx_product, dh_product, [dprev_h, dprev_c + dc * f], terms


def gru(x_product, states, Wh, bh, order, how):
    (prev_h,) = states
    h_product = how.dropped_h(prev_h) @ Wh
    a, u = (by_gate(v, order) for v in _pre_activations(x_product, h_product, how))
    r, z = (how.gate(a[gate] + u[gate]) for gate in "rz")
    n = how.candidate(a["n"] + r * u["n"])
    h = how.zoneout(0, prev_h, (1 - z) * how.dropped_candidate(n) + z * prev_h)
    return [h], [as_they_lie(order, r=r, z=z, n=n), u["n"], x_product, h_product]


def gru_backward(dstates, before, after, saved, Wh, order, how):
    (dh,), (prev_h,), (activations, u_n, *products) = dstates, before, saved
    r, z, n = in_turn(activations, order, "rzn")
    dh, dprev_h = how.zoneout_gradient(0, dh)
    dz = how.gate_gradient(dh * (prev_h - how.dropped_candidate(n)), z)
    dn = how.candidate_gradient(how.dropped_candidate(dh * (1 - z)), n)
    dr = how.gate_gradient(dn * u_n, r)
    da = as_they_lie(order, r=dr, z=dz, n=dn)
    du = as_they_lie(order, r=dr, z=dz, n=dn * r)
    dx_product, dh_product, terms = _products_backward(da, du, *products, how.norm)
    dprev_h = dprev_h + dh * z + how.dropped_h(dh_product @ Wh.T)
    return dx_product, dh_product, [dprev_h], np.concatenate(terms, axis=1)
