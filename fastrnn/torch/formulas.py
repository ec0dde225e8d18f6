"""The cells in torch's operations: what derivatives of derivatives are made of, and what runs with
resets where fastrnn's kernels do not, on any device and in any dtype.

Letters: N batch, T steps, H hidden, P projected (H without a projection), G gates.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

States = tuple[Tensor, ...]


def step(
    cell: str,
    nonlinearity: str,
    a: Tensor,
    states: States,
    w_hh: Tensor,
    b_hh: Tensor | None,
    w_hr: Tensor | None = None,
) -> States:
    """The states, h (N, P) and of an lstm c (N, H), after a step; a (N, G*H), x w_ih^T + b_ih."""
    h, *others = states
    u = F.linear(h, w_hh, b_hh)
    if cell == "rnn":
        return (torch.tanh(a + u) if nonlinearity == "tanh" else torch.relu(a + u),)
    if cell == "gru":
        (ar, az, an), (ur, uz, un) = a.chunk(3, -1), u.chunk(3, -1)
        r, z = torch.sigmoid(ar + ur), torch.sigmoid(az + uz)
        return ((1 - z) * torch.tanh(an + r * un) + z * h,)
    i, f, g, o = (a + u).chunk(4, -1)
    c = torch.sigmoid(f) * others[0] + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (h if w_hr is None else F.linear(h, w_hr)), c


def steps(
    cell: str,
    nonlinearity: str,
    x: Tensor,
    states: States,
    weights: Sequence[Tensor | None],
    reverse: bool = False,
    reset: Tensor | None = None,
    within: Tensor | None = None,
) -> tuple[Tensor, States]:
    """h (T, N, P) of all steps in one direction, and the last states.

    Inputs: x (T, N, D); weights, w_ih, w_hh, b_ih, b_hh, w_hr; reset (T, N), bool, where something
    begins at a step; within (T, N), bool, the steps that the rows have.
    """
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    if reset is not None:
        reset = reset if within is None else reset & within
        if reverse:  # what begins at a step ends before it
            reset = torch.cat([reset[1:], torch.zeros_like(reset[:1])])
    order = range(len(x) - 1, -1, -1) if reverse else range(len(x))
    a, outputs = F.linear(x, w_ih, b_ih), [x] * len(x)
    for t in order:
        if reset is not None:
            states = tuple(s.masked_fill(reset[t, :, None], 0) for s in states)
        after = step(cell, nonlinearity, a[t], states, w_hh, b_hh, w_hr)
        if within is not None:
            taken = within[t, :, None]
            after = tuple(torch.where(taken, s, old) for s, old in zip(after, states, strict=True))
        states = after
        outputs[t] = states[0]
    return torch.stack(outputs), states
