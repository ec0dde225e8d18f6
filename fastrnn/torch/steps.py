"""One step of a cell, as a computation of autograd.py.

Its tensors are x (N, D), h (N, H) and of an lstm c (N, H), None for zeros, w_ih (G*H, D),
w_hh (G*H, H), and b_ih and b_hh (G*H,), None without a bias.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from fastrnn.cells import NAMES, form_of
from fastrnn.layers import recurrent
from fastrnn.nn.direction import Form
from fastrnn.torch import formulas


class Step(NamedTuple):
    """See the module."""

    cell: str  # "rnn", "lstm", "gru"
    nonlinearity: str = "tanh"  # of the rnn, or "relu"

    def forward(self, training, x, h, c, w_ih, w_hh, b_ih, b_hh):
        cell = NAMES[self.cell]
        zeros = np.zeros((len(x), w_hh.shape[1]), x.dtype) if h is None or c is None else None
        states = [zeros if s is None else s for s in (h, c)[: len(cell.states)]]
        if b_ih is None:
            b_ih = np.zeros(len(w_ih), x.dtype)
        if b_hh is not None and not cell.two_biases:
            b_ih, b_hh = b_ih + b_hh, None
        form = "ifgo" if self.cell == "lstm" else cell.gates, True, True, self.nonlinearity
        args = x, *states, w_ih, w_hh, b_ih, b_hh
        *after, cache = recurrent.step_forward(cell, args, form, training)
        return tuple(after), cache

    def backward(self, cache, *dstates):
        dstates = [np.zeros_like(cache.h) if d is None else d for d in dstates]
        gradients = recurrent.step_backward(NAMES[self.cell], dstates, cache)
        dx, dstates, dw_ih, dw_hh, db, dbh, *_ = gradients
        dh, dc = (*dstates, None)[:2]
        return dx, dh, dc, dw_ih, dw_hh, db, db.copy() if dbh is None else dbh

    def reference(self, x, h, c, w_ih, w_hh, b_ih, b_hh):
        h = x.new_zeros(len(x), w_hh.shape[1]) if h is None else h
        states = (h,) if self.cell != "lstm" else (h, torch.zeros_like(h) if c is None else c)
        own = {"weight_ih": w_ih, "weight_hh": w_hh, "bias_ih": b_ih, "bias_hh": b_hh}
        return formulas.step(Form(self.cell, nonlinearity=self.nonlinearity), x, states, own)


@cache
def compiled(step: Step) -> object | None:
    """A Cell of _steps.pyx: step and sequence, functions of tensors that return None where it takes
    the longer way, by autograd.compute. None where the extension was not built."""
    try:
        from fastrnn.torch._steps import Cell
    except ImportError:
        return None
    record = form_of(step.cell, nonlinearity=step.nonlinearity)
    return Cell(record, ("ifgo" if step.cell == "lstm" else record.gates, True, None, None), step)
