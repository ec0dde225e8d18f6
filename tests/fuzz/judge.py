"""Who is right: the same outcome from the reference and from every kernel."""

import contextlib
import functools
import io
import re
from collections.abc import Callable
from unittest import mock

import numpy as np

import fastrnn
from fastrnn.backends import _kernels, gates, reference, reference_norm, reference_options

from .draws import Draw
from .memory import Memory
from .programs import GATES, Broken, Run, programs

# What bad input may raise, beside what an allocator says in its own words.
REFUSALS = (ValueError, TypeError, IndexError)
# Two correct implementations differ in the order of their sums: by roundings of the largest one.
ROUNDINGS = 200
# Where sums cancel or gates saturate a result is worth less: as much as it moves, times this, when
# all that it is made of moves by a rounding or two.
CONDITION = 100
JITTERS = 4

_sigmoid = gates.sigmoid


def _moved_sigmoid(moved):
    return lambda x: moved(_sigmoid(x))


Outcome = list[tuple[str, object]]


def fault_of(seed: int, memory: Memory, explain: bool = False) -> str | None:
    """What is wrong with a case, or None."""
    memory.clear()
    draw = Draw(seed, memory)
    name = draw.pick([*programs(), *3 * tuple(GATES)])  # sequences have the most keywords
    run = programs()[name](draw, name)
    if explain:
        print(text_of(draw, name))
    try:
        compare_ways(draw, run)
    except Broken as broken:
        return f"{text_of(draw, name)}\n    {broken}"
    return None


def text_of(draw: Draw, name: str) -> str:
    """The calls of a case in words."""
    kind = "right" if draw.legal else "perhaps wrong"
    calls = (f"    {function}({_arguments(given)})" for function, given in draw.calls)
    return "\n".join([f"{name}, {kind}", *calls])


def _arguments(given):
    return ", ".join(f"{name}={_value(value)}" for name, value in given.items())


def _value(value):
    if isinstance(value, dict):
        return "{" + _arguments(value) + "}"
    if isinstance(value, np.ndarray):
        return f"{type(value).__name__}[{value.dtype} {value.shape}]"
    if callable(value) and not isinstance(value, type):
        return value.__name__
    text = repr(value)
    return text if len(text) < 60 else text[:60] + "..."


def compare_ways(draw: Draw, run: Run) -> None:
    """Raises Broken where the ways to run a case do not agree."""
    expected = outcome(run, "numpy")
    for label, value in expected:
        if isinstance(value, Exception) and (draw.legal or not _refuses(value)):
            raise Broken(f"numpy, {label}: {_error(value)}")
    same = _Near(run, max((_eps(value) for _, value in expected), default=0))
    isas = _kernels.isas() if draw.legal else [draw.pick(_kernels.isas())]
    many, threads = draw.pick(isas), draw.number(2, 4)
    for isa in isas:
        fastrnn.use_isa(isa)
        fastrnn.set_num_threads(1)
        actual = outcome(run, "cython")
        _compare(actual, expected, isa, same)
        if isa == many:
            fastrnn.set_num_threads(threads)
            _compare(outcome(run, "cython"), actual, f"{isa}, {threads} threads", _same_bits)


def _refuses(error):
    """Whether bad input is refused in the way it should be: naming the argument."""
    if _lacks_memory(error):
        return True
    return isinstance(error, REFUSALS) and re.match(r"[A-Za-z]\w*(\[\d+\])?: ", str(error))


def _lacks_memory(error):
    """NumPy has a ValueError for sizes that cannot be counted."""
    return isinstance(error, MemoryError) or str(error).startswith("array is too big")


def outcome(run: Run, backend: str, jitter: Callable = lambda value: value) -> Outcome:
    """All results by name, the last of them an exception where one ended it."""
    found: Outcome = []
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), np.errstate(all="ignore"):
        try:
            for label, value in run(backend, jitter):
                found.append((label, value))
        except Broken:
            raise
        except Exception as error:
            found.append(("", error))
    found.append(("printed", printed.getvalue()))
    return found


def _compare(actual: Outcome, expected: Outcome, way: str, same: Callable):
    """Raises Broken at the first difference. What one of them has no memory for is none."""
    for (label, a), (other, e) in zip(actual, expected, strict=False):
        errors = [value for value in (a, e) if isinstance(value, Exception)]
        if any(map(_lacks_memory, errors)):
            return
        if errors and _error(a) != _error(e):
            raise Broken(f"{way}, {label or other}: {_error(a)}\n    instead of: {_error(e)}")
        if a is e and label == other:  # an operand in a cache
            continue
        if not errors and (label != other or (difference := same(label, a, e))):
            wrong = difference if label == other else f"instead of {other}"
            raise Broken(f"{way}, {label}: {wrong}")


def _error(value):
    if isinstance(value, Exception):
        return f"{type(value).__name__}: {value}"
    return f"no exception, but {_value(value)}"


def _same_bits(label, a, e):
    if _form(a) != _form(e):
        return f"other bits, {_value(a)} instead of {_value(e)}"
    if isinstance(a, np.ndarray) and _bits(a) != _bits(e):
        return f"other bits, {_first_other(a, e)}"
    return None


def _bits(a):
    """Those of an array, every NaN the same: which of two a sum hands on is nobody's to say."""
    return (np.where(a == a, a, np.nan) if a.dtype.kind == "f" else a).tobytes()


def _form(value):
    """What has to be equal of a result: all of it where it is no array."""
    return (value.shape, value.dtype) if isinstance(value, np.ndarray) else repr(value)


class _Near:
    """Whether results are equal but for roundings. How far these may reach the reference is asked,
    but only where a result is farther off than in most cases."""

    def __init__(self, run: Run, eps: float) -> None:
        self._run, self._eps = run, eps

    def __call__(self, label: str, a: object, e: object) -> str | None:
        if isinstance(a, float) and isinstance(e, float):
            a, e = np.array(a), np.array(e)
        if _form(a) != _form(e):
            return f"{_value(a)} instead of {_value(e)}"
        if not isinstance(e, np.ndarray):
            return None
        a, e = np.asarray(a), np.asarray(e)
        if e.dtype.kind != "f":
            return None if np.array_equal(a, e) else _first_other(a, e)
        apart, largest = _apart(a, e), np.abs(e).max(initial=0)
        if not np.isfinite(largest):
            largest = np.max(np.abs(e), initial=0, where=np.isfinite(e))
        if apart <= ROUNDINGS * self._eps * largest:
            return None
        least = 1000 * np.finfo(e.dtype).smallest_subnormal
        if apart <= CONDITION * max(_apart(near, e) for near in self._nearby(label)) + least:
            return None
        return f"{apart / self._eps / (largest or 1):.3g} roundings, {_first_other(a, e)}"

    def _nearby(self, label):
        """That result of the reference, of operands that are a rounding or two away."""
        for i in range(JITTERS):
            moved = functools.partial(self._moved, np.random.default_rng(i))
            with contextlib.ExitStack() as patches:
                for module in (gates, reference, reference_norm, reference_options):
                    for name, value in (
                        ("np", _Inexact(moved)),
                        ("sigmoid", _moved_sigmoid(moved)),
                    ):
                        if hasattr(module, name):
                            patches.enter_context(mock.patch.object(module, name, value))
                results = dict(outcome(self._run, "numpy", moved))
            yield np.asarray(results[label])

    def _moved(self, rng, value):
        if isinstance(value, dict):
            return {key: self._moved(rng, a) for key, a in value.items()}
        if hasattr(value, "_make"):
            return value._make(self._moved(rng, a) for a in value)
        if type(value) is not np.ndarray or not _eps(value):
            return value
        factors = 1 + _eps(value) * rng.integers(-2, 3, size=value.shape)
        return value * factors.astype(value.dtype)


class _Inexact:
    """NumPy, but for a tanh that is a rounding or two away, as another one is: where it is near 1,
    they are all that its derivative has. The same holds of a sigmoid."""

    def __init__(self, moved: Callable) -> None:
        self.tanh = lambda x: moved(np.tanh(x))

    def __getattr__(self, name: str) -> object:
        return getattr(np, name)


def _eps(value):
    """A rounding's size; 0 of what is no array of float32 or float64."""
    real = isinstance(value, np.ndarray) and value.dtype.char in "fd"
    return float(np.finfo(value.dtype).eps) if real else 0


def _first_other(a, e):
    """Where two arrays differ most, in words."""
    with np.errstate(all="ignore"):
        apart = np.nan_to_num(np.abs(np.subtract(a, e, dtype=float)), nan=np.inf)
    apart = np.where((a == e) | ((a != a) & (e != e)), -1, apart)
    at = np.unravel_index(np.argmax(apart), apart.shape)
    return f"{a[at]} instead of {e[at]} at {tuple(map(int, at))}"


def _apart(a, e):
    """The largest difference; infinity where one of them alone is finite, or another infinity."""
    with np.errstate(all="ignore"):
        apart = float(np.abs(a - e).max(initial=0))
        if np.isfinite(apart):
            return apart
        finite = np.isfinite(e)
        if np.array_equal(a[~finite], e[~finite], equal_nan=True):
            apart = float(np.max(np.abs(a - e), initial=0, where=finite))
            return float("inf") if np.isnan(apart) else apart
    return float("inf")
