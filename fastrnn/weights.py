"""How libraries lay out the weights of recurrent layers: names, shapes, the order of the gates.

A Layer is ours; what goes through it into another library and back is the same bits. Its gates lie
in the order that keyword gates names, as in fastrnn.layers.recurrent (None: the cell's own).

Letters: D input, H hidden, P projection, G gates (1 rnn, 4 lstm, 3 gru). Cells are "rnn", "lstm"
and "gru". NumPy arrays alone make a round trip, but tensors of PyTorch are taken, too.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrnn.cells import STANDARD

ORDERS = {
    "fastrnn": {name: cell.gates for name, cell in STANDARD.items()},
    "pytorch": {"rnn": "h", "lstm": "ifgo", "gru": "rzn"},
    "keras": {"rnn": "h", "lstm": "ifgo", "gru": "zrn"},
    "onnx": {"rnn": "h", "lstm": "iofg", "gru": "zrn"},
}

Array = Any  # np.ndarray, or a tensor of PyTorch


class Layer(NamedTuple):
    """The weights of one layer in one direction."""

    Wx: Array  # (D, G*H)
    Wh: Array  # (H, G*H), with a projection (P, G*H)
    b: Array | None = None  # (G*H,)
    bh: Array | None = None  # (G*H,), of h Wh
    Whr: Array | None = None  # (P, H), the projection of PyTorch's LSTM
    peepholes: Array | None = None  # (3*H,), of an LSTM, the gates in their order but g


def reorder(a: Array, before: str, after: str, axis: int = -1) -> Array:
    """Gates along an axis of G*H in another order.

    Inputs: a, array or tensor; before and after, orders of the same letters, one a gate.
    Returns: a itself where the orders are the same, else a copy.
    Raises ValueError for orders of different letters or an axis that they do not divide.
    """
    if sorted(before) != sorted(after) or len({*before}) != len(before):
        raise ValueError(f"after: expected a permutation of {before!r}, got {after!r}")
    axis %= a.ndim
    shape, G = tuple(a.shape), len(before)
    if shape[axis] % G:
        raise ValueError(f"a: expected a multiple of {G} in axis {axis}, got shape {shape}")
    if before == after:
        return a
    blocks = a.reshape(*shape[:axis], G, shape[axis] // G, *shape[axis + 1 :])
    places = [before.index(gate) for gate in after]
    return blocks[(slice(None),) * axis + (places,)].reshape(shape)


def _turned(layer: Layer, before: str, after: str) -> Layer:
    *gated, Whr, p = layer
    gated = (None if a is None else reorder(a, before, after) for a in gated)
    return Layer(*gated, Whr, None if p is None else reorder(p, *_peeping(before, after)))


def _peeping(*orders: str) -> tuple[str, ...]:
    """Orders of an LSTM's gates without g, which has no peephole."""
    return tuple(order.replace("g", "") for order in orders)


def _from(library: str, cell: str, layer: Layer, gates: str | None) -> Layer:
    _check_cell(cell)
    return _turned(layer, ORDERS[library][cell], _ours(cell, gates))


def _to(library: str, cell: str, layer: Layer, gates: str | None) -> Layer:
    _check_cell(cell)
    return _turned(layer, _ours(cell, gates), ORDERS[library][cell])


def _check_cell(cell: str) -> None:
    if cell not in STANDARD:
        raise ValueError(f"cell: expected one of {[*STANDARD]}, got {cell!r}")


def _ours(cell: str, gates: str | None) -> str:
    if gates is not None and gates not in STANDARD[cell].orders:
        raise ValueError(f"gates: expected one of {[*STANDARD[cell].orders]}, got {gates!r}")
    return STANDARD[cell].gates if gates is None else STANDARD[cell].orders[gates]


# ---- PyTorch -------------------------------------------------------------------------------------

# Of a layer's parameters, in the order of Layer's fields; what follows says which layer.
# PyTorch has no peepholes: their name is fastrnn.nn's.
# Those of fastrnn.nn's layer normalisation by the fields of LayerNorm.
NORM_NAMES = {
    "gain_x": "gain_ih",
    "gain_h": "gain_hh",
    "gain_c": "gain_c",
    "shift_c": "shift_c",
}
TORCH_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "peephole")


def from_torch(
    cell: str,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    weight_hr: Array | None = None,
    peephole: Array | None = None,
    *,
    gates: str | None = None,
) -> Layer:
    """A layer of PyTorch's parameters: weight_ih (G*H, D), weight_hh (G*H, H), bias_ih and bias_hh
    (G*H,), weight_hr (P, H); peephole (3*H,), which fastrnn.nn has beside them."""
    layer = Layer(weight_ih.T, weight_hh.T, bias_ih, bias_hh, weight_hr, peephole)
    return _from("pytorch", cell, layer, gates)


def to_torch(cell: str, layer: Layer, *, gates: str | None = None) -> dict[str, Array]:
    """PyTorch's parameters by name, as from_torch takes them; those that are None are left out."""
    Wx, Wh, *rest = _to("pytorch", cell, layer, gates)
    named = zip(TORCH_NAMES, (Wx.T, Wh.T, *rest), strict=True)
    return {name: a for name, a in named if a is not None}


def reorder_params(params: Mapping[str, Array], before: str, after: str) -> dict[str, Array]:
    """PyTorch's parameters, by names that begin with TORCH_NAMES or NORM_NAMES, with the gates in
    another order; a projection and what normalises c have none."""

    def turned(name, a):
        if name.startswith(("weight_hr", "gain_c", "shift_c")):
            return a
        orders = _peeping(before, after) if name.startswith("peephole") else (before, after)
        return reorder(a, *orders, axis=0)

    return {name: turned(name, a) for name, a in params.items()}


# ---- Keras ---------------------------------------------------------------------------------------


def from_keras(
    cell: str,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    *,
    gates: str | None = None,
) -> Layer:
    """A layer of Keras's weights: kernel (D, G*H), recurrent_kernel (H, G*H), bias (G*H,), of a GRU
    with reset_after (2, G*H)."""
    if bias is not None and bias.ndim == 2 and (cell != "gru" or len(bias) != 2):
        raise ValueError(f"bias: expected shape (G*H,), of a gru (2, G*H), got {bias.shape}")
    b, bh = (bias, None) if bias is None or bias.ndim == 1 else bias
    return _from("keras", cell, Layer(kernel, recurrent_kernel, b, bh), gates)


def to_keras(
    cell: str, layer: Layer, *, reset_after: bool = True, gates: str | None = None
) -> list[np.ndarray]:
    """Keras's weights, as set_weights of its layer takes them; reset_after, the form of the GRU.

    Raises ValueError for a projection or peepholes, which Keras has not.
    """
    _check_unprojected("Keras", layer)
    if layer.peepholes is not None:
        raise ValueError("peepholes: expected None: Keras has no peepholes")
    Wx, Wh, b, bh, *_ = _to("keras", cell, layer, gates)
    if b is None:
        return [Wx, Wh]
    bh = np.zeros_like(b) if bh is None else bh
    return [Wx, Wh, np.stack([b, bh]) if cell == "gru" and reset_after else b + bh]


# ---- ONNX ----------------------------------------------------------------------------------------


def from_onnx(
    cell: str,
    W: np.ndarray,
    R: np.ndarray,
    B: np.ndarray | None = None,
    P: np.ndarray | None = None,
    *,
    gates: str | None = None,
) -> list[Layer]:
    """The layers, one a direction, of the weights of an ONNX node: W (directions, G*H, D),
    R (directions, G*H, H), B (directions, 2*G*H), P (directions, 3*H)."""
    half, none = R.shape[1], [None] * len(W)
    biases = [(None, None)] * len(W) if B is None else [(b[:half], b[half:]) for b in B]
    parts = zip(W, R, biases, none if P is None else P, strict=True)
    layers = (Layer(w.T, r.T, *b, peepholes=p) for w, r, b, p in parts)
    return [_from("onnx", cell, layer, gates) for layer in layers]


def to_onnx(
    cell: str, layers: Sequence[Layer], *, gates: str | None = None
) -> dict[str, np.ndarray]:
    """The weights W, R, B, P of an ONNX node, as from_onnx takes them, of one layer a direction; no
    B where no layer has a bias, no P where they have no peepholes.

    Raises ValueError for a projection, which ONNX has not, and for peepholes of some layers alone.
    """
    for layer in layers:
        _check_unprojected("ONNX", layer)
    layers = [_to("onnx", cell, layer, gates) for layer in layers]
    weights = {
        "W": np.stack([layer.Wx.T for layer in layers]),
        "R": np.stack([layer.Wh.T for layer in layers]),
    }
    if any(layer.b is not None for layer in layers):
        weights["B"] = np.stack([_joined(layer) for layer in layers])
    peepholes = [layer.peepholes for layer in layers if layer.peepholes is not None]
    if peepholes and len(peepholes) < len(layers):
        raise ValueError("peepholes: expected those of every layer or of none")
    if peepholes:
        weights["P"] = np.stack(peepholes)
    return weights


def _joined(layer):
    zeros = np.zeros(layer.Wh.shape[1], layer.Wh.dtype)
    return np.concatenate([zeros if b is None else b for b in (layer.b, layer.bh)])


def _check_unprojected(library, layer):
    if layer.Whr is not None:
        raise ValueError(
            f"proj_size: expected 0, got {len(layer.Whr)}: {library} has no projection"
        )
