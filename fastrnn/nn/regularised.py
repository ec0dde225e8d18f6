"""Regularisation within cells, as the programs' settings say it."""

import numpy as np

from fastrnn.cells import NAMES
from fastrnn.layers.otherwise import record_of
from fastrnn.nn.direction import Form
from fastrnn.options import Options


def regularised(cell: str, zoneout: float, recurrent_dropout: float) -> Options | None:
    """The options of a cell: zoneout, of h and of an lstm's c with the same probability (Krueger et
    al. 2017), and dropout of h before its product with Wh, the same units at every step (Gal and
    Ghahramani 2016). None where both are 0."""
    if zoneout == recurrent_dropout == 0:
        return None
    of_c = {"zoneout_c": zoneout} if "zoneout_c" in record_of(NAMES[cell]).options else {}
    return Options(zoneout_h=zoneout, dropout_h=recurrent_dropout, **of_c)


def in_pass(form: Form, rng: np.random.Generator | None, training: bool = True) -> Form:
    """A form for one forward pass. In training what is random in its cells has a seed of its own,
    drawn from rng (None: nothing is dropped, no state is kept); in predictions zoneout alone acts.
    """
    options = form.options
    if options is None or (training and rng is None):
        return form._replace(options=None)
    if not training:
        return form if options.zoneout_h else form._replace(options=None)
    seed = int(rng.integers(2**64, dtype=np.uint64))
    return form._replace(options=options._replace(seed=seed))
