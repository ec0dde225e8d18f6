"""One clear error before any work is done: shapes, dtypes, labels, lengths, gate orders, caches."""

import functools
import operator
from collections.abc import Sequence
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np

from fastrnn.cells import Cell, Steps, steps_taken, taken

try:
    from fastrnn.layers._plain import Plain
except ImportError:  # built without extensions
    Plain = None

# Axes that may be empty; all others need an element.
_MAY_BE_EMPTY = {"N", "T", "U"}

Axis = tuple[int, str]  # factor and letter: (4, "H") is 4*H


class Signature(NamedTuple):
    """Names and shapes of a function's arrays, which of them may be None, and, where it is built,
    the quick check that says whether all is well."""

    names: tuple[str, ...]
    shapes: tuple[tuple[Axis, ...], ...]
    optional: tuple[bool, ...]
    plain: "Plain | None"


def signature(**shapes: str) -> Signature:
    """Parse shapes such as signature(x="N T D", Wh="H 4*H", c0="N H?"), of which ? may be None."""

    def axis(text: str) -> Axis:
        factor, _, letter = text.rpartition("*")
        return int(factor or 1), letter

    parsed = tuple(tuple(map(axis, text.rstrip("?").split())) for text in shapes.values())
    optional = tuple(text.endswith("?") for text in shapes.values())
    plain = Plain and Plain(parsed, optional, _MAY_BE_EMPTY)
    return Signature(tuple(shapes), parsed, optional, plain)


def array(name: str, a: object, empty: type | None = None) -> np.ndarray:
    """As an ndarray; of an empty list in that dtype, if any: it has none of its own.

    Raises TypeError for None and for a masked array, whose mask would be lost, ValueError for lists
    of different lengths.
    """
    if type(a) is np.ndarray:
        return a
    if a is None:
        raise TypeError(f"{name}: expected an array, got None")
    if _is_masked(a):
        raise TypeError(f"{name}: expected an array without a mask, which would be lost")
    try:
        result = np.asarray(a)
        # NumPy 1.23 warns and makes an array of lists.
        if result.dtype == object and any(isinstance(x, list | np.ndarray) for x in result.flat):
            raise ValueError("lists of different lengths")
    except ValueError as error:
        raise ValueError(f"{name}: expected an array, got none: {error}") from None
    bare = empty and not result.size and isinstance(a, list | tuple)
    return result.astype(empty) if bare else result


def _is_masked(a):
    """Also a list of masked arrays or elements."""
    return isinstance(a, np.ma.MaskedArray) or (
        isinstance(a, list | tuple) and any(map(_is_masked, a))
    )


def arrays(
    expected: Signature, given: tuple[np.ndarray | None, ...]
) -> tuple[np.ndarray | None, ...]:
    """The arrays as C-contiguous ndarrays of one float dtype whose shapes fit together.

    Letters are bound from left to right; a non-contiguous array is copied once.
    Raises TypeError for a dtype or a masked array, ValueError for a shape.
    """
    if expected.plain is not None and expected.plain(given):
        return given
    result = [
        None if a is None and optional else array(name, a)
        for name, a, optional in zip(expected.names, given, expected.optional, strict=True)
    ]
    dtype = float_dtype(expected.names[0], result[0].dtype)
    for i, a in enumerate(result):
        if a is None:
            continue
        if a.dtype is not dtype and (a.dtype != dtype or a.dtype.char != dtype.char):
            raise TypeError(
                f"{expected.names[i]}: expected {dtype} like {expected.names[0]}, got {a.dtype}"
            )
        flags = a.flags
        if not (flags.c_contiguous and flags.aligned):
            result[i] = np.array(a, order="C")
    _check_shapes(expected, [None if a is None else a.shape for a in result])
    return tuple(result)


def float_dtype(name: str, dtype: np.dtype) -> np.dtype:
    """Raises TypeError unless it is float32 or float64 as this CPU has them."""
    # By character: where long double is 8 bytes it equals float64, but not for a kernel.
    if not isinstance(dtype, np.dtype) or dtype.char not in "fd" or not dtype.isnative:
        raise TypeError(f"{name}: expected float32 or float64, got {dtype}")
    return dtype


def _check_shapes(expected: Signature, shapes: Sequence[tuple[int, ...] | None]) -> None:
    sizes: dict[str, int] = {}
    for name, axes, shape in zip(expected.names, expected.shapes, shapes, strict=True):
        if shape is None:
            continue
        if len(shape) != len(axes):
            raise ValueError(_shape_error(name, axes, sizes, shape))
        for (factor, letter), n in zip(axes, shape, strict=True):
            fits = sizes.setdefault(letter, n // factor) * factor == n
            if not fits or (n == 0 and letter not in _MAY_BE_EMPTY):
                raise ValueError(_shape_error(name, axes, sizes, shape))


def _shape_error(
    name: str, axes: Sequence[Axis], sizes: dict[str, int], shape: tuple[int, ...]
) -> str:
    def term(axis: Axis) -> str:
        factor, letter = axis
        return letter if factor == 1 else f"{factor}*{letter}"

    def tuple_of(terms: list[str]) -> str:
        return f"({terms[0]},)" if len(terms) == 1 else f"({', '.join(terms)})"

    text = f"{name}: expected shape {tuple_of([term(axis) for axis in axes])}"
    empty = [
        axis
        for axis, n in zip(axes, shape, strict=False)
        if n == 0 and axis[1] not in _MAY_BE_EMPTY
    ]
    if len(shape) == len(axes) and empty:
        return f"{text} with {term(empty[0])} at least 1, got {shape}"
    known = [str(f * sizes[letter]) if letter in sizes else letter for f, letter in axes]
    if any(letter in sizes for _, letter in axes):
        text += f" = {tuple_of(known)}"
    return f"{text}, got {shape}"


# ---- recurrent cells -----------------------------------------------------------------------------


@functools.cache
def of_weights(cell: Cell, transposed: bool) -> Signature:
    """The weights of a cell alone."""
    return signature(**_all_weights(cell, transposed))


class Forward(NamedTuple):
    """What a cell's forward functions expect: x, the states before (of a sequence the first ones,
    of which only h0 is needed), the weights."""

    step: Signature
    sequence: dict[str, Signature]  # by layout, or "indexed": x is a table


@functools.cache
def of_forward(cell: Cell, transposed: bool) -> Forward:
    """Signatures of a cell's forward functions."""
    weights = _all_weights(cell, transposed)
    axes = zip(cell.states, cell.state_axes, strict=True)
    before = {f"prev_{state}": f"N {width}" for state, width in axes}
    return Forward(
        signature(x="N D", **before, **weights),
        {kind: signature(x=axes, **_initial(cell), **weights) for kind, axes in _INPUTS.items()},
    )


@functools.cache
def of_step_cache(cell: Cell, transposed: bool) -> Signature:
    """The arrays of a step's cache."""
    states = _states(cell, cell.initial_fields)
    weights = _weights(cell, transposed) | _beside(cell, transposed)
    return signature(x="N D", **states, **weights, **_kept(cell, "N"))


@functools.cache
def of_cache(cell: Cell, transposed: bool, kind: str) -> Signature:
    """The arrays of a sequence's cache, of a layout or indexed."""
    last = _states(cell, cell.last_fields)
    weights = _weights(cell, transposed) | _beside(cell, transposed)
    axes = "N T" if kind == "indexed" else _INPUTS[kind].removesuffix(" D")
    kept = _kept(cell, axes)
    return signature(x=_INPUTS[kind], **_initial(cell), **weights, **kept, **last)


@functools.cache
def of_layer_norm(cell: Cell) -> Signature:
    """A state h and the parameters of a cell's layer normalisation."""
    return signature(h="N H", **{name: _times(width) for name, width in cell.norm.items()})


# x of sequences.
_INPUTS = {"batch_first": "N T D", "time_first": "T N D", "packed": "U D", "indexed": "U D"}


def _states(cell: Cell, names: Sequence[str], axes: str = "N") -> dict[str, str]:
    pairs = zip(names, cell.state_axes, strict=True)
    return {name: f"{axes} {width}" for name, width in pairs}


def _initial(cell: Cell) -> dict[str, str]:
    states = _states(cell, cell.initial_fields)
    return {name: f"{axes}?" for name, axes in states.items()} | {"h0": states["h0"]}


def _kept(cell: Cell, axes: str) -> dict[str, str]:
    saved = {name: f"{axes} {_times(n)}" for name, n in cell.saved.items()}
    return _states(cell, cell.states, axes) | saved


def _times(n: int) -> str:
    return "H" if n == 1 else f"{n}*H"


def _gates(cell: Cell) -> str:
    return _times(len(cell.gates))


def _weights(cell: Cell, transposed: bool) -> dict[str, str]:
    gates, width = _gates(cell), cell.state_axes[0]
    of_h = {"Wh": f"{gates} {width}" if transposed else f"{width} {gates}", "u": "H"}
    shapes = {"Wx": f"{gates} D" if transposed else f"D {gates}"}
    return shapes | {name: shape for name, shape in of_h.items() if name == cell.recurrent}


def _all_weights(cell: Cell, transposed: bool) -> dict[str, str]:
    nothing = {} if cell.recurrent else {"Wh": "?"}
    biases = {"b": _gates(cell), "bh": f"{_gates(cell)}?"}
    return _weights(cell, transposed) | nothing | biases | _beside(cell, transposed)


def _beside(cell: Cell, transposed: bool) -> dict[str, str]:
    axes = {cell.vectors_name: f"{_times(len(cell.vectors))}?"} if cell.vectors else {}
    if cell.projection:
        axes["projection"] = "P H" if transposed else "H P"
    return axes


def narrower(projection: np.ndarray, transposed: bool) -> None:
    """Raises ValueError unless a projection (H, P) has P below H: the kernels count on it."""
    H, P = projection.shape[::-1] if transposed else projection.shape
    if P >= H:
        shape = "(P, H)" if transposed else "(H, P)"
        raise ValueError(
            f"projection: expected shape {shape} with P below H = {H}, got {projection.shape}"
        )


def gate_order(cell: Cell, gates: str) -> str:
    """The order as a permutation of the cell's gates. Raises ValueError for an unknown one."""
    try:
        return cell.orders[gates]
    except (KeyError, TypeError):
        raise ValueError(f"gates: expected one of {list(cell.orders)}, got {gates!r}") from None


def known_order(cell: Cell, gates: str) -> None:
    """Raises ValueError unless it is an order as a permutation of the cell's gates."""
    if not isinstance(gates, str) or gates not in cell.known_orders:
        raise ValueError(f"gates: expected one of {cell.known_orders}, got {gates!r}")


# ---- numbers -------------------------------------------------------------------------------------


def flag(name: str, value: bool) -> bool:
    """Raises TypeError unless value is a bool."""
    if value is True or value is False:
        return value
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected a bool, got {value!r}")
    return bool(value)


def count(name: str, value: int) -> int:
    """Raises ValueError unless value is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
    return int(value)


def probability(name: str, p: float) -> float:
    """Raises ValueError unless p is a number in [0, 1)."""
    if isinstance(p, bool) or not isinstance(p, Real) or not 0 <= p < 1:
        raise ValueError(f"{name}: expected a probability in [0, 1), got {p!r}")
    return float(p)


def positive(name: str, value: float) -> float:
    """The value. Raises ValueError unless it is a finite number above 0."""
    number = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    if not number or not 0 < value < np.inf:
        raise ValueError(f"{name}: expected a number above 0, got {value!r}")
    return value


def indices(
    name: str,
    x: np.ndarray,
    shape: Sequence[int | str] | None,
    limit: int,
    letter: str,
    unread: np.ndarray | None = None,
) -> np.ndarray:
    """A copy of x as C-contiguous np.intp of that shape (letters match any size, None any shape),
    in [0, limit): a kernel trusts it, whatever becomes of the caller's array. Where unread is true
    it is not looked at, and may become 0.

    Raises TypeError for a dtype, ValueError for a shape, IndexError for an index out of range.
    """
    given, x = _integers(name, x, shape)
    _check_range(name, given, x, limit, letter, unread)
    return x


def _check_range(name, given, x, limit, letter, unread):
    if _first_beyond(x, limit - 1) is None:
        return
    beyond = (x < 0) | (x >= limit)
    if unread is not None:
        x[unread] = 0
        beyond &= ~unread
    for place in np.argwhere(beyond)[:1]:
        at = tuple(place.tolist())
        raise IndexError(
            f"{name}: expected indices in [0, {letter}) = [0, {limit}), got {given[at]} at {at}"
        )


def _integers(
    name: str, x: np.ndarray, shape: Sequence[int | str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """x as it is and as a C-contiguous copy in np.intp, where what does not fit is negative."""
    x = array(name, x, empty=np.intp)
    if x.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected an integer dtype, got {x.dtype}")
    wanted = x.shape if shape is None else tuple(shape)
    if len(x.shape) != len(wanted) or any(
        isinstance(want, int) and want != n for want, n in zip(wanted, x.shape, strict=True)
    ):
        text = ", ".join(map(str, wanted)) + ("," if len(wanted) == 1 else "")
        raise ValueError(f"{name}: expected shape ({text}), got {x.shape}")
    try:
        return x, np.array(x, dtype=np.intp, order="C")
    except ValueError:  # of more bytes than can be counted
        raise MemoryError(f"{name}: no memory for indices of shape {x.shape}") from None


def rows_of(name: str, rows: np.ndarray, N: int) -> np.ndarray:
    """An index of some of N rows: integers, from the end where they are negative, or a mask.

    Raises TypeError for a dtype, ValueError for a shape, IndexError for a row out of range.
    """
    rows = array(name, rows, empty=np.intp)
    if rows.dtype == np.bool_:
        if rows.shape != (N,):
            raise ValueError(f"{name}: expected a mask of shape (N,) = ({N},), got {rows.shape}")
        return rows
    if rows.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers or a mask, got {rows.dtype}")
    if rows.ndim > 1:
        raise ValueError(f"{name}: expected shape (R,), got {rows.shape}")
    beyond = rows[(rows < -N) | (rows >= N)]
    if beyond.size:
        raise IndexError(f"{name}: expected rows in [-N, N) = [{-N}, {N}), got {beyond.flat[0]}")
    return rows


def _first_beyond(x: np.ndarray, limit: int) -> tuple[int, ...] | None:
    """Where the first element outside of [0, limit] stands; x is np.intp."""
    x = x.view(np.uintp)  # in which a negative number is a large one: one comparison for two
    if not x.size or x.max() <= limit:
        return None
    return tuple(int(i) for i in np.argwhere(x > limit)[0])


def layout(name: str) -> str:
    """Raises ValueError unless it is the name of a layout of arrays of steps."""
    if not isinstance(name, str) or name not in LAYOUTS:
        raise ValueError(f"layout: expected one of {list(LAYOUTS)}, got {name!r}")
    return name


def steps(
    x: np.ndarray,
    N: int,
    lengths: np.ndarray | None,
    reverse: bool,
    index: np.ndarray | None,
    reset: np.ndarray | None,
    reset_to: str,
    layout: str,
) -> Steps:
    """Which steps N sequences take: lengths, None or a copy as C-contiguous np.intp (N,) with
    values in [0, T]; reverse; index, None where x has the layout, or a copy as C-contiguous np.intp
    (N, T) of rows of x (U, D); reset, None or a C-contiguous copy, bool, its axes those of x before
    the last; what it resets to; layout.

    Raises TypeError for a dtype or a reverse that is no bool, ValueError for a shape, a value or a
    name, IndexError for an index outside of [0, U) within a row's length.
    """
    if index is not None and layout != "batch_first":
        raise ValueError(f"layout: expected 'batch_first' with an index, got {layout!r}")
    if layout == "packed":
        lengths = _packed_lengths(lengths, N, len(x))
    elif lengths is not None:
        given, lengths = _integers("lengths", lengths, (N,))
    if index is not None:
        given_index, index = _integers("index", index, (N, "T"))
        past = None if lengths is None else ~steps_taken(index.shape, lengths)
        _check_range("index", given_index, index, len(x), "U", past)
    axes = x.shape[:-1] if index is None else index.shape
    T = axes[layout == "batch_first"]  # packed: at most all rows
    if lengths is not None and (at := _first_beyond(lengths, T)) is not None:
        raise ValueError(
            f"lengths: expected integers in [0, T] = [0, {T}], got {given[at]} at {at}"
        )
    if reset is not None:
        reset = resets(reset, LAYOUTS[layout], axes)
    _reset_to(reset_to)
    return Steps(lengths, flag("reverse", reverse), index, reset, reset_to, layout)


# Axes of arrays of steps before the last one.
LAYOUTS = {"batch_first": "(N, T)", "time_first": "(T, N)", "packed": "(U,)"}


def _packed_lengths(lengths, N, U):
    """A copy. Raises ValueError unless these are lengths of packed rows: falling, their sum U."""
    if lengths is None:
        raise ValueError("lengths: expected integers with layout='packed', got None")
    given, lengths = _integers("lengths", lengths, (N,))
    if (at := _first_beyond(lengths, U)) is not None:
        raise ValueError(f"lengths: expected integers in [0, {U}], got {given[at]} at {at}")
    if np.any(lengths[1:] > lengths[:-1]) or lengths.sum() != U:
        raise ValueError(f"lengths: expected integers that fall, with the sum U = {U}, got {given}")
    return lengths


def _reset_to(name):
    if not isinstance(name, str) or name not in ("zeros", "initial"):
        raise ValueError(f"reset_to: expected 'zeros' or 'initial', got {name!r}")


def resets(reset: np.ndarray, letters: str, shape: tuple[int, int]) -> np.ndarray:
    """A C-contiguous copy. Raises TypeError unless it is bool, ValueError for a shape."""
    given = array("reset", reset, empty=np.bool_)
    if given.dtype != np.bool_:
        raise TypeError(f"reset: expected bool, got {given.dtype}")
    if given.shape != shape:
        raise ValueError(f"reset: expected shape {letters} = {shape}, got {given.shape}")
    return np.array(given, order="C")


def bags(lengths: np.ndarray, words: int) -> np.ndarray:
    """Where each of the bags begins, and the last one ends: C-contiguous np.intp (N+1,).

    Raises TypeError for a dtype, ValueError for a shape or lengths that are not of so many words.
    """
    given, lengths = _integers("lengths", lengths, ("N",))
    if (at := _first_beyond(lengths, words)) is not None:
        raise ValueError(f"lengths: expected integers in [0, {words}], got {given[at]} at {at}")
    first = np.zeros(len(lengths) + 1, np.intp)
    np.cumsum(lengths, out=first[1:])
    if first[-1] != words:
        raise ValueError(f"lengths: expected a sum of {words}, the words of x, got {first[-1]}")
    return first


def bounds(first: np.ndarray, words: int) -> np.ndarray:
    """A copy of what bags returned.

    Raises TypeError for a dtype, ValueError unless it rises from 0 to that number of words.
    """
    given, first = _integers("first", first, ("N+1",))
    inside = _first_beyond(first, words) is None  # so that no difference overflows
    if not (inside and first.size and first[0] == 0 and first[-1] == words) or np.any(
        np.diff(first) < 0
    ):
        raise ValueError(
            f"first: expected integers that rise from 0 to {words}, the words of x, got {given}"
        )
    return first


def vectors(shape: tuple[int, int], dtype: np.dtype) -> tuple[int, int]:
    """V and W of word vectors that are not at hand. Raises ValueError unless shape is that,
    TypeError for a dtype."""
    if not isinstance(shape, tuple) or len(shape) != 2:
        raise ValueError(f"shape: expected (V, W), got {shape!r}")
    float_dtype("dtype", dtype)
    return count("shape", shape[0]), count("shape", shape[1])


def weights(name: str, mask: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A mask (bool or real: the weight of each element) in the dtype of the scores.

    Raises TypeError for a dtype, ValueError for a shape.
    """
    mask = array(name, mask)
    if mask.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected a bool or real dtype, got {mask.dtype}")
    if mask.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {mask.shape}")
    return np.require(mask, dtype, ["C_CONTIGUOUS", "ALIGNED"])


def cache_of(function: str, kind: type, cache: object, ndim: int | None = None) -> None:
    """Raises TypeError unless cache is what the named function returned, of an x with ndim axes."""
    got = type(cache).__name__
    if is_of(kind, cache):
        axes = None if ndim is None else array("x", cache.x).ndim
        if axes == ndim:
            return
        got += f" of an x with {axes} axes"
    raise TypeError(f"cache: expected the cache that {function} returned, got {got}")


def is_of(kind: type, cache: object) -> bool:
    """Whether it is a cache of that kind; tuple.__new__ makes some with other fields."""
    return type(cache) is kind and len(cache) == len(kind._fields)


def recurrent_cache(cell: Cell, step: bool, cache: NamedTuple) -> NamedTuple:
    """The cache of a cell's sequence, or of one step, as the kernels trust it, whatever has been
    changed in it since: arrays that fit together, C-contiguous, and which steps.

    Raises TypeError for a foreign cache or a dtype, ValueError for one of training=False, a shape,
    lengths or an order, IndexError for an index.
    """
    own = is_of(cell.cache, cache)
    if own and cache.x is None:
        raise ValueError(
            f"cache: expected that of a {_forward_of(cell, step)} with training=True, got one of "
            "training=False, which keeps nothing for a backward pass"
        )
    indexed = own and cache.index is not None
    packed = own and layout(cache.layout) == "packed"
    axes = 2 if step or indexed or packed else 3
    if not own or array("x", cache.x).ndim != axes:
        cache_of(_forward_of(cell, step), cell.cache, cache, axes)
    transposed = flag("transposed", cache.transposed)
    known_order(cell, cell.order_of(cache))
    kind = "indexed" if indexed else cache.layout
    expected = of_step_cache(cell, transposed) if step else of_cache(cell, transposed, kind)
    given = taken(cell.cache, expected.names)(cache)
    checked = arrays(expected, given)
    if checked is not given and not all(map(operator.is_, checked, given)):
        cache = cache._replace(**dict(zip(expected.names, checked, strict=True)))
    if cell.projection:
        narrower(cache.projection, transposed)
    _reset_to(cache.reset_to)
    in_order = cache.reverse is False and cache.lengths is cache.index is cache.reset is None
    if in_order and cache.layout in (("batch_first",) if step else ("batch_first", "time_first")):
        return cache
    which = Steps(*taken(cell.cache, Steps._fields)(cache))
    if step:
        got = "lengths, an index or is reversed" if which.reset is None else "resets"
        got = got if which.layout == "batch_first" else f"layout={which.layout!r}"
        raise ValueError(f"cache: {_forward_of(cell, step)} takes one step, but it has {got}")
    which = steps(cache.x, len(cache.h0), *which)
    if indexed and which.index.shape != cache.h.shape[:2]:
        raise ValueError(f"index: expected shape {cache.h.shape[:2]}, got {which.index.shape}")
    return cache._replace(**which._asdict())


def _forward_of(cell, step):
    return f"{cell.name}_step_forward" if step else f"{cell.name}_forward"


def gradient(name: str, d: np.ndarray, like: np.ndarray) -> np.ndarray:
    """An upstream gradient, C-contiguous, of the shape and dtype of what it is the gradient of.

    Raises TypeError for a dtype, ValueError for a shape.
    """
    return gradient_of(name, d, like.shape, like.dtype)


def gradient_of(name: str, d: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The same for an array that is not at hand."""
    d = array(name, d)
    if d.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype} like the forward pass, got {d.dtype}")
    if d.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {d.shape}")
    flags = d.flags
    return d if flags.c_contiguous and flags.aligned else np.array(d, order="C")


def written(name: str, out: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raises TypeError or ValueError unless a kernel may write it as it lies."""
    if type(out) is not np.ndarray:
        raise TypeError(f"{name}: expected an ndarray, got {type(out).__name__}")
    if not out.flags.carray:
        raise ValueError(f"{name}: expected a writeable, aligned, C-contiguous array")
    gradient_of(name, out, shape, dtype)


def optional_gradient(name: str, d: np.ndarray | None, like: np.ndarray) -> np.ndarray | None:
    """The same for a gradient that may be left out, None standing for zeros."""
    return None if d is None else gradient(name, d, like)
