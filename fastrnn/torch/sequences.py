"""Layers over all steps, as a computation of autograd.py.

Its tensors are x (T, N, D), batch-first (N, T, D), packed (U, D); h0 (L*S, N, P) and of an lstm c0
(L*S, N, H), None for zeros; and the weights of each layer in each direction, as torch.nn has them:
w_ih, w_hh, with biases b_ih and b_hh, with a projection w_hr. Its results are y, like x with S*P
columns, and the last states. Letters as in nn.stack.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastrnn.nn import stack
from fastrnn.nn.direction import Form, Weights
from fastrnn.torch import formulas
from fastrnn.torch.tensors import as_array


class Packing(NamedTuple):
    """Where the rows of a packed sequence lie in a padded one."""

    lengths: np.ndarray  # (N,)
    index: np.ndarray  # (N, T): packed rows; past a length there is none
    places: np.ndarray  # (U,): in (N, T), flattened


class Sequence(NamedTuple):
    """See the module."""

    form: Form
    bias: bool
    projected: bool
    time_major: bool
    sizes: np.ndarray | None = None  # (T,), of a packed sequence: rows that take the step
    reset: Tensor | None = None  # (N, T), bool
    masks: tuple[Tensor, ...] = ()  # of outputs of layers, time-major or packed

    def forward(self, training, x, h0, c0, *weights):
        masks = [mask.numpy() for mask in self.masks] or None
        lengths = index = packing = None
        if self.sizes is not None:
            packing = lengths, index, places = unpacked(self.sizes)
            masks = masks and [mask[np.minimum(index, len(mask) - 1)] for mask in masks]
        else:
            x = x.swapaxes(0, 1) if self.time_major else x
            masks = masks and [np.ascontiguousarray(mask.swapaxes(0, 1)) for mask in masks]
        y, last, cache = stack.forward(
            self.form,
            [[self._summed(*w) for w in layer] for layer in self._layers(weights)],
            x,
            (h0, c0)[: len(self.form.record.states)],
            lengths=lengths,
            reset=as_array(self.reset),
            index=index,
            masks=masks,
            training=training,
        )
        if packing is not None:
            y = y.reshape(-1, y.shape[2])[places]
        elif self.time_major:
            # Copied also where the order is the same: what the caller does to y is not to reach the
            # cache unseen.
            y = np.array(y.swapaxes(0, 1), order="C", copy=training or None)
        return (y, *last), (cache, packing)

    def backward(self, cache, dy, *dlast):
        cache, packing = cache
        if dy is not None and packing is not None:
            padded = np.zeros((packing.index.size, dy.shape[1]), dy.dtype)
            padded[packing.places] = dy
            dy = padded.reshape(*packing.index.shape, -1)
        elif dy is not None and self.time_major:
            dy = dy.swapaxes(0, 1)
        dx, dinitial, grads = stack.backward(self.form, dy, dlast, cache)
        if packing is None and self.time_major:
            dx = dx.swapaxes(0, 1)
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
        S, n = self.form.directions, len(self.form.record.states)
        within = reset = None
        masks = self.masks
        if self.sizes is not None:
            lengths, index, places = unpacked(self.sizes)
            index = torch.from_numpy(np.minimum(index, len(x) - 1).T)
            x, masks = x[index], [mask[index] for mask in masks]
            within = torch.arange(len(index))[:, None] < torch.from_numpy(lengths)
            within = within.to(x.device)
        elif not self.time_major:
            x = x.transpose(0, 1)
        if self.reset is not None:
            reset = self.reset.T.to(x.device)
        N, lasts = x.shape[1], []
        for i, layer in enumerate(self._layers(weights)):
            outputs = []
            for d, of_direction in enumerate(layer):
                before = [None if s is None else s[i * S + d] for s in (h0, c0)[:n]]
                widths = of_direction[1].shape[1], len(of_direction[1]) // 4
                before = tuple(
                    x.new_zeros(N, width) if s is None else s
                    for s, width in zip(before, widths, strict=False)
                )
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
            if i < len(masks):
                x = x * masks[i]
        if self.sizes is not None:
            x = x.transpose(0, 1).flatten(0, 1)[torch.from_numpy(places)]
        elif not self.time_major:
            x = x.transpose(0, 1)
        return x, *map(torch.stack, zip(*lasts, strict=True))


def unpacked(sizes: np.ndarray) -> Packing:
    """Of a packed sequence of which so many rows take each step."""
    N, T = sizes[0], len(sizes)
    rows, first = np.arange(N), np.cumsum(sizes) - sizes
    lengths = np.searchsorted(-sizes, -rows)  # steps that more rows take than come before
    index = rows[:, None] + first
    within = rows < sizes[:, None]  # (T, N)
    places = (rows * T + np.arange(T)[:, None])[within]
    return Packing(lengths, index, places)
