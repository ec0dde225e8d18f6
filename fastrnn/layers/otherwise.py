"""Cells with options: what is checked, and what is done to x and Wh before a backend and to their
gradients after it."""

import functools
from numbers import Integral
from typing import NamedTuple

import numpy as np

from fastrnn.backends import get_backend
from fastrnn.cells import PROJECTED, WITH_NORM, WITH_OPTIONS, Cell, steps_taken
from fastrnn.layers import checks
from fastrnn.options import DROPOUT_WEIGHTS, DROPOUT_X, LayerNorm, Options

_PROBABILITIES = (
    *("zoneout_h", "zoneout_c", "dropout_x", "dropout_h", "dropout_candidate", "dropout_weights"),
)
_POSITIVE = "clip", "clip_gradient", "hard_sigmoid", "cap"
_COUNTS = "seed", "first_step"


def record_of(
    cell: Cell, projected: bool = False, vectors: np.ndarray | LayerNorm | None = None
) -> Cell:
    """The record with options of a plain cell, or itself; that with a projection; that with layer
    normalisation where the vectors are its parameters.

    Raises TypeError for a cell that has no projection, ValueError for layer normalisation of a form
    of the cell that has none.
    """
    projected = projected or cell.projection
    if projected and not cell.projection and cell.kernel not in PROJECTED:
        raise TypeError(f"projection: expected nothing for {cell.name}")
    if not isinstance(vectors, LayerNorm):
        return (PROJECTED if projected else WITH_OPTIONS).get(cell.kernel, cell)
    if projected:
        raise ValueError("projection: expected None with layer_norm")
    if cell.kernel not in WITH_NORM:
        raise ValueError(f"layer_norm: expected None for {_named(cell)}")
    return WITH_NORM[cell.kernel]


def vectors_of(
    peepholes: np.ndarray | None, layer_norm: LayerNorm | None
) -> np.ndarray | LayerNorm | None:
    """The one that is given.

    Raises ValueError where both are, TypeError for what is no LayerNorm.
    """
    if layer_norm is None:
        return peepholes
    if type(layer_norm) is not LayerNorm or len(layer_norm) != len(LayerNorm._fields):
        got = type(layer_norm).__name__
        raise TypeError(f"layer_norm: expected fastrnn.LayerNorm, got {got}")
    if peepholes is not None:
        raise ValueError("peepholes: expected None with layer_norm")
    return layer_norm


def layer_norm_of(record: Cell, norm: LayerNorm, h: np.ndarray) -> LayerNorm:
    """Its parameters as a backend takes them, for states like h (N, H).

    Raises ValueError for a shape, eps or what the cell does not have, TypeError for a dtype.
    """
    own = [name for name in LayerNorm._fields if name in record.norm]
    for name in LayerNorm._fields[:-1]:
        if name not in own and getattr(norm, name) is not None:
            raise ValueError(f"{name}: expected None for {record.name}")
    given = tuple(getattr(norm, name) for name in own)
    _, *arrays = checks.arrays(checks.of_layer_norm(record), (h, *given))
    checks.positive("eps", norm.eps)
    return norm._replace(**dict(zip(own, arrays, strict=True)))


@functools.lru_cache(maxsize=64, typed=True)
def _checked(record, options):
    for name, value in options._asdict().items():
        if name not in record.options and value != Options._field_defaults[name]:
            raise ValueError(f"{name}: expected nothing for {_named(record)}, got {value!r}")
        if name in _PROBABILITIES:
            checks.probability(name, value)
        elif name in _POSITIVE and value is not None:
            checks.positive(name, value)
        elif name in _COUNTS:
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            if not whole or not 0 <= value < 2**64:
                raise ValueError(f"{name}: expected an integer in [0, 2**64), got {value!r}")
    # A number of NumPy's has a dtype, which results would take on.
    return Options(
        *(
            v if v is None else (int if name in _COUNTS else float)(v)
            for name, v in zip(options._fields, options, strict=True)
        )
    )


def _named(record):
    return " ".join(
        [record.name, *(f"{name}={value!r}" for name, value in record.constants.items())]
    )


def options_of(record: Cell, options: Options | None) -> Options:
    """Checked; of None those of the plain cell.

    Raises TypeError for what is no Options, ValueError for a value out of range or of another cell.
    """
    if options is None:
        return Options()
    if not record.options:
        raise TypeError(f"options: expected nothing for {record.name}")
    if type(options) is not Options or len(options) != len(Options._fields):
        raise TypeError(f"options: expected fastrnn.Options, got {type(options).__name__}")
    try:
        return _checked(record, options)
    except TypeError:  # what cannot be hashed is no number
        return _checked.__wrapped__(record, options)


def beside(
    cell: Cell,
    b: np.ndarray,
    vectors: np.ndarray | LayerNorm | None,
    options: Options | None,
) -> dict[str, object]:
    """Options and vectors as fields of Weights, copied; nothing where there are none.

    Raises what options_of raises, ValueError for a shape, TypeError for a dtype or another cell's.
    """
    record = record_of(cell, vectors=vectors)
    H = len(b) // len(record.gates)
    if record.norm:
        norm = layer_norm_of(record, vectors, np.empty((0, H), b.dtype))
        norm = LayerNorm(*(a if a is None else np.copy(a) for a in norm[:-1]), norm.eps)
        return {"options": options_of(record, options), "vectors": norm}
    if vectors is None:
        plain = options is None and not cell.projection
        return {} if plain else {"options": options_of(record, options)}
    if not record.vectors:
        raise TypeError(f"peepholes: expected nothing for {record.name}")
    name, shape = record.vectors_name, (len(record.vectors) * H,)
    vectors = checks.gradient_of(name, vectors, shape, b.dtype).copy()
    return {"options": options_of(record, options), "vectors": vectors}


def dropped_x(
    x: np.ndarray,
    steps: NamedTuple,
    options: Options,
    N: int,
    backend: str | None,
    *,
    in_place: bool = False,
) -> np.ndarray:
    """What dropout leaves of x, or in place of its gradient.

    Raises ValueError with an index: a row of the table may be dropped for one row of the batch
    alone.
    """
    p = options.dropout_x
    if p == 0:
        return x
    if steps.index is not None:
        raise ValueError(f"dropout_x: expected 0 with an index, got {p}")
    out = x if in_place else np.empty_like(x)
    for a, to in zip(*(_by_rows(a, steps, N) for a in (x, out)), strict=True):
        get_backend(backend).drop(a, options.seed, DROPOUT_X, 0, p, to)
    return out


def _by_rows(x, steps, N):
    """Views (rows, repeats, D) of an array of steps, which begin with row 0."""
    if x.ndim == 3:
        return [x if steps.layout == "batch_first" else x.swapaxes(0, 1)]
    if steps.layout != "packed":
        return [x[:, None]]
    taken = steps_taken((N, steps.lengths.max(initial=0)), steps.lengths).sum(axis=0)
    return np.split(x[:, None], np.cumsum(taken)[:-1])


def dropped_weights(
    Wh: np.ndarray,
    cell: Cell,
    order: str,
    transposed: bool,
    options: Options,
    backend: str | None,
    *,
    in_place: bool = False,
) -> np.ndarray:
    """What dropout leaves of Wh, or in place of its gradient: the same weights in any order of the
    gates."""
    p = options.dropout_weights
    if p == 0:
        return Wh
    out = Wh if in_place else np.empty_like(Wh)
    sides = (W if transposed else W.T for W in (Wh, out))
    for gate, a, to in zip(order, *(np.split(W, len(order)) for W in sides), strict=True):
        first = cell.gates.index(gate) * len(a)
        views = a[:, None], to[:, None]
        get_backend(backend).drop(views[0], options.seed, DROPOUT_WEIGHTS, first, p, views[1])
    return out
