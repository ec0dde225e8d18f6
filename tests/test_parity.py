"""Oracle 2, the twin: the kernels equal the reference, in every corner where both are defined."""

import pickle
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from util import (
    COLUMNS,
    EXACT,
    FLOATS,
    GATES,
    LARGE_SHAPES,
    LAYERS,
    SEQUENCES,
    SHAPES,
    TWIN,
    ULP,
    assert_close,
    assert_results,
    assert_same_bits,
    differentiable,
    draw,
    run,
    upstream,
    weights_of,
    without,
)

import fastrnn
from fastrnn.cells import steps_taken

LARGE = (
    *(*GATES, "lstm_ifgo_c0_lengths", "gru_original_bh_lengths_reverse", "temporal_affine"),
    *("rnn_index", "lstm_fico_index_lengths_reverse", "gru_index_lengths"),
    *("lstm_transposed_ifgo_c0", "gru_transposed_zrn_bh_index", "gru_original_transposed_bh"),
    *("lstm_reset_initial_c0_reverse", "gru_original_reset_bh_lengths", "gru_reset_initial_index"),
    *("mgu_reset_lengths", "min_gru_positive_transposed_reverse", "min_gru_reset_initial_index"),
    *("min_lstm_nfi_lengths_reverse", "ind_rnn_transposed_lengths", "ind_rnn_tanh_reset_reverse"),
)
CASES = [(name, shape) for name in LAYERS for shape in SHAPES]
CASES += [(name, shape) for name in LARGE for shape in LARGE_SHAPES]
SMALL = (3, 4, 5, 6)


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_kernels_equal_reference(name, shape, dtype, isa, small_work_is_split, rng):
    layer = LAYERS[name]
    operands = draw(layer, rng, dtype, *shape)
    fastrnn.set_num_threads(1)
    actual = run(layer, operands, "cython")
    assert_results(assert_close, actual, run(layer, operands, "numpy"), tolerance=TWIN[dtype.name])
    for n in (2, 3, 4):
        fastrnn.set_num_threads(n)
        assert_results(assert_same_bits, run(layer, operands, "cython"), actual)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.sampled_from(list(LAYERS)),
    st.sampled_from(FLOATS),
    st.tuples(*[st.integers(1, largest) for largest in (14, 9, 40, 70)]),
)
def test_kernels_equal_reference_for_any_shape(name, dtype, shape):
    operands = draw(LAYERS[name], np.random.default_rng(0), dtype, *shape)
    actual, expected = (run(LAYERS[name], operands, backend) for backend in ("cython", "numpy"))
    assert_results(assert_close, actual, expected, tolerance=TWIN[dtype])


@pytest.mark.parametrize(("forward", "backward"), [("numpy", "cython"), ("cython", "numpy")])
@pytest.mark.parametrize("name", LAYERS)
def test_cache_of_one_backend_serves_the_other(name, forward, backward, dtype, rng):
    operands = draw(LAYERS[name], rng, dtype, *SMALL)
    actual = run(LAYERS[name], operands, forward, backward)
    expected = run(LAYERS[name], operands, forward)
    assert_results(assert_close, actual, expected, tolerance=TWIN[dtype.name])


FORMS = [
    {},
    {"lengths": []},
    {"reverse": True},
    {"lengths": [], "reverse": True},
    {"reset": True, "lengths": []},
]


@pytest.mark.parametrize("keywords", FORMS, ids=str)
@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("cell", COLUMNS)
def test_no_rows_of_any_number_of_steps(cell, indexed, keywords, backend, dtype, rng):
    """Arrays without elements have shapes whose sizes of work space wrap."""
    G, operands = COLUMNS[cell], draw(LAYERS[cell], rng, dtype, 1, 1, 1, 1)
    weights = [operands[name] for name in weights_of(cell)]
    forward, backward = (getattr(fastrnn, f"{cell}_{way}") for way in ("forward", "backward"))
    for T in ((2**63 - 1) // (G * 8), 2**58 // G, 2**32, 2**31 - 2):
        given = dict(keywords)
        if "reset" in given:
            given["reset"] = np.zeros((0, T), bool)
        x = np.empty((3, 1) if indexed else (0, T, 1), dtype)
        if indexed:
            given["index"] = np.empty((0, T), np.intp)
        h, cache = forward(x, np.zeros((0, 1), dtype), *weights, **given)
        assert h.shape == (0, T, 1)
        for dh in (h, None):
            dx, dh0, *others = backward(dh, cache)
            assert (dx.shape, dh0.shape) == (x.shape, (0, 1))
            assert not dx.any() and not any(a.any() for a in others)
        given |= {"training": False, "return_sequence": False}
        assert forward(x, np.zeros((0, 1), dtype), *weights, **given)[0].shape == (0, 1)


def test_the_longest_sequence_of_no_rows(backend):
    x, ones = np.empty((0, 2**61 - 1, 1), "f"), np.ones((1, 1), "f")
    h, cache = fastrnn.rnn_forward(x, np.zeros((0, 1), "f"), ones, ones, ones[0])
    assert h.shape == x.shape and fastrnn.rnn_backward(h, cache)[0].shape == x.shape
    with pytest.raises(ValueError, match="^array is too big"):  # of activations
        fastrnn.lstm_forward(
            x, np.zeros((0, 1), "f"), *(np.ones(s, "f") for s in ((1, 4), (1, 4), 4))
        )


@pytest.mark.parametrize(
    ("name", "axis"),
    [
        (name, axis)
        for name, layer in LAYERS.items()
        for axis in next(iter(layer.operands.values())).split()
        if axis in "NT" and name != "affine_of_images"  # whose T is a part of D
    ],
)
def test_empty_axis_gives_zero_gradients(name, axis, backend, dtype, rng):
    """Of no step the last state is the first, and so is its gradient."""
    layer = LAYERS[name]
    shape = [0 if letter == axis else n for letter, n in zip("NTDH", SMALL, strict=True)]
    operands = draw(layer, rng, dtype, *shape)
    results = run(layer, operands)
    assert not results["out_0"].any()
    expected = {operand: np.zeros_like(operands[operand]) for operand in differentiable(operands)}
    states = [results[f"out_{i}"] for i in range(1 + len(layer.last_states))]
    for state, value, dvalue in zip(
        layer.last_states, states[1:], upstream(states)[1:], strict=True
    ):
        first = state.replace("T", "0")
        assert_same_bits(value, operands.get(first, np.zeros_like(value)))
        if first in expected:
            expected[first] = dvalue
    for operand, gradient in expected.items():
        assert_same_bits(results[f"d{operand}"], gradient)


# ---- lengths and direction -----------------------------------------------------------------------

INDEXED = [name for name in SEQUENCES if "index" in LAYERS[name].operands]
NOT_INDEXED = [name for name in SEQUENCES if name not in INDEXED]
WITH_LENGTHS = [name for name in NOT_INDEXED if "lengths" in LAYERS[name].operands]
REVERSED = [name for name in NOT_INDEXED if "reverse" in LAYERS[name].keywords]
# One value a step, one a row; what remains, except copies of operands, is a sum over the rows.
OF_STEPS = ("out_0", "cache.h", "cache.c", "cache.activations", "cache.candidate", "dx")
OF_ROWS = ("out_1", "out_2", "cache.hT", "cache.cT", "dh0", "dc0")
OF_ALL = ("dWx", "dWh", "db", "dbh")


def one_by_one(layer, operands, douts):
    """The results of run, put together from those of every row by itself, its steps given in the
    order in which they are taken."""
    plain = without(layer, "lengths", "reverse")
    direction = -1 if layer.keywords.get("reverse") else 1
    N, T, _ = operands["x"].shape
    together = {}
    for n, length in enumerate(operands["lengths"]):
        row, steps = np.s_[n : n + 1], np.s_[n : n + 1, :length]

        def of_row(a, row=row, steps=steps):
            return a[row] if a.ndim == 2 else a[steps][:, ::direction]

        alone = {name: operands[name] for name in plain.operands}
        alone |= {name: of_row(alone[name]) for name in ("x", "h0", "c0") if name in alone}
        if "reset" in alone:
            alone["reset"] = alone["reset"][steps][:, ::direction]
        results = run(plain, alone, douts=[of_row(dout) for dout in douts])
        for key, a in results.items():
            if key in OF_ALL:
                together[key] = together.get(key, 0) + a
            elif key in OF_STEPS + OF_ROWS and a is not None:
                shape = (N, *a.shape[1:]) if a.ndim == 2 else (N, T, *a.shape[2:])
                of_row(together.setdefault(key, np.zeros(shape, a.dtype)))[...] = a
    return together


def assert_rows_are_as_if_alone(name, operands, exact):
    """exact: an output is the same to the bit. A gradient is a sum whose order may depend on N."""
    layer = LAYERS[name]
    *outputs, _ = layer.forward(*operands.values())
    actual, expected = run(layer, operands), one_by_one(layer, operands, upstream(outputs))
    for key, value in expected.items():
        if exact and not key.startswith("d"):
            assert_same_bits(actual[key], value, key)
        else:
            assert_close(actual[key], value, TWIN[value.dtype.name], key)


@pytest.mark.parametrize("shape", [(5, 6, 7, 17), (33, 20, 16, 7)], ids=str)
@pytest.mark.parametrize("name", WITH_LENGTHS)
def test_rows_are_as_if_alone(name, shape, implementation, dtype, rng):
    operands = draw(LAYERS[name], rng, dtype, *shape)
    assert_rows_are_as_if_alone(name, operands, exact=implementation != "numpy")


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.data(), st.sampled_from(WITH_LENGTHS), st.sampled_from(FLOATS))
def test_rows_of_any_lengths_are_as_if_alone(data, name, dtype):
    N, T, D, H = (data.draw(st.integers(1, largest)) for largest in (9, 9, 20, 40))
    operands = draw(LAYERS[name], np.random.default_rng(0), dtype, N, T, D, H)
    lengths = st.lists(st.integers(0, T), min_size=N, max_size=N)
    operands["lengths"] = np.array(data.draw(lengths))
    actual, expected = (run(LAYERS[name], operands, backend) for backend in ("cython", "numpy"))
    assert_results(assert_close, actual, expected, tolerance=TWIN[dtype])
    with fastrnn.use_backend("cython"):
        assert_rows_are_as_if_alone(name, operands, exact=True)


@pytest.mark.parametrize("name", WITH_LENGTHS)
def test_full_lengths_are_none(name, implementation, dtype, rng):
    layer = LAYERS[name]
    operands = draw(layer, rng, dtype, *SMALL)
    operands["lengths"][:] = SMALL[1]
    actual = run(layer, operands)
    assert_same_bits(actual["cache.lengths"], np.full(SMALL[0], SMALL[1], np.intp))
    del operands["lengths"]
    actual["cache.lengths"] = None
    assert_results(assert_same_bits, actual, run(without(layer, "lengths"), operands))


@pytest.mark.parametrize("name", [name for name in REVERSED if name not in WITH_LENGTHS])
def test_reverse_is_forward_on_flipped_steps(name, implementation, dtype, rng):
    layer = LAYERS[name]
    operands = draw(layer, rng, dtype, *SMALL)
    *outputs, _ = layer.forward(*operands.values())
    dh, *dlast = upstream(outputs)

    def flip(a):
        return a[:, ::-1].copy()

    flipped = {key: flip(operands[key]) for key in ("x", "reset") if key in operands}
    expected = run(without(layer, "reverse"), operands | flipped, douts=[flip(dh), *dlast])
    for key in (*OF_STEPS, "cache.x", "cache.reset"):
        if expected.get(key) is not None:
            expected[key] = flip(expected[key])
    expected["cache.reverse"] = True
    assert_results(assert_same_bits, run(layer, operands), expected)


# Fewer rows than steps, more, and one; the weights packed and as they lie.
TABLES = [(5, 6, 7, 17), (5, 2, 7, 33), (2, 3, 5, 33), (1, 7, 16, 1)]


@pytest.mark.parametrize("shape", TABLES, ids=str)
@pytest.mark.parametrize("name", INDEXED)
def test_index_reads_rows_of_a_table(name, shape, implementation, dtype, rng):
    layer = LAYERS[name]
    operands = draw(layer, rng, dtype, *shape)
    actual = run(layer, operands)
    index, x = operands.pop("index"), operands["x"]
    expected = run(without(layer, "index"), operands | {"x": x[index]})
    dx = np.zeros(x.shape)
    np.add.at(dx, index, expected["dx"])
    expected |= {"dx": dx.astype(dtype), "cache.x": x, "cache.index": index}
    for key, value in expected.items():
        if not isinstance(value, np.ndarray):
            assert actual[key] == value, key
        elif key.startswith("d") or implementation == "numpy":
            assert_close(actual[key], value, TWIN[dtype.name], key)
        else:
            assert_same_bits(actual[key], value, key)


@pytest.mark.parametrize("shape", [*TABLES, (3, 4, 7, 40)], ids=str)
@pytest.mark.parametrize("name", INDEXED)
def test_rows_of_a_table_that_no_step_reads_are_in_no_result(
    name, shape, implementation, dtype, rng
):
    """Nor is what index holds past a row's length, garbage or not."""
    layer = LAYERS[name]
    operands = draw(layer, rng, dtype, *shape)
    x, index = operands["x"], operands["index"]
    for row, length in zip(index, operands.get("lengths", ()), strict=False):
        row[length:] = 0
    unread = np.ones(len(x), bool)
    unread[index[steps_taken(index.shape, operands.get("lengths"))]] = False
    expected = run(layer, operands)
    x[unread] = rng.choice([np.nan, np.inf, -np.inf], x[unread].shape)
    for row, length in zip(index, operands.get("lengths", ()), strict=False):
        row[length:] = rng.choice(
            [-1, len(x), 10**9, *np.flatnonzero(unread)], index.shape[1] - length
        )
    actual = run(layer, operands)
    for results in (actual, expected):
        del results["cache.x"], results["cache.index"]
    assert_results(assert_same_bits, actual, expected)
    assert not actual["dx"][unread].any()


@pytest.mark.parametrize("name", INDEXED)
def test_weights_that_are_not_finite_reach_no_row_that_is_not_read(name, implementation, rng):
    operands = draw(LAYERS[name], rng, np.float64, 5, 6, 7, 25)
    operands["Wx"][...] = np.inf
    with np.errstate(invalid="ignore"):
        dx = run(LAYERS[name], operands)["dx"]
    assert not np.delete(dx, operands["index"], axis=0).any()


@pytest.mark.parametrize("name", INDEXED)
def test_table_without_rows(name, implementation, dtype, rng):
    """Of rows without steps; what index holds past them is not looked at."""
    layer = LAYERS[name]
    operands = draw(layer, rng, dtype, 3, 4, 7, 5)
    index, x = operands.pop("index"), operands["x"][:0]
    h, cache = getattr(fastrnn, f"{layer.function}_forward")(
        x,
        *(operands[name] for name in ("h0", *weights_of(layer.function))),
        index=index,
        lengths=[0, 0, 0],
        **layer.keywords,
    )
    assert not h.any()
    dx, dh0, *weights = getattr(fastrnn, f"{layer.function}_backward")(h, cache)
    assert dx.shape == (0, 7) and not dh0.any() and not any(a.any() for a in weights)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", WITH_LENGTHS)
def test_nothing_past_a_row_s_length_is_looked_at(name, value, implementation, dtype, rng):
    layer = LAYERS[name]
    operands = draw(layer, rng, dtype, *SHAPES[-2])
    *outputs, _ = layer.forward(*operands.values())
    douts = upstream(outputs)
    expected = run(layer, operands, douts=douts)
    for a in (operands["x"], douts[0]):
        for row, length in zip(a, operands["lengths"], strict=True):
            row[length:] = value
    expected["cache.x"] = operands["x"]
    if "reset" in operands:
        for row, length in zip(operands["reset"], operands["lengths"], strict=True):
            row[length:] = True
        expected["cache.reset"] = operands["reset"]
    assert_results(assert_same_bits, run(layer, operands, douts=douts), expected)
    assert not any(expected[key][2].any() for key in OF_STEPS if expected.get(key) is not None)


@pytest.mark.parametrize("name", WITH_LENGTHS)
def test_nan_state_of_a_row_without_steps_stays_in_it(name, implementation, dtype, rng):
    operands = draw(LAYERS[name], rng, dtype, *SHAPES[-2])
    expected = run(LAYERS[name], operands)
    empty = list(operands["lengths"]).index(0)
    for first, last in (("h0", "hT"), ("c0", "cT")):
        if first in operands:
            operands[first][empty] = np.nan
            expected[f"cache.{first}"] = operands[first]
            expected[f"cache.{last}"][empty] = np.nan
    actual = run(LAYERS[name], operands)
    assert_results(assert_close, actual, expected, tolerance=EXACT)


@pytest.mark.parametrize(
    ("name", "operand"),
    [(name, o) for name, layer in LAYERS.items() for o in ("c0", "bh") if o in layer.operands],
)
def test_operand_of_zeros_is_the_same_as_none(name, operand, implementation, dtype, rng):
    layer = LAYERS[name]
    operands = draw(layer, rng, dtype, *SMALL)
    operands[operand][...] = 0
    zeros = run(layer, operands)
    del operands[operand]
    none = run(without(layer, operand), operands)
    for key, value in none.items():
        if key not in ("cache.c0", "cache.bias") and isinstance(value, np.ndarray):
            np.testing.assert_array_equal(zeros[key], value)


@pytest.mark.parametrize("name", SEQUENCES)
def test_no_gradient_of_an_output_is_a_zero_one(name, implementation, dtype, rng):
    layer = LAYERS[name]
    *outputs, cache = layer.forward(*draw(layer, rng, dtype, *SMALL).values())
    douts = upstream(outputs)
    left_out = [[i] for i in range(len(douts))] + [range(len(douts))]
    for places in left_out:
        zero, none = list(douts), list(douts)
        for i in places:
            zero[i], none[i] = np.zeros_like(douts[i]), None
        for a, b in zip(layer.backward(*none, cache), layer.backward(*zero, cache), strict=True):
            np.testing.assert_array_equal(a, b)


# ---- gradients of rows ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["word_embedding", "embedding_bag", "embedding_bag_mean"])
def test_sparse_gradient_has_every_word_once_as_they_come(name, implementation, dtype, rng):
    layer = LAYERS[name]
    operands = draw(layer, rng, dtype, 7, 3, 5, 33)
    out, cache = layer.forward(*operands.values())
    (dout,) = upstream([out])
    dense = layer.backward(dout, cache)
    rows, values = layer.backward(dout, cache, sparse=True)
    assert rows.tolist() == list(dict.fromkeys(operands["words"].ravel().tolist()))
    assert len(rows) < operands["words"].size
    assert_same_bits(values, dense[rows])
    dense[rows] = 0
    assert not dense.any()


@pytest.mark.parametrize("lengths", [[], [0, 0, 0], [0, 2, 0], [3]], ids=str)
@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_bag_without_words_is_zero(lengths, mode, implementation, dtype, rng):
    lengths, W = np.array(lengths, int), rng.standard_normal((5, 3)).astype(dtype)
    x = np.arange(lengths.sum())
    out, cache = fastrnn.embedding_bag_forward(x, lengths, W, mode=mode)
    filled = lengths > 0
    expected = np.zeros((len(lengths), 3), dtype)
    expected[filled] = getattr(W[: len(x)], mode)(axis=0, keepdims=True) if len(x) else 0
    assert_close(out, expected, TWIN[dtype.name])
    rows, values = fastrnn.embedding_bag_backward(np.ones_like(out), cache, sparse=True)
    assert rows.tolist() == x.tolist()
    weight = 1 / len(x) if mode == "mean" and len(x) else 1
    assert_close(values, np.full((len(x), 3), weight, dtype), TWIN[dtype.name])


# Multiples of powers of two meet in few places of a table.
SHIFTED = st.builds(lambda i, k: i << k, st.integers(0, 40), st.integers(0, 30))
WORDS = st.integers(0, 2**40) | SHIFTED


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(WORDS, max_size=70), st.sampled_from(["numpy", "cython"]))
def test_distinct_words_stand_as_they_come(words, backend):
    words = np.array(words, np.intp)
    found, places = fastrnn.backends.get_backend(backend).distinct(words)
    assert found.tolist() == list(dict.fromkeys(words.tolist()))
    np.testing.assert_array_equal(found[places], words)


# ---- memory ------------------------------------------------------------------------------------


# Memory that comes back to the next call: from malloc, and, from 256 KiB on, from the kept blocks,
# where threads share rows and where they share units.
REUSED = [(5, 6, 7, 17), (40, 50, 40, 40), (3, 180, 128, 128)]


@pytest.mark.parametrize("shape", REUSED, ids=str)
@pytest.mark.parametrize("name", WITH_LENGTHS)
def test_ends_are_zero_in_memory_that_was_used(name, shape, small_work_is_split, rng):
    layer = LAYERS[name]
    operands = draw(layer, rng, np.float32, *shape)
    full = operands | {"lengths": np.full(shape[0], shape[1]), "x": np.nan * operands["x"]}
    fastrnn.set_num_threads(2)
    for left_out in ({}, {0: None}):
        *outputs, _ = layer.forward(*operands.values(), backend="numpy")
        douts = [left_out.get(i, dout) for i, dout in enumerate(upstream(outputs))]
        expected = run(layer, operands, "numpy", douts=douts)
        run(layer, full, "cython")
        actual = run(layer, operands, "cython", douts=douts)
        assert_results(assert_close, actual, expected, tolerance=TWIN["float32"])
        for key in OF_STEPS:
            if actual.get(key) is not None:
                for row, length in zip(actual[key], operands["lengths"], strict=True):
                    assert not row[length:].any(), key


def unaligned(a):
    memory = np.frombuffer(bytearray(a.nbytes + 1), a.dtype, a.size, offset=1).reshape(a.shape)
    memory[...] = a
    return memory


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


LAYOUTS = {
    "fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: a[::-1].copy()[::-1],
    "unaligned": unaligned,
    "read_only": read_only,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", LAYERS)
def test_any_layout_gives_the_same_bits(name, layout, backend, dtype, rng):
    operands = draw(LAYERS[name], rng, dtype, *SMALL)
    laid_out = run(LAYERS[name], operands, arrange=lambda a: LAYOUTS[layout](a) if a.ndim else a)
    assert_results(assert_same_bits, laid_out, run(LAYERS[name], operands))


@pytest.mark.parametrize("name", LAYERS)
def test_nothing_given_is_modified(name, backend, dtype, rng):
    operands = draw(LAYERS[name], rng, dtype, *SMALL)
    before = pickle.dumps(operands)
    *outputs, cache = LAYERS[name].forward(*operands.values())
    assert pickle.dumps(operands) == before
    douts = upstream(outputs)
    before = pickle.dumps((operands, outputs, douts, cache))
    LAYERS[name].backward(*douts, cache)
    assert pickle.dumps((operands, outputs, douts, cache)) == before


@pytest.mark.parametrize("name", LAYERS)
def test_results_are_new_contiguous_arrays_of_the_operands_dtype(name, backend, dtype, rng):
    operands = draw(LAYERS[name], rng, dtype, *SMALL)
    results = run(LAYERS[name], operands)
    new = [a for key, a in results.items() if not key.startswith("cache.") and a.ndim]
    for a in new:
        assert a.dtype == dtype and a.flags.c_contiguous and a.flags.writeable
    for a, b in combinations(new + list(operands.values()), 2):
        assert not np.shares_memory(a, b)


# ---- NaN, infinities, zeros ----------------------------------------------------------------------

CELLS = [(cell, shape) for cell in GATES for shape in [(2, 3, 5, 9), (5, 6, 7, 17)]]
CELLS += [(cell, (5, 6, 7, 17)) for cell in ("gru_original", "mgu")]


def spoilt(operands, name, at, value=np.nan):
    a = operands[name].copy()
    a[at] = value
    return operands | {name: a}


@pytest.mark.parametrize(("cell", "shape"), CELLS, ids=str)
def test_nan_in_x_spreads_in_its_row_and_to_the_weights(cell, shape, implementation, dtype, rng):
    operands = draw(LAYERS[cell], rng, dtype, *shape)
    expected = run(LAYERS[cell], operands)
    expected["cache.x"] = spoilt(operands, "x", (1, 1, 3))["x"]
    for name in ("out_0", "cache.h", "cache.c", "cache.activations"):
        if expected.get(name) is not None:
            expected[name][1, 1:] = np.nan
    if expected.get("cache.candidate") is not None:
        expected["cache.candidate"][1, 2:] = np.nan  # of the state before
    for name in {"out_1", "cache.hT", "cache.cT", "dx", "dh0"} & set(expected):
        expected[name][1] = np.nan
    for name in ("dWx", "dWh", "db"):
        expected[name][...] = np.nan
    actual = run(LAYERS[cell], spoilt(operands, "x", (1, 1, 3)))
    assert_results(assert_close, actual, expected, tolerance=EXACT)


@pytest.mark.parametrize(("cell", "shape"), CELLS, ids=str)
def test_nan_in_dh_spreads_to_the_steps_before(cell, shape, implementation, dtype, rng):
    layer = LAYERS[cell]
    *outputs, cache = layer.forward(*draw(layer, rng, dtype, *shape).values())
    dh, *dlast = upstream(outputs)
    dx, dh0, *_ = layer.backward(dh, *dlast, cache)
    dh[1, 1, 3] = dx[1, :2] = dh0[1] = np.nan
    actual_dx, actual_dh0, *weights = layer.backward(dh, *dlast, cache)
    np.testing.assert_array_equal(actual_dx, dx)
    np.testing.assert_array_equal(actual_dh0, dh0)
    assert all(np.isnan(dw).all() for dw in weights)


@pytest.mark.parametrize("shape", [(2, 3, 5, 9), (5, 6, 7, 17)], ids=str)
@pytest.mark.parametrize("cell", ["min_gru", "min_lstm", "ind_rnn"])
def test_nan_in_a_unit_that_reaches_no_other_stays_in_it(cell, shape, implementation, dtype, rng):
    layer = LAYERS[cell]
    operands = draw(layer, rng, dtype, *shape)
    expected, cache = layer.forward(*operands.values())
    expected[1, :, 3] = np.nan
    h, _ = layer.forward(*spoilt(operands, "h0", (1, 3)).values())
    np.testing.assert_array_equal(h, expected)
    (dh,) = upstream([h])
    _, expected, *_ = layer.backward(dh, cache)
    dh[1, 1, 3] = expected[1, 3] = np.nan
    _, dh0, *weights = layer.backward(dh, cache)
    np.testing.assert_array_equal(dh0, expected)
    for dw in weights:
        units = np.isnan(dw).reshape(*dw.shape[:-1], -1, shape[-1])
        assert units[..., 3].all() and np.count_nonzero(units) == units[..., 3].size


@pytest.mark.parametrize("value", [-800, -np.inf])
def test_gates_of_0_share_a_min_lstm_evenly(value, implementation, dtype):
    """f / (f + i) is no 0 / 0."""
    for rows in (1, 9):
        x, h0 = np.ones((rows, 1), dtype), np.full((rows, 1), 2, dtype)
        b = np.array([value, value, 5], dtype)
        h, cache = fastrnn.min_lstm_step_forward(x, h0, np.zeros((1, 3), dtype), b)
        np.testing.assert_array_equal(h, np.full_like(h, 3.5))
        _, dh0, _, db = fastrnn.min_lstm_step_backward(np.ones_like(h), cache)
        np.testing.assert_array_equal(dh0, np.full_like(h, 0.5))
        np.testing.assert_array_equal(db, rows * np.array([-0.75, 0.75, 0.5]))


def test_nan_in_a_row_stays_in_it(implementation, dtype, rng):
    operands = draw(LAYERS["temporal_affine"], rng, dtype, 5, 6, 7, 17)
    expected = run(LAYERS["temporal_affine"], operands)
    expected["cache.x"] = spoilt(operands, "x", (1, 1, 3))["x"]
    expected["out_0"][1, 1] = expected["dw"][3] = np.nan
    actual = run(LAYERS["temporal_affine"], spoilt(operands, "x", (1, 1, 3)))
    assert_results(assert_close, actual, expected, tolerance=EXACT)


def test_nan_score_spoils_the_loss_and_the_gradient_of_its_row(implementation, dtype, rng):
    x, y = draw(LAYERS["temporal_softmax_loss"], rng, dtype, 5, 6, 7, 17).values()
    _, expected = fastrnn.temporal_softmax_loss(x, y)
    for word in (0, 16):
        x[1, 1, word] = np.nan
        expected[1, 1] = np.nan
        loss, dx = fastrnn.temporal_softmax_loss(x, y)
        assert np.isnan(loss)
        np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize("huge", [np.inf, -np.inf, 1e30, -1e30])
@pytest.mark.parametrize(("cell", "least"), [("lstm", [0, 0, 0, -1]), ("gru", [0, 0, -1])])
def test_gates_saturate(cell, least, huge, implementation, dtype, rng):
    layer = LAYERS[cell]
    operands = spoilt(draw(layer, rng, dtype, 2, 1, 5, 9), "x", (0, 0, 3), huge)
    with np.errstate(invalid="ignore"):  # BLAS multiplies infinity by the zeros that pad its tiles
        _, cache = layer.forward(*operands.values())
    up = (operands["Wx"][3] > 0) == (huge > 0)
    np.testing.assert_array_equal(cache.activations[0, 0], np.where(up, 1, np.repeat(least, 9)))


@pytest.mark.parametrize("low", [-np.inf, -1e30])
def test_impossible_class_has_no_gradient_and_costs_infinity(low, implementation, dtype, rng):
    x, y = draw(LAYERS["softmax_loss"], rng, dtype, 5, 1, 1, 17).values()
    impossible = (y + 1) % 17
    x[np.arange(5), impossible] = low
    loss, dx = fastrnn.softmax_loss(x, y)
    assert np.isfinite(loss)
    np.testing.assert_array_equal(dx[np.arange(5), impossible], 0)
    loss, _ = fastrnn.softmax_loss(x, impossible)
    assert loss == pytest.approx(-low, rel=TWIN[dtype.name])


@pytest.mark.parametrize("score", [-104, -1e30, 1e30, 104])
@pytest.mark.parametrize("classes", [1, 3, 7, 17])
def test_scores_far_from_0_are_as_near_it(classes, score, implementation, dtype):
    """Also in a row that ends within a vector, whose last lanes are 0."""
    loss, dx = fastrnn.softmax_loss(np.full((1, classes), score, dtype), [0])
    assert loss == pytest.approx(np.log(classes), rel=TWIN[dtype.name])
    assert_close(
        dx,
        (np.full((1, classes), 1 / classes) - np.eye(1, classes)).astype(dtype),
        TWIN[dtype.name],
    )


def test_nan_of_any_payload_passes(implementation, dtype):
    bits = np.array([0x7FC00000 + 0xFF, 0xFFC00000 + 0x1FF], np.uint32)
    if dtype == np.float64:
        bits = np.array([0x7FF8000000000000 + 0x7FF, 0xFFF8000000000000 + 0x3FF], np.uint64)
    for nan in bits.view(dtype):
        loss, dx = fastrnn.softmax_loss(np.array([[0, nan, 1]], dtype), [0])
        assert np.isnan(loss) and np.isnan(dx).all()


def test_scores_beyond_the_range_of_exp_are_no_overflow(implementation, dtype):
    loss, dx = fastrnn.softmax_loss(np.array([[1e30, 0.0, -1e30]], dtype), [1])
    assert loss == dtype.type(1e30)
    np.testing.assert_array_equal(dx, [[1, -1, 0]])


@pytest.mark.parametrize("mask_dtype", [bool, int, float])
def test_masked_scores_are_not_looked_at(mask_dtype, implementation, dtype, rng):
    x, y, mask = draw(LAYERS["temporal_softmax_loss_bool"], rng, dtype, 5, 6, 7, 17).values()
    loss, dx = fastrnn.temporal_softmax_loss(x, y, mask)
    x[~mask] = np.nan
    spoilt_loss, spoilt_dx = fastrnn.temporal_softmax_loss(x, y, mask.astype(mask_dtype))
    assert spoilt_loss == loss
    assert_same_bits(spoilt_dx, dx)
    assert not spoilt_dx[~mask].any()


def test_all_masked_is_zero(implementation, dtype):
    x, nothing = np.full((2, 3, 5), np.nan, dtype), np.zeros((2, 3))
    loss, dx = fastrnn.temporal_softmax_loss(x, nothing.astype(int), nothing)
    assert loss == 0
    assert_same_bits(dx, np.zeros_like(x))


def test_tanh_keeps_the_sign_of_zero(isa, dtype):
    """The reference is not asked: the zero from which its products start is positive."""
    zero, one = np.full((1, 1), -0.0, dtype), np.ones((1, 1), dtype)
    for rows in (1, 20):
        x = np.repeat(zero, rows, axis=0)
        h, _ = fastrnn.rnn_step_forward(x, x, one, one, zero[0], backend="cython")
        assert_same_bits(h, x)


def test_relu_of_nan_is_nan_and_its_derivative_is_that_of_torch(implementation, dtype):
    """0 at 0, 1 where h is NaN."""
    a = np.array([[-1, -0.0, 0, 2, np.inf, np.nan]] * 9, dtype)
    weights = np.zeros((1, 6), dtype), np.zeros((6, 6), dtype)
    for rows in (1, 9):
        x, h0 = np.zeros((rows, 1), dtype), np.zeros((rows, 6), dtype)
        h, cache = fastrnn.rnn_step_forward(x, h0, *weights, a[0], nonlinearity="relu")
        np.testing.assert_array_equal(h, np.maximum(a[:rows], 0))
        db = fastrnn.rnn_step_backward(np.ones_like(h), cache)[-1]
        np.testing.assert_array_equal(db, [0, 0, 0, rows, rows, rows])
    changed = cache._replace(h=np.full_like(h, 0.5), nonlinearity="tanh")  # which is heeded
    db = fastrnn.rnn_step_backward(np.ones_like(h), changed)[-1]
    np.testing.assert_array_equal(db, [9 * 0.75] * 6)


# The kernels multiply what no step reads, the rest of a table, by zeros.
READS_ALL = [name for name in LAYERS if name not in INDEXED]


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.sampled_from(READS_ALL),
    st.sampled_from(FLOATS),
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.integers(0, 2**32 - 1),
)
def test_not_numbers_and_infinities_come_out_in_the_same_places(name, dtype, value, seed):
    rng = np.random.default_rng(seed)
    operands = draw(LAYERS[name], rng, dtype, *map(int, rng.integers(1, (5, 5, 10, 20))))
    a = operands[rng.choice(differentiable(operands))]
    a.flat[rng.integers(a.size)] = value
    with np.errstate(invalid="ignore"):
        actual, expected = (run(LAYERS[name], operands, backend) for backend in ("cython", "numpy"))
    assert_results(assert_close, actual, expected, tolerance=TWIN[dtype])


# ---- accuracy ------------------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def ulps(actual, exact):
    """Largest error in units in the last place of actual's dtype."""
    unit = np.spacing(np.abs(exact).astype(actual.dtype))
    return float(np.max(np.abs(actual - exact) / unit))


def wide_range(dtype):
    """Both signs, from the smallest normal number to where sigmoid leaves the normal ones."""
    info = np.finfo(dtype)
    largest = -np.log(info.tiny)
    x = np.concatenate([np.linspace(0, largest, 200_000), np.geomspace(info.tiny, largest, 20_000)])
    return np.concatenate([-x, x]).astype(dtype)


def test_sigmoid_and_tanh_are_accurate(isa, dtype):
    wider = np.float64 if dtype == np.float32 else np.longdouble
    if np.finfo(wider).eps == np.finfo(dtype).eps:
        pytest.skip("long double is no wider than double here")
    x = wide_range(dtype)[:, None]
    exact = {sigmoid: sigmoid(x[:, 0].astype(wider)), np.tanh: np.tanh(x[:, 0].astype(wider))}
    zeros, ones = np.zeros_like(x), np.ones((1, 4), dtype)

    def step(cell, *states):
        G = GATES[cell]
        weights = ones[:, :G], 0 * ones[:, :G], 0 * ones[0, :G]
        return getattr(fastrnn, f"{cell}_step_forward")(x, *states, *weights, backend="cython")

    *_, lstm = step("lstm", zeros, zeros)
    *_, gru = step("gru", zeros)
    h, _ = step("rnn", zeros)
    gates = [*lstm.activations.T, *gru.activations.T, h[:, 0]]
    functions = [sigmoid, sigmoid, sigmoid, np.tanh, sigmoid, sigmoid, np.tanh, np.tanh]
    for gate, f in zip(gates, functions, strict=True):
        assert ulps(gate, exact[f]) <= ULP[dtype.name]
