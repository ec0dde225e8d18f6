"""backend="cython": calls the extension, and gives the caches their fields.

The functions, caches and results are those of reference.py; prepare, stream and chain are its own.
"""

import functools
from contextlib import suppress

import numpy as np

from fastrnn.backends import _kernels, _memory, _rows, reference, threads
from fastrnn.backends._kernels import threads_for
from fastrnn.cells import ALL_STEPS, steps_taken
from fastrnn.options import limit

threads.followed_by(_kernels.set_threads)
_kernels.set_cpus(threads.cpus_beside_openmp())
with suppress(ImportError):  # threadpoolctl is not installed
    from fastrnn.backends import threadpool  # noqa: F401

release_memory = _memory.release
bound_threads = _kernels.bound_threads

_RULES = _kernels.update_rules()
# An element of an update counts as so many operations: it is bound by memory.
_UPDATE_WORK = 30


@functools.cache
def _spec(cell, gates):
    """A cell's kernels, for a gate order."""
    plain = cell.kernel.removesuffix("_options").removesuffix("_norm")
    numbers = map(_kernels.cells.index, (cell.kernel, plain))
    with_vectors = [gate for gate in gates if gate in cell.vectors]
    orders = tuple(map(gates.index, cell.gates)), tuple(map(with_vectors.index, cell.vectors))
    return _kernels.Spec(*numbers, *orders, cell, ALL_STEPS)


# ---- recurrent layers ----------------------------------------------------------------------------


def step_forward(cell, args, rest, training):
    return _spec(cell, rest[0]).step_forward(args, rest, training)


def forward(cell, args, rest, steps, training, return_sequence):
    x, index = args[0], steps[2]
    if index is not None:
        x, index, _ = _table(x, index, steps[0])
    return _spec(cell, rest[0]).forward(args, rest, x, index, steps, training, return_sequence)


def step_backward(cell, dstates, cache):
    first, *others = dstates
    return backward(cell, first, (None, *others), cache)


def backward(cell, dh, dlast, cache, onto=None):
    x, index, used = cache.x, cache.index, None
    if index is not None:
        x, index, used = _rows_read(x, index, cache.lengths)
    dbh_wanted = cell.two_biases and cache.bias
    dx, *others = _spec(cell, cell.order_of(cache)).backward(
        cache, dh, tuple(dlast), x, index, dbh_wanted, onto
    )
    if used is not None:
        dx_used, dx = dx, np.zeros_like(cache.x)
        dx[used] = dx_used
    return dx, *others


def _table(x, index, lengths):
    """x and index of no more rows than index has elements, and which of x they are (None: all)."""
    if len(x) <= index.size:
        return x, index, None
    taken = steps_taken(index.shape, lengths)
    used, places = distinct(index[taken])
    index = np.zeros_like(index)
    index[taken] = places
    return x[used], index, used


def _rows_read(x, index, lengths):
    """The same of those rows alone that a step reads: the gradient of Wx is a sum over all that are
    left, to which 0 times NaN would add."""
    x, index, used = _table(x, index, lengths)
    if used is not None:
        return x, index, used
    read = np.zeros(len(x), bool)
    read[index[steps_taken(index.shape, lengths)]] = True
    if read.all():
        return x, index, None
    used = np.flatnonzero(read)
    return x[used], (np.cumsum(read) - 1)[index], used


# ---- prepared weights and streams ----------------------------------------------------------------


def prepare(cell, weights, training):
    """The weights as the kernels in use now read them."""
    Whr = weights.projection
    return _spec(cell, weights.gates).pack(*weights[:4], Whr, weights.transposed, training)


def stream(cell, weights, states, checked):
    """An object that steps the states, in place; checked is Stream's."""
    Wx, Wh, b, bh, _, transposed, packed, options, vectors, Whr = weights
    if packed is None or not packed.are_of(Wx, Wh, b, bh, Whr, transposed):
        packed = prepare(cell, weights, False)
    spec = _spec(cell, weights.gates)
    return _kernels.Stream(spec, packed, tuple(states), checked, options, vectors)


def chain(streams, w, b, checked):
    """An object that steps what stream returned, one after the other, and w (H, C) and b (C,), or
    None, on the last h."""
    return _kernels.Chain(tuple(streams), w, b, checked)


# ---- layers of rows: x (M, D), dout (M, columns) -------------------------------------------------


def word_embedding_forward(x, first, mean, W):
    out = np.empty((len(x) if first is None else len(first) - 1, W.shape[1]), W.dtype)
    _rows.embedding(x, first, mean, W, threads_for(len(x) * W.shape[1]), out)
    return out


def word_embedding_backward(dout, x, first, mean, V):
    dW = np.empty((V, dout.shape[1]), dout.dtype)
    _rows.embedding_grad(x, first, mean, dout, threads_for(len(x) * dout.shape[1]), dW)
    return dW


def distinct(x):
    found, places = np.empty_like(x), np.empty_like(x)
    return found[: _rows.distinct(x, found, places)], places


def affine_forward(x, w, b):
    out = np.empty((len(x), w.shape[1]), x.dtype)
    _rows.matmul(x, w, b, False, threads_for(2 * len(x) * w.size), out)
    return out


def affine_backward(dout, x, w):
    dx, dw, db = np.empty_like(x), np.empty_like(w), np.empty(w.shape[1], w.dtype)
    n = threads_for(2 * len(x) * w.size)
    _rows.matmul(dout, w, None, True, n, dx)
    _rows.matmul_grad(x, dout, n, dw, db)
    return dx, dw, db


def softmax_loss(x, y, weight, scale):
    losses, dx = np.empty(len(y)), np.empty_like(x)
    # An exponential counts as 30 operations.
    _rows.softmax(x, y, weight, scale, threads_for(30 * x.size), losses, dx)
    return scale * float(losses.sum()), dx


# ---- attention -----------------------------------------------------------------------------------


def attention_forward(query, keys, values, w, index):
    weights = np.empty((len(query), keys.shape[1]), query.dtype)
    context = np.empty((len(query), values.shape[2]), query.dtype)
    n = threads_for(_operations(weights, query, context, w))
    _rows.attention(query, keys, values, w, index, n, weights, context)
    return context, weights


def attention_backward(dcontext, dweights, query, keys, values, w, index, weights, dkeys, dvalues):
    order, first = np.arange(len(query), dtype=np.intp), np.arange(len(keys) + 1, dtype=np.intp)
    if index is not None:
        order = np.argsort(index, kind="stable")
        first = np.searchsorted(index[order], first)
    dscores, dquery = np.empty_like(weights), np.empty_like(query)
    dw = None if w is None else np.empty_like(query)
    n = threads_for(2 * _operations(weights, query, dcontext, w))
    given = dcontext, dweights, query, keys, values, w, order, first, weights
    _rows.attention_grad(*given, n, dkeys, dvalues, dscores, dquery, dw)
    return dquery, None if w is None else dw.sum(axis=0)


def _operations(weights, query, context, w):
    # A tanh counts as 30.
    return weights.size * ((2 if w is None else 30) * query.shape[1] + 2 * context.shape[1])


# ---- dropout -------------------------------------------------------------------------------------


def drop(a, seed, kind, first_row, p, out):
    if a.size:
        n = threads_for(_UPDATE_WORK * a.size)
        _rows.drop(a, seed, kind, first_row, limit(p), 1 / (1 - p), n, out)


# ---- update rules --------------------------------------------------------------------------------


def update(rule, w, dw, config, state, out, at=...):
    """One pass over the elements, or the reference's many where the kernel does not take the
    arrays as they lie."""
    if not all(a.flags.c_contiguous and a.flags.aligned for a in (w, dw, out, *state)):
        reference.update(rule, w, dw, config, state, out, at)
        return
    rows, width = (None, 0) if at is ... else (at, dw.size // max(1, len(at)))
    by_name = dict(zip(rule.state, state, strict=True))
    m, v = (name and by_name[name].reshape(-1) for name in (rule.m, rule.v))
    flat = w.reshape(-1), dw.reshape(-1), threads_for(_UPDATE_WORK * dw.size), out.reshape(-1)
    keep = 1 - config["learning_rate"] * config["weight_decay"]
    _rows.update(_RULES[rule.name], rows, width, *flat, m, v, keep=keep, **rule.factors(config))
