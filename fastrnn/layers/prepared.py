"""Weights made ready once for many calls: sequences, steps, streams.

Letters: N batch, D input, H hidden, G gates (1 rnn, 4 lstm, 3 gru). backend= and errors as in
layers.recurrent.
"""

from dataclasses import dataclass, field

import numpy as np

from fastrnn.backends import get_backend
from fastrnn.layers import checks

_SIGNATURES = {
    "rnn": checks.signature(Wx="D H", Wh="H H", b="H", bh="H?"),
    "lstm": checks.signature(Wx="D 4*H", Wh="H 4*H", b="4*H", bh="4*H?"),
    "gru": checks.signature(Wx="D 3*H", Wh="H 3*H", b="3*H", bh="3*H?"),
}


@dataclass(frozen=True, eq=False)
class PreparedWeights:
    """What prepare returns: read-only copies of the weights, and what a backend made of them."""

    cell: str
    Wx: np.ndarray  # (D, G*H)
    Wh: np.ndarray  # (H, G*H)
    b: np.ndarray  # (G*H,)
    bh: np.ndarray | None  # (G*H,)
    gates: str  # as a permutation of i f o g; of the lstm alone
    reset_after: bool  # of the gru alone
    packed: object = field(repr=False)

    def alone(
        self, cell: str, Wh: None, b: None, gates: str = "ifog", bh: None = None, reset_after=True
    ) -> "PreparedWeights":
        """These weights. Raises TypeError unless they are of that cell and come without what they
        hold."""
        if self.cell != cell:
            raise TypeError(f"Wx: expected weights prepared for {cell}, got those of {self.cell}")
        given = {"Wh": Wh, "b": b, "bh": bh}
        given |= {"gates": None if gates == "ifog" else gates}
        given |= {"reset_after": None if reset_after is True else reset_after}
        for name, value in given.items():
            if value is not None:
                raise TypeError(f"{name}: expected nothing with prepared weights, which hold it")
        return self

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, object]:
        """Wx, Wh, b, and what the backend made of them."""
        return self.Wx, self.Wh, self.b, self.packed

    def __reduce__(self):
        weights = self.cell, self.Wx, self.Wh, self.b, self.bh, self.gates, self.reset_after
        return _with_packed, weights


def prepare(
    cell: str,
    Wx: np.ndarray,
    Wh: np.ndarray,
    b: np.ndarray,
    *,
    gates: str = "ifog",
    bh: np.ndarray | None = None,
    reset_after: bool = True,
    backend: str | None = None,
) -> PreparedWeights:
    """Weights of a cell, copied and laid out for the kernels: pass the result in place of Wx, and
    leave out Wh, b and the keywords gates, bh and reset_after, which it holds.

    Inputs: cell, "rnn", "lstm" or "gru"; Wx (D, G*H), Wh (H, G*H), b (G*H,); gates, for the lstm;
    bh (3*H,) and reset_after, for the gru.
    Raises ValueError for an unknown cell or a shape, TypeError for a dtype.
    """
    if cell not in _SIGNATURES:
        raise ValueError(f"cell: expected one of {list(_SIGNATURES)}, got {cell!r}")
    if bh is not None and cell != "gru":
        raise ValueError(f"bh: expected None for {cell}, which has one bias")
    order, reset_after = checks.gate_order(gates), checks.flag("reset_after", reset_after)
    arrays = [_frozen(a) for a in checks.arrays(_SIGNATURES[cell], Wx, Wh, b, bh)]
    return _with_packed(cell, *arrays, order, reset_after, backend)


def _with_packed(cell, Wx, Wh, b, bh, gates, reset_after, backend=None):
    packed = get_backend(backend).prepare(cell, Wx, Wh, b, bh, gates, reset_after)
    return PreparedWeights(cell, Wx, Wh, b, bh, gates, reset_after, packed)


def _frozen(a: np.ndarray | None) -> np.ndarray | None:
    if a is not None:
        a = a.copy()
        a.flags.writeable = False
    return a
