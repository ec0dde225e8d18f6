"""The recurrent cells: one record each, which says all that is particular to a cell but its
formulas, and what its forward pass leaves for its backward pass.

A record mirrors the spec of src_c/cells/ that it names; the formulas stand there and in
backends/reference.py. Letters: N batch, T steps, U rows of a table, D input, H hidden, G gates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from fastrnn.options import LayerNorm, Options


class Weights(NamedTuple):
    """The weights of a cell as a call gets them."""

    Wx: np.ndarray  # (D, G*H), transposed (G*H, D)
    Wh: np.ndarray  # (P, G*H), transposed (G*H, P); P is H but with a projection
    b: np.ndarray  # (G*H,)
    bh: np.ndarray | None = None  # (G*H,); None stands for zeros
    gates: str = ""  # as a permutation of the cell's
    transposed: bool = False  # rows of gates, as PyTorch and ONNX have them
    packed: object = None  # what a backend's prepare made of them
    options: Options | None = None
    vectors: np.ndarray | LayerNorm | None = None  # (len(cell.vectors)*H,)
    projection: np.ndarray | None = None  # (H, P), transposed (P, H)


class Steps(NamedTuple):
    """Which steps the rows of a batch take, and from which state."""

    lengths: np.ndarray | None = None  # (N,), np.intp; None stands for T
    reverse: bool = False  # time runs backwards
    index: np.ndarray | None = None  # (N, T), np.intp: rows of x, which then is (U, D)
    reset: np.ndarray | None = None  # (N, T) or as layout has it, bool: anew before the step
    reset_to: str = "zeros"  # or "initial"
    layout: str = "batch_first"  # of arrays of steps, (N, T, ...); or "time_first", "packed"


ALL_STEPS = Steps()


def steps_taken(shape: tuple[int, int], lengths: np.ndarray | None) -> np.ndarray:
    """Which steps (N, T) rows of these lengths take, bool."""
    if lengths is None or not shape[0]:
        return np.ones(shape, bool)
    return np.arange(shape[1]) < lengths[:, None]


def batch_first(a: np.ndarray | None, steps: NamedTuple) -> np.ndarray | None:
    """An array of steps of any layout as (N, T, ...), 0 past the lengths of what was packed."""
    if a is None or steps.layout == "batch_first":
        return a
    if steps.layout == "packed":
        taken = _taken_in_turn(steps.lengths)
        a, packed = np.zeros((*taken.shape, *a.shape[1:]), a.dtype), a
        a[taken] = packed
    return a.swapaxes(0, 1)


def laid_out(a: np.ndarray, steps: NamedTuple) -> np.ndarray:
    """An array (N, T, ...) in the layout of the others."""
    if steps.layout == "batch_first":
        return a
    a = a.swapaxes(0, 1)
    return a[_taken_in_turn(steps.lengths)] if steps.layout == "packed" else np.ascontiguousarray(a)


def _taken_in_turn(lengths):
    """Which steps (T, N) the rows take."""
    return steps_taken((len(lengths), lengths.max(initial=0)), lengths).T


# ---- caches --------------------------------------------------------------------------------------
# The same fields from both backends, so forward on one and backward on the other works. h, c,
# activations and candidate are 0 past a row's length. A step's cache has the fields of the
# sequence's without the T axis, h0 and c0 being the states before the step, and no last states. Of
# a forward pass with training=False there are the last states alone.


class RNNCache(NamedTuple):
    x: np.ndarray  # (N, T, D)
    h0: np.ndarray  # (N, H)
    Wx: np.ndarray  # (D, H)
    Wh: np.ndarray  # (H, H)
    h: np.ndarray  # (N, T, H)
    nonlinearity: str
    hT: np.ndarray | None = None  # (N, H), last hidden state
    lengths: np.ndarray | None = None  # these six: see Steps
    reverse: bool = False
    index: np.ndarray | None = None
    reset: np.ndarray | None = None
    reset_to: str = "zeros"
    layout: str = "batch_first"
    transposed: bool = False  # Wx is (H, D)
    packed: object = None  # of prepared weights
    activations: np.ndarray | None = None  # (N, T, H), h before zoneout; with options
    options: Options | None = None


class LSTMCache(NamedTuple):
    x: np.ndarray  # (N, T, D)
    h0: np.ndarray  # (N, P); P is H but with a projection
    c0: np.ndarray | None  # (N, H); None stands for zeros
    Wx: np.ndarray  # (D, 4*H)
    Wh: np.ndarray  # (P, 4*H)
    h: np.ndarray  # (N, T, P)
    c: np.ndarray  # (N, T, H), all cell states
    activations: np.ndarray  # (N, T, 4*H), sigmoid and tanh applied, in the order of gates
    gates: str  # i, f, o, g as they lie in Wx, Wh, b, activations
    hT: np.ndarray | None = None  # (N, P), last hidden state
    cT: np.ndarray | None = None  # (N, H), last cell state
    lengths: np.ndarray | None = None
    reverse: bool = False
    index: np.ndarray | None = None
    reset: np.ndarray | None = None
    reset_to: str = "zeros"
    layout: str = "batch_first"
    transposed: bool = False  # Wx is (4*H, D), Wh (4*H, P), projection (P, H)
    packed: object = None
    peepholes: np.ndarray | None = None  # (3*H,)
    projection: np.ndarray | None = None  # (H, P)
    options: Options | None = None
    layer_norm: LayerNorm | None = None
    x_product: np.ndarray | None = None  # (N, T, 4*H), x Wx; with layer_norm
    h_product: np.ndarray | None = None  # (N, T, 4*H), h_{t-1} Wh


class GRUCache(NamedTuple):
    x: np.ndarray  # (N, T, D)
    h0: np.ndarray  # (N, H)
    Wx: np.ndarray  # (D, 3*H)
    Wh: np.ndarray  # (H, 3*H)
    h: np.ndarray  # (N, T, H)
    activations: np.ndarray  # (N, T, 3*H): sigmoid and tanh applied, in the order of gates
    candidate: np.ndarray | None  # (N, T, H): u_n = h_{t-1} Wh_n + bh_n; if reset_after
    bias: bool  # bh was given
    reset_after: bool
    hT: np.ndarray | None = None  # (N, H), last hidden state
    lengths: np.ndarray | None = None
    reverse: bool = False
    index: np.ndarray | None = None
    reset: np.ndarray | None = None
    reset_to: str = "zeros"
    layout: str = "batch_first"
    transposed: bool = False  # Wx is (3*H, D), Wh (3*H, H)
    packed: object = None
    gates: str = "rzn"  # r, z, n as they lie in Wx, Wh, b, activations
    options: Options | None = None
    layer_norm: LayerNorm | None = None
    x_product: np.ndarray | None = None  # (N, T, 3*H), x Wx; with layer_norm
    h_product: np.ndarray | None = None  # (N, T, 3*H), h_{t-1} Wh


class MGUCache(NamedTuple):
    x: np.ndarray  # (N, T, D)
    h0: np.ndarray  # (N, H)
    Wx: np.ndarray  # (D, 2*H)
    Wh: np.ndarray  # (H, 2*H)
    h: np.ndarray  # (N, T, H)
    activations: np.ndarray  # (N, T, 2*H): sigmoid and tanh applied, in the order of gates
    hT: np.ndarray | None = None  # (N, H), last hidden state
    lengths: np.ndarray | None = None
    reverse: bool = False
    index: np.ndarray | None = None
    reset: np.ndarray | None = None
    reset_to: str = "zeros"
    layout: str = "batch_first"
    transposed: bool = False  # Wx is (2*H, D), Wh (2*H, H)
    packed: object = None
    gates: str = "fn"  # f, n as they lie in Wx, Wh, b, activations


class MinGRUCache(NamedTuple):
    x: np.ndarray  # (N, T, D)
    h0: np.ndarray  # (N, H)
    Wx: np.ndarray  # (D, 2*H)
    h: np.ndarray  # (N, T, H)
    activations: np.ndarray  # (N, T, 2*H): sigmoid, nonlinearity applied, in the order of gates
    nonlinearity: str
    hT: np.ndarray | None = None  # (N, H), last hidden state
    lengths: np.ndarray | None = None
    reverse: bool = False
    index: np.ndarray | None = None
    reset: np.ndarray | None = None
    reset_to: str = "zeros"
    layout: str = "batch_first"
    transposed: bool = False  # Wx is (2*H, D)
    packed: object = None
    gates: str = "zn"  # z, n as they lie in Wx, b, activations


class MinLSTMCache(NamedTuple):
    x: np.ndarray  # (N, T, D)
    h0: np.ndarray  # (N, H)
    Wx: np.ndarray  # (D, 3*H)
    h: np.ndarray  # (N, T, H)
    activations: np.ndarray  # (N, T, 3*H): sigmoid, nonlinearity applied, in the order of gates
    nonlinearity: str
    hT: np.ndarray | None = None  # (N, H), last hidden state
    lengths: np.ndarray | None = None
    reverse: bool = False
    index: np.ndarray | None = None
    reset: np.ndarray | None = None
    reset_to: str = "zeros"
    layout: str = "batch_first"
    transposed: bool = False  # Wx is (3*H, D)
    packed: object = None
    gates: str = "fin"  # f, i, n as they lie in Wx, b, activations


class IndRNNCache(NamedTuple):
    x: np.ndarray  # (N, T, D)
    h0: np.ndarray  # (N, H)
    Wx: np.ndarray  # (D, H)
    u: np.ndarray  # (H,)
    h: np.ndarray  # (N, T, H)
    nonlinearity: str
    hT: np.ndarray | None = None  # (N, H), last hidden state
    lengths: np.ndarray | None = None
    reverse: bool = False
    index: np.ndarray | None = None
    reset: np.ndarray | None = None
    reset_to: str = "zeros"
    layout: str = "batch_first"
    transposed: bool = False  # Wx is (H, D)
    packed: object = None


# ---- cells ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Cell:
    """What layers, backends and kernels need to know of a cell."""

    name: str  # of its functions
    kernel: str  # of its spec in src_c/cells
    gates: str  # a letter each, as its formulas have them
    orders: dict[str, str]  # gate orders by the names that users know, as permutations of gates
    states: tuple[str, ...]  # fields of the cache: all states over time
    saved: dict[str, int]  # and what else backward needs, with its width in H
    two_biases: bool  # x Wx + b and h Wh + bh are told apart
    cache: type
    constants: dict[str, object] = field(default_factory=dict)  # fields of the cache: its form
    recurrent: str = "Wh"  # what multiplies h: a matrix Wh, a vector u, or "", nothing
    options: tuple[str, ...] = ()  # of Options, those that its formulas know
    vectors: str = ""  # the gates that have a parameter of one number a unit, as formulas have them
    vectors_name: str = ""  # of all of them, and the field of the cache
    projection: bool = False  # h is a product more, of P units in place of H
    norm: dict[str, int] = field(default_factory=dict)  # fields of its LayerNorm, their width in H

    @cached_property
    def beside(self) -> tuple[str, ...]:
        """Fields of the cache: the parameters beside Wx, Wh, b and bh."""
        vectors = (self.vectors_name,) * bool(self.vectors or self.norm)
        return vectors + ("projection",) * self.projection

    @cached_property
    def state_axes(self) -> tuple[str, ...]:
        """The width of each state: H or P."""
        return tuple("P" if self.projection and state == "h" else "H" for state in self.states)

    @cached_property
    def form(self) -> dict[str, object]:
        """The keywords that choose this variant."""
        return FORM | self.constants

    @cached_property
    def nothing_kept(self) -> NamedTuple:
        """The cache of a step with training=False."""
        required = [name for name in self.cache._fields if name not in self.cache._field_defaults]
        return self.cache(**dict.fromkeys(required))

    def only_last(self, last: Sequence[np.ndarray]) -> NamedTuple:
        """The cache of a sequence with training=False."""
        return self.nothing_kept._replace(**dict(zip(self.last_fields, last, strict=True)))

    @cached_property
    def initial_fields(self) -> tuple[str, ...]:
        """h0, and c0 of an lstm."""
        return tuple(f"{state}0" for state in self.states)

    @cached_property
    def last_fields(self) -> tuple[str, ...]:
        """hT, and cT of an lstm."""
        return tuple(f"{state}T" for state in self.states)

    @cached_property
    def kept_fields(self) -> tuple[str, ...]:
        """The states over time, and what is saved beside them."""
        return (*self.states, *self.saved)

    @cached_property
    def known_orders(self) -> list[str]:
        """Gate orders as permutations of gates."""
        return list(self.orders.values())

    def order_of(self, cache: NamedTuple) -> str:
        """The gate order, as a permutation of gates."""
        return getattr(cache, "gates", self.gates)

    def initial_states(self, cache: NamedTuple) -> tuple[np.ndarray | None, ...]:
        """The arrays of initial_fields."""
        return taken(type(cache), self.initial_fields)(cache)

    def kept_states(self, cache: NamedTuple) -> tuple[np.ndarray, ...]:
        """All states over time."""
        return taken(type(cache), self.states)(cache)

    def recurrent_of(self, cache: NamedTuple) -> np.ndarray | None:
        """What multiplies h."""
        return getattr(cache, self.recurrent, None)

    def options_of(self, cache: NamedTuple) -> Options | None:
        """Those of a cell that has any."""
        return getattr(cache, "options", None)

    def kept_beside(self, cache: NamedTuple) -> tuple[np.ndarray, ...]:
        """The arrays of saved."""
        return taken(type(cache), tuple(self.saved))(cache)


@cache
def taken(kind: type, names: tuple[str, ...]) -> Callable[[NamedTuple], tuple]:
    """A function from a cache of that kind to some of its fields, at a tenth of getattr's cost."""
    places = [kind._fields.index(name) for name in names]
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple(values[i] for i in places)


RNN = Cell(
    name="rnn",
    kernel="rnn",
    gates="h",
    orders={"h": "h"},
    states=("h",),
    saved={},
    two_biases=False,
    cache=RNNCache,
    constants={"nonlinearity": "tanh"},
)
RNN_RELU = replace(RNN, kernel="rnn_relu", constants={"nonlinearity": "relu"})
LSTM = Cell(
    name="lstm",
    kernel="lstm",
    gates="ifog",
    # The course, its Keras-like notation (c~ is g), PyTorch, ONNX.
    orders={"ifog": "ifog", "fico": "figo", "ifgo": "ifgo", "iofg": "iofg"},
    states=("h", "c"),
    saved={"activations": 4},
    two_biases=False,
    cache=LSTMCache,
)
GRU = Cell(
    name="gru",
    kernel="gru",
    gates="rzn",
    orders={"rzn": "rzn", "zrn": "zrn"},  # PyTorch; Keras and ONNX
    states=("h",),
    saved={"activations": 3, "candidate": 1},
    two_biases=True,
    cache=GRUCache,
    constants={"reset_after": True},
)
GRU_ORIGINAL = replace(
    GRU, kernel="gru_original", saved={"activations": 3}, constants={"reset_after": False}
)

MGU = Cell(
    name="mgu",
    kernel="mgu",
    gates="fn",
    orders={"fn": "fn", "nf": "nf"},
    states=("h",),
    saved={"activations": 2},
    two_biases=False,
    cache=MGUCache,
)
MIN_GRU = Cell(
    name="min_gru",
    kernel="min_gru",
    gates="zn",
    orders={"zn": "zn", "nz": "nz"},
    states=("h",),
    saved={"activations": 2},
    two_biases=False,
    cache=MinGRUCache,
    constants={"nonlinearity": "linear"},
    recurrent="",
)
MIN_GRU_POSITIVE = replace(
    MIN_GRU, kernel="min_gru_positive", constants={"nonlinearity": "positive"}
)
MIN_LSTM = Cell(
    name="min_lstm",
    kernel="min_lstm",
    gates="fin",
    orders={"fin": "fin", "nfi": "nfi"},
    states=("h",),
    saved={"activations": 3},
    two_biases=False,
    cache=MinLSTMCache,
    constants={"nonlinearity": "linear"},
    recurrent="",
)
MIN_LSTM_POSITIVE = replace(
    MIN_LSTM, kernel="min_lstm_positive", constants={"nonlinearity": "positive"}
)
IND_RNN = Cell(
    name="ind_rnn",
    kernel="ind_rnn",
    gates="h",
    orders={"h": "h"},
    states=("h",),
    saved={},
    two_biases=False,
    cache=IndRNNCache,
    constants={"nonlinearity": "relu"},
    recurrent="u",
)
IND_RNN_TANH = replace(IND_RNN, kernel="ind_rnn_tanh", constants={"nonlinearity": "tanh"})

_PLAIN = (
    *(RNN, RNN_RELU, LSTM, GRU, GRU_ORIGINAL, MGU, MIN_GRU, MIN_GRU_POSITIVE),
    *(MIN_LSTM, MIN_LSTM_POSITIVE, IND_RNN, IND_RNN_TANH),
)

_OPTIONS = (
    *("zoneout_h", "dropout_x", "dropout_h", "dropout_weights", "clip", "clip_gradient"),
    *("seed", "first_step"),
)
_GATED = (*_OPTIONS, "dropout_candidate", "hard_sigmoid")
_RNN_OPTIONS = {"kernel": "rnn_options", "saved": {"activations": 1}}
# By the kernel of the plain cell.
WITH_OPTIONS = {
    "rnn": replace(RNN, **_RNN_OPTIONS, options=_OPTIONS),
    "rnn_relu": replace(RNN_RELU, **_RNN_OPTIONS, options=(*_OPTIONS, "cap")),
    "lstm": replace(
        LSTM,
        kernel="lstm_options",
        options=(*_GATED, "zoneout_c"),
        vectors="ifo",
        vectors_name="peepholes",
    ),
    "gru": replace(GRU, kernel="gru_options", options=_GATED),
    "gru_original": replace(GRU_ORIGINAL, kernel="gru_original_options", options=_GATED),
}

# The same with a projection.
PROJECTED = {"lstm": replace(WITH_OPTIONS["lstm"], kernel="lstm_projected", projection=True)}

# With layer_norm=, likewise.
_LSTM_NORM = {"gain_x": 4, "gain_h": 4, "gain_c": 1, "shift_c": 1}
_GRU_NORM = {"gain_x": 3, "gain_h": 3}
WITH_NORM = {
    "lstm": replace(
        WITH_OPTIONS["lstm"],
        kernel="lstm_norm",
        saved=LSTM.saved | {"x_product": 4, "h_product": 4},
        vectors="",
        vectors_name="layer_norm",
        norm=_LSTM_NORM,
    ),
    "gru": replace(
        WITH_OPTIONS["gru"],
        kernel="gru_norm",
        saved=GRU.saved | {"x_product": 3, "h_product": 3},
        vectors_name="layer_norm",
        norm=_GRU_NORM,
    ),
}

# By kernel; those that users choose by name, whose variants have keywords; and of these the ones
# that PyTorch, Keras and ONNX have, too.
_VARIANTS = WITH_OPTIONS, PROJECTED, WITH_NORM
CELLS = {cell.kernel: cell for cell in _PLAIN}
CELLS |= {cell.kernel: cell for variants in _VARIANTS for cell in variants.values()}
NAMES = {cell.name: cell for cell in (RNN, LSTM, GRU, MGU, MIN_GRU, MIN_LSTM, IND_RNN)}
STANDARD = {name: NAMES[name] for name in ("rnn", "lstm", "gru")}
# The keywords that choose a variant, as they are of a cell that has but one.
FORM = {"reset_after": True, "nonlinearity": "tanh"}


def form_of(cell: str, **form: object) -> Cell:
    """The record of a cell by its public name and some keywords of FORM.

    Raises ValueError for an unknown cell or a variant that it does not have.
    """
    if not isinstance(cell, str) or cell not in NAMES:
        raise ValueError(f"cell: expected one of {list(NAMES)}, got {cell!r}")
    variants = [record for record in _PLAIN if record.name == cell]
    for name, value in form.items():
        known = list(dict.fromkeys(record.form[name] for record in variants))
        if not isinstance(value, type(known[0])) or value not in known:
            raise ValueError(f"{name}: expected one of {known} for {cell}, got {value!r}")
        variants = [record for record in variants if record.form[name] == value]
    return variants[0]
