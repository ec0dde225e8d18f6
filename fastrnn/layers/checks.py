"""One clear error before any work is done: shapes, dtypes, labels, gate orders, caches."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
# As users know them: the course, its Keras-like notation, PyTorch, ONNX. c~ of "fico" is g.
GATE_ORDERS = {"ifog": "ifog", "fico": "figo", "ifgo": "ifgo", "iofg": "iofg"}
# Axes that may be empty; all others need an element.
_MAY_BE_EMPTY = {"N", "T"}

Axis = tuple[int, str]  # factor and letter: (4, "H") is 4*H


class Signature(NamedTuple):
    """Names and shapes of a function's arrays, and the combinations of shapes that have passed."""

    names: tuple[str, ...]
    shapes: tuple[tuple[Axis, ...], ...]
    passed: set[tuple[tuple[int, ...], ...]]


def signature(**shapes: str) -> Signature:
    """Parse shapes such as signature(x="N T D", Wh="H 4*H")."""

    def axis(text: str) -> Axis:
        factor, _, letter = text.rpartition("*")
        return int(factor or 1), letter

    parsed = tuple(tuple(map(axis, text.split())) for text in shapes.values())
    return Signature(tuple(shapes), parsed, set())


def arrays(expected: Signature, *given: np.ndarray) -> list[np.ndarray]:
    """The arrays as C-contiguous ndarrays of one float dtype whose shapes fit together.

    Letters are bound from left to right; a non-contiguous array is copied once.
    Raises TypeError for a dtype, ValueError for a shape.
    """
    result = [a if type(a) is np.ndarray else np.asarray(a) for a in given]
    dtype = result[0].dtype
    if dtype not in _FLOATS:
        raise TypeError(f"{expected.names[0]}: expected float32 or float64, got {dtype}")
    for i, a in enumerate(result):
        if a.dtype is not dtype and a.dtype != dtype:
            raise TypeError(
                f"{expected.names[i]}: expected {dtype} like {expected.names[0]}, got {a.dtype}"
            )
        flags = a.flags
        if not (flags.c_contiguous and flags.aligned):
            result[i] = np.array(a, order="C")
    # A step of a small cell takes about as long as checking its shapes, so that is done once.
    shapes = tuple([a.shape for a in result])
    if shapes not in expected.passed:
        _check_shapes(expected, shapes)
        if len(expected.passed) >= 1024:
            expected.passed.clear()
        expected.passed.add(shapes)
    return result


def _check_shapes(expected: Signature, shapes: tuple[tuple[int, ...], ...]) -> None:
    sizes: dict[str, int] = {}
    for name, axes, shape in zip(expected.names, expected.shapes, shapes, strict=True):
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


def gate_order(gates: str) -> str:
    """The order as a permutation of "ifog". Raises ValueError for an unknown one."""
    try:
        return GATE_ORDERS[gates]
    except (KeyError, TypeError):
        raise ValueError(f"gates: expected one of {list(GATE_ORDERS)}, got {gates!r}") from None


def indices(name: str, x: np.ndarray, shape: Sequence[int | str], limit: int, letter: str):
    """A copy of x as C-contiguous np.intp of that shape (letters match any size), in [0, limit): a
    kernel trusts it, whatever becomes of the caller's array.

    Raises TypeError for a dtype, ValueError for a shape, IndexError for an index out of range.
    """
    x = np.asarray(x)
    if x.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected an integer dtype, got {x.dtype}")
    wanted = tuple(shape)
    if len(x.shape) != len(wanted) or any(
        isinstance(want, int) and want != n for want, n in zip(wanted, x.shape, strict=True)
    ):
        text = ", ".join(map(str, wanted)) + ("," if len(wanted) == 1 else "")
        raise ValueError(f"{name}: expected shape ({text}), got {x.shape}")
    given, x = x, np.array(x, dtype=np.intp, order="C")
    wrong = (x < 0) | (x >= limit)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise IndexError(
            f"{name}: expected indices in [0, {letter}) = [0, {limit}), got {given[at]} at {at}"
        )
    return x


def weights(name: str, mask: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A mask (bool or real: the weight of each element) in the dtype of the scores.

    Raises TypeError for a dtype, ValueError for a shape.
    """
    mask = np.asarray(mask)
    if mask.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected a bool or real dtype, got {mask.dtype}")
    if mask.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {mask.shape}")
    return np.ascontiguousarray(mask, dtype=dtype)


def cache_of(function: str, kind: type, cache: object, ndim: int | None = None) -> None:
    """Raises TypeError unless cache is what the named function returned, of an x with ndim axes."""
    if type(cache) is not kind or (ndim is not None and cache.x.ndim != ndim):
        got = type(cache).__name__
        if type(cache) is kind:
            got += f" of an x with {cache.x.ndim} axes"
        raise TypeError(f"cache: expected the cache that {function} returned, got {got}")


def cache_arrays(expected: Signature, cache: NamedTuple) -> None:
    """Raises ValueError or TypeError unless the arrays of a cache, changed since perhaps, still fit
    together; the kernels trust them."""
    arrays(expected, *(getattr(cache, name) for name in expected.names))


def gradient(name: str, d: np.ndarray, like: np.ndarray) -> np.ndarray:
    """An upstream gradient, C-contiguous, of the shape and dtype of what it is the gradient of.

    Raises TypeError for a dtype, ValueError for a shape.
    """
    d = np.asarray(d)
    if d.dtype != like.dtype:
        raise TypeError(f"{name}: expected {like.dtype} like the forward pass, got {d.dtype}")
    if d.shape != like.shape:
        raise ValueError(f"{name}: expected shape {like.shape}, got {d.shape}")
    flags = d.flags
    return d if flags.c_contiguous and flags.aligned else np.array(d, order="C")
