"""Back-propagation through time by recomputation: the forward pass keeps the states at the borders
of segments of time alone, and backward runs forward again, a segment after the other from the last
(Chen et al. 2016).

Letters as in stack.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastrnn.layers import checks
from fastrnn.nn import stack
from fastrnn.nn.stack import Form, Layer, States


class Segment(NamedTuple):
    """Steps begin <= t < end."""

    begin: int
    end: int
    before: States  # the states before them

    def of(self, a: np.ndarray | None) -> np.ndarray | None:
        """Its part of an array (N, T, ...)."""
        return None if a is None else a[:, self.begin : self.end]


class Cache(NamedTuple):
    """What forward leaves for backward."""

    form: Form
    weights: Sequence[Layer]
    x: np.ndarray
    lengths: np.ndarray | None
    reset: np.ndarray | None
    masks: Sequence[np.ndarray | None]
    segments: list[Segment]


def forward(
    form: Form,
    weights: Sequence[Layer],
    x: np.ndarray,
    initial: States,
    every: int,
    *,
    lengths: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    masks: Sequence[np.ndarray | None],
    backend: str | None = None,
) -> tuple[np.ndarray, States, Cache]:
    """As stack.forward of one direction, with the same bits, in segments of so many steps."""
    N, T = x.shape[:2]
    steps = checks.steps(x, N, lengths, False, None, reset, "zeros", "batch_first")
    cache = Cache(form, weights, x, steps.lengths, steps.reset, masks, [])
    outputs, last = [], initial
    for begin in range(0, max(1, T), every):
        segment = Segment(begin, min(T, begin + every), last)
        # What is random is drawn in training alone.
        y, last, _ = _run(cache, segment, form.options is not None, backend)
        outputs.append(y)
        cache.segments.append(segment)
    return np.concatenate(outputs, axis=1), last, cache


def _run(cache, segment, training, backend):
    form, lengths = cache.form, cache.lengths
    if lengths is not None:
        lengths = np.clip(lengths - segment.begin, 0, segment.end - segment.begin)
    if form.options is not None:
        first = form.options.first_step + segment.begin
        form = form._replace(options=form.options._replace(first_step=first))
    return stack.forward(
        form,
        cache.weights,
        segment.of(cache.x),
        segment.before,
        lengths=lengths,
        reset=segment.of(cache.reset),
        masks=[segment.of(mask) for mask in cache.masks],
        training=training,
        backend=backend,
    )


def backward(
    form: Form,
    dy: np.ndarray | None,
    dlast: States | None,
    cache: Cache,
    *,
    backend: str | None = None,
) -> tuple[np.ndarray, States, list[list[stack.Weights]]]:
    """As stack.backward, of forward's cache, with the same bits."""
    dx, grads = np.empty_like(cache.x), None
    for segment in reversed(cache.segments):
        _, _, kept = _run(cache, segment, True, backend)
        d = segment.of(dy)
        part, dlast, grads = stack.backward(form, d, dlast, kept, onto=grads, backend=backend)
        segment.of(dx)[...] = part
    return dx, dlast, grads
