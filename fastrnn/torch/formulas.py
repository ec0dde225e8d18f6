"""The cells in torch's operations: what derivatives of derivatives are made of, and what runs where
fastrnn's kernels do not, on any device and in any dtype.

Letters: N batch, T steps, D input, H hidden, P projected (H without a projection), G gates. Weights
are by their kinds, as fastrnn.nn.direction has them, gates in PyTorch's order, of the smaller cells
in their own.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fastrnn import options as masks
from fastrnn.cells import NAMES
from fastrnn.nn.direction import Form
from fastrnn.options import Options
from fastrnn.weights import ORDERS

States = tuple[Tensor, ...]
Kinds = Mapping[str, Tensor | None]


def gates_of(cell: str) -> str:
    """The order of its gates: PyTorch's, of the smaller cells their own."""
    return ORDERS["pytorch"].get(cell, NAMES[cell].gates)


class How(NamedTuple):
    """What one step does otherwise than the plain one."""

    options: Options = Options()
    seed: int | None = None  # of what is random; None: as in predictions
    counts: tuple[int, ...] = ()  # how many steps each row has taken before; of what is random

    def _below(self, kind, p, v, counts):
        """Which numbers of v (N, H) are dropped, or stay what they were."""
        rows = [
            masks.below(self.seed, kind, p, range(n, n + 1), v.shape[1], count)
            for n, count in enumerate(counts)
        ]
        return torch.from_numpy(np.concatenate(rows)).to(v.device)

    @property
    def _now(self):
        return [self.options.first_step + count for count in self.counts]

    def _drop(self, kind, p, v, counts):
        if self.seed is None or p == 0:
            return v
        return (v * (1 / (1 - p))).masked_fill(self._below(kind, p, v, counts), 0)

    def dropped_x(self, x: Tensor) -> Tensor:
        """What is left of x (T, N, D)."""
        p = self.options.dropout_x
        if self.seed is None or p == 0:
            return x
        dropped = self._below(masks.DROPOUT_X, p, x[0], [0] * x.shape[1])
        return (x * (1 / (1 - p))).masked_fill(dropped, 0)

    def dropped_weights(self, cell: str, w: Tensor) -> Tensor:
        """What is left of w_hh (G*H, P): the same weights whatever the order of the gates."""
        p = self.options.dropout_weights
        if self.seed is None or p == 0:
            return w
        record, (GH, P) = NAMES[cell], w.shape
        H = GH // len(record.gates)
        firsts = [record.gates.index(gate) * H for gate in gates_of(cell)]
        rows = [
            masks.below(self.seed, masks.DROPOUT_WEIGHTS, p, range(first, first + H), P)
            for first in firsts
        ]
        dropped = torch.from_numpy(np.concatenate(rows)).to(w.device)
        return (w * (1 / (1 - p))).masked_fill(dropped, 0)

    def zoneout(self, state: str, before: Tensor, after: Tensor) -> Tensor:
        """The state after a step, "h" or "c", which is in part that before it."""
        p = getattr(self.options, f"zoneout_{state}")
        kind = masks.ZONEOUT_H if state == "h" else masks.ZONEOUT_C
        if p == 0:
            return after
        if self.seed is None:
            return p * before + (1 - p) * after
        return torch.where(self._below(kind, p, after, self._now), before, after)

    def dropped_h(self, h: Tensor) -> Tensor:
        return self._drop(masks.DROPOUT_H, self.options.dropout_h, h, [0] * h.shape[0])

    def _bounded(self, a):
        clip, most = self.options.clip, self.options.clip_gradient
        if most is not None and a.requires_grad:
            a = a.view_as(a)
            a.register_hook(lambda d: d.clamp(-most, most))
        return a if clip is None else a.clamp(-clip, clip)

    def gate(self, a: Tensor) -> Tensor:
        a, slope = self._bounded(a), self.options.hard_sigmoid
        return torch.sigmoid(a) if slope is None else (slope * a + 0.5).clamp(0, 1)

    def candidate(self, a: Tensor) -> Tensor:
        return torch.tanh(self._bounded(a))

    def dropped_candidate(self, g: Tensor) -> Tensor:
        return self._drop(masks.DROPOUT_CANDIDATE, self.options.dropout_candidate, g, self._now)

    def relu(self, a: Tensor) -> Tensor:
        a = torch.relu(self._bounded(a))
        return a if self.options.cap is None else a.clamp(max=self.options.cap)


PLAIN = How()


# ---- one step ------------------------------------------------------------------------------------

# Each takes the form, a (N, G*H), what x and a bias give, the states before, the weights by their
# kinds and how; and returns the states after.


def _of_h(form, h, own, how):
    """What h and a bias give."""
    u, bias = F.linear(how.dropped_h(h), own["weight_hh"]), own.get("bias_hh")
    if form.eps is not None:
        return F.layer_norm(u, u.shape[1:], own["gain_hh"], bias, form.eps)
    return u if bias is None else u + bias


def _rnn(form, a, states, own, how):
    (h,) = states
    f = how.candidate if form.nonlinearity == "tanh" else how.relu
    return (how.zoneout("h", h, f(a + _of_h(form, h, own, how))),)


def _lstm(form, a, states, own, how):
    h, c = states
    i, f, g, o = (a + _of_h(form, h, own, how)).chunk(4, -1)
    p_i, p_f, p_o = (0, 0, 0) if "peephole" not in own else own["peephole"].chunk(3)
    g = how.dropped_candidate(how.candidate(g))
    after = how.gate(f + p_f * c) * c + how.gate(i + p_i * c) * g
    shown = after
    if form.eps is not None:
        shown = F.layer_norm(after, after.shape[1:], own["gain_c"], own["shift_c"], form.eps)
    y = how.gate(o + p_o * after) * torch.tanh(shown)
    y = y if "weight_hr" not in own else F.linear(y, own["weight_hr"])
    return how.zoneout("h", h, y), how.zoneout("c", c, after)


def _gru(form, a, states, own, how):
    (h,) = states
    (a_r, a_z, a_n), (u_r, u_z, u_n) = a.chunk(3, -1), _of_h(form, h, own, how).chunk(3, -1)
    r, z = how.gate(a_r + u_r), how.gate(a_z + u_z)
    n = how.dropped_candidate(how.candidate(a_n + r * u_n))
    return (how.zoneout("h", h, (1 - z) * n + z * h),)


def _mgu(form, a, states, own, how):
    (h,), (a_f, a_n), (w_f, w_n) = states, a.chunk(2, -1), own["weight_hh"].chunk(2)
    f = torch.sigmoid(a_f + F.linear(h, w_f))
    return ((1 - f) * h + f * torch.tanh(a_n + F.linear(f * h, w_n)),)


def _unbounded(form, a):
    """What the minimal cells have in place of tanh."""
    if form.nonlinearity == "linear":
        return a
    return torch.where(a >= 0, a + 0.5, torch.sigmoid(a))


def _min_gru(form, a, states, own, how):
    (h,), (a_z, a_n) = states, a.chunk(2, -1)
    z = torch.sigmoid(a_z)
    return ((1 - z) * h + z * _unbounded(form, a_n),)


def _min_lstm(form, a, states, own, how):
    (h,), (a_f, a_i, a_n) = states, a.chunk(3, -1)
    f, i = torch.sigmoid(a_f), torch.sigmoid(a_i)
    least = torch.finfo(a.dtype).tiny  # halves where both are 0
    total = f + i + 2 * least
    return ((f + least) / total * h + (i + least) / total * _unbounded(form, a_n),)


def _ind_rnn(form, a, states, own, how):
    (h,) = states
    f = torch.relu if form.nonlinearity == "relu" else torch.tanh
    return (f(a + own["weight_hh"] * h),)


_STEPS = {
    "rnn": _rnn,
    "lstm": _lstm,
    "gru": _gru,
    "mgu": _mgu,
    "min_gru": _min_gru,
    "min_lstm": _min_lstm,
    "ind_rnn": _ind_rnn,
}


def step(form: Form, x: Tensor, states: States, own: Kinds, how: How = PLAIN) -> States:
    """The states, h (N, P) and of an lstm c (N, H), after a step from x (N, D)."""
    return _STEPS[form.cell](form, _of_x(form, x, own), states, own, how)


def _of_x(form, x, own):
    """What x (..., D) and a bias give."""
    w, bias = own["weight_ih"], own.get("bias_ih", own.get("bias"))
    if form.eps is None:
        return F.linear(x, w, bias)
    return F.layer_norm(F.linear(x, w), w.shape[:1], own["gain_ih"], bias, form.eps)


# ---- all steps -----------------------------------------------------------------------------------


def steps(
    form: Form,
    x: Tensor,
    states: States,
    own: Kinds,
    *,
    seed: int | None = None,
    reverse: bool = False,
    reset: Tensor | None = None,
    within: Tensor | None = None,
) -> tuple[Tensor, States]:
    """h (T, N, P) of all steps in one direction, and the last states.

    Inputs: x (T, N, D); seed, of what is random, None for nothing; reset (T, N), bool, where
    something begins at a step; within (T, N), bool, the steps that the rows have.
    """
    how = How(form.options or Options(), seed)
    if seed is not None:
        x = how.dropped_x(x)
        own = {**own, "weight_hh": how.dropped_weights(form.cell, own["weight_hh"])}
        ends = [x.shape[0]] * x.shape[1] if within is None else within.sum(0).tolist()
    if reset is not None:
        reset = reset if within is None else reset & within
        if reverse:  # what begins at a step ends before it
            reset = torch.cat([reset[1:], torch.zeros_like(reset[:1])])
    a, outputs, order = _of_x(form, x, own), [x] * x.shape[0], range(x.shape[0])
    for t in reversed(order) if reverse else order:
        if reset is not None:
            states = tuple(s.masked_fill(reset[t, :, None], 0) for s in states)
        if seed is not None:
            how = how._replace(counts=tuple(max(0, end - 1 - t) if reverse else t for end in ends))
        after = _STEPS[form.cell](form, a[t], states, own, how)
        if within is not None:
            taken = within[t, :, None]
            after = tuple(torch.where(taken, s, old) for s, old in zip(after, states, strict=True))
        states = after
        outputs[t] = states[0]
    return torch.stack(outputs), states
