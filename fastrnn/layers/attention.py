"""Soft attention: each query looks at all places of something, at some more than at others.

Letters: N queries, U things looked at, L places of each, A attention units, D values. dtypes,
backend= and errors as in layers.recurrent.
"""

import numpy as np

from fastrnn.backends import get_backend
from fastrnn.backends.caches import AttentionCache
from fastrnn.layers import checks

_SHAPES = {"query": "N A", "keys": "U L A", "values": "U L D", "w": "A?"}
_OPERANDS = checks.signature(**_SHAPES)
_CACHED = checks.signature(**_SHAPES, weights="N L", context="N D")


def attention_forward(
    query: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    w: np.ndarray | None = None,
    *,
    index: np.ndarray | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, np.ndarray, AttentionCache]:
    """The mean of the values of all places, weighted by how well their keys go with the query.

    Inputs: query (N, A); keys (U, L, A); values (U, L, D); w (A,): a place's score is
    w . tanh(key + query) (Bahdanau et al. 2015), or None: key . query / sqrt(A) (Vaswani et al.
    2017); index (N,), which of the U each query looks at (None: U = N, each at its own).
    Returns: context (N, D); weights (N, L), the softmax of the scores; cache for
    attention_backward.
    Raises IndexError for an index outside [0, U).
    """
    query, keys, values, w = checks.arrays(_OPERANDS, (query, keys, values, w))
    index = _looked_at(index, len(query), len(keys))
    context, weights = get_backend(backend).attention_forward(query, keys, values, w, index)
    return context, weights, AttentionCache(query, keys, values, w, index, weights, context)


def attention_backward(
    dcontext: np.ndarray | None,
    dweights: np.ndarray | None,
    cache: AttentionCache,
    *,
    backend: str | None = None,
) -> tuple[np.ndarray, ...]:
    """Gradients of attention_forward.

    Inputs: dcontext (N, D) and dweights (N, L), None for zeros; cache of attention_forward.
    Returns: dquery (N, A), dkeys (U, L, A), dvalues (U, L, D), and with w dw (A,).
    """
    return backward_onto(dcontext, dweights, cache, None, backend=backend)


def backward_onto(
    dcontext: np.ndarray | None,
    dweights: np.ndarray | None,
    cache: AttentionCache,
    onto: tuple[np.ndarray, np.ndarray | None] | None,
    *,
    backend: str | None = None,
) -> tuple[np.ndarray | None, ...]:
    """Gradients of attention_forward, onto those of keys and values by other queries.

    Inputs: as attention_backward's; onto, dkeys and dvalues, which go on in place from what they
    hold: C-contiguous, of the shapes of keys and values; None in the place of dvalues, where none
    is wanted, and of both, for zeros.
    Returns: dquery (N, A), dkeys (U, L, A), dvalues (U, L, D) or None, and with w dw (A,).
    """
    checks.cache_of("attention_forward", AttentionCache, cache)
    given = (getattr(cache, name) for name in (*_SHAPES, "weights", "context"))
    query, keys, values, w, weights, context = checks.arrays(_CACHED, tuple(given))
    index = _looked_at(cache.index, len(query), len(keys))
    dcontext = checks.optional_gradient("dcontext", dcontext, context)
    dcontext = np.zeros_like(context) if dcontext is None else dcontext
    dweights = checks.optional_gradient("dweights", dweights, weights)
    if onto is None:
        onto = np.zeros_like(keys), np.zeros_like(values)
    else:
        onto = _checked_onto(onto, keys, values)
    dquery, dw = get_backend(backend).attention_backward(
        dcontext, dweights, query, keys, values, w, index, weights, *onto
    )
    return dquery, *onto, *(() if w is None else (dw,))


def _looked_at(index, N, U):
    if index is not None:
        return checks.indices("index", index, (N,), U, "U")
    if U != N:
        raise ValueError(f"keys: expected shape (N, L, A) with N = {N} like query, got N = {U}")
    return None


def _checked_onto(onto, keys, values):
    if not isinstance(onto, tuple | list) or len(onto) != 2:
        raise TypeError(f"onto: expected dkeys and dvalues, got {type(onto).__name__}")
    for name, d, like in zip(("dkeys", "dvalues"), onto, (keys, values), strict=True):
        if d is not None or name == "dkeys":
            checks.written(name, d, like.shape, like.dtype)
    return onto
