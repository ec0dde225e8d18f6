"""What a call may leave out or take as it lies, to the same bits: inference, transposed weights,
other gate orders, resets, weights prepared for training."""

import copy
import dataclasses
import itertools
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from util import (
    BY_NAME,
    COLUMNS,
    FLOATS,
    LAYERS,
    SEQUENCES,
    TWIN,
    WEIGHTS,
    assert_close,
    assert_results,
    assert_same_bits,
    draw,
    run,
    upstream,
    weights_of,
    without,
)

import fastrnn
from fastrnn.cells import CELLS, NAMES
from fastrnn.weights import reorder

STEPS = [name for name, layer in LAYERS.items() if layer.function.removesuffix("_step") in COLUMNS]
STEPS = [name for name in STEPS if name not in SEQUENCES]
# The weights as they lie and packed; threads that share rows, and units.
SHAPES = [(1, 3, 7, 9), (2, 3, 5, 33), (5, 6, 7, 17), (33, 4, 16, 40), (3, 40, 33, 130)]


def given_to(layer, operands, **keywords):
    """What the forward function of a layer returns."""
    positional = [a for name, a in operands.items() if name not in BY_NAME]
    named = {name: a for name, a in operands.items() if name in BY_NAME}
    function = getattr(fastrnn, f"{layer.function}_forward")
    return function(*positional, **named, **(layer.keywords | keywords))


def last_states(cache):
    return {name: a for name, a in cache._asdict().items() if name in ("hT", "cT")}


# ---- training=False, return_sequence=False -------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SEQUENCES)
def test_inference_gives_the_same_bits_and_keeps_the_last_states(
    name, shape, implementation, dtype, small_work_is_split, rng
):
    layer = LAYERS[name]
    operands = draw(layer, rng, dtype, *shape)
    fastrnn.set_num_threads(2)
    h, cache = given_to(layer, operands)
    for return_sequence in (True, False):
        for training in (True, False):
            out, kept = given_to(
                layer, operands, training=training, return_sequence=return_sequence
            )
            assert_same_bits(out, h if return_sequence else cache.hT)
            for key, a in last_states(cache).items():
                assert_same_bits(getattr(kept, key), a)
            if training:
                assert_results(assert_same_bits, kept._asdict(), cache._asdict())
            else:
                arrays = {key for key, a in kept._asdict().items() if isinstance(a, np.ndarray)}
                assert arrays == set(last_states(cache))


@pytest.mark.parametrize("name", STEPS)
def test_step_without_training_gives_the_same_bits_and_keeps_nothing(
    name, implementation, dtype, rng
):
    layer = LAYERS[name]
    operands = draw(layer, rng, dtype, 3, 1, 5, 19)
    *states, _ = given_to(layer, operands)
    *others, cache = given_to(layer, operands, training=False)
    for a, b in zip(others, states, strict=True):
        assert_same_bits(a, b)
    assert not [a for a in cache if isinstance(a, np.ndarray)]


@pytest.mark.parametrize("name", [*SEQUENCES, *STEPS])
def test_backward_without_training_is_refused(name, backend, rng):
    layer = LAYERS[name]
    *outputs, cache = given_to(layer, draw(layer, rng, np.float64, 2, 3, 4, 5), training=False)
    with pytest.raises(ValueError) as error:
        getattr(fastrnn, f"{layer.function}_backward")(*outputs, cache)
    assert str(error.value) == (
        f"cache: expected that of a {layer.function}_forward with training=True, got one of "
        "training=False, which keeps nothing for a backward pass"
    )


@pytest.mark.parametrize("name", SEQUENCES)
def test_last_state_alone_trains_through_its_gradient(name, implementation, dtype, rng):
    layer = LAYERS[name]
    operands = draw(layer, rng, dtype, 5, 6, 7, 17)
    backward = getattr(fastrnn, f"{layer.function}_backward")
    _, cache = given_to(layer, operands)
    out, alone = given_to(layer, operands, return_sequence=False)
    (dout,) = upstream([out])
    expected = backward(None, cache, dhT=dout)
    for a, b in zip(backward(None, alone, dhT=dout), expected, strict=True):
        assert_same_bits(a, b)


PEAK = """
import sys
import numpy as np
import fastrnn
from fastrnn.benchmarks.memory import peak_resident_bytes, resident_bytes

N, T, D, H = 256, 100, 256, 512
one = np.ones
x, h0, Wx, Wh, b = (one(s, "f") for s in ((N, T, D), (N, H), (D, 4 * H), (H, 4 * H), (4 * H,)))
fastrnn.lstm_forward(x[:1, :1], h0[:1], Wx, Wh, b, training=False)
before = resident_bytes()
fastrnn.lstm_forward(x, h0, Wx, Wh, b, training=False, return_sequence=sys.argv[1] == "True")
print(peak_resident_bytes() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("return_sequence", [True, False])
def test_inference_needs_the_memory_of_its_result(return_sequence):
    grown = subprocess.run(
        [sys.executable, "-c", PEAK, str(return_sequence)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    h = 4 * 256 * 100 * 512 if return_sequence else 0
    assert int(grown) < h + 20e6


# ---- transposed weights, gate orders -------------------------------------------------------------


def transposed_twin(layer, operands):
    """The same layer and operands with the weights the other way round."""
    names = [name for name in ("Wx", "Wh", "projection") if name in operands]
    turned = {name: np.ascontiguousarray(operands[name].T) for name in names}
    return without(layer, "transposed"), operands | turned


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", [name for name in LAYERS if "transposed" in name])
def test_transposed_weights_give_the_same_bits(
    name, shape, implementation, dtype, small_work_is_split, rng
):
    """Of the reference, whose products are BLAS's, but for the order of its sums."""
    layer = LAYERS[name]
    operands = draw(layer, rng, dtype, *shape)
    fastrnn.set_num_threads(2)
    actual, expected = run(layer, operands), run(*transposed_twin(layer, operands))
    names = [name for name in ("Wx", "Wh", "projection") if name in operands]
    for key in (f"{kind}{name}" for kind in ("d", "cache.") for name in names):
        actual[key] = np.ascontiguousarray(actual[key].T)
    expected["cache.transposed"] = True
    if implementation == "numpy":
        assert_results(assert_close, actual, expected, tolerance=TWIN[dtype.name])
    else:
        assert_results(assert_same_bits, actual, expected)


@pytest.mark.parametrize(
    ("name", "gates"),
    [
        ("lstm_ifgo_c0_lengths", "fico"),
        ("lstm_ifgo_c0_lengths", "iofg"),
        ("gru_bh_lengths", "zrn"),
        ("gru_original_bh_lengths_reverse", "zrn"),
        ("mgu_reset_lengths", "nf"),
        ("min_gru_positive_reset_lengths", "nz"),
        ("min_lstm_positive_index_lengths", "nfi"),
    ],
)
def test_gate_orders_are_permutations(name, gates, implementation, dtype, rng):
    layer = LAYERS[name]
    cell = NAMES[layer.function]
    operands = draw(layer, rng, dtype, 5, 6, 7, 17)
    weights = [key for key in WEIGHTS if key in operands]
    order = cell.orders[gates]
    turned = {key: reorder(operands[key], cell.gates, order) for key in weights}
    plain = without(layer, "gates")
    expected = run(plain, operands)
    permuted = plain._replace(
        forward=lambda *args, **others: plain.forward(*args, gates=gates, **others)
    )
    actual = run(permuted, operands | turned)
    for key in (*(f"d{key}" for key in weights), "cache.activations"):
        assert_close(actual[key], reorder(expected[key], cell.gates, order), TWIN[dtype.name], key)
    for key in ("out_0", "dx", "dh0"):
        assert_close(actual[key], expected[key], TWIN[dtype.name], key)


# ---- resets --------------------------------------------------------------------------------------


def pieces(reset):
    """begin, end of the runs of steps that no reset cuts."""
    cuts = [0, *(np.flatnonzero(reset[1:]) + 1), len(reset)]
    return itertools.pairwise(cuts)


def one_call_a_piece(name, operands, douts):
    """Outputs and gradients of every piece by a call of its own, in the states it starts from."""
    initial = {key: operands[key] for key in ("h0", "c0") if key in operands}
    x, reset = operands["x"], operands["reset"]
    h, dx = np.zeros_like(douts), np.zeros_like(x)
    dinitial = {key: np.zeros_like(a) for key, a in initial.items()}
    for n in range(len(x)):
        for begin, end in pieces(reset[n]):
            anew = bool(reset[n, begin])
            start = {key: a[n : n + 1] * (0 if anew else 1) for key, a in initial.items()}
            given = x[n : n + 1, begin:end], start.pop("h0"), *operands["weights"]
            out, cache = getattr(fastrnn, f"{name}_forward")(*given, **start)
            gradients = getattr(fastrnn, f"{name}_backward")(douts[n : n + 1, begin:end], cache)
            h[n, begin:end], dx[n, begin:end] = out[0], gradients[0][0]
            if not anew:
                dinitial["h0"][n] = gradients[1][0]
                if "c0" in initial:
                    dinitial["c0"][n] = gradients[-1][0]
    return h, dx, dinitial


@settings(derandomize=True, deadline=None, max_examples=120)
@given(
    st.data(),
    st.sampled_from(list(COLUMNS)),
    st.sampled_from(FLOATS),
    st.integers(1, 3),
    st.booleans(),
)
def test_pieces_between_resets_are_calls_of_their_own(data, name, dtype, n_threads, large):
    kernels = fastrnn.backends.get_backend("cython")._kernels
    N, T, D, H = (data.draw(st.integers(1, most)) for most in (5, 9, 6, 150 if large else 20))
    rng = np.random.default_rng(0)
    layer = LAYERS["lstm_ifgo_c0_lengths" if name == "lstm" else name]
    operands = draw(without(layer, "lengths"), rng, np.dtype(dtype), N, T, D, H)
    operands["reset"] = np.array(
        data.draw(st.lists(st.lists(st.booleans(), min_size=T, max_size=T), min_size=N, max_size=N))
    )
    operands["weights"] = [operands[key] for key in weights_of(name)]
    (dh,) = upstream([np.zeros((N, T, H), dtype)])
    keywords = {key: operands[key] for key in ("c0", "reset") if key in operands}
    kernels.set_flops_per_thread(1)
    try:
        fastrnn.set_num_threads(n_threads)
        h, cache = getattr(fastrnn, f"{name}_forward")(
            operands["x"], operands["h0"], *operands["weights"], **keywords
        )
        dx, dh0, *others = getattr(fastrnn, f"{name}_backward")(dh, cache)
        expected_h, expected_dx, dinitial = one_call_a_piece(name, operands, dh)
    finally:
        kernels.set_flops_per_thread()
    assert_same_bits(h, expected_h)
    np.testing.assert_array_equal(dx, expected_dx)
    np.testing.assert_array_equal(dh0, dinitial["h0"])
    if name == "lstm":
        np.testing.assert_array_equal(others[-1], dinitial["c0"])


@pytest.mark.parametrize("name", [name for name in SEQUENCES if "reset" in LAYERS[name].operands])
def test_no_reset_at_all_is_none(name, implementation, dtype, rng):
    layer = LAYERS[name]
    operands = draw(layer, rng, dtype, 5, 6, 7, 17)
    operands["reset"][:] = False
    actual = run(layer, operands)
    others = {key: a for key, a in operands.items() if key != "reset"}
    expected = run(without(layer, "reset", "reset_to"), others)
    for key, a in expected.items():
        if key not in ("cache.reset", "cache.reset_to") and isinstance(a, np.ndarray):
            np.testing.assert_array_equal(actual[key], a, key)


@pytest.mark.parametrize(
    ("change", "exception", "text"),
    [
        ({"reset": np.zeros((2, 3))}, TypeError, "reset: expected bool, got float64"),
        ({"reset": np.zeros((2, 3), int)}, TypeError, "reset: expected bool, got int64"),
        (
            {"reset": np.zeros((3, 2), bool)},
            ValueError,
            "reset: expected shape (N, T) = (2, 3), got (3, 2)",
        ),
        ({"reset_to": "h0"}, ValueError, "reset_to: expected 'zeros' or 'initial', got 'h0'"),
        ({"reset_to": None}, ValueError, "reset_to: expected 'zeros' or 'initial', got None"),
        ({"training": 1}, TypeError, "training: expected a bool, got 1"),
        ({"return_sequence": "no"}, TypeError, "return_sequence: expected a bool, got 'no'"),
        ({"transposed": 1}, TypeError, "transposed: expected a bool, got 1"),
        (
            {"transposed": True},
            ValueError,
            "Wx: expected shape (4*H, D) = (20, 4), got (4, 20)",
        ),
    ],
)
def test_wrong_options_are_refused(change, exception, text, backend, rng):
    layer = LAYERS["lstm"]
    with pytest.raises(exception) as error:
        layer.forward(*draw(layer, rng, np.float64, 2, 3, 4, 5).values(), **change)
    assert type(error.value) is exception and str(error.value) == text


@pytest.mark.parametrize("gates", ["nzr", "ifog", "", None, ["rzn"]])
@pytest.mark.parametrize("name", ["gru", "gru_step"])
def test_unknown_gate_order_of_the_gru_is_refused(name, gates, backend, rng):
    operands = draw(LAYERS[name], rng, np.float64, 2, 3, 4, 5)
    with pytest.raises(ValueError) as error:
        LAYERS[name].forward(*operands.values(), gates=gates)
    assert str(error.value) == f"gates: expected one of ['rzn', 'zrn'], got {gates!r}"


@pytest.mark.parametrize(
    ("change", "exception", "text"),
    [
        ({"transposed": 0}, TypeError, "transposed: expected a bool, got 0"),
        ({"transposed": True}, ValueError, "Wx: expected shape (3*H, D) = (15, 4), got (4, 15)"),
        ({"gates": "nrz"}, ValueError, "gates: expected one of ['rzn', 'zrn'], got 'nrz'"),
        ({"reset": np.ones((2, 3))}, TypeError, "reset: expected bool, got float64"),
        (
            {"reset": np.ones((1, 3), bool)},
            ValueError,
            "reset: expected shape (N, T) = (2, 3), got (1, 3)",
        ),
        ({"reset_to": 1}, ValueError, "reset_to: expected 'zeros' or 'initial', got 1"),
        ({"gates": ["rzn"]}, ValueError, "gates: expected one of ['rzn', 'zrn'], got ['rzn']"),
    ],
)
def test_altered_cache_is_refused(change, exception, text, backend, rng):
    h, cache = LAYERS["gru"].forward(*draw(LAYERS["gru"], rng, np.float64, 2, 3, 4, 5).values())
    with pytest.raises(exception) as error:
        fastrnn.gru_backward(h, cache._replace(**change))
    assert type(error.value) is exception and str(error.value) == text


# ---- prepared weights ----------------------------------------------------------------------------


def prepared_in_place_of(layer, operands, **keywords):
    """Operands in which prepared weights stand for Wx, Wh and b, and the keywords that remain."""
    held = ("gates", "reset_after", "nonlinearity", "transposed")
    options = {key: value for key, value in layer.keywords.items() if key in held}
    arrays = {key: operands[key] for key in WEIGHTS if key in operands}
    cell = layer.function.removesuffix("_step")
    arrays["Wh"] = arrays.pop("u", arrays.get("Wh"))
    weights = fastrnn.prepare(cell, **arrays, **options, **keywords)
    rest = {key: a for key, a in operands.items() if key not in WEIGHTS}
    return rest, weights, {k: v for k, v in layer.keywords.items() if k not in held}


@pytest.mark.parametrize("shape", [(2, 3, 5, 33), (7, 6, 7, 17)], ids=str)
@pytest.mark.parametrize("name", [*SEQUENCES, *STEPS])
def test_weights_prepared_for_training_give_the_same_bits(
    name, shape, implementation, dtype, small_work_is_split, rng
):
    layer = LAYERS[name]
    operands = draw(layer, rng, dtype, *shape)
    expected = run(layer, operands)
    forward = getattr(fastrnn, f"{layer.function}_forward")
    for training in (True, False):
        rest, weights, keywords = prepared_in_place_of(layer, operands, training=training)
        positional = [a for key, a in rest.items() if key not in BY_NAME]
        named = {key: a for key, a in rest.items() if key in BY_NAME}
        *outputs, cache = forward(*positional, weights, **named, **keywords)
        outputs += [getattr(cache, state) for state in layer.last_states]
        gradients = layer.backward(*upstream(outputs), cache)
        for i, out in enumerate(outputs):
            assert_same_bits(out, expected[f"out_{i}"])
        wanted = [a for key, a in expected.items() if key.startswith("d")]
        for a, b in zip(gradients, wanted, strict=True):
            assert_same_bits(a, b)


def test_altered_cache_of_prepared_weights_uses_the_arrays_it_has(rng):
    layer = LAYERS["lstm"]
    operands = draw(layer, rng, np.float64, 3, 4, 5, 6)
    x, h0, Wx, Wh, b = operands.values()
    h, plain = fastrnn.lstm_forward(x, h0, 2 * Wx, Wh, b)
    _, cache = fastrnn.lstm_forward(x, h0, fastrnn.prepare("lstm", Wx, Wh, b, training=True))
    altered = plain._replace(packed=cache.packed)
    for a, b in zip(
        fastrnn.lstm_backward(h, altered), fastrnn.lstm_backward(h, plain), strict=True
    ):
        assert_same_bits(a, b)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_copied_cache_of_prepared_weights_gives_the_same_gradients(duplicate, backend, rng):
    x, h0, Wx, Wh, b = draw(LAYERS["lstm"], rng, np.float64, 3, 4, 5, 6).values()
    h, cache = fastrnn.lstm_forward(x, h0, fastrnn.prepare("lstm", Wx, Wh, b, training=True))
    twin = duplicate(cache)
    assert twin.packed is None
    for a, b in zip(fastrnn.lstm_backward(h, twin), fastrnn.lstm_backward(h, cache), strict=True):
        assert_same_bits(a, b)


REMADE = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda a: pickle.loads(pickle.dumps(a)),
    "replace": dataclasses.replace,
}


def results_of_prepared(weights, x, h0):
    """Of a sequence, its gradients, one step, a stream."""
    cell = weights.cell
    h, cache = getattr(fastrnn, f"{cell}_forward")(x, h0, weights)
    states = [h0, *([h0] if cell == "lstm" else [])]
    step = getattr(fastrnn, f"{cell}_step_forward")(x[:, 0], *states, weights)
    stream = fastrnn.Stream(cell, weights, batch=len(x))
    streamed = stream.steps(x.swapaxes(0, 1))
    return [h, *getattr(fastrnn, f"{cell}_backward")(h, cache), *step[:-1], streamed]


@pytest.mark.parametrize("remake", REMADE.values(), ids=REMADE)
@pytest.mark.parametrize(
    "name",
    [
        *("lstm", "gru_transposed_zrn_bh_index", "gru_original_step", "rnn_relu_lengths"),
        *("mgu_nf_lengths_reverse", "min_lstm_positive_index_lengths", "ind_rnn_tanh_step"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_remade_prepared_weights_are_prepared_and_read_only(name, remake, training, backend, rng):
    layer = without(LAYERS[name], "index", "lengths")
    operands = draw(layer, rng, np.float64, 3, 4, 5, 6)
    _, weights, _ = prepared_in_place_of(layer, operands, training=training)
    twin = remake(weights)
    x, h0 = rng.standard_normal((3, 4, 5)), operands[list(operands)[1]]
    expected = results_of_prepared(weights, x, h0)
    for a, b in zip(results_of_prepared(twin, x, h0), expected, strict=True):
        assert_same_bits(a, b)
    for key in ("Wx", "Wh", "b", "bh"):
        a = getattr(twin, key)
        assert a is None or (not a.flags.writeable and a.flags.owndata)
    packed, arrays = twin.own.rest[2], (twin.Wx, twin.Wh, twin.b, twin.bh, twin.projection)
    assert packed is None if backend == "numpy" else packed.are_of(*arrays, twin.transposed)


@pytest.mark.parametrize(
    ("change", "exception", "text"),
    [
        ({"Wx": np.ones((5, 24), "f")}, TypeError, "Wh: expected float32 like Wx, got float64"),
        ({"Wh": np.ones((5, 24))}, ValueError, "Wh: expected shape (H, 4*H) = (6, 24), got (5"),
        ({"b": np.ones(20)}, ValueError, "b: expected shape (4*H,) = (24,), got (20,)"),
        ({"b": np.ma.ones(24)}, TypeError, "b: expected an array without a mask"),
        ({"b": None}, TypeError, "b: expected an array, got None"),
        ({"bh": np.ones(24)}, ValueError, "bh: expected None for lstm, which has one bias"),
        ({"cell": "gru"}, ValueError, "gates: expected one of ['rzn', 'zrn'], got 'ifog'"),
        ({"cell": 1}, ValueError, f"cell: expected one of {[*NAMES]}, got 1"),
        ({"gates": "fico"}, ValueError, "gates: expected one of"),
        ({"nonlinearity": "relu"}, ValueError, "nonlinearity: expected one of ['tanh'] for lstm"),
        ({"reset_after": False}, ValueError, "reset_after: expected one of [True] for lstm, got F"),
        ({"transposed": True}, ValueError, "Wx: expected shape"),
        ({"transposed": 1}, TypeError, "transposed: expected a bool, got 1"),
        ({"training": None}, TypeError, "training: expected a bool, got None"),
        ({"own": None}, (TypeError, ValueError), "field own is declared with"),
        ({"packed": None}, TypeError, ""),
    ],
)
def test_prepared_weights_are_checked_when_replaced(change, exception, text, backend, rng):
    _, _, Wx, Wh, b = draw(LAYERS["lstm"], rng, np.float64, 3, 4, 5, 6).values()
    with pytest.raises(exception) as error:
        dataclasses.replace(fastrnn.prepare("lstm", Wx, Wh, b), **change)
    assert str(error.value).startswith(text)


def test_prepared_weights_of_another_size_and_dtype(backend, rng):
    _, _, *arrays = draw(LAYERS["rnn"], rng, np.float64, 3, 4, 50, 60).values()
    weights = fastrnn.prepare("rnn", *arrays, training=True)
    x, h0, Wx, Wh, b = draw(LAYERS["rnn"], rng, np.float32, 3, 4, 5, 6).values()
    smaller = dataclasses.replace(weights, Wx=Wx, Wh=Wh, b=b)
    expected = results_of_prepared(fastrnn.prepare("rnn", Wx, Wh, b, training=True), x, h0)
    for a in (Wx, Wh, b):
        a[...] = np.nan  # they have been copied
    for a, e in zip(results_of_prepared(smaller, x, h0), expected, strict=True):
        assert_same_bits(a, e)


@pytest.mark.parametrize("field", ["Wx", "Wh", "b", "bh"])
def test_prepared_weights_with_another_array_use_it(field, rng):
    x, h0, Wx, Wh, b, bh = draw(LAYERS["gru_transposed_bh"], rng, np.float64, 3, 4, 5, 6).values()
    arrays = {"Wx": Wx, "Wh": Wh, "b": b, "bh": bh}
    weights = fastrnn.prepare("gru", **arrays, transposed=True, training=True)
    arrays[field] = 2 * arrays[field]
    replaced = dataclasses.replace(weights, **{field: arrays[field]})
    expected, _ = fastrnn.gru_forward(x, h0, **arrays, transposed=True)
    assert_same_bits(fastrnn.gru_forward(x, h0, replaced)[0], expected)
    assert_same_bits(
        fastrnn.gru_step_forward(x[:, 0], h0, replaced)[0], np.ascontiguousarray(expected[:, 0])
    )
    stream = fastrnn.Stream("gru", replaced, batch=3)
    stream.state = {"h": h0}
    assert_same_bits(stream.steps(x.swapaxes(0, 1)), np.ascontiguousarray(expected.swapaxes(0, 1)))


def test_what_stands_for_packed_weights_and_is_none_is_not_used(backend, rng):
    h, cache = LAYERS["lstm"].forward(*draw(LAYERS["lstm"], rng, np.float64, 2, 3, 4, 5).values())
    expected = fastrnn.lstm_backward(h, cache)
    for a, b in zip(fastrnn.lstm_backward(h, cache._replace(packed="x")), expected, strict=True):
        assert_same_bits(a, b)


# ---- the records ---------------------------------------------------------------------------------


def test_records_mirror_the_specs_of_the_kernels():
    kernels = fastrnn.backends.get_backend("cython")._kernels
    assert set(kernels.specs()) == set(CELLS)
    for name, spec in kernels.specs().items():
        cell = CELLS[name]
        assert spec == {
            "gates": len(cell.gates),
            "states": len(cell.states),
            "saves_gates": "activations" in cell.saved,
            "saves_extra": len(cell.saved) > (3 if cell.norm else 1),
            "vectors": len(cell.vectors),
            "projection": cell.projection,
            "norm": bool(cell.norm),
        }


def test_public_names_are_records():
    assert list(NAMES) == list(COLUMNS)
    for name, cell in NAMES.items():
        assert cell.name == name and cell.kernel == name
        assert cell.orders[cell.gates] == cell.gates
