"""One recurrent layer of any cell, as the programs' models have it: its weights in a dict, what
regularises it a number each.

Letters: D input, H hidden, G gates.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from fastrnn.cells import NAMES, WITH_NORM
from fastrnn.layers.otherwise import record_of
from fastrnn.layers.prepared import prepare
from fastrnn.nn.direction import Form, Weights
from fastrnn.nn.modules import EPS
from fastrnn.options import LayerNorm, Options

# With layer normalisation, and without.
_NORMALISED = {f"layer_norm_{name}": name for name in WITH_NORM}
CELLS = (*NAMES, *_NORMALISED)


def plain(cell: str) -> str:
    """The name of the cell without layer normalisation."""
    return _NORMALISED.get(cell, cell)


@lru_cache(maxsize=64)
def form(
    cell: str, zoneout: float = 0.0, recurrent_dropout: float = 0.0, bidirectional: bool = False
) -> Form:
    """Inputs: zoneout, of h and of an lstm's c with the same probability (Krueger et al. 2017);
    recurrent_dropout, of h before its product with Wh, the same units at every step (Gal and
    Ghahramani 2016).
    Raises ValueError where the cell has not what is asked for.
    """
    record, options = NAMES[plain(cell)], None
    eps = EPS if cell in _NORMALISED else None
    known = record_of(record).options
    for name, value in (("zoneout", zoneout), ("recurrent_dropout", recurrent_dropout)):
        if value and not known:
            raise ValueError(f"{name}: expected 0 of {cell}, which has none, got {value!r}")
    if zoneout or recurrent_dropout:
        of_c = {"zoneout_c": zoneout} if "zoneout_c" in known else {}
        options = Options(zoneout_h=zoneout, dropout_h=recurrent_dropout, **of_c)
    given = {"nonlinearity": record.form["nonlinearity"], "options": options, "eps": eps}
    return Form(record.name, bidirectional=bidirectional, **given)


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
    """Of its weights, by name: Wx, b, and between them Wh, of an ind_rnn u, of others nothing;
    after them those of layer normalisation."""
    record = NAMES[plain(cell)]
    GH = len(record.gates) * H
    of_h = {"Wh": (H, GH), "u": (H,)}.get(record.recurrent)
    of_norm = {name: (width * H,) for name, width in _norm(cell).items()}
    own = {"Wx": (D, GH)} | ({} if of_h is None else {record.recurrent: of_h}) | {"b": (GH,)}
    return own | of_norm


def _norm(cell):
    """The fields of its LayerNorm, their width in H."""
    return WITH_NORM[plain(cell)].norm if cell in _NORMALISED else {}


def weights(params: Mapping[str, np.ndarray], end: str = "") -> Weights:
    """Those of these names, with an end to each."""
    of_h = params.get(f"Wh{end}", params.get(f"u{end}"))
    norm = None
    if f"gain_x{end}" in params:
        norm = LayerNorm(*(params.get(f"{name}{end}") for name in LayerNorm._fields[:-1]), EPS)
    return Weights(params[f"Wx{end}"], of_h, params[f"b{end}"], vectors=norm)


def prepared(
    cell: str, own: Weights, backend: str | None = None, *, training: bool = False
) -> Weights:
    """The same for many forward passes; training, whether backward passes follow."""
    given = {"training": training, "backend": backend}
    return Weights(prepare(plain(cell), *own[:3], **given), vectors=own.vectors)


def named(cell: str, gradients: Weights, end: str = "") -> dict[str, np.ndarray]:
    """Gradients by the names of weights."""
    of_h = {NAMES[plain(cell)].recurrent: gradients.Wh}
    arrays = {"Wx": gradients.Wx, **of_h, "b": gradients.b}
    arrays |= zip(_norm(cell), gradients.vectors or (), strict=True)
    return {f"{name}{end}": a for name, a in arrays.items() if name}
