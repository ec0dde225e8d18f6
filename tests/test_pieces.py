"""A sequence in pieces: forward again from kept states, backward from the last piece to the first,
gives the bits of one call."""

from itertools import pairwise

import numpy as np
import pytest
from util import LAYERS, SEQUENCES, TWIN, WEIGHTS, assert_close, assert_same_bits, draw, upstream

import fastrnn
from fastrnn.cells import GRU, LSTM, NAMES
from fastrnn.layers import recurrent

# Where states start anew from h0, each piece would start from its own; with lengths and a reversed
# time the steps of a piece are others in each row.
PIECEWISE = [
    name
    for name in SEQUENCES
    if "index" not in LAYERS[name].operands
    and "reset_to" not in LAYERS[name].keywords
    and not ("lengths" in LAYERS[name].operands and "reverse" in LAYERS[name].keywords)
]


def piece_of(layer, operands, states, begin, end):
    """The forward pass over the steps begin..end, in the order in which time runs."""
    steps = slice(begin, end)
    if layer.keywords.get("reverse"):
        T = operands["x"].shape[1]
        steps = slice(T - end, T - begin)
    given = {name: operands[name] for name in WEIGHTS if name in operands} | states
    for name in ("x", "reset"):
        if name in operands:
            given[name] = operands[name][:, steps]
    if "lengths" in operands:
        given["lengths"] = np.clip(operands["lengths"] - begin, 0, end - begin)
    _, cache = getattr(fastrnn, f"{layer.function}_forward")(**given, **layer.keywords)
    return steps, cache


def in_pieces(layer, operands, dh, dlast, cuts):
    """dx, the gradients of the initial and of the last states, those of the weights."""
    pieces, started = list(pairwise(cuts)), []
    states = {name: operands[name] for name in ("h0", "c0") if name in operands}
    for begin, end in pieces:
        started.append(states)
        _, cache = piece_of(layer, operands, states, begin, end)
        states = {"h0": cache.hT} | ({"c0": cache.cT} if layer.function == "lstm" else {})
    dx = np.full_like(operands["x"], np.nan)
    onto = [np.zeros_like(operands[name]) for name in WEIGHTS if name in operands]
    for (begin, end), states in zip(reversed(pieces), reversed(started), strict=True):
        steps, cache = piece_of(layer, operands, states, begin, end)
        piece = None if dh is None else dh[:, steps]
        dx[:, steps], dlast, *_ = recurrent.backward(
            NAMES[layer.function], piece, dlast, cache, onto=onto
        )
    return dx, dlast, onto


def assert_pieces_make_the_whole(compare, name, shape, dtype, rng, **keywords):
    layer, T = LAYERS[name], shape[1]
    operands = draw(layer, rng, dtype, *shape)
    *outputs, cache = layer.forward(*operands.values())
    dh, *dlast = upstream(outputs)
    states = ("dh0", "dc0")[: 2 if layer.function == "lstm" else 1]
    some = sorted({0, T, *map(int, rng.integers(T + 1, size=3))})
    for douts, cuts in (([dh, *dlast], some), ([None, *dlast], range(T + 1))):
        gradients = layer.backward(*douts, cache)
        names = ["dx", *(f"d{o}" for o in operands if o not in ("x", "lengths", "reset"))]
        names.sort(key=lambda name: name in ("dbh", "dc0"))  # what is given by keyword comes last
        expected = dict(zip(names, gradients, strict=True))
        last = douts[1:] or [None] * len(states)
        dx, dinitial, onto = in_pieces(layer, operands, douts[0], last, cuts)
        weights = [f"d{w}" for w in WEIGHTS if w in operands]
        actual = {"dx": dx} | dict(zip((*states, *weights), (*dinitial, *onto), strict=True))
        for key, value in expected.items():
            compare(actual[key], value, name=key, **keywords)


# By weights that are packed, and in pieces of few rows that are not.
@pytest.mark.parametrize("shape", [(1, 5, 3, 5), (5, 6, 7, 17), (33, 4, 16, 40)], ids=str)
@pytest.mark.parametrize("name", PIECEWISE)
def test_pieces_make_the_whole(name, shape, isa, dtype, small_work_is_split, rng):
    for threads in (1, 2, 3):
        fastrnn.set_num_threads(threads)
        assert_pieces_make_the_whole(assert_same_bits, name, shape, dtype, rng)


@pytest.mark.parametrize("name", ["lstm_reset_c0_lengths", "gru_zrn_bh_lengths"])
def test_pieces_of_several_chunks_make_the_whole(name, isa, dtype, rng):
    fastrnn.set_num_threads(2)
    assert_pieces_make_the_whole(assert_same_bits, name, (260, 11, 3, 250), dtype, rng)


@pytest.mark.parametrize("name", PIECEWISE)
def test_pieces_of_the_reference_make_the_whole(name, dtype, rng):
    fastrnn.set_backend("numpy")
    tolerance = TWIN[dtype.name]
    assert_pieces_make_the_whole(assert_close, name, (5, 6, 7, 17), dtype, rng, tolerance=tolerance)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"cell": LSTM}, "ValueError: dlast: expected dhT, dcT, got 1 of them"),
        ({"dlast": None}, "TypeError: dlast: expected a tuple, got NoneType"),
        ({"onto": 3}, "ValueError: onto: expected dWx, dWh, db, dbh, got 3 of them"),
        ({"onto": {}}, "TypeError: onto: expected a tuple, got dict"),
        ({0: [1]}, "TypeError: dWx: expected an ndarray, got list"),
        ({0: np.zeros((15, 4)).T}, "ValueError: dWx: expected a writeable, aligned, C-contiguous"),
        ({1: np.zeros((5, 5))}, "ValueError: dWh: expected shape (5, 15), got (5, 5)"),
        ({2: np.zeros(15, "f")}, "TypeError: db: expected float64 like the forward pass, got flo"),
        ({3: np.broadcast_to(0.0, 15)}, "ValueError: dbh: expected a writeable, aligned, C-contig"),
    ],
)
def test_what_gradients_cannot_go_on_from_is_refused(change, error, backend, rng):
    layer = LAYERS["gru_bh_reverse"]
    *_, cache = layer.forward(*draw(layer, rng, np.float64, 2, 3, 4, 5).values())
    onto = [np.zeros((4, 15)), np.zeros((5, 15)), np.zeros(15), np.zeros(15)]
    given = {"cell": GRU, "dh": None, "dlast": (None,), "cache": cache, "onto": onto}
    for key, value in change.items():
        if key == "onto":
            given["onto"] = onto[:value] if value else value
        elif isinstance(key, str):
            given[key] = value
        else:
            onto[key] = value
    with pytest.raises((TypeError, ValueError)) as caught:
        recurrent.backward(**given)
    assert f"{caught.type.__name__}: {caught.value}".startswith(error)
    assert not any(np.any(d) for d in onto[1:])
