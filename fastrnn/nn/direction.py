"""One recurrent layer in one direction of time.

Letters: N batch, T steps, U rows of a table, D input, H hidden, P projected (H without a
projection), G gates.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastrnn.cells import NAMES, Cell, Steps
from fastrnn.layers import recurrent
from fastrnn.layers.prepared import PreparedWeights
from fastrnn.options import Options

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

    @property
    def directions(self) -> int:
        """One, or two."""
        return 2 if self.bidirectional else 1

    @property
    def record(self) -> Cell:
        """The cell's, of fastrnn.cells."""
        return NAMES[self.cell]

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
    Whr: np.ndarray | None = None  # (P, H), of an lstm whose h is projected
    peepholes: np.ndarray | None = None  # (3*H,), of an lstm

    def size(self, form: Form) -> tuple[int, np.dtype]:
        """P of weights without a projection, and their dtype."""
        own = self.Wx if isinstance(self.Wx, PreparedWeights) else self
        transposed = own.transposed if own is not self else form.transposed
        return own.Wh.shape[transposed], own.Wh.dtype


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
    """All steps of weights without a projection.

    Inputs: x (N, T, D) or as steps.layout has it, or with steps.index a table (U, D); initial, None
    for zeros.
    Returns: h (N, T, H), the last states (N, H) each, the cache for backward.
    """
    h0, *others = [None] * len(form.record.states) if initial is None else initial
    if h0 is None:
        H, dtype = weights.size(form)
        h0 = np.zeros((batch_of(x, steps), H), dtype)
    gates = form.gates or form.record.gates
    keywords = gates, form.transposed, form.reset_after, form.nonlinearity
    if isinstance(weights.Wx, PreparedWeights):  # which hold what the form says
        keywords = form.record.gates, False
    args, beside = (x, h0, *others, *weights[:4]), (form.options, weights.peepholes)
    beside = None if beside == (None, None) else beside
    h, cache = recurrent.forward(
        form.record, args, keywords, steps, training, True, beside=beside, backend=backend
    )
    return h, tuple(getattr(cache, field) for field in form.record.last_fields), cache


def backward(
    form: Form,
    dh: np.ndarray | None,
    dlast: States,
    cache: NamedTuple,
    onto: Weights | None,
    backend: str | None,
) -> tuple[np.ndarray, tuple[np.ndarray, ...], Weights]:
    """Gradients of forward.

    Inputs: dh (N, T, H) and dlast (N, H) each, None for zeros; onto, gradients of the weights to go
    on from, in place.
    Returns: dx like x, those of the initial states, those of the weights.
    """
    if onto is not None:
        onto = tuple(d for d in onto if d is not None)
    dx, dinitial, *weights, dvectors = recurrent.backward(
        form.record, dh, dlast, cache, onto=onto, backend=backend
    )
    return dx, dinitial, Weights(*weights, peepholes=dvectors)
