"""What a case is made of: sizes, arrays, flags, and ways in which a value may be wrong."""

import copy
import dataclasses
import pickle
import random
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from .memory import Memory

# Beside the widths of vectors (4 to 16 elements), of panels (32, 48) and of blocks.
WIDTHS = (3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 70)
LAYOUTS = ("F", "strided", "reversed", "misaligned")
INTEGERS = "bBhHiIlLqQ"


class Draw:
    """A source of choices, all of which follow from a number."""

    def __init__(self, seed: int, memory: Memory) -> None:
        self._random, self._rng = random.Random(seed), np.random.default_rng(seed)
        self._memory = memory
        self.dtype = np.dtype(self.pick("fd"))
        self.sizes = self._sizes()
        self.special = self.chance(0.1)  # NaN, infinity, huge and tiny numbers, in one array
        self.legal = True
        self.calls: list[tuple[str, dict[str, object]]] = []

    # ---- choices ---------------------------------------------------------------------------------

    def chance(self, p: float) -> bool:
        return self._random.random() < p

    def pick(self, choices: Sequence) -> object:
        return choices[self._random.randrange(len(choices))]

    def number(self, first: int, last: int) -> int:
        return self._random.randint(first, last)

    def _sizes(self):
        def width():
            return self.pick(WIDTHS) if self.chance(0.4) else self.number(1, 10)

        sizes = {letter: width() for letter in "DHMVUW"}
        sizes["N"], sizes["T"] = self.number(0, 9), self.number(0, 5)
        if self.chance(0.1):  # so that outputs fit over inputs
            sizes["D"] = sizes["H"]
        if self.chance(0.05):
            sizes[self.pick("NDHMVUW")] = self.number(70, 300)
        if self.chance(0.05):
            sizes["N"], sizes["T"] = self.pick(((40, 2), (1, 40), (17, 17)))
        return sizes

    def shape(self, axes: str) -> tuple[int, ...]:
        """Of "N 4*H", as in the documentation."""
        factors = (axis.rpartition("*") for axis in axes.split())
        return tuple(int(factor or 1) * self.sizes[letter] for factor, _, letter in factors)

    # ---- arrays ----------------------------------------------------------------------------------

    def placed(self, a: np.ndarray, writeable: bool = False) -> np.ndarray:
        """The array beside a forbidden page; unless writeable, one that is written by nobody."""
        layout = "C"
        if a.ndim and not writeable and self.chance(0.2):
            layout = self.pick(LAYOUTS)
        a = self._memory.put(a, layout, self.chance(0.7), not writeable)
        if not writeable and self.chance(0.3):
            a.flags.writeable = False
        return a

    def reals(self, axes: str | tuple[int, ...], scale: float = 1) -> np.ndarray:
        shape = self.shape(axes) if isinstance(axes, str) else axes
        return self.placed(self.values(shape, scale))

    def values(self, shape: tuple[int, ...], scale: float = 1) -> np.ndarray:
        a = self._rng.standard_normal(shape, self.dtype) * self.dtype.type(scale)
        if a.size and self.special and self.chance(0.3):
            self.special = False
            info = np.finfo(self.dtype)
            others = (np.nan, np.inf, -np.inf, -0.0, 0.0, 1e12, -1e12, info.tiny / 8, 1e-30)
            if self.chance(0.3):
                a *= self.dtype.type(self.pick((0, info.tiny, 1e-20, 100, 1e9)))
            for _ in range(self.number(1, 3)):
                a.flat[self._random.randrange(a.size)] = self.pick(others)
        return a

    def weights(self, axes: str, fan_in: int) -> np.ndarray:
        return self.reals(axes, self.pick((0.1, 1, 1, 3)) / np.sqrt(fan_in))

    def integers(self, shape: tuple[int, ...], limit: int) -> np.ndarray:
        """Of any integer dtype that holds them."""
        a = self._rng.integers(max(limit, 1), size=shape)
        dtype = np.dtype(self.pick(INTEGERS))
        fits = limit <= np.iinfo(dtype).max
        return self.placed(np.asarray(a, dtype if fits else np.intp))

    def bools(self, axes: str, p: float) -> np.ndarray:
        return self.placed(self._rng.random(self.shape(axes)) < p)

    def some(self, p: float, **drawn: Callable[[], object]) -> dict[str, object]:
        """Each keyword with that probability."""
        return {name: value() for name, value in drawn.items() if self.chance(p)}

    def rows(self, limit: int) -> np.ndarray:
        """Some of so many rows, each once, in any order."""
        rows = self._rng.permutation(limit)[: self.number(0, min(limit, 8))]
        return self.placed(rows)

    def note(self, function: str, given: dict[str, object]) -> None:
        """What the case is, for its report, and for who asks whether all is drawn."""
        self.calls.append((function, given))

    # ---- faults ----------------------------------------------------------------------------------

    def fault(self) -> Callable[[object], object]:
        """A function that makes a wrong value of a right one, or another right one."""
        self.legal = False
        name, other, alike = self.pick(list(OF_ARRAYS)), self.pick(OTHERS), self.chance(0.8)

        def wrong(value):
            if not (alike and isinstance(value, np.ndarray)):
                return other
            try:
                return OF_ARRAYS[name](value)
            except Exception:  # an array that has no such variant
                return other

        wrong.__name__ = f"<{name} or {other!r:.30}>" if alike else f"<{other!r:.30}>"
        return wrong

    def spoilt(self, given: dict[str, object]) -> dict[str, object]:
        """The same with one or two faults."""
        given = dict(given)
        for _ in range(self.number(1, 2)):
            if given:
                name = self.pick(sorted(given))
                given[name] = self.fault()(given[name])
        return given

    def spoilt_field(self, kind: type) -> Callable[[object], object]:
        """A function that does so to a field of a named tuple or a data class."""
        if dataclasses.is_dataclass(kind):
            names = [field.name for field in dataclasses.fields(kind) if field.init]
            replace = dataclasses.replace
        else:
            names, replace = kind._fields, kind._replace
        name, fault = self.pick(names), self.fault()

        def wrong(values):
            return replace(values, **{name: fault(getattr(values, name))})

        wrong.__name__ = f"<{name} {fault.__name__}>"
        return wrong

    def copier(self) -> Callable[[object], object]:
        """Nothing, most of the time; or a copy, which has to serve as well."""
        if self.chance(0.85):
            return _itself
        return self.pick(COPIES)


def _itself(value):
    return value


def _pickled(value):
    return pickle.loads(pickle.dumps(value))


COPIES = (copy.copy, copy.deepcopy, _pickled)


class _Subclass(np.ndarray):
    pass


def _matrix(a):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.matrix(a)


def _integers(a):
    """Weights that are so much larger overflow, here or there by the order of a sum."""
    if a.dtype.kind not in "iu":
        raise TypeError
    return a


def _set(a, value):
    a = np.array(a)
    a.flat[-1] = value
    return a


def _broadcast(a):
    return np.broadcast_to(a.reshape(-1)[:1].reshape([1] * a.ndim), (2**46, *a.shape[1:]))


OF_ARRAYS = {
    "a column less": lambda a: a[..., :-1],
    "a row less": lambda a: a[1:],
    "no row": lambda a: a[:0],
    "no column": lambda a: a[..., :0],
    "an axis before": lambda a: a[None],
    "an axis behind": lambda a: a[..., None],
    "an axis less": lambda a: a[0],
    "flat": lambda a: a.reshape(-1),
    "transposed": lambda a: a.T,
    "twice the rows": lambda a: np.concatenate([a, a]),
    "twice the columns": lambda a: np.concatenate([a, a], axis=-1),
    "a copy": np.array,
    "doubled": lambda a: 2 * a,
    "negative": lambda a: -a,
    "less one": lambda a: _integers(a) - 1,
    "and one": lambda a: _integers(a) + 1,
    "and a thousand": lambda a: _integers(a) + 1000,
    "-1 at the end": lambda a: _set(a, -1),
    "2^31 at the end": lambda a: _set(a, 2**31),
    "2^64 - 1 at the end": lambda a: _set(a.astype(np.uint64), 2**64 - 1),
    "NaN at the end": lambda a: _set(a, np.nan),
    **{f"dtype {t}": lambda a, t=t: a.astype(t) for t in ("f", "d", "e", "g", "i", "?", "D", "O")},
    **{f"dtype {t}": lambda a, t=t: a.astype(t) for t in ("U", "V4", "M8[s]")},
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "a list": lambda a: a.tolist(),
    "a tuple": lambda a: tuple(a.tolist()),
    "masked": lambda a: np.ma.masked_array(a, a > 0),
    "a subclass": lambda a: a.view(_Subclass),
    "a matrix": _matrix,
    "a thousand times all memory": _broadcast,
    "sizes that overflow": lambda a: np.zeros((0, 2**61 - 1, 1)[: a.ndim], a.dtype),
}
OTHERS = (
    *(None, True, False, 0, 1, -1, 3, 2**70, 0.5, -0.1, float("nan"), float("inf"), 1e300, 1j),
    *("", "x", "ifgo", "zrn", "zeros", "initial", "lstm", "mean", b"ifog", [], [0], (), {}, set()),
    *(np.True_, np.float32(0.5), np.int64(2), np.str_("initial"), np.array(True), np.array(0.5)),
    *(np.zeros(0), np.zeros((0, 0), "f"), np.zeros((2, 3, 4)), np.array("x"), np.dtype("f")),
    *([[1.0], [1.0, 2.0]], print, Draw, np.float32, range(3), slice(2), ...),
)
