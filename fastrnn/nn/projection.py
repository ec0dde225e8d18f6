"""An LSTM whose hidden state is projected (Sak et al. 2014; PyTorch's proj_size): r = h Whr^T is
what goes out and back in.

Since r_{t-1} Wh = h_{t-1} (Whr^T Wh), it is an LSTM with the recurrent weights Whr^T Wh, and a
product after it. A given r_0 need not be the projection of any h: it enters beside x, at the steps
that follow it, by the weights Wh. Letters as in direction.
"""

from typing import NamedTuple

import numpy as np

from fastrnn.cells import Steps, batch_first, laid_out, steps_taken
from fastrnn.layers import checks, dense
from fastrnn.nn import direction
from fastrnn.nn.direction import Form, States, Weights


class Cache(NamedTuple):
    """What forward leaves for backward."""

    lstm: tuple
    product: tuple  # of Whr^T Wh
    out: tuple  # of h Whr^T
    last: tuple  # of hT Whr^T
    starts: np.ndarray  # (N, T, 1): 1 where r_0 enters
    stepless: np.ndarray  # (N,), bool: rows without a step, whose last r is r_0
    words: tuple | None  # of the rows read from a table
    steps: Steps  # as they were given
    transposed: bool


def forward(
    form: Form,
    weights: Weights,
    x: np.ndarray,
    initial: States | None,
    steps: Steps,
    training: bool,
    backend: str | None,
) -> tuple[np.ndarray, tuple[np.ndarray, ...], Cache | None]:
    """All steps; inputs and results as direction.forward's, h being r (N, T, P)."""
    Wx, Wh, b, bh, Whr, _ = weights
    if form.transposed:
        Wx, Wh = Wx.T, Wh.T
    Whr = np.ascontiguousarray(Whr.T)
    N = direction.batch_of(x, steps)
    given, words = checks.steps(x, N, *steps), None
    steps = given._replace(reset=batch_first(given.reset, given), layout="batch_first")
    x = batch_first(x, given)
    if steps.index is not None:
        taken = steps_taken(steps.index.shape, steps.lengths)
        x, words = dense.word_embedding_forward(np.where(taken, steps.index, 0), x)
        steps = steps._replace(index=None)
    r0, c0 = (None, None) if initial is None else initial
    starts = _starts(x.shape[:2], steps)
    if r0 is None:
        r0 = np.zeros((N, Whr.shape[1]), Whr.dtype)
    x = np.concatenate([x, starts * r0[:, None]], axis=2, dtype=x.dtype)
    Wx = np.concatenate([Wx, Wh])
    product, of_product = dense.affine_forward(Whr, Wh, np.zeros_like(b), backend=backend)
    lstm = Weights(Wx, product, b, bh)
    form = form._replace(transposed=False)
    states = (None, c0)
    h, (hT, cT), of_lstm = direction.forward(form, lstm, x, states, steps, training, backend)
    zeros = np.zeros_like(r0, shape=Whr.shape[1:])
    r, of_out = dense.temporal_affine_forward(h, Whr, zeros, backend=backend)
    rT, of_last = dense.affine_forward(hT, Whr, zeros, backend=backend)
    stepless = ~steps_taken(x.shape[:2], steps.lengths).any(axis=1)
    rT[stepless] = r0[stepless]
    r = laid_out(r, given)
    if not training:
        return r, (rT, cT), None
    caches = of_lstm, of_product, of_out, of_last
    rest = starts, stepless, words, given, weights.Wh is not Wh
    return r, (rT, cT), Cache(*caches, *rest)


def backward(
    form: Form,
    dr: np.ndarray | None,
    dlast: States,
    cache: Cache,
    onto: Weights | None,
    backend: str | None,
) -> tuple[np.ndarray, tuple[np.ndarray, ...], Weights]:
    """Gradients of forward; inputs and results as direction.backward's."""
    drT, dcT = dlast
    r_shape = *cache.starts.shape[:2], cache.out.w.shape[1]
    dr = np.zeros(r_shape, cache.out.w.dtype) if dr is None else batch_first(dr, cache.steps)
    drT = np.zeros_like(dr, shape=(r_shape[0], r_shape[2])) if drT is None else drT
    passed_by = np.where(cache.stepless[:, None], drT, 0)
    dh, dWhr, _ = dense.temporal_affine_backward(dr, cache.out, backend=backend)
    dhT, of_last, _ = dense.affine_backward(drT - passed_by, cache.last, backend=backend)
    form = form._replace(transposed=False)
    dx, (_, dc0), (dWx, dproduct, db, dbh, *_) = direction.backward(
        form, dh, (dhT, dcT), cache.lstm, None, backend
    )
    of_product, dWh, _ = dense.affine_backward(dproduct, cache.product, backend=backend)
    D = dx.shape[2] - r_shape[2]
    dr0 = (cache.starts * dx[..., D:]).sum(axis=1) + passed_by
    dx, dWx, dWh = dx[..., :D], dWx[:D], dWh + dWx[D:]
    if cache.words is not None:
        dx = dense.word_embedding_backward(dx, cache.words, backend=backend)
    if cache.transposed:
        dWx, dWh = dWx.T, dWh.T
    grads = Weights(dWx, dWh, db, dbh, (dWhr + of_last + of_product).T)
    if onto is not None:
        grads = Weights(
            *(d if d is None else np.add(a, d, out=a) for a, d in zip(onto, grads, strict=True))
        )
    return np.ascontiguousarray(laid_out(dx, cache.steps)), (dr0, dc0), grads


def _starts(shape: tuple[int, int], steps: Steps) -> np.ndarray:
    """(N, T, 1), bool: the steps before which the state is the initial one."""
    N, T = shape
    taken = steps_taken(shape, steps.lengths)
    first = taken.sum(axis=1) - 1 if steps.reverse else np.zeros(N, int)
    starts = taken & (np.arange(T) == first[:, None])
    if steps.reset is not None:
        starts = (
            starts & ~steps.reset if steps.reset_to == "zeros" else starts | (taken & steps.reset)
        )
    return starts[..., None]
