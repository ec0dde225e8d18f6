"""Layouts of weights: the one table of gate orders, and every library's arrays there and back."""

import numpy as np
import pytest
from util import GATES, assert_same_bits

from fastrnn import weights
from fastrnn.cells import NAMES
from fastrnn.weights import ORDERS, Layer, reorder

D, H, P = 3, 5, 2
every_cell = pytest.mark.parametrize("cell", GATES)


def draw_layer(cell, rng, rows=H, **others):
    columns = GATES[cell] * H
    shapes = {"Wx": (D, columns), "Wh": (rows, columns), "b": columns, "bh": columns}
    return Layer(**{name: rng.standard_normal(shape) for name, shape in shapes.items()})._replace(
        **others
    )


@every_cell
def test_orders_have_the_gates_of_the_cell(cell):
    for orders in ORDERS.values():
        assert sorted(orders[cell]) == sorted(NAMES[cell].gates)
        assert orders[cell] in NAMES[cell].known_orders  # without a copy, by the engine


@every_cell
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gates_in_another_order_and_back(cell, axis, rng):
    G = GATES[cell]
    a = rng.standard_normal((G * H, G * H))
    for library, orders in ORDERS.items():
        there = reorder(a, ORDERS["fastrnn"][cell], orders[cell], axis)
        for place, gate in enumerate(orders[cell]):
            ours = ORDERS["fastrnn"][cell].index(gate)
            blocks = (np.split(b, G, axis=axis) for b in (there, a))
            assert_same_bits(*(b[i] for b, i in zip(blocks, (place, ours), strict=True)), library)
        assert_same_bits(reorder(there, orders[cell], ORDERS["fastrnn"][cell], axis), a)
    assert reorder(a, NAMES[cell].gates, NAMES[cell].gates) is a


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("ifog", "ifo"), "after: expected a permutation of 'ifog', got 'ifo'"),
        (("ifog", "ifoo"), "after: expected a permutation of 'ifog', got 'ifoo'"),
        (("ifog", "iofg"), r"a: expected a multiple of 4 in axis 1, got shape \(2, 6\)"),
    ],
)
def test_orders_that_do_not_fit_are_refused(args, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        reorder(np.zeros((2, 6)), *args)


def to_and_from_keras(cell, layer, **keywords):
    return weights.from_keras(cell, *weights.to_keras(cell, layer, **keywords), **keywords)


def to_and_from_onnx(cell, layer, **keywords):
    (back,) = weights.from_onnx(cell, **weights.to_onnx(cell, [layer], **keywords), **keywords)
    return back


def to_and_from_torch(cell, layer, **keywords):
    return weights.from_torch(cell, **weights.to_torch(cell, layer, **keywords), **keywords)


@every_cell
@pytest.mark.parametrize("round_trip", [to_and_from_torch, to_and_from_onnx])
def test_round_trips_are_exact(cell, round_trip, rng):
    for gates in NAMES[cell].orders:
        peepholes = rng.standard_normal(3 * H) if cell == "lstm" else None
        for others in ({"peepholes": peepholes}, {"b": None, "bh": None}):
            layer = draw_layer(cell, rng, **others)
            back = round_trip(cell, layer, gates=gates)
            for a, b in zip(layer, back, strict=True):
                assert (a is None and b is None) or np.array_equal(a, b)


def test_round_trips_through_keras_are_exact(rng):
    cases = [("lstm", {"bh": None}), ("rnn", {"bh": None}), ("gru", {})]
    for cell, others in [*cases, ("gru", {"b": None, "bh": None})]:
        layer = draw_layer(cell, rng, **others)
        for a, b in zip(layer, to_and_from_keras(cell, layer), strict=True):
            assert (a is None and b is None) or np.array_equal(a, b)


def test_a_second_bias_is_added_where_keras_has_one(rng):
    for cell, keywords in (("lstm", {}), ("rnn", {}), ("gru", {"reset_after": False})):
        layer = draw_layer(cell, rng)
        both = reorder(layer.b + layer.bh, ORDERS["fastrnn"][cell], ORDERS["keras"][cell])
        assert_same_bits(weights.to_keras(cell, layer, **keywords)[2], both)


def test_peepholes_lie_as_their_gates_do_but_g(rng):
    i, f, o = rng.standard_normal((3, H))
    layer = draw_layer("lstm", rng, peepholes=np.concatenate([i, f, o]))
    assert_same_bits(weights.to_onnx("lstm", [layer])["P"], np.concatenate([i, o, f])[None])
    of_nn = weights.to_torch("lstm", layer)
    assert_same_bits(of_nn["peephole"], layer.peepholes)
    turned = weights.reorder_params({"peephole_l0": of_nn["peephole"]}, "ifgo", "iofg")
    assert_same_bits(turned["peephole_l0"], np.concatenate([i, o, f]))
    with pytest.raises(ValueError, match="^peepholes: expected None: Keras has no peepholes$"):
        weights.to_keras("lstm", layer)
    with pytest.raises(ValueError, match="^peepholes: expected those of every layer or of none$"):
        weights.to_onnx("lstm", [layer, layer._replace(peepholes=None)])


def test_projections_go_to_torch_alone(rng):
    layer = draw_layer("lstm", rng, rows=P, Whr=rng.standard_normal((P, H)))
    assert_same_bits(to_and_from_torch("lstm", layer).Whr, layer.Whr)
    for library, convert in (("Keras", weights.to_keras), ("ONNX", weights.to_onnx)):
        argument = layer if library == "Keras" else [layer]
        message = f"proj_size: expected 0, got 2: {library} has no projection"
        with pytest.raises(ValueError, match=f"^{message}$"):
            convert("lstm", argument)
