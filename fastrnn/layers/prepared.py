"""Weights made ready once for many calls: sequences, steps, streams.

Letters: N batch, D input, H hidden, G gates (1 rnn, 4 lstm, 3 gru). backend= and errors as in
layers.recurrent.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fastrnn.backends import get_backend
from fastrnn.cells import GRU, GRU_ORIGINAL, NAMES, Cell, Weights
from fastrnn.layers import checks


class Own(NamedTuple):
    """Weights as a call needs them: the cell's record, what its functions expect, and the fields
    of Weights in two parts, arrays and the rest."""

    record: Cell
    expected: checks.Forward
    arrays: tuple[np.ndarray | None, ...]
    rest: tuple[str, bool, object]


@dataclass(frozen=True, eq=False)
class PreparedWeights:
    """What prepare returns: read-only copies of the weights, and what a backend made of them."""

    cell: str
    Wx: np.ndarray  # (D, G*H), transposed (G*H, D)
    Wh: np.ndarray  # (H, G*H), transposed (G*H, H)
    b: np.ndarray  # (G*H,)
    bh: np.ndarray | None  # (G*H,)
    gates: str  # as a permutation of the cell's: i f o g, r z n
    reset_after: bool  # of the gru alone
    packed: object = field(repr=False)
    transposed: bool = False
    training: bool = False  # packed serves the backward pass too

    def check_alone(
        self,
        cell: str,
        Wh: None = None,
        b: None = None,
        bh: None = None,
        gates: str | None = None,
        reset_after: bool = True,
        transposed: bool = False,
    ) -> None:
        """Raises TypeError unless these are weights of that cell and come without what they hold;
        the keywords as they are by default are none."""
        if self.cell != cell:
            raise TypeError(f"Wx: expected weights prepared for {cell}, got those of {self.cell}")
        given = {"Wh": Wh, "b": b, "bh": bh}
        given |= {"gates": None if gates == NAMES[cell].gates else gates}
        given |= {"reset_after": None if reset_after is True else reset_after}
        given |= {"transposed": None if transposed is False else transposed}
        for name, value in given.items():
            if value is not None:
                raise TypeError(f"{name}: expected nothing with prepared weights, which hold it")

    @cached_property
    def own(self) -> "Own":
        """As a call needs them."""
        record = form_of(self.cell, self.reset_after)
        arrays, rest = (self.Wx, self.Wh, self.b, self.bh), (self.gates, self.transposed)
        expected = checks.of_forward(record, self.transposed)
        return Own(record, expected, arrays, (*rest, self.packed))

    def __reduce__(self):
        weights = self.Wx, self.Wh, self.b, self.bh, self.gates, self.transposed
        return _with_packed, (self.cell, self.reset_after, Weights(*weights), self.training)


def form_of(cell: str, reset_after: bool) -> Cell:
    """The record of a cell by its public name and the form of the gru."""
    return GRU_ORIGINAL if cell == GRU.name and not reset_after else NAMES[cell]


def prepare(
    cell: str,
    Wx: np.ndarray,
    Wh: np.ndarray,
    b: np.ndarray,
    *,
    gates: str | None = None,
    bh: np.ndarray | None = None,
    reset_after: bool = True,
    transposed: bool = False,
    training: bool = False,
    backend: str | None = None,
) -> PreparedWeights:
    """Weights of a cell, copied and laid out for the kernels: pass the result in place of Wx, and
    leave out Wh, b and the keywords gates, bh, reset_after and transposed, which it holds.

    Inputs: cell, "rnn", "lstm" or "gru"; Wx (D, G*H), Wh (H, G*H), b (G*H,), with transposed
    Wx (G*H, D) and Wh (G*H, H); gates, the order of an lstm ("ifog" by default) or a gru ("rzn");
    bh (3*H,) and reset_after, for the gru; training, whether backward passes will follow, for which
    the weights are laid out too.
    Raises ValueError for an unknown cell or a shape, TypeError for a dtype.
    """
    if not isinstance(cell, str) or cell not in NAMES:
        raise ValueError(f"cell: expected one of {list(NAMES)}, got {cell!r}")
    if bh is not None and not NAMES[cell].two_biases:
        raise ValueError(f"bh: expected None for {cell}, which has one bias")
    record = NAMES[cell]
    order = checks.gate_order(record, record.gates if gates is None else gates)
    reset_after = checks.flag("reset_after", reset_after)
    transposed = checks.flag("transposed", transposed)
    training = checks.flag("training", training)
    arrays = checks.arrays(checks.of_weights(record, transposed), (Wx, Wh, b, bh))
    copies = (a if a is None else a.copy() for a in arrays)
    weights = Weights(*copies, order, transposed)
    return _with_packed(cell, reset_after, weights, training, backend)


def _with_packed(cell, reset_after, weights, training, backend=None):
    for a in weights[:4]:
        if a is not None:
            a.flags.writeable = False
    module = get_backend(backend)
    packed = None
    if hasattr(module, "prepare"):  # the reference reads weights as they lie
        packed = module.prepare(form_of(cell, reset_after), weights, training)
    Wx, Wh, b, bh, gates, transposed, _ = weights
    return PreparedWeights(cell, Wx, Wh, b, bh, gates, reset_after, packed, transposed, training)
