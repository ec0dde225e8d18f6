"""One step of a cell, as a computation of autograd.py.

Its tensors are x (N, D), h (N, H) and of an lstm c (N, H), None for zeros, w_ih (G*H, D),
w_hh (G*H, H), and b_ih and b_hh (G*H,), None without a bias.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

import fastrnn
from fastrnn.torch import formulas


class Step(NamedTuple):
    """See the module."""

    cell: str  # "rnn", "lstm", "gru"
    nonlinearity: str = "tanh"  # of the rnn, or "relu"

    def forward(self, training, x, h, c, w_ih, w_hh, b_ih, b_hh):
        h = _zeros(x, w_hh) if h is None else h
        options = {"transposed": True, "training": training}
        if self.cell == "gru":
            b_ih = np.zeros(len(w_ih), x.dtype) if b_ih is None else b_ih
            h, cache = fastrnn.gru_step_forward(x, h, w_ih, w_hh, b_ih, bh=b_hh, **options)
            return (h,), cache
        b = np.zeros(len(w_ih), x.dtype) if b_ih is None else b_ih + b_hh
        if self.cell == "rnn":
            options["nonlinearity"] = self.nonlinearity
            h, cache = fastrnn.rnn_step_forward(x, h, w_ih, w_hh, b, **options)
            return (h,), cache
        c = _zeros(x, w_hh) if c is None else c
        h, c, cache = fastrnn.lstm_step_forward(x, h, c, w_ih, w_hh, b, gates="ifgo", **options)
        return (h, c), cache

    def backward(self, cache, dh, dc=None):
        dh = np.zeros_like(cache.h) if dh is None else dh
        if self.cell == "lstm":
            dc = np.zeros_like(dh) if dc is None else dc
            dx, dh, dc, dw_ih, dw_hh, db = fastrnn.lstm_step_backward(dh, dc, cache)
            return dx, dh, dc, dw_ih, dw_hh, db, db.copy()
        if self.cell == "gru":
            dx, dh, dw_ih, dw_hh, db, *dbh = fastrnn.gru_step_backward(dh, cache)
            return dx, dh, None, dw_ih, dw_hh, db, dbh[0] if dbh else None
        dx, dh, dw_ih, dw_hh, db = fastrnn.rnn_step_backward(dh, cache)
        return dx, dh, None, dw_ih, dw_hh, db, db.copy()

    def reference(self, x, h, c, w_ih, w_hh, b_ih, b_hh):
        h = x.new_zeros(len(x), w_hh.shape[1]) if h is None else h
        states = (h,) if self.cell != "lstm" else (h, torch.zeros_like(h) if c is None else c)
        a = F.linear(x, w_ih, b_ih)
        return formulas.step(self.cell, self.nonlinearity, a, states, w_hh, b_hh)


def _zeros(x, w_hh):
    return np.zeros((len(x), w_hh.shape[1]), x.dtype)
