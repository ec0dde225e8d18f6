"""Weights made ready once for many calls: sequences, steps, streams.

Letters: N batch, D input, H hidden, G gates (1 rnn and ind_rnn, 2 mgu and min_gru, 3 gru and
min_lstm, 4 lstm). backend= and errors as in layers.recurrent.
"""

from dataclasses import InitVar, dataclass, field, fields
from typing import NamedTuple

import numpy as np

from fastrnn.backends import get_backend
from fastrnn.cells import FORM, NAMES, Cell, Weights, form_of
from fastrnn.layers import checks


class Own(NamedTuple):
    """Weights as a call needs them: the cell's record, what its functions expect, and the fields
    of Weights in two parts, arrays and the rest."""

    record: Cell
    expected: checks.Forward
    arrays: tuple[np.ndarray | None, ...]
    rest: tuple[str, bool, object, None]


@dataclass(frozen=True, eq=False)
class PreparedWeights:
    """What prepare returns: read-only copies of the weights, and what a backend made of them. What
    copies, pickles or replaces some of it (dataclasses.replace) gets weights prepared anew.

    Raises ValueError for a name or a shape, TypeError for a dtype or a flag.
    """

    cell: str
    Wx: np.ndarray  # (D, G*H), transposed (G*H, D)
    Wh: np.ndarray | None  # (H, G*H), transposed (G*H, H); of an ind_rnn its u (H,)
    b: np.ndarray  # (G*H,)
    bh: np.ndarray | None  # (G*H,)
    gates: str  # as a permutation of the cell's, as in i f o g, r z n
    reset_after: bool  # of the gru alone
    transposed: bool
    training: bool  # for backward passes, too
    nonlinearity: str = "tanh"  # of cells that have several
    backend: InitVar[str | None] = None
    own: Own = field(init=False, repr=False)

    def __post_init__(self, backend: str | None) -> None:
        record = form_of(self.cell)
        if self.bh is not None and not record.two_biases:
            raise ValueError(f"bh: expected None for {self.cell}, which has one bias")
        if self.Wh is not None and not record.recurrent:
            raise ValueError(f"Wh: expected None for {self.cell}, which has none")
        for name in ("reset_after", "transposed", "training"):
            self._set(name, checks.flag(name, getattr(self, name)))
        record = form_of(self.cell, **{name: getattr(self, name) for name in FORM})
        checks.known_order(record, self.gates)
        expected = checks.of_weights(record, self.transposed)
        given = self.Wx, self.Wh, self.b, self.bh
        arrays = tuple(map(_read_only_copy, checks.arrays(expected, given)))
        for name, a in zip(("Wx", "Wh", "b", "bh"), arrays, strict=True):
            self._set(name, a)
        rest, module, packed = (self.gates, self.transposed), get_backend(backend), None
        if hasattr(module, "prepare"):  # the reference reads weights as they lie
            packed = module.prepare(record, Weights(*arrays, *rest), self.training)
        forward = checks.of_forward(record, self.transposed)
        self._set("own", Own(record, forward, arrays, (*rest, packed, None)))

    def _set(self, name, value):
        object.__setattr__(self, name, value)

    def check_alone(
        self,
        cell: str,
        Wh: None = None,
        b: None = None,
        bh: None = None,
        gates: str | None = None,
        transposed: bool = False,
        reset_after: bool = True,
        nonlinearity: str | None = None,
    ) -> None:
        """Raises TypeError unless these are weights of that cell and come without what they hold;
        the keywords as they are by default are none."""
        if self.cell != cell:
            raise TypeError(f"Wx: expected weights prepared for {cell}, got those of {self.cell}")
        given = {"Wh": Wh, "b": b, "bh": bh, "gates": gates, "transposed": transposed}
        given |= {"reset_after": reset_after, "nonlinearity": nonlinearity}
        nothing = NAMES[cell].form | {"gates": NAMES[cell].gates, "transposed": False}
        for name, value in given.items():
            default = nothing.get(name)
            if value is not None and not (type(value) is type(default) and value == default):
                raise TypeError(f"{name}: expected nothing with prepared weights, which hold it")

    def __reduce__(self):
        return type(self), tuple(getattr(self, f.name) for f in fields(self) if f.init)


def _read_only_copy(a):
    if a is not None:
        a = a.copy()
        a.flags.writeable = False
    return a


def prepare(
    cell: str,
    Wx: np.ndarray,
    Wh: np.ndarray | None,
    b: np.ndarray,
    *,
    gates: str | None = None,
    bh: np.ndarray | None = None,
    reset_after: bool = True,
    nonlinearity: str | None = None,
    transposed: bool = False,
    training: bool = False,
    backend: str | None = None,
) -> PreparedWeights:
    """Weights of a cell, copied and laid out for the kernels: pass the result in place of Wx, and
    leave out Wh, b and the keywords gates, bh, reset_after, nonlinearity and transposed, which it
    holds.

    Inputs: cell, "rnn", "lstm", "gru", "mgu", "min_gru", "min_lstm" or "ind_rnn"; Wx (D, G*H),
    Wh (H, G*H), b (G*H,), with transposed Wx (G*H, D) and Wh (G*H, H); of an ind_rnn u (H,) in
    place of Wh, of a min_gru or min_lstm None; gates and nonlinearity, of cells that have several
    (None: as their functions have them by default); bh (3*H,) and reset_after, for the gru;
    training, whether backward passes will follow, for which the weights are laid out too.
    Raises ValueError for an unknown cell or a shape, TypeError for a dtype.
    """
    record = form_of(cell)
    order = checks.gate_order(record, record.gates if gates is None else gates)
    nonlinearity = record.form["nonlinearity"] if nonlinearity is None else nonlinearity
    return PreparedWeights(
        *(cell, Wx, Wh, b, bh, order, reset_after, transposed, training, nonlinearity),
        backend=backend,
    )
