"""Recurrent layers on top of each other, each in one direction of time or in both: the one place in
which layers are stacked and directions joined.

Letters: N batch, T steps, U rows of a table, D input, H hidden, P projected (H without a
projection), G gates, L layers, S directions. backend= and errors as in layers.recurrent.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastrnn.cells import Steps, steps_taken
from fastrnn.nn import direction, projection
from fastrnn.nn.direction import Form, States, Weights

Layer = Sequence[Weights]  # of a layer: forwards, and backwards in time where there are two


class Cache(NamedTuple):
    """What forward leaves for backward."""

    layers: tuple[tuple[NamedTuple, ...], ...]  # a cache a direction
    masks: Sequence[np.ndarray | None]


# ---- one layer -----------------------------------------------------------------------------------


def layer_forward(
    form: Form,
    weights: Layer,
    x: np.ndarray,
    initial: Sequence[States | None],
    steps: Steps,
    *,
    number: int = 0,
    training: bool = True,
    backend: str | None = None,
) -> tuple[list[np.ndarray], list[tuple[np.ndarray, ...]], tuple[NamedTuple, ...]]:
    """All directions of one layer.

    Inputs: weights and the initial states of each direction, h (N, P) and of an lstm c (N, H), None
    for zeros; x (N, T, D) or as steps.layout has it, or with steps.index a table (U, D); number,
    of its first direction among those of all layers. Where a row is reset before step t, something
    ends before t: backwards in time the state starts anew at t - 1.
    Returns: h (N, T, P) of each direction, its last states, its cache for layer_backward.
    """
    results = []
    for d, (w, states) in enumerate(zip(weights, initial, strict=True)):
        run = direction.forward if w.Whr is None else projection.forward
        taken = _backwards(steps) if d else steps
        of = form.of_direction(number + d)
        results.append(run(of, w, x, states, taken, training, backend))
    outputs, lasts, caches = zip(*results, strict=True)
    return list(outputs), list(lasts), caches


def _backwards(steps: Steps) -> Steps:
    """The same steps backwards in time; the direction forwards has checked them."""
    if steps.reset is None:
        return steps._replace(reverse=True)
    before, lengths = np.asarray(steps.reset), steps.lengths
    reset = np.zeros_like(before)
    if steps.layout == "packed" and before.size:
        sizes = steps_taken((len(lengths), lengths[0]), np.asarray(lengths)).sum(axis=0)
        after = np.arange(sizes[0], len(before))
        reset[after - np.repeat(sizes[:-1], sizes[1:])] = before[after]
    elif steps.layout == "time_first":
        reset[:-1] = (before & _taken(before.T.shape, lengths).T)[1:]
    else:
        reset[:, :-1] = (before & _taken(before.shape, lengths))[:, 1:]
    return steps._replace(reverse=True, reset=reset)


def _taken(shape, lengths):
    return steps_taken(shape, None if lengths is None else np.asarray(lengths))


def layer_backward(
    form: Form,
    dh: Sequence[np.ndarray | None],
    dlast: Sequence[States],
    caches: tuple[NamedTuple, ...],
    *,
    onto: Layer | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, list[tuple[np.ndarray, ...]], list[Weights]]:
    """Gradients of layer_forward.

    Inputs: dh (N, T, P) and dlast of each direction, None for zeros; onto, gradients of the weights
    to go on from, in place.
    Returns: dx like x, those of the initial states, those of the weights.
    """
    results = []
    for d, cache in enumerate(caches):
        run = projection if isinstance(cache, projection.Cache) else direction
        sums = None if onto is None else onto[d]
        results.append(run.backward(form, dh[d], dlast[d], cache, sums, backend))
    dxs, dinitial, grads = zip(*results, strict=True)
    return dxs[0] if len(dxs) == 1 else dxs[0] + dxs[1], list(dinitial), list(grads)


# ---- all layers ----------------------------------------------------------------------------------


def forward(
    form: Form,
    weights: Sequence[Layer],
    x: np.ndarray,
    initial: States | None = None,
    *,
    lengths: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    reset_to: str = "zeros",
    index: np.ndarray | None = None,
    layout: str = "batch_first",
    masks: Sequence[np.ndarray | None] | None = None,
    training: bool = True,
    backend: str | None = None,
) -> tuple[np.ndarray, tuple[np.ndarray, ...], Cache]:
    """All layers, each reading what the one below it returns.

    Inputs: weights, layer by layer, of each direction; x (N, T, D), or with index (N, T) a table
    (U, D); initial, h (L*S, N, P) and of an lstm c (L*S, N, H), a layer's directions side by side,
    None for zeros; masks, what the output (N, T, S*P) of every layer but the last is multiplied
    with, or None; the others, also how layout has x, reset, y and masks, as layers.recurrent.
    Returns: y (N, T, S*P), the last states like initial, the cache for backward.
    """
    S = form.directions
    masks = [None] * (form.layers - 1) if masks is None else masks
    lasts, caches = [], []
    steps = Steps(lengths, False, index, reset, reset_to, layout)
    for i, layer in enumerate(weights):
        before = [_of_direction(initial, i * S + d) for d in range(S)]
        outputs, last, cache = layer_forward(
            form, layer, x, before, steps, number=i * S, training=training, backend=backend
        )
        steps = steps._replace(index=None)
        x = outputs[0] if S == 1 else np.concatenate(outputs, axis=-1)
        if i < len(masks) and masks[i] is not None:
            x = x * masks[i]
        lasts += last
        caches.append(cache)
    return x, _joined(lasts), Cache(tuple(caches), masks)


def backward(
    form: Form,
    dy: np.ndarray | None,
    dlast: States | None,
    cache: Cache,
    *,
    onto: Sequence[Layer] | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, tuple[np.ndarray, ...], list[list[Weights]]]:
    """Back-propagation through time and layers.

    Inputs: dy (N, T, S*P) and dlast, the gradients of the last states, None for zeros; cache of
    forward; onto, gradients of the weights to go on from, in place.
    Returns: dx like x, those of the initial states, those of the weights, as forward has them.
    """
    S, n = form.directions, len(form.record.states)
    dlast = (None,) * n if dlast is None else dlast
    grads, dinitial = [], []
    for i, caches in reversed(list(enumerate(cache.layers))):
        if dy is not None and i < len(cache.masks) and cache.masks[i] is not None:
            dy = dy * cache.masks[i]
        dh = [dy] * S if S == 1 or dy is None else np.split(dy, S, axis=-1)
        after = [_of_direction(dlast, i * S + d) for d in range(S)]
        sums = None if onto is None else onto[i]
        dy, before, layer = layer_backward(form, dh, after, caches, onto=sums, backend=backend)
        grads.insert(0, layer)
        dinitial = [*before, *dinitial]
    return dy, _joined(dinitial), grads


def _of_direction(states: States | None, i: int) -> States | None:
    """Those of one layer in one direction."""
    return None if states is None else tuple(None if s is None else s[i] for s in states)


def _joined(states: Sequence[States]) -> tuple[np.ndarray, ...]:
    """Those of all, in one array each."""
    if len(states) == 1:
        return tuple(state[None] for state in states[0])
    return tuple(map(np.stack, zip(*states, strict=True)))
