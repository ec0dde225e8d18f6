"""What is refused, in which words, and what is taken as it comes: the same by both backends."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from util import (
    COLUMNS,
    LAYERS,
    SEQUENCES,
    assert_results,
    assert_same_bits,
    differentiable,
    draw,
    run,
)

import fastrnn

SIZES = {"N": 2, "T": 3, "D": 4, "H": 5}
# The operand that decides the dtype of the others, by layer.
FIRST = {name: differentiable(layer.operands)[0] for name, layer in LAYERS.items()}


@contextmanager
def refused(exception, text):
    with pytest.raises(exception) as error:
        yield
    assert type(error.value) is exception
    assert str(error.value) == text


@pytest.fixture
def operands_of(rng):
    return lambda name: draw(LAYERS[name], rng, np.float64, **SIZES)


# ---- shapes --------------------------------------------------------------------------------------

WRONG_SHAPES = [
    ("rnn", "x", (2, 3), "x: expected shape (N, T, D), got (2, 3)"),
    ("rnn", "x", (2, 3, 0), "x: expected shape (N, T, D) with D at least 1, got (2, 3, 0)"),
    ("rnn", "x", (2, 3, 6), "Wx: expected shape (D, H) = (6, 5), got (4, 5)"),
    ("rnn", "h0", (5,), "h0: expected shape (N, H) = (2, H), got (5,)"),
    ("rnn", "h0", (3, 5), "h0: expected shape (N, H) = (2, H), got (3, 5)"),
    ("rnn", "h0", (2, 0), "h0: expected shape (N, H) with H at least 1, got (2, 0)"),
    ("rnn", "Wx", (5, 4), "Wx: expected shape (D, H) = (4, 5), got (5, 4)"),
    ("rnn", "Wx", (4, 5, 1), "Wx: expected shape (D, H) = (4, 5), got (4, 5, 1)"),
    ("rnn", "Wh", (5, 6), "Wh: expected shape (H, H) = (5, 5), got (5, 6)"),
    ("rnn", "b", (1, 5), "b: expected shape (H,) = (5,), got (1, 5)"),
    ("rnn", "b", (6,), "b: expected shape (H,) = (5,), got (6,)"),
    ("rnn_step", "x", (2, 3, 4), "x: expected shape (N, D), got (2, 3, 4)"),
    ("rnn_step", "prev_h", (1, 5), "prev_h: expected shape (N, H) = (2, H), got (1, 5)"),
    ("rnn_step", "Wx", (4, 6), "Wx: expected shape (D, H) = (4, 5), got (4, 6)"),
    ("rnn_step", "Wh", (4, 5), "Wh: expected shape (H, H) = (5, 5), got (4, 5)"),
    ("rnn_step", "b", (), "b: expected shape (H,) = (5,), got ()"),
    ("lstm", "x", (4,), "x: expected shape (N, T, D), got (4,)"),
    ("lstm", "h0", (2, 5, 1), "h0: expected shape (N, H) = (2, H), got (2, 5, 1)"),
    ("lstm", "h0", (2, 6), "Wx: expected shape (D, 4*H) = (4, 24), got (4, 20)"),
    ("lstm", "Wx", (4, 5), "Wx: expected shape (D, 4*H) = (4, 20), got (4, 5)"),
    ("lstm", "Wx", (4, 21), "Wx: expected shape (D, 4*H) = (4, 20), got (4, 21)"),
    ("lstm", "Wx", (4, 0), "Wx: expected shape (D, 4*H) with 4*H at least 1, got (4, 0)"),
    ("lstm", "Wh", (20, 5), "Wh: expected shape (H, 4*H) = (5, 20), got (20, 5)"),
    ("lstm", "b", (5,), "b: expected shape (4*H,) = (20,), got (5,)"),
    ("lstm_step", "x", (2, 0), "x: expected shape (N, D) with D at least 1, got (2, 0)"),
    ("lstm_step", "prev_h", (2,), "prev_h: expected shape (N, H) = (2, H), got (2,)"),
    ("lstm_step", "prev_c", (2, 4), "prev_c: expected shape (N, H) = (2, 5), got (2, 4)"),
    ("lstm_step", "Wx", (4, 16), "Wx: expected shape (D, 4*H) = (4, 20), got (4, 16)"),
    ("lstm_step", "Wh", (5, 5), "Wh: expected shape (H, 4*H) = (5, 20), got (5, 5)"),
    ("lstm_step", "b", (21,), "b: expected shape (4*H,) = (20,), got (21,)"),
    ("lstm_ifgo_c0_lengths", "c0", (5,), "c0: expected shape (N, H) = (2, 5), got (5,)"),
    ("lstm_ifgo_c0_lengths", "c0", (2, 4), "c0: expected shape (N, H) = (2, 5), got (2, 4)"),
    ("gru", "x", (2, 3), "x: expected shape (N, T, D), got (2, 3)"),
    ("gru", "h0", (2, 6), "Wx: expected shape (D, 3*H) = (4, 18), got (4, 15)"),
    ("gru", "Wx", (4, 16), "Wx: expected shape (D, 3*H) = (4, 15), got (4, 16)"),
    ("gru", "Wh", (15, 5), "Wh: expected shape (H, 3*H) = (5, 15), got (15, 5)"),
    ("gru", "b", (5,), "b: expected shape (3*H,) = (15,), got (5,)"),
    ("gru_bh_reverse", "bh", (5,), "bh: expected shape (3*H,) = (15,), got (5,)"),
    ("gru_bh_reverse", "bh", (), "bh: expected shape (3*H,) = (15,), got ()"),
    ("gru_step", "prev_h", (2,), "prev_h: expected shape (N, H) = (2, H), got (2,)"),
    ("gru_step", "Wx", (4, 20), "Wx: expected shape (D, 3*H) = (4, 15), got (4, 20)"),
    ("gru_bh_step", "bh", (1, 15), "bh: expected shape (3*H,) = (15,), got (1, 15)"),
    ("mgu", "Wx", (4, 15), "Wx: expected shape (D, 2*H) = (4, 10), got (4, 15)"),
    ("mgu_step", "Wh", (5, 5), "Wh: expected shape (H, 2*H) = (5, 10), got (5, 5)"),
    ("min_gru", "b", (5,), "b: expected shape (2*H,) = (10,), got (5,)"),
    ("min_gru_step", "prev_h", (2, 6), "Wx: expected shape (D, 2*H) = (4, 12), got (4, 10)"),
    ("min_lstm", "Wx", (3, 15), "Wx: expected shape (D, 3*H) = (4, 15), got (3, 15)"),
    ("min_lstm_step", "b", (15, 1), "b: expected shape (3*H,) = (15,), got (15, 1)"),
    ("ind_rnn", "u", (5, 5), "u: expected shape (H,) = (5,), got (5, 5)"),
    ("ind_rnn_step", "u", (6,), "u: expected shape (H,) = (5,), got (6,)"),
    ("rnn_index", "x", (2, 3, 4), "x: expected shape (U, D), got (2, 3, 4)"),
    ("rnn_index", "x", (5, 0), "x: expected shape (U, D) with D at least 1, got (5, 0)"),
    ("affine", "x", (4,), "x: expected shape (N, D), got (4,)"),
    ("affine", "x", (), "x: expected shape (N, D), got ()"),
    ("affine", "w", (5, 4), "w: expected shape (D, M) = (4, M), got (5, 4)"),
    ("affine", "w", (4, 0), "w: expected shape (D, M) with M at least 1, got (4, 0)"),
    ("affine", "b", (4,), "b: expected shape (M,) = (5,), got (4,)"),
    ("affine_of_images", "x", (2, 3, 5), "w: expected shape (D, M) = (15, M), got (12, 5)"),
    ("temporal_affine", "x", (6, 4), "x: expected shape (N, T, D), got (6, 4)"),
    ("temporal_affine", "w", (3, 5), "w: expected shape (D, M) = (4, M), got (3, 5)"),
    ("temporal_affine", "b", (1,), "b: expected shape (M,) = (5,), got (1,)"),
    ("word_embedding", "W", (5,), "W: expected shape (V, W), got (5,)"),
    ("word_embedding", "W", (0, 4), "W: expected shape (V, W) with V at least 1, got (0, 4)"),
    ("word_embedding", "W", (5, 0), "W: expected shape (V, W) with W at least 1, got (5, 0)"),
    ("embedding_bag", "W", (5,), "W: expected shape (V, W), got (5,)"),
    ("embedding_bag", "W", (5, 0), "W: expected shape (V, W) with W at least 1, got (5, 0)"),
    ("softmax_loss", "x", (2,), "x: expected shape (N, C), got (2,)"),
    ("softmax_loss", "x", (2, 0), "x: expected shape (N, C) with C at least 1, got (2, 0)"),
    ("temporal_softmax_loss", "x", (2, 3), "x: expected shape (N, T, V), got (2, 3)"),
    (
        "temporal_softmax_loss",
        "x",
        (2, 3, 0),
        "x: expected shape (N, T, V) with V at least 1, got (2, 3, 0)",
    ),
]


@pytest.mark.parametrize(("name", "operand", "shape", "text"), WRONG_SHAPES)
def test_wrong_shape_is_refused(name, operand, shape, text, backend, operands_of):
    operands = operands_of(name) | {operand: np.zeros(shape)}
    with refused(ValueError, text):
        LAYERS[name].forward(*operands.values())


def test_shapes_that_passed_do_not_let_others_pass(backend, operands_of):
    good = operands_of("rnn")
    bad = good | {"b": np.zeros(6)}
    for _ in range(2):
        fastrnn.rnn_forward(*good.values())
        with refused(ValueError, "b: expected shape (H,) = (5,), got (6,)"):
            fastrnn.rnn_forward(*bad.values())


# ---- dtypes --------------------------------------------------------------------------------------

OTHER_BYTE_ORDER = np.dtype(np.float64).newbyteorder()


@pytest.mark.parametrize(
    "wrong", ["float16", "int64", "bool", "complex128", "O", "U1", OTHER_BYTE_ORDER]
)
@pytest.mark.parametrize("name", FIRST)
def test_dtype_is_float32_or_float64(name, wrong, backend, operands_of):
    operands = operands_of(name)
    operands[FIRST[name]] = operands[FIRST[name]].astype(wrong)
    with refused(TypeError, f"{FIRST[name]}: expected float32 or float64, got {np.dtype(wrong)}"):
        LAYERS[name].forward(*operands.values())


@pytest.mark.parametrize("wrong", ["float32", "int64", OTHER_BYTE_ORDER])
@pytest.mark.parametrize(
    ("name", "operand"),
    [(name, operand) for name in LAYERS for operand in differentiable(LAYERS[name].operands)[1:]],
)
def test_mixed_dtypes_are_refused(name, operand, wrong, backend, operands_of):
    operands = operands_of(name)
    operands[operand] = operands[operand].astype(wrong)
    with refused(
        TypeError, f"{operand}: expected float64 like {FIRST[name]}, got {np.dtype(wrong)}"
    ):
        LAYERS[name].forward(*operands.values())


# ---- indices and masks ---------------------------------------------------------------------------

WRONG_INDICES = [
    (IndexError, [[0, 4], [-1, 0]], "expected indices in [0, {V}) = [0, 5), got -1 at (1, 0)"),
    (IndexError, [[0, 4], [0, 5]], "expected indices in [0, {V}) = [0, 5), got 5 at (1, 1)"),
    (
        IndexError,
        np.array([[0, 4], [0, 2**64 - 1]], np.uint64),
        f"expected indices in [0, {{V}}) = [0, 5), got {2**64 - 1} at (1, 1)",
    ),
    (TypeError, [[0.0, 1.0], [0.0, 1.0]], "expected an integer dtype, got float64"),
    (TypeError, [[False, True], [True, True]], "expected an integer dtype, got bool"),
]


@pytest.mark.parametrize(("exception", "indices", "text"), WRONG_INDICES)
def test_wrong_words_and_labels_are_refused(exception, indices, text, backend):
    with refused(exception, "x: " + text.format(V="V")):
        fastrnn.word_embedding_forward(indices, np.zeros((5, 3)))
    with refused(exception, "y: " + text.format(V="V")):
        fastrnn.temporal_softmax_loss(np.zeros((2, 2, 5)), indices)
    flat = text.replace("(1, 0)", "(2,)").replace("(1, 1)", "(3,)")
    with refused(exception, "y: " + flat.format(V="C")):
        fastrnn.softmax_loss(np.zeros((4, 5)), np.ravel(indices))
    with refused(exception, "x: " + flat.format(V="V")):
        fastrnn.embedding_bag_forward(np.ravel(indices), [4], np.zeros((5, 3)))


@pytest.mark.parametrize(
    ("name", "operand", "value", "exception", "text"),
    [
        ("softmax_loss", "y", [0], ValueError, "y: expected shape (2,), got (1,)"),
        ("softmax_loss", "y", [[0, 1]], ValueError, "y: expected shape (2,), got (1, 2)"),
        ("temporal_softmax_loss", "y", [0, 1], ValueError, "y: expected shape (2, 3), got (2,)"),
        (
            "temporal_softmax_loss_bool",
            "bool_mask",
            np.ones((3, 2), bool),
            ValueError,
            "mask: expected shape (2, 3), got (3, 2)",
        ),
        (
            "temporal_softmax_loss_bool",
            "bool_mask",
            1.0,
            ValueError,
            "mask: expected shape (2, 3), got ()",
        ),
        (
            "temporal_softmax_loss_real",
            "real_mask",
            np.ones((2, 3), complex),
            TypeError,
            "mask: expected a bool or real dtype, got complex128",
        ),
        (
            "temporal_softmax_loss_real",
            "real_mask",
            np.full((2, 3), "1"),
            TypeError,
            "mask: expected a bool or real dtype, got <U1",
        ),
    ],
)
def test_wrong_labels_and_masks_are_refused(
    name, operand, value, exception, text, backend, operands_of
):
    operands = operands_of(name) | {operand: value}
    with refused(exception, text):
        LAYERS[name].forward(*operands.values())


@pytest.mark.parametrize("integer", np.typecodes["AllInteger"])
@pytest.mark.parametrize(
    "name", ["word_embedding", "embedding_bag", "softmax_loss", "temporal_softmax_loss"]
)
def test_any_integer_dtype_holds_indices(name, integer, backend, operands_of):
    operands = operands_of(name)
    indices = {key: a.astype(integer) for key, a in operands.items() if a.dtype.kind == "i"}
    same = run(LAYERS[name], operands | indices)
    assert_results(assert_same_bits, same, run(LAYERS[name], operands))


@pytest.mark.parametrize("shape", [(), (7,), (2, 3, 2), (0,)], ids=str)
def test_words_have_any_shape(shape, backend):
    words, W = np.ones(shape, int), np.arange(15.0).reshape(5, 3)
    out, cache = fastrnn.word_embedding_forward(words, W)
    np.testing.assert_array_equal(out, np.broadcast_to(W[1], (*shape, 3)))
    dW = fastrnn.word_embedding_backward(np.ones_like(out), cache)
    np.testing.assert_array_equal(dW, np.eye(5, 1, -1) * words.size * np.ones(3))


WRONG_LENGTHS = [
    (TypeError, [1.0, 2.0], "expected an integer dtype, got float64"),
    (TypeError, [True, False], "expected an integer dtype, got bool"),
    (ValueError, 3, "expected shape (2,), got ()"),
    (ValueError, [3], "expected shape (2,), got (1,)"),
    (ValueError, [[3], [3]], "expected shape (2,), got (2, 1)"),
    (ValueError, [3, -1], "expected integers in [0, T] = [0, 3], got -1 at (1,)"),
    (ValueError, [4, -1], "expected integers in [0, T] = [0, 3], got 4 at (0,)"),
    (
        ValueError,
        np.array([0, 2**64 - 1], np.uint64),
        f"expected integers in [0, T] = [0, 3], got {2**64 - 1} at (1,)",
    ),
]


@pytest.mark.parametrize(("exception", "lengths", "text"), WRONG_LENGTHS)
@pytest.mark.parametrize("name", COLUMNS)
def test_wrong_lengths_are_refused(name, exception, lengths, text, backend, operands_of):
    with refused(exception, f"lengths: {text}"):
        LAYERS[name].forward(*operands_of(name).values(), lengths=lengths)


@pytest.mark.parametrize(
    ("exception", "index", "text"),
    [
        (TypeError, [[0.0]] * 2, "index: expected an integer dtype, got float64"),
        (ValueError, [0, 1], "index: expected shape (2, T), got (2,)"),
        (ValueError, [[0, 1]], "index: expected shape (2, T), got (1, 2)"),
        (IndexError, [[0], [5]], "index: expected indices in [0, U) = [0, 5), got 5 at (1, 0)"),
        (IndexError, [[-1], [9]], "index: expected indices in [0, U) = [0, 5), got -1 at (0, 0)"),
        (ValueError, [[0], [4]], "lengths: expected integers in [0, T] = [0, 1], got 2 at (1,)"),
    ],
)
@pytest.mark.parametrize("cell", COLUMNS)
def test_wrong_index_is_refused(cell, exception, index, text, backend, operands_of):
    x, *others = operands_of(cell).values()
    with refused(exception, text):
        table = np.zeros((5, x.shape[2]))
        LAYERS[cell].forward(table, *others, index=index, lengths=[1, 2])


WRONG_BAGS = [
    (TypeError, [3.0, 3.0], "expected an integer dtype, got float64"),
    (TypeError, [True, True], "expected an integer dtype, got bool"),
    (ValueError, 6, "expected shape (N,), got ()"),
    (ValueError, [[3, 3]], "expected shape (N,), got (1, 2)"),
    (ValueError, [7, -1], "expected integers in [0, 6], got 7 at (0,)"),
    (ValueError, [3, 4, -1], "expected integers in [0, 6], got -1 at (2,)"),
    (ValueError, [2, 3], "expected a sum of 6, the words of x, got 5"),
    (ValueError, [6, 6], "expected a sum of 6, the words of x, got 12"),
    (
        ValueError,
        np.array([6, 2**64 - 1], np.uint64),
        f"expected integers in [0, 6], got {2**64 - 1} at (1,)",
    ),
]


@pytest.mark.parametrize(("exception", "lengths", "text"), WRONG_BAGS)
def test_wrong_lengths_of_bags_are_refused(exception, lengths, text, backend, operands_of):
    operands = operands_of("embedding_bag") | {"bags": lengths}
    with refused(exception, f"lengths: {text}"):
        LAYERS["embedding_bag"].forward(*operands.values())


def test_words_of_bags_stand_in_a_row(backend):
    with refused(ValueError, "x: expected shape (lengths.sum(),), got (1, 2)"):
        fastrnn.embedding_bag_forward([[0, 1]], [2], np.ones((3, 2)))


@pytest.mark.parametrize("integer", np.typecodes["AllInteger"])
@pytest.mark.parametrize("cell", COLUMNS)
def test_any_integer_dtype_holds_lengths(cell, integer, backend, operands_of):
    operands = operands_of(cell).values()
    h, cache = LAYERS[cell].forward(*operands, lengths=np.array([1, 3], integer))
    assert_same_bits(cache.lengths, np.array([1, 3], np.intp))
    assert_same_bits(h, LAYERS[cell].forward(*operands, lengths=[1, 3])[0])


@pytest.mark.parametrize("name", LAYERS)
def test_lists_are_taken(name, backend, operands_of):
    operands = operands_of(name)
    lists = run(LAYERS[name], operands, arrange=np.ndarray.tolist)
    assert_results(assert_same_bits, lists, run(LAYERS[name], operands))


def masked(a):
    return np.ma.masked_array(a, mask=False)


MASKED = {
    "array": masked,
    "list": lambda a: [masked(a)],
    "element": lambda a: [*a.tolist()[:-1], np.ma.masked],
}


@pytest.mark.parametrize("make", MASKED.values(), ids=MASKED)
@pytest.mark.parametrize("name", LAYERS)
def test_masked_arrays_are_refused(name, make, backend, operands_of):
    operands = operands_of(name)
    for key, a in operands.items():
        public = PUBLIC.get((LAYERS[name].function, key), key.removeprefix("bool_"))
        text = (
            f"{public.removeprefix('real_')}: expected an array without a mask, which would be lost"
        )
        with refused(TypeError, text):
            LAYERS[name].forward(*(operands | {key: make(a)}).values())
    if "loss" in name:
        return
    *outputs, cache = LAYERS[name].forward(*operands.values())
    for i, out in enumerate(outputs):
        with pytest.raises(TypeError, match=r"^d\w+: expected an array without a mask"):
            LAYERS[name].backward(*outputs[:i], make(out), *outputs[i + 1 :], cache)


PUBLIC = {
    ("word_embedding", "words"): "x",
    ("embedding_bag", "words"): "x",
    ("embedding_bag", "bags"): "lengths",
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("name", LAYERS)
def test_matrices_are_arrays(name, backend, operands_of):
    operands = operands_of(name)
    expected = run(LAYERS[name], operands)
    matrices = {key: np.matrix(a) if a.ndim == 2 else a for key, a in operands.items()}
    assert_results(assert_same_bits, run(LAYERS[name], matrices), expected)


RAGGED = [[1], [1, 2]]


@pytest.mark.parametrize("name", LAYERS)
def test_lists_that_are_no_arrays_are_refused(name, backend, operands_of):
    operands = operands_of(name)
    for key in operands:
        public = PUBLIC.get((LAYERS[name].function, key), key.removeprefix("bool_"))
        with pytest.raises(
            ValueError, match=f"^{public.removeprefix('real_')}: expected an array, "
        ):
            LAYERS[name].forward(*(operands | {key: RAGGED}).values())


@pytest.mark.parametrize("name", FIRST)
def test_empty_list_is_an_array_of_one_axis(name, backend, operands_of):
    operands = operands_of(name) | {FIRST[name]: []}
    with pytest.raises(ValueError, match=rf"^{FIRST[name]}: expected shape .*, got \(0,\)$"):
        LAYERS[name].forward(*operands.values())


def test_empty_lists_of_integers_and_bools(backend):
    none, W = np.zeros((0, 3)), np.ones((3, 2))
    assert fastrnn.softmax_loss(none, [])[0] == 0
    assert fastrnn.temporal_softmax_loss(np.zeros((2, 0, 3)), [[], []], [[], []])[0] == 0
    assert fastrnn.word_embedding_forward([], W)[0].shape == (0, 2)
    assert fastrnn.embedding_bag_forward([], [], W)[0].shape == (0, 2)
    assert fastrnn.embedding_bag_forward([], [0], W)[0].shape == (1, 2)
    weights = np.ones((2, 4)), np.ones((4, 4)), np.ones(4)
    keywords = {"index": [[], []], "lengths": [0, 0], "reset": [[], []]}
    assert fastrnn.rnn_forward(W, np.zeros((2, 4)), *weights, **keywords)[0].shape == (2, 0, 4)


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("gates", ["ofig", "IFOG", "", None, ["ifog"], 4])
@pytest.mark.parametrize("name", ["lstm", "lstm_step"])
def test_unknown_gate_order_is_refused(name, gates, backend, operands_of):
    orders = "['ifog', 'fico', 'ifgo', 'iofg']"
    with refused(ValueError, f"gates: expected one of {orders}, got {gates!r}"):
        LAYERS[name].forward(*operands_of(name).values(), gates=gates)


NONLINEARITIES = {
    "rnn": ["tanh", "relu"],
    "min_gru": ["linear", "positive"],
    "min_lstm": ["linear", "positive"],
    "ind_rnn": ["relu", "tanh"],
}


@pytest.mark.parametrize("value", ["ReLU", "", None, ["relu"], np.zeros(2), 0], ids=repr)
@pytest.mark.parametrize("cell", NONLINEARITIES)
def test_unknown_nonlinearity_is_refused(cell, value, backend, operands_of):
    text = f"nonlinearity: expected one of {NONLINEARITIES[cell]} for {cell}, got {value!r}"
    for name in (cell, f"{cell}_step"):
        with refused(ValueError, text):
            LAYERS[name].forward(*operands_of(name).values(), nonlinearity=value)
    operands = operands_of(cell)
    weights = operands["Wx"], operands.get("u", operands.get("Wh")), operands["b"]
    for make in (fastrnn.prepare, fastrnn.Stream) if value is not None else ():  # the usual one
        with refused(ValueError, text):
            make(cell, *weights, nonlinearity=value)


@pytest.mark.parametrize("cell", ["min_gru", "min_lstm"])
def test_cell_without_a_product_has_no_recurrent_weights(cell, backend, operands_of):
    operands = operands_of(cell)
    for make in (fastrnn.prepare, fastrnn.Stream):
        with refused(ValueError, f"Wh: expected None for {cell}, which has none"):
            make(cell, operands["Wx"], np.zeros((5, 5)), operands["b"])
    for make in (fastrnn.prepare, fastrnn.Stream):
        with refused(ValueError, f"bh: expected None for {cell}, which has one bias"):
            make(cell, operands["Wx"], None, operands["b"], bh=operands["b"])


@pytest.mark.parametrize("mode", ["max", "Sum", "", None, ["mean"], np.zeros(2)])
def test_unknown_mode_is_refused(mode, backend, operands_of):
    with refused(ValueError, f"mode: expected 'sum' or 'mean', got {mode!r}"):
        LAYERS["embedding_bag"].forward(*operands_of("embedding_bag").values(), mode=mode)


FLAGS = [(name, "reverse") for name in COLUMNS]
FLAGS += [(name, "reset_after") for name in ("gru", "gru_step")]


@pytest.mark.parametrize("value", [0, 1, None, "False", np.array(True)], ids=repr)
@pytest.mark.parametrize(("name", "flag"), FLAGS)
def test_flag_that_is_no_bool_is_refused(name, flag, value, backend, operands_of):
    with refused(TypeError, f"{flag}: expected a bool, got {value!r}"):
        LAYERS[name].forward(*operands_of(name).values(), **{flag: value})


@pytest.mark.parametrize(("name", "flag"), FLAGS)
def test_flag_may_be_a_numpy_bool(name, flag, backend, operands_of):
    *_, cache = LAYERS[name].forward(*operands_of(name).values(), **{flag: np.bool_(True)})
    assert getattr(cache, flag) is True


@pytest.mark.parametrize("name", LAYERS)
def test_unknown_backend_is_refused(name, operands_of):
    operands = operands_of(name).values()
    with refused(ValueError, 'backend: expected "numpy" or "cython", got \'torch\''):
        LAYERS[name].forward(*operands, backend="torch")


# ---- what a backward function takes --------------------------------------------------------------

# Names of the upstream gradients.
BACKWARD = {
    "rnn": ["dh"],
    "rnn_step": ["dnext_h"],
    "lstm": ["dh"],
    "lstm_step": ["dnext_h", "dnext_c"],
    "gru": ["dh"],
    "gru_step": ["dnext_h"],
    "rnn_lengths": ["dh", "dhT"],
    "lstm_lengths_reverse": ["dh", "dhT", "dcT"],
    "gru_bh_reverse": ["dh", "dhT"],
    **{cell: ["dh"] for cell in ("mgu", "min_gru", "min_lstm", "ind_rnn")},
    **{f"{cell}_step": ["dnext_h"] for cell in ("mgu", "min_gru", "min_lstm", "ind_rnn")},
    "affine": ["dout"],
    "affine_of_images": ["dout"],
    "temporal_affine": ["dout"],
    "word_embedding": ["dout"],
    "embedding_bag": ["dout"],
    "attention": ["dcontext", "dweights"],
}


@pytest.fixture
def results_of(operands_of):
    def results(name):
        *outputs, cache = LAYERS[name].forward(*operands_of(name).values())
        return outputs, cache

    return results


def forward_name(name):
    return f"{LAYERS[name].function}_forward"


FOREIGN = [(a, b) for a in BACKWARD for b in BACKWARD if forward_name(a) != forward_name(b)]


@pytest.mark.parametrize(("name", "foreign"), FOREIGN)
def test_cache_of_another_function_is_refused(name, foreign, backend, results_of):
    """With no upstream gradient at all: a cache that passes unseen must not reach the kernels."""
    (_, own), (_, cache) = results_of(name), results_of(foreign)
    axes = f" of an x with {cache.x.ndim} axes" if type(cache) is type(own) else ""
    with refused(
        TypeError,
        f"cache: expected the cache that {forward_name(name)} returned, got "
        f"{type(cache).__name__}{axes}",
    ):
        LAYERS[name].backward(*[None for _ in BACKWARD[name]], cache)


@pytest.mark.parametrize("cache", [None, (), {}, SimpleNamespace(x=3)], ids=repr)
@pytest.mark.parametrize("name", BACKWARD)
def test_what_is_no_cache_is_refused(name, cache, backend):
    with refused(
        TypeError,
        f"cache: expected the cache that {forward_name(name)} returned, got {type(cache).__name__}",
    ):
        LAYERS[name].backward(*[None for _ in BACKWARD[name]], cache)


@pytest.mark.parametrize("value", [0, 1, None, "False"])
@pytest.mark.parametrize("name", ["word_embedding", "embedding_bag"])
def test_sparse_that_is_no_bool_is_refused(name, value, backend, results_of):
    (out,), cache = results_of(name)
    with refused(TypeError, f"sparse: expected a bool, got {value!r}"):
        LAYERS[name].backward(out, cache, sparse=value)


@pytest.mark.parametrize(("name", "i"), [(n, i) for n in BACKWARD for i in range(len(BACKWARD[n]))])
def test_upstream_gradient_has_shape_and_dtype_of_its_output(name, i, backend, results_of):
    outputs, cache = results_of(name)
    shape = outputs[i].shape
    for wrong in (shape[:-1], (*shape, 1), (*shape[:-1], shape[-1] + 1), shape[::-1]):
        with refused(ValueError, f"{BACKWARD[name][i]}: expected shape {shape}, got {wrong}"):
            outputs[i] = np.zeros(wrong)
            LAYERS[name].backward(*outputs, cache)
    for wrong in (np.float32, np.int64, OTHER_BYTE_ORDER):
        with refused(
            TypeError,
            f"{BACKWARD[name][i]}: expected float64 like the forward pass, got {np.dtype(wrong)}",
        ):
            outputs[i] = np.zeros(shape, wrong)
            LAYERS[name].backward(*outputs, cache)


# ---- small print ---------------------------------------------------------------------------------


def test_losses_are_python_floats(backend, dtype):
    x = np.zeros((2, 5), dtype)
    assert type(fastrnn.softmax_loss(x, [0, 1])[0]) is float
    assert type(fastrnn.temporal_softmax_loss(x[None], [[0, 1]])[0]) is float


def test_temporal_softmax_loss_says_the_shape_if_verbose(backend, capsys):
    fastrnn.temporal_softmax_loss(np.zeros((2, 3, 5)), np.zeros((2, 3), int))
    assert capsys.readouterr().out == ""
    fastrnn.temporal_softmax_loss(np.zeros((2, 3, 5)), np.zeros((2, 3), int), verbose=True)
    assert capsys.readouterr().out == "dx: (2, 3, 5)\n"


def test_temporal_fc_is_temporal_affine():
    assert fastrnn.temporal_fc_forward is fastrnn.temporal_affine_forward
    assert fastrnn.temporal_fc_backward is fastrnn.temporal_affine_backward


# ---- what changes between forward and backward ---------------------------------------------------


@pytest.mark.parametrize("sparse", [False, True])
def test_word_indices_changed_after_forward_do_no_harm(sparse, backend):
    x, bags, W = np.array([0, 1, 1]), np.array([3]), np.ones((3, 2))
    _, cache = fastrnn.word_embedding_forward(x, W)
    _, of_bags = fastrnn.embedding_bag_forward(x, bags, W)
    x[:] = bags[:] = 10**9
    dW = fastrnn.word_embedding_backward(np.ones((3, 2)), cache, sparse=sparse)
    of_bags = fastrnn.embedding_bag_backward(np.ones((1, 2)), of_bags, sparse=sparse)
    for gradient in (dW, of_bags):
        expected = ([0, 1], [[1, 1], [2, 2]]) if sparse else [[1, 1], [2, 2], [0, 0]]
        for a, e in zip(gradient, expected, strict=True):
            np.testing.assert_array_equal(a, e)


RISE = "first: expected integers that rise from 0 to 2, the words of x"


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    ("field", "value", "exception", "text"),
    [
        ("x", [0, 3], IndexError, "x: expected indices in [0, V) = [0, 3), got 3 at (1,)"),
        *(
            ("first", first, ValueError, f"{RISE}, got {np.array(first)}")
            for first in ([0, 3], [0, 2, 1], [0, 1], [1, 2], [0, 2, 1, 2], [-(2**63), 2], [2])
        ),
        ("first", [], TypeError, "first: expected an integer dtype, got float64"),
        ("first", None, TypeError, "first: expected an integer dtype, got object"),
        ("mean", 1, TypeError, "mean: expected a bool, got 1"),
    ],
)
def test_bags_changed_in_the_cache_are_refused(field, value, exception, text, sparse, backend):
    out, cache = fastrnn.embedding_bag_forward([0, 2], [2], np.ones((3, 2)))
    with refused(exception, text):
        changed = cache._replace(**{field: value if field == "mean" else np.array(value)})
        fastrnn.embedding_bag_backward(out, changed, sparse=sparse)


# In place of a field: nothing, what is no array, and, of an array, other shapes, dtypes, layouts.
NO_ARRAYS = [None, "x", 3, -1, [], [[1], [1, 2]], {}, np.float64, slice(None), 2**70, (2**62, 1)]
OTHERS = [
    np.ma.masked_array,
    lambda a: a[..., :-1],
    lambda a: a[:-1],
    lambda a: a[:0],
    lambda a: a[None],
    lambda a: np.concatenate([a, a]),
    lambda a: np.concatenate([a, a], axis=-1),
    lambda a: a.reshape(-1),
    lambda a: np.broadcast_to(a, (2, *a.shape))[0],
    lambda a: a.astype("float16"),
    lambda a: a.astype("complex64"),
    lambda a: a.astype(">f8"),
    lambda a: a.astype("float32"),
    lambda a: a.astype(object),
    lambda a: np.full_like(a, 10**9),
    lambda a: np.full_like(a, -1),
]
SAME = [
    lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    np.asfortranarray,
    np.ndarray.tolist,
    lambda a: np.frombuffer(b"x" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
]


UPSTREAM = {f"d{name}" for name in ("h", "hT", "cT", "next_h", "next_c", "out")}


def altered(cache):
    """Caches with one field changed, and whether the gradients have to be the same."""
    for field, value in cache._asdict().items():
        is_array = isinstance(value, np.ndarray)
        for other in NO_ARRAYS + ([change(value) for change in OTHERS] if is_array else []):
            yield field, cache._replace(**{field: other}), False
        for change in SAME if is_array else []:
            yield field, cache._replace(**{field: change(value)}), True


def test_every_backward_function_is_walked():
    functions = {layer.function for layer in LAYERS.values() if "loss" not in layer.function}
    public = {name.removesuffix("_backward") for name in dir(fastrnn) if name.endswith("_backward")}
    assert functions == public - {"temporal_fc"}


@pytest.mark.parametrize("name", [name for name in LAYERS if "loss" not in name])
def test_altered_cache_gives_an_error_that_names_it_or_gradients(name, backend, operands_of):
    """No crash, above all; tests/fuzz tries more of it."""
    *outputs, cache = LAYERS[name].forward(*operands_of(name).values())
    expected = LAYERS[name].backward(*outputs, cache)
    for field, changed, same in altered(cache):
        try:
            actual = LAYERS[name].backward(*outputs, changed)
        except (ValueError, TypeError, IndexError) as error:
            assert not same, (field, error)
            named, _, _ = str(error).partition(": ")
            assert named in ("cache", *cache._fields, *UPSTREAM), (field, error)
            continue
        for a, e in zip(actual, expected, strict=same) if same else []:
            np.testing.assert_array_equal(a, e, field)


@pytest.mark.parametrize("name", [name for name in LAYERS if "loss" not in name])
def test_cache_without_all_its_fields_is_refused(name, backend, operands_of):
    *outputs, cache = LAYERS[name].forward(*operands_of(name).values())
    for short in (cache[:-1], (*cache, None), ()):
        with pytest.raises(TypeError, match="^cache: expected the cache that"):
            LAYERS[name].backward(*outputs, tuple.__new__(type(cache), short))


ORDERS = ["ifog", "figo", "ifgo", "iofg"]
CHANGED = [
    ("rnn", "h", np.ones((2, 3, 4)), "h: expected shape (N, T, H) = (2, 3, 5), got (2, 3, 4)"),
    ("rnn", "hT", np.ones((2, 4)), "hT: expected shape (N, H) = (2, 5), got (2, 4)"),
    ("rnn", "lengths", [0, 4], "lengths: expected integers in [0, T] = [0, 3], got 4 at (1,)"),
    (
        *("rnn", "nonlinearity", "sigmoid"),
        "nonlinearity: expected one of ['tanh', 'relu'] for rnn, got 'sigmoid'",
    ),
    ("rnn", "lengths", [0], "lengths: expected shape (2,), got (1,)"),
    ("lstm", "h0", np.ones((1, 5)), "h0: expected shape (N, H) = (2, H), got (1, 5)"),
    ("lstm", "c0", np.ones((1, 5)), "c0: expected shape (N, H) = (2, 5), got (1, 5)"),
    ("lstm", "c", np.ones((2, 2, 5)), "c: expected shape (N, T, H) = (2, 3, 5), got (2, 2, 5)"),
    (
        "lstm",
        "activations",
        np.ones((2, 3, 15)),
        "activations: expected shape (N, T, 4*H) = (2, 3, 20), got (2, 3, 15)",
    ),
    ("lstm", "cT", np.ones((3, 5)), "cT: expected shape (N, H) = (2, 5), got (3, 5)"),
    ("lstm", "gates", "fico", f"gates: expected one of {ORDERS}, got 'fico'"),
    ("lstm", "lengths", [-1, 0], "lengths: expected integers in [0, T] = [0, 3], got -1 at (0,)"),
    ("lstm_step", "gates", None, f"gates: expected one of {ORDERS}, got None"),
    (
        "gru",
        "activations",
        np.ones((2, 3, 20)),
        "activations: expected shape (N, T, 3*H) = (2, 3, 15), got (2, 3, 20)",
    ),
    (
        "gru",
        "candidate",
        np.ones((2, 3, 15)),
        "candidate: expected shape (N, T, H) = (2, 3, 5), got (2, 3, 15)",
    ),
    ("gru", "candidate", None, "candidate: expected an array with reset_after=True, got None"),
    ("gru", "reset_after", False, "candidate: expected None with reset_after=False, got an array"),
    ("gru", "lengths", [4, 4], "lengths: expected integers in [0, T] = [0, 3], got 4 at (0,)"),
    ("mgu", "gates", "zn", "gates: expected one of ['fn', 'nf'], got 'zn'"),
    (
        *("min_gru", "nonlinearity", "tanh"),
        "nonlinearity: expected one of ['linear', 'positive'] for min_gru, got 'tanh'",
    ),
    (
        *("min_lstm", "activations", np.ones((2, 3, 10))),
        "activations: expected shape (N, T, 3*H) = (2, 3, 15), got (2, 3, 10)",
    ),
    ("ind_rnn", "u", np.ones(4), "u: expected shape (H,) = (5,), got (4,)"),
    ("rnn_index", "index", [[0], [0]], "index: expected shape (2, 3), got (2, 1)"),
    ("rnn_index", "index", [[0] * 3], "index: expected shape (2, T), got (1, 3)"),
    *(
        (
            f"{cell}_step",
            field,
            value,
            f"cache: {cell}_step_forward takes one step, but it has lengths, an index or is "
            "reversed",
        )
        for cell in COLUMNS
        for field, value in (("lengths", [0, 0]), ("reverse", True), ("index", [[0], [0]]))
    ),
]


@pytest.mark.parametrize(("name", "field", "value", "text"), CHANGED)
def test_cache_that_does_not_fit_is_refused(name, field, value, text, backend, results_of):
    outputs, cache = results_of(name)
    with refused(ValueError, text):
        LAYERS[name].backward(*outputs, cache._replace(**{field: value}))


@pytest.mark.parametrize(
    ("name", "field", "value", "text"),
    [
        ("rnn", "hT", None, "hT: expected an array, got None"),
        ("lstm", "c", np.ones((2, 3, 5), "f"), "c: expected float64 like x, got float32"),
        ("gru", "lengths", [0.0, 1.0], "lengths: expected an integer dtype, got float64"),
        ("gru", "reset_after", 1, "reset_after: expected a bool, got 1"),
        ("lstm", "reverse", 1, "reverse: expected a bool, got 1"),
    ],
)
def test_cache_of_other_types_is_refused(name, field, value, text, backend, results_of):
    outputs, cache = results_of(name)
    with refused(TypeError, text):
        LAYERS[name].backward(*outputs, cache._replace(**{field: value}))


@pytest.mark.parametrize("name", [name for name in BACKWARD if "prev_h" in LAYERS[name].operands])
def test_step_cache_has_no_last_state(name, backend, results_of):
    _, cache = results_of(name)
    fields = cache._asdict()
    assert [fields.get(field) for field in ("hT", "cT", "lengths")] == [None, None, None]
    assert cache.reverse is False


def test_cache_may_hold_arrays_in_any_layout(backend, dtype, rng):
    for name in SEQUENCES:
        *outputs, cache = LAYERS[name].forward(*draw(LAYERS[name], rng, dtype, **SIZES).values())
        laid_out = {
            field: np.repeat(a, 2, axis=-1)[..., ::2]
            for field, a in cache._asdict().items()
            if isinstance(a, np.ndarray)
        }
        if cache.lengths is not None:
            laid_out["lengths"] = cache.lengths.tolist()
        expected = LAYERS[name].backward(*outputs, cache)
        actual = LAYERS[name].backward(*outputs, cache._replace(**laid_out))
        for a, e in zip(actual, expected, strict=True):
            assert_same_bits(a, e)


@pytest.mark.parametrize("cell", COLUMNS)
def test_lengths_changed_after_forward_do_no_harm(cell, backend, operands_of):
    lengths = np.array([1, 3])
    h, cache = LAYERS[cell].forward(*operands_of(cell).values(), lengths=lengths)
    expected = LAYERS[cell].backward(h, cache)
    lengths[:] = 10**9
    for a, e in zip(LAYERS[cell].backward(h, cache), expected, strict=True):
        assert_same_bits(a, e)


def test_words_under_a_zero_mask_are_not_looked_at(backend):
    scores, mask = np.zeros((1, 2, 3)), np.array([[True, False]])
    loss, _ = fastrnn.temporal_softmax_loss(scores, np.array([[2, -100]]), mask, backend=backend)
    assert loss == pytest.approx(np.log(3))
    with pytest.raises(IndexError):
        fastrnn.temporal_softmax_loss(scores, np.array([[-100, 2]]), mask, backend=backend)


def test_set_backend_refuses_none():
    with refused(ValueError, 'backend: expected "numpy" or "cython", got None'):
        fastrnn.set_backend(None)
