"""Layers over all steps, as a computation of autograd.py.

Its tensors are x, (T, N, D), batch-first (N, T, D) or packed (U, D); h0 (L*S, N, P) and of an lstm
c0 (L*S, N, H), None for zeros; and the weights of each layer in each direction, as torch.nn has
them: w_ih, w_hh, with biases b_ih and b_hh, with a projection w_hr. Its results are y, like x with
S*P columns, and the last states. Letters as in nn.stack.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from fastrnn.cells import Steps
from fastrnn.nn import direction, stack
from fastrnn.nn.direction import Form, Weights
from fastrnn.torch import formulas

_STEPS = {layout: Steps(layout=layout) for layout in ("batch_first", "time_first")}


class Sequence(NamedTuple):
    """See the module."""

    form: Form
    bias: bool
    projected: bool
    layout: str  # of x, as fastrnn has it: "time_first", "batch_first", "packed"
    sizes: Tensor | None = None  # (T,), of a packed x: how many rows take each step
    reset: Tensor | None = None  # (N, T), bool
    masks: tuple[Tensor, ...] = ()  # of the outputs of layers, time-first or packed

    @property
    def is_one(self) -> bool:
        """Whether it is one layer in one direction, without what only nn.stack knows."""
        return self.form.layers == 1 and not self.form.bidirectional

    def forward(self, training, x, h0, c0, *weights):
        initial = (h0, c0)[: len(self.form.record.states)]
        if self.is_one and self.sizes is None and self.reset is None:
            # A short way, for steps that take hardly longer than the way.
            b = weights[2:4] if self.bias else (None, None)
            before = [None if s is None else s[0] for s in initial]
            w_hr = weights[-1] if self.projected else None
            w, steps = self._summed(*weights[:2], *b, w_hr), _STEPS[self.layout]
            y, last, cache = direction.forward(self.form, w, x, before, steps, training, None)
            return (y, *(s[None] for s in last)), cache
        lengths, reset = None, None if self.reset is None else self.reset.numpy()
        masks = [mask.numpy() for mask in self.masks]
        if self.layout == "packed":
            sizes, rows = self.sizes.numpy(), np.arange(int(self.sizes[0]))
            lengths = np.searchsorted(-sizes, -rows)  # the steps that more rows than these take
            reset = reset if reset is None else reset.T[rows < sizes[:, None]]
        elif self.layout == "time_first":
            reset = reset if reset is None else reset.T
        else:
            masks = [np.ascontiguousarray(mask.swapaxes(0, 1)) for mask in masks]
        y, last, cache = stack.forward(
            self.form,
            [[self._summed(*w) for w in layer] for layer in self._layers(weights)],
            x,
            initial,
            lengths=lengths,
            reset=reset,
            layout=self.layout,
            masks=masks or None,
            training=training,
        )
        return (y, *last), cache

    def backward(self, cache, dy, *dlast):
        if not isinstance(cache, stack.Cache):
            dlast = [None if d is None else d[0] for d in dlast]
            dx, before, w = direction.backward(self.form, dy, dlast, cache, None, None)
            dh0, dc0 = (*(d[None] for d in before), None)[:2]
            return dx, dh0, dc0, *self._named(w)
        dx, dinitial, grads = stack.backward(self.form, dy, dlast, cache)
        dh0, dc0 = (*dinitial, None)[:2]
        return dx, dh0, dc0, *(d for layer in grads for w in layer for d in self._named(w))

    def _layers(self, weights):
        """w_ih, w_hh, b_ih, b_hh, w_hr, where there are such, of the directions of each layer."""
        count, given = 2 + 2 * self.bias + self.projected, iter(weights)
        for _ in range(self.form.layers):
            layer = []
            for _ in range(self.form.directions):
                w_ih, w_hh, *others = (next(given) for _ in range(count))
                b_ih, b_hh = others[:2] if self.bias else (None, None)
                layer.append((w_ih, w_hh, b_ih, b_hh, others[-1] if self.projected else None))
            yield layer

    def _summed(self, w_ih, w_hh, b_ih, b_hh, w_hr):
        """Weights of one direction as nn.stack takes them."""
        if b_ih is None:
            return Weights(w_ih, w_hh, np.zeros(len(w_ih), w_ih.dtype), None, w_hr)
        if self.form.record.two_biases:
            return Weights(w_ih, w_hh, b_ih, b_hh)
        return Weights(w_ih, w_hh, b_ih + b_hh, None, w_hr)

    def _named(self, grads):
        """Gradients of one direction in the order of its tensors."""
        yield from (grads.Wx, grads.Wh)
        if self.bias:
            yield from (grads.b, grads.b.copy() if grads.bh is None else grads.bh)
        if self.projected:
            yield grads.Whr

    def reference(self, x, h0, c0, *weights):
        S, masks, lasts, within = self.form.directions, self.masks, [], None
        reset = None if self.reset is None else self.reset.T.to(x.device)
        if self.layout == "packed":
            x, *masks = (pad_packed_sequence(PackedSequence(a, self.sizes))[0] for a in (x, *masks))
            within = torch.arange(x.shape[1]) < self.sizes[:, None]
            lengths, within = within.sum(0), within.to(x.device)
        elif self.layout == "batch_first":
            x = x.transpose(0, 1)
        for i, layer in enumerate(self._layers(weights)):
            outputs = []
            for d, of_direction in enumerate(layer):
                before = self._before(x, of_direction[1], h0, c0, i * S + d)
                h, last = formulas.steps(
                    self.form.cell,
                    self.form.nonlinearity,
                    x,
                    before,
                    of_direction,
                    reverse=d == 1,
                    reset=reset,
                    within=within,
                )
                outputs.append(h)
                lasts.append(last)
            x = torch.cat(outputs, -1)
            x = x * masks[i] if i < len(masks) else x
        if self.layout == "packed":
            x = pack_padded_sequence(x, lengths).data
        elif self.layout == "batch_first":
            x = x.transpose(0, 1)
        return x, *map(torch.stack, zip(*lasts, strict=True))

    def _before(self, x, w_hh, h0, c0, i):
        """The states that direction i of all begins with."""
        N, columns = x.shape[1], (w_hh.shape[1], len(w_hh) // 4)
        given = zip(self.form.record.states, (h0, c0), columns, strict=False)
        return tuple(x.new_zeros(N, size) if s is None else s[i] for _, s, size in given)


def sequence(
    cell: str, layers: int, bidirectional: bool, nonlinearity: str, *others: object
) -> Sequence:
    """A Sequence of weights as torch.nn lays them out; others, its fields after form."""
    gates = "ifgo" if cell == "lstm" else None
    return Sequence(Form(cell, layers, bidirectional, gates, True, nonlinearity, True), *others)
