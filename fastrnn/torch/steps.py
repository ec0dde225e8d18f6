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
from fastrnn.nn import direction
from fastrnn.nn.direction import Form
from fastrnn.torch import formulas

KINDS = "weight_ih", "weight_hh", "bias_ih", "bias_hh"


class Step(NamedTuple):
    """See the module."""

    cell: str  # "rnn", "lstm", "gru"
    nonlinearity: str = "tanh"  # of the rnn, or "relu"

    @property
    def form(self) -> Form:
        """As nn has it."""
        gates = formulas.gates_of(self.cell)
        return Form(self.cell, gates=gates, nonlinearity=self.nonlinearity, transposed=True)

    def forward(self, training, x, h, c, *weights):
        own, form = dict(zip(KINDS, weights, strict=True)), self.form
        zeros = None
        if h is None or c is None:
            zeros = np.zeros((len(x), own["weight_hh"].shape[1]), x.dtype)
        states = tuple(zeros if s is None else s for s in (h, c)[: len(form.record.states)])
        return direction.step(form, direction.from_kinds(form, own), x, states, training)

    def backward(self, cache, *dstates):
        dstates = [np.zeros_like(cache.h) if d is None else d for d in dstates]
        gradients = recurrent.step_backward(NAMES[self.cell], dstates, cache)
        dx, dstates, dw_ih, dw_hh, db, dbh, *_ = gradients
        dh, dc = (*dstates, None)[:2]
        return dx, dh, dc, dw_ih, dw_hh, db, db.copy() if dbh is None else dbh

    def reference(self, x, h, c, *weights):
        own = dict(zip(KINDS, weights, strict=True))
        h = x.new_zeros(len(x), own["weight_hh"].shape[1]) if h is None else h
        states = (h,) if self.cell != "lstm" else (h, torch.zeros_like(h) if c is None else c)
        return formulas.step(self.form, x, states, own)


@cache
def compiled(step: Step) -> object | None:
    """A Cell of _steps.pyx: step and sequence, functions of tensors that return None where it takes
    the longer way, by autograd.compute. None where the extension was not built."""
    try:
        from fastrnn.torch._steps import Cell
    except ImportError:
        return None
    record = form_of(step.cell, nonlinearity=step.nonlinearity)
    return Cell(record, (step.form.gates, True, None, None), step)
