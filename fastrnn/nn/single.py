"""One recurrent layer of any cell, as the programs' models have it: its weights in a dict, what
regularises it a number each.

Letters: D input, H hidden, G gates.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from fastrnn.cells import NAMES
from fastrnn.layers.otherwise import record_of
from fastrnn.nn.direction import Form, Weights
from fastrnn.options import Options

CELLS = tuple(NAMES)


@lru_cache(maxsize=64)
def form(
    cell: str, zoneout: float = 0.0, recurrent_dropout: float = 0.0, bidirectional: bool = False
) -> Form:
    """Inputs: zoneout, of h and of an lstm's c with the same probability (Krueger et al. 2017);
    recurrent_dropout, of h before its product with Wh, the same units at every step (Gal and
    Ghahramani 2016).
    Raises ValueError where the cell has not what is asked for.
    """
    record, options = NAMES[cell], None
    known = record_of(record).options
    for name, value in (("zoneout", zoneout), ("recurrent_dropout", recurrent_dropout)):
        if value and not known:
            raise ValueError(f"{name}: expected 0 of {cell}, which has none, got {value!r}")
    if zoneout or recurrent_dropout:
        of_c = {"zoneout_c": zoneout} if "zoneout_c" in known else {}
        options = Options(zoneout_h=zoneout, dropout_h=recurrent_dropout, **of_c)
    nonlinearity = record.form["nonlinearity"]
    return Form(cell, bidirectional=bidirectional, nonlinearity=nonlinearity, options=options)


def in_pass(form: Form, rng: np.random.Generator | None, training: bool = True) -> Form:
    """A form for one forward pass. In training what is random in its cells has a seed of its own,
    drawn from rng (None: nothing is dropped, no state is kept); in predictions zoneout alone acts.
    """
    options = form.options
    if options is None:
        return form
    if training and rng is None:
        return form._replace(options=None)
    if not training:
        return form if options.zoneout_h else form._replace(options=None)
    return form.drawn(rng)


def shapes(cell: str, D: int, H: int) -> dict[str, tuple[int, ...]]:
    """Of its weights, by name: Wx, b, and between them Wh, of an ind_rnn u, of others nothing."""
    record = NAMES[cell]
    GH = len(record.gates) * H
    of_h = {"Wh": (H, GH), "u": (H,)}.get(record.recurrent)
    return {"Wx": (D, GH)} | ({} if of_h is None else {record.recurrent: of_h}) | {"b": (GH,)}


def weights(params: Mapping[str, np.ndarray], end: str = "") -> Weights:
    """Those of these names, with an end to each."""
    of_h = params.get(f"Wh{end}", params.get(f"u{end}"))
    return Weights(params[f"Wx{end}"], of_h, params[f"b{end}"])


def named(cell: str, gradients: Weights, end: str = "") -> dict[str, np.ndarray]:
    """Gradients by the names of weights."""
    of_h = {NAMES[cell].recurrent: gradients.Wh}
    arrays = {"Wx": gradients.Wx, **of_h, "b": gradients.b}
    return {f"{name}{end}": a for name, a in arrays.items() if name}
