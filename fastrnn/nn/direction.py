"""One recurrent layer in one direction of time.

Letters: N batch, T steps, U rows of a table, D input, H hidden, P projected (H without a
projection), G gates.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fastrnn.cells import NAMES, STANDARD, WITH_NORM, Cell, Steps
from fastrnn.layers import recurrent
from fastrnn.layers.prepared import PreparedWeights
from fastrnn.options import LayerNorm, Options
from fastrnn.weights import NORM_NAMES

States = Sequence[np.ndarray | None]  # h, and c of an lstm; None: zeros


class Form(NamedTuple):
    """What a stack is, its weights aside."""

    cell: str  # "rnn", "lstm", "gru"
    layers: int = 1
    bidirectional: bool = False
    gates: str | None = None  # their order in the weights; None: the cell's own
    reset_after: bool = True  # of the gru
    nonlinearity: str = "tanh"  # of the rnn, or "relu"
    transposed: bool = False  # Wx (G*H, D) and Wh (G*H, P), as PyTorch has them
    options: Options | None = None  # of layer k in direction d, the seed counts on by k*S + d
    eps: float | None = None  # of layer normalisation; None: there is none

    @property
    def directions(self) -> int:
        """One, or two."""
        return 2 if self.bidirectional else 1

    @property
    def record(self) -> Cell:
        """The cell's, of fastrnn.cells."""
        return NAMES[self.cell]

    def drawn(self, rng: np.random.Generator) -> "Form":
        """With a seed from rng for what is random in the cells."""
        if self.options is None:
            return self
        seed = int(rng.integers(2**64, dtype=np.uint64))
        return self._replace(options=self.options._replace(seed=seed))

    def of_direction(self, number: int) -> "Form":
        """With the options of the layers' directions number `number`, forwards before backwards."""
        if self.options is None or number == 0:
            return self
        seed = (self.options.seed + number) % 2**64
        return self._replace(options=self.options._replace(seed=seed))


class Weights(NamedTuple):
    """Of one layer in one direction."""

    Wx: np.ndarray | PreparedWeights  # (D, G*H), transposed (G*H, D); prepared: all of them
    Wh: np.ndarray | None = None  # (P, G*H), transposed (G*H, P)
    b: np.ndarray | None = None  # (G*H,)
    bh: np.ndarray | None = None  # (G*H,), of the gru; None: zeros
    Whr: np.ndarray | None = None  # (H, P), transposed (P, H), of an lstm whose h is projected
    # Of an lstm peepholes (3*H,); a LayerNorm, of whose gradients a tuple.
    vectors: np.ndarray | LayerNorm | tuple[np.ndarray, ...] | None = None

    def size(self, form: Form) -> tuple[int, np.dtype]:
        """P of the weights, and their dtype."""
        own = self.Wx if isinstance(self.Wx, PreparedWeights) else self
        if form.record.recurrent != "Wh":  # whose h has as many units as each gate
            return len(own.b) // len(form.record.gates), own.b.dtype
        transposed = own.transposed if own is not self else form.transposed
        return own.Wh.shape[transposed], own.Wh.dtype


def shapes_of(
    form: Form, D: int, H: int, *, bias: bool = True, proj_size: int = 0, peepholes: bool = False
) -> dict[str, tuple[int, ...]]:
    """Of the arrays that from_kinds takes, of inputs of D columns."""
    record = form.record
    GH = len(record.gates) * H
    shapes = {"weight_ih": (GH, D)}
    if record.recurrent:
        shapes["weight_hh"] = (H,) if record.recurrent == "u" else (GH, proj_size or H)
    if bias:
        shapes |= dict.fromkeys(
            ("bias_ih", "bias_hh") if form.cell in STANDARD else ("bias",), (GH,)
        )
    if proj_size:
        shapes["weight_hr"] = proj_size, H
    if peepholes:
        shapes["peephole"] = (3 * H,)
    if form.eps is not None:
        norm = WITH_NORM[form.cell].norm
        shapes |= {NORM_NAMES[name]: (width * H,) for name, width in norm.items()}
    return shapes


def from_kinds(form: Form, arrays: Mapping[str, np.ndarray]) -> Weights:
    """Weights by the kinds of their names in PyTorch: weight_ih, weight_hh, where there are such
    bias_ih, bias_hh, weight_hr, and fastrnn.nn's own peephole, those of NORM_NAMES, and bias, the
    only one of the smaller cells."""
    b, bh = arrays.get("bias_ih", arrays.get("bias")), arrays.get("bias_hh")
    if b is None:
        b = np.zeros(len(arrays["weight_ih"]), arrays["weight_ih"].dtype)
    elif bh is not None and not form.record.two_biases:
        b, bh = np.add(b, bh), None
    vectors = arrays.get("peephole")
    if form.eps is not None:
        vectors = LayerNorm(*(arrays.get(kind) for kind in NORM_NAMES.values()), form.eps)
    Wx, Wh = arrays["weight_ih"], arrays.get("weight_hh")
    return Weights(Wx, Wh, b, bh, arrays.get("weight_hr"), vectors)


def by_kinds(form: Form, grads: Weights) -> dict[str, np.ndarray | None]:
    """Gradients of what from_kinds takes."""
    arrays = {"weight_ih": grads.Wx, "weight_hh": grads.Wh, "weight_hr": grads.Whr}
    # Gradients are of an array each: they may be added to in place.
    of_h = grads.b.copy() if grads.bh is None else grads.bh
    arrays |= {"bias_ih": grads.b, "bias_hh": of_h, "bias": grads.b}
    if form.eps is None:
        return arrays | {"peephole": grads.vectors}
    return arrays | dict(zip(NORM_NAMES.values(), grads.vectors, strict=False))


def batch_of(x: np.ndarray, steps: Steps) -> int:
    """N."""
    if steps.layout == "packed":
        return len(steps.lengths)
    if steps.layout == "time_first":
        return x.shape[1]
    return len(x if steps.index is None else steps.index)


def forward(
    form: Form,
    weights: Weights,
    x: np.ndarray,
    initial: States | None,
    steps: Steps,
    training: bool,
    backend: str | None,
) -> tuple[np.ndarray, tuple[np.ndarray, ...], NamedTuple]:
    """All steps.

    Inputs: x (N, T, D) or as steps.layout has it, or with steps.index a table (U, D); initial, None
    for zeros.
    Returns: h (N, T, P), the last states, h (N, P) and of an lstm c (N, H), the cache for backward.
    """
    h0, *others = [None] * len(form.record.states) if initial is None else initial
    if h0 is None:
        P, dtype = weights.size(form)
        h0 = np.zeros((batch_of(x, steps), P), dtype)
    args, (keywords, beside) = (x, h0, *others, *weights[:4]), _told(form, weights)
    h, cache = recurrent.forward(
        form.record, args, keywords, steps, training, True, beside=beside, backend=backend
    )
    return h, tuple(getattr(cache, field) for field in form.record.last_fields), cache


def step(
    form: Form,
    weights: Weights,
    x: np.ndarray,
    states: tuple[np.ndarray, ...],
    training: bool,
    backend: str | None = None,
) -> tuple[tuple[np.ndarray, ...], NamedTuple]:
    """One step.

    Inputs: x (N, D); states, h (N, P), and of an lstm c (N, H).
    Returns: the states after it, the cache.
    """
    args, (keywords, beside) = (x, *states, *weights[:4]), _told(form, weights)
    *states, cache = recurrent.step_forward(
        form.record, args, keywords, training, beside=beside, backend=backend
    )
    return tuple(states), cache


def _told(form, weights):
    """What functions of any cell take as form and as beside."""
    record = form.record
    keywords = form.gates or record.gates, form.transposed, form.reset_after, form.nonlinearity
    if isinstance(weights.Wx, PreparedWeights):  # which hold what the form says
        keywords = record.gates, False, True, record.form["nonlinearity"]
    beside = form.options, weights.vectors, weights.Whr
    return keywords, None if all(given is None for given in beside) else beside


def backward(
    form: Form,
    dh: np.ndarray | None,
    dlast: States,
    cache: NamedTuple,
    onto: Weights | None,
    backend: str | None,
) -> tuple[np.ndarray, tuple[np.ndarray, ...], Weights]:
    """Gradients of forward.

    Inputs: dh (N, T, P) and dlast like the last states, None for zeros; onto, gradients of the
    weights to go on from, in place.
    Returns: dx like x, those of the initial states, those of the weights.
    """
    if onto is not None:
        vectors = onto.vectors if isinstance(onto.vectors, tuple) else (onto.vectors,)
        in_turn = *onto[:4], *vectors, onto.Whr
        onto = tuple(d for d in in_turn if d is not None)
    dx, dinitial, *weights, dvectors, dWhr = recurrent.backward(
        form.record, dh, dlast, cache, onto=onto, backend=backend
    )
    return dx, dinitial, Weights(*weights, dWhr, dvectors)
