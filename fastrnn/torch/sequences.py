"""Layers over all steps, as a computation of autograd.py.

Its tensors are x, (T, N, D), batch-first (N, T, D) or packed (U, D); h0 (L*S, N, P) and of an lstm
c0 (L*S, N, H), None for zeros; and the weights of each layer in each direction, as torch.nn has
them. Its results are y, like x with S*P columns, and the last states. Letters as in nn.stack.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from fastrnn.cells import Steps
from fastrnn.nn import direction, stack
from fastrnn.nn.direction import Form
from fastrnn.options import Options
from fastrnn.torch import formulas

_STEPS = {layout: Steps(layout=layout) for layout in ("batch_first", "time_first")}


class Sequence(NamedTuple):
    """See the module."""

    form: Form
    kinds: tuple[str, ...]  # of the weights of a direction, in their order: see nn.direction
    layout: str  # of x, as fastrnn has it: "time_first", "batch_first", "packed"
    sizes: Tensor | None = None  # (T,), of a packed x: how many rows take each step
    reset: Tensor | None = None  # (N, T), bool
    masks: tuple[Tensor, ...] = ()  # of the outputs of layers, time-first or packed
    seed: Tensor | None = None  # (), of what is random in the cells; None: nothing is

    @property
    def is_one(self) -> bool:
        """Whether it is one layer in one direction, without what only nn.stack knows."""
        return self.form.layers == 1 and not self.form.bidirectional

    def _seeded(self):
        if self.seed is None:
            return self.form
        return self.form._replace(options=self.form.options._replace(seed=int(self.seed)))

    def forward(self, training, x, h0, c0, *weights):
        initial, form = (h0, c0)[: len(self.form.record.states)], self._seeded()
        training = training or self.seed is not None  # without it nothing is drawn
        if self.is_one and self.sizes is None and self.reset is None:
            # A short way, for steps that take hardly longer than the way.
            before = [None if s is None else s[0] for s in initial]
            ((own,),) = self._layers(weights)
            w, steps = direction.from_kinds(form, own), _STEPS[self.layout]
            y, last, cache = direction.forward(form, w, x, before, steps, training, None)
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
            form,
            [[direction.from_kinds(form, own) for own in layer] for layer in self._layers(weights)],
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
            return dx, dh0, dc0, *self._in_order(w)
        dx, dinitial, grads = stack.backward(self.form, dy, dlast, cache)
        dh0, dc0 = (*dinitial, None)[:2]
        return dx, dh0, dc0, *(d for layer in grads for w in layer for d in self._in_order(w))

    def _layers(self, weights) -> Iterator[list[dict]]:
        """Weights by their kinds, of the directions of each layer."""
        given, S = iter(weights), self.form.directions
        for _ in range(self.form.layers):
            yield [{kind: next(given) for kind in self.kinds} for _ in range(S)]

    def _in_order(self, grads):
        arrays = direction.by_kinds(self.form, grads)
        return (arrays[kind] for kind in self.kinds)

    def reference(self, x, h0, c0, *weights):
        S, masks, lasts, within = self.form.directions, self.masks, [], None
        form, reset = self._seeded(), None if self.reset is None else self.reset.T.to(x.device)
        if self.layout == "packed":
            x, *masks = (pad_packed_sequence(PackedSequence(a, self.sizes))[0] for a in (x, *masks))
            within = torch.arange(x.shape[1]) < self.sizes[:, None]
            lengths, within = within.sum(0), within.to(x.device)
        elif self.layout == "batch_first":
            x = x.transpose(0, 1)
        for i, layer in enumerate(self._layers(weights)):
            outputs = []
            for d, own in enumerate(layer):
                of = form.of_direction(i * S + d)
                h, last = formulas.steps(
                    of,
                    x,
                    self._before(x, own, h0, c0, i * S + d),
                    own,
                    seed=None if self.seed is None else of.options.seed,
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

    def _before(self, x, own, h0, c0, i):
        """The states that direction i of all begins with."""
        N, H = x.shape[1], own["weight_ih"].shape[0] // len(self.form.record.gates)
        P = own["weight_hr"].shape[0] if "weight_hr" in own else H
        given = zip(self.form.record.states, (h0, c0), (P, H), strict=False)
        return tuple(x.new_zeros(N, size) if s is None else s[i] for _, s, size in given)


def sequence(
    cell: str,
    layers: int,
    bidirectional: bool,
    nonlinearity: str,
    options: Options | None,
    eps: float | None,
    *others: object,
) -> Sequence:
    """A Sequence of weights as torch.nn lays them out; others, its fields after form."""
    gates = formulas.gates_of(cell)
    form = Form(cell, layers, bidirectional, gates, True, nonlinearity, True, options, eps)
    return Sequence(form, *others)
