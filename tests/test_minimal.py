"""Cells of which no unit reaches another one: threads share their units, and wait for nobody."""

import numpy as np
import pytest
from util import LAYERS, assert_results, assert_same_bits, draw, run, weights_of

import fastrnn
from fastrnn.backends import _kernels

UNITS_ALONE = ["min_gru", "min_lstm", "ind_rnn"]


@pytest.mark.parametrize("cell", UNITS_ALONE)
def test_units_of_one_row_are_shared_beside_a_busy_process(
    cell, isa, dtype, small_work_is_split, rng
):
    """Where threads that had to meet would not be worth it."""
    operands = draw(LAYERS[cell], rng, dtype, 1, 20, 7, 70)
    expected = run(LAYERS[cell], operands)
    fastrnn.set_num_threads(2)
    _kernels.oversubscribe()
    assert_results(assert_same_bits, run(LAYERS[cell], operands), expected)
    Wx, *others = (operands[name] for name in weights_of(cell))
    weights = fastrnn.prepare(cell, Wx, *([None] * (2 - len(others))), *others)
    _kernels.most_parts()
    h, _ = getattr(fastrnn, f"{cell}_forward")(operands["x"], operands["h0"], weights)
    assert _kernels.most_parts() == 2
    assert_same_bits(h, expected["out_0"])


@pytest.mark.parametrize("cell", [*UNITS_ALONE, "mgu"])
def test_options_are_refused(cell, backend, rng):
    operands = draw(LAYERS[cell], rng, np.float64, 2, 3, 4, 5)
    Wx, *others = (operands[name] for name in weights_of(cell))
    weights = Wx, *([None] * (2 - len(others))), *others
    for options in (fastrnn.Options(), fastrnn.Options(zoneout_h=0.1)):
        with pytest.raises(TypeError, match=f"^options: expected nothing for {cell}$"):
            fastrnn.Stream(cell, *weights, options=options)
    with pytest.raises(TypeError, match=f"^peepholes: expected nothing for {cell}$"):
        fastrnn.Stream(cell, *weights, peepholes=np.zeros(15))
