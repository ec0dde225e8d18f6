"""Streams and prepared weights: the bits of the sequence functions, and no state but their own."""

import copy
import gc
import os
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from util import COLUMNS, assert_same_bits

import fastrnn
from fastrnn.backends import _kernels

CELLS = {
    "rnn": ("rnn", {}),
    "rnn_relu": ("rnn", {"nonlinearity": "relu"}),
    "lstm": ("lstm", {"gates": "iofg"}),
    "gru": ("gru", {"bh": True}),
    "gru_original": ("gru", {"bh": True, "reset_after": False}),
    "mgu": ("mgu", {}),
    "min_gru": ("min_gru", {"gates": "nz", "nonlinearity": "positive"}),
    "min_lstm": ("min_lstm", {}),
    "ind_rnn": ("ind_rnn", {"nonlinearity": "tanh"}),
}
T, D, H = 5, 7, 37


def arrays_of(cell, D, H, dtype, rng):
    """Wx, Wh, b and bh; in place of Wh, where there is none, a vector or None."""
    G = COLUMNS[cell]
    of_h = {"min_gru": None, "min_lstm": None, "ind_rnn": (H,)}.get(cell, (H, G * H))
    shapes = (D, G * H), of_h, (G * H,), (G * H,)
    return [shape and rng.standard_normal(shape).astype(dtype) for shape in shapes]


def weights_of(name, dtype, rng):
    """Cell, (Wx, Wh, b) and keywords."""
    cell, keywords = CELLS[name]
    Wx, Wh, b, bh = (a if a is None else a / 3 for a in arrays_of(cell, D, H, dtype, rng))
    return cell, (Wx, Wh, b), keywords | ({"bh": bh} if "bh" in keywords else {})


def forward(cell, x, *weights, **keywords):
    h0, given = np.zeros((len(x), H), x.dtype), [a for a in weights if a is not None]
    return getattr(fastrnn, f"{cell}_forward")(x, h0, *given, **keywords)


@pytest.fixture
def stream(rng):
    _, weights, _ = weights_of("lstm", np.float32, rng)
    return fastrnn.Stream("lstm", *weights, batch=3)


@pytest.fixture
def x(rng):
    return rng.standard_normal((3, D)).astype(np.float32)


# ---- the same bits -------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 33])
@pytest.mark.parametrize("name", CELLS)
def test_steps_are_those_of_the_sequence(name, batch, isa, dtype, small_work_is_split, rng):
    cell, weights, keywords = weights_of(name, dtype, rng)
    x = rng.standard_normal((batch, T, D)).astype(dtype)
    fastrnn.set_num_threads(1)
    expected, _ = forward(cell, x, *weights, **keywords)
    for n in (1, 2, 3):
        fastrnn.set_num_threads(n)
        prepared = fastrnn.prepare(cell, *weights, **keywords)
        assert_same_bits(forward(cell, x, prepared)[0], expected)
        stream = fastrnn.Stream(cell, prepared, batch=batch)
        out = np.empty((batch, H), dtype)
        for t in range(T):
            assert stream.step(np.ascontiguousarray(x[:, t]), out) is out
            assert_same_bits(out, np.ascontiguousarray(expected[:, t]))


@pytest.mark.parametrize("name", CELLS)
def test_backends_agree(name, dtype, rng):
    cell, weights, keywords = weights_of(name, dtype, rng)
    streams = [fastrnn.Stream(cell, *weights, **keywords, backend=b) for b in ("numpy", "cython")]
    for x in rng.standard_normal((T, 1, D)).astype(dtype):
        a, b = (stream.step(x) for stream in streams)
        np.testing.assert_allclose(a, b, rtol=1e-4 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_prepared_weights_serve_steps_backward_and_other_kernels(name, backend, rng):
    cell, weights, keywords = weights_of(name, np.float64, rng)
    x = rng.standard_normal((3, T, D))
    h, cache = forward(cell, x, *weights, **keywords)
    backward = getattr(fastrnn, f"{cell}_backward")
    expected = backward(h, cache)
    prepared = fastrnn.prepare(cell, *weights, **keywords)
    for a in weights:
        if a is not None:
            a[...] = np.nan  # prepare has copied them
    again, cache = forward(cell, x, pickle.loads(pickle.dumps(prepared)))
    assert_same_bits(again, h)
    for a, b in zip(backward(again, cache), expected, strict=True):
        assert_same_bits(a, b)
    states = [np.zeros((3, H))] * (2 if cell == "lstm" else 1)
    step = getattr(fastrnn, f"{cell}_step_forward")
    np.testing.assert_allclose(step(x[:, 0], *states, prepared)[0], h[:, 0], rtol=1e-12)
    fastrnn.use_isa("baseline")
    other = "numpy" if backend == "cython" else "cython"
    np.testing.assert_allclose(forward(cell, x, prepared)[0], h, rtol=1e-10)
    np.testing.assert_allclose(forward(cell, x, prepared, backend=other)[0], h, rtol=1e-10)


def test_beside_a_busy_process_and_with_rows_shared(small_work_is_split, rng):
    _, weights, _ = weights_of("lstm", np.float32, rng)
    fastrnn.set_num_threads(2)
    x = rng.standard_normal((32, T, D)).astype(np.float32)
    expected, _ = forward("lstm", x, *weights)
    for batch in (1, 32):
        stream = fastrnn.Stream("lstm", *weights, batch=batch)
        for t in range(T):
            _kernels.oversubscribe()
            h = stream.step(np.ascontiguousarray(x[:batch, t]))
            assert_same_bits(h, np.ascontiguousarray(expected[:batch, t]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_stream_works_in_a_forked_child(small_work_is_split, rng):
    _, weights, _ = weights_of("lstm", np.float32, rng)
    fastrnn.set_num_threads(2)
    stream = fastrnn.Stream("lstm", *weights)
    x = np.ones((1, D), np.float32)
    expected = stream.step(x)
    stream.reset()
    if (child := os.fork()) == 0:
        os._exit(int(stream.step(x).tobytes() != expected.tobytes()))
    assert os.waitpid(child, 0)[1] == 0


def test_every_thread_its_own_stream(rng):
    _, weights, _ = weights_of("lstm", np.float32, rng)
    xs = rng.standard_normal((50, 1, D)).astype(np.float32)
    prepared = fastrnn.prepare("lstm", *weights)

    def last(_):
        stream = fastrnn.Stream("lstm", prepared)
        return [stream.step(x) for x in xs][-1]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(last, range(16)))
    for h in results:
        assert_same_bits(h, results[0])


# ---- state ---------------------------------------------------------------------------------------


def test_reset_and_state(stream, x):
    first = stream.step(x)
    state = stream.state
    second = stream.step(x)
    stream.state = state
    assert_same_bits(stream.step(x), second)
    stream.reset([0, 2])
    assert not stream.state["h"][[0, 2]].any() and stream.state["c"][1].any()
    stream.reset(np.array([False, True, False]))
    assert not any(a.any() for a in stream.state.values())
    assert_same_bits(stream.step(x), first)
    stream.reset()
    state["h"][...] = np.nan  # a copy
    assert_same_bits(stream.step(x), first)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (3, "IndexError: rows: expected rows in [-N, N) = [-3, 3), got 3"),
        ([0, -4], "IndexError: rows: expected rows in [-N, N) = [-3, 3), got -4"),
        ([True, False], "ValueError: rows: expected a mask of shape (N,) = (3,), got (2,)"),
        ([[0], [1]], "ValueError: rows: expected shape (R,), got (2, 1)"),
        (0.5, "TypeError: rows: expected integers or a mask, got float64"),
        (np.ma.array([0, 1]), "TypeError: rows: expected an array without a mask"),
    ],
)
def test_reset_refuses_what_are_no_rows(rows, error, stream, x):
    stream.step(x)
    before = stream.state
    with pytest.raises((IndexError, TypeError, ValueError)) as caught:
        stream.reset(rows)
    assert f"{caught.type.__name__}: {caught.value}".startswith(error)
    for name, a in stream.state.items():
        assert_same_bits(a, before[name])


def test_reset_of_rows_counted_from_the_end(stream, x):
    stream.step(x)
    stream.reset([])
    stream.reset((-1, 0))
    assert [h.any() for h in stream.state["h"]] == [False, True, False]


def assert_steps_allocate_nothing(stream, x):
    out = stream.step(x)
    tracemalloc.start()
    for _ in range(100):
        stream.step(x, out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1000


def test_step_with_out_allocates_nothing(stream, x):
    assert_steps_allocate_nothing(stream, x)


# ---- errors --------------------------------------------------------------------------------------


def unaligned():
    return np.frombuffer(bytearray(3 * H * 4 + 1), np.float32, 3 * H, offset=1).reshape(3, H)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"x": np.zeros((3, D))}, "TypeError: x: expected float32 like"),
        ({"x": np.zeros((2, D), "f")}, "ValueError: x: expected shape (3, 7), got (2, 7)"),
        ({"x": None}, "TypeError: x: expected an array, got None"),
        ({"out": [1]}, "TypeError: out: expected an ndarray, got list"),
        ({"out": np.zeros((3, 1), "f")}, "ValueError: out: expected shape (3, 37), got (3, 1)"),
        ({"out": np.zeros((3, H))}, "TypeError: out: expected float32 like"),
        ({"out": np.zeros((H, 3), "f").T}, "ValueError: out: expected a writeable, aligned, C-c"),
        ({"x": np.ma.zeros((3, D), "f")}, "TypeError: x: expected an array without a mask"),
        ({"x": [[1], [1, 2]]}, "ValueError: x: expected an array, got none"),
        ({"out": np.ma.zeros((3, H), "f")}, "TypeError: out: expected an ndarray, got MaskedArray"),
        ({"out": unaligned()}, "ValueError: out: expected a writeable, aligned, C-contiguous"),
    ],
)
@pytest.mark.parametrize("name", ["numpy", "cython"])
def test_error_leaves_the_state(name, change, error, rng, x):
    _, weights, _ = weights_of("lstm", np.float32, rng)
    stream = fastrnn.Stream("lstm", *weights, batch=3, backend=name)
    stream.step(x)
    before = stream.state
    with pytest.raises((TypeError, ValueError)) as caught:
        stream.step(**({"x": x} | change))
    assert f"{caught.type.__name__}: {caught.value}".startswith(error)
    for key, a in stream.state.items():
        assert_same_bits(a, before[key])


def test_input_of_any_layout_is_taken(stream, x):
    expected = stream.step(x)
    for laid_out in (np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2]):
        stream.reset()
        assert_same_bits(stream.step(laid_out), expected)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"cell": "tanh"}, f"cell: expected one of {[*COLUMNS]}, got 'tanh'"),
        ({"batch": 0}, "batch: expected an integer of at least 1, got 0"),
        ({"gates": "abcd"}, "gates: expected one of"),
        ({"cell": ["lstm"]}, f"cell: expected one of {[*COLUMNS]}, got ['lstm']"),
        ({"bh": np.zeros(4 * H, "f")}, "bh: expected None for lstm, which has one bias"),
        ({"b": np.zeros(3, "f")}, "b: expected shape (4*H,) = (148,), got (3,)"),
    ],
)
def test_stream_is_checked_when_it_is_made(change, error, rng):
    _, (Wx, Wh, b), _ = weights_of("lstm", np.float32, rng)
    with pytest.raises(ValueError) as caught:
        fastrnn.Stream(**({"cell": "lstm", "Wx": Wx, "Wh": Wh, "b": b} | change))
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize("batch", [2**40, 2**59, 2**61, 2**63, 2**100])
def test_batch_beyond_all_memory(batch, backend):
    with pytest.raises(MemoryError):
        fastrnn.Stream("rnn", *(np.ones(shape) for shape in ((1, 16), (16, 16), 16)), batch=batch)


@pytest.mark.parametrize(
    "bad",
    [
        {"h": 0},
        {"h": np.zeros(1, "f"), "c": np.zeros((3, H), "f")},
        {"h": np.zeros((3, H), "f"), "c": np.ma.zeros((3, H), "f")},
        {"h": np.zeros((3, H), "f"), "c": [[1], [1, 2]]},
        ["h", "c"],
        None,
    ],
)
def test_state_that_does_not_fit_changes_nothing(stream, x, bad):
    stream.step(x)
    before = stream.state
    with pytest.raises((TypeError, ValueError), match="^(state|h|c): expected "):
        stream.state = bad
    for key, a in stream.state.items():
        assert_same_bits(a, before[key])


def test_prepared_weights_come_alone_and_for_their_cell(rng):
    _, weights, _ = weights_of("lstm", np.float32, rng)
    prepared = fastrnn.prepare("lstm", *weights)
    x, h0 = np.zeros((1, 1, D), np.float32), np.zeros((1, H), np.float32)
    with pytest.raises(TypeError, match="^Wx: expected weights prepared for gru, got those of lst"):
        fastrnn.gru_forward(x, h0, prepared)
    for keywords in ({"b": weights[2]}, {"gates": "ifgo"}):
        with pytest.raises(TypeError, match="expected nothing with prepared weights, which hold"):
            fastrnn.lstm_forward(x, h0, prepared, **keywords)
    with pytest.raises(TypeError, match="^Wh: expected nothing with prepared weights"):
        fastrnn.Stream("lstm", prepared, weights[1])


# ---- many steps in one call ----------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 33])
@pytest.mark.parametrize("name", CELLS)
def test_many_steps_are_those_of_single_ones(name, batch, implementation, dtype, rng):
    cell, weights, keywords = weights_of(name, dtype, rng)
    x = rng.standard_normal((2 * T, batch, D)).astype(dtype)
    one, many = (fastrnn.Stream(cell, *weights, batch=batch, **keywords) for _ in range(2))
    expected = np.stack([one.step(x_t) for x_t in x])
    assert_same_bits(many.steps(x[:T]), expected[:T])
    out = np.empty((T, batch, H), dtype)
    assert many.steps(x[T:], out) is out
    assert_same_bits(out, expected[T:])
    for key, state in one.state.items():
        assert_same_bits(many.state[key], state)
    assert many.steps(x[:0]).shape == (0, batch, H)
    assert_same_bits(many.state["h"], one.state["h"])


@pytest.mark.parametrize("name", CELLS)
def test_many_steps_by_threads_that_share_units(name, isa, small_work_is_split, rng):
    cell, weights, keywords = weights_of(name, np.float32, rng)
    x = rng.standard_normal((T, 1, D)).astype(np.float32)
    fastrnn.set_num_threads(1)
    expected = fastrnn.Stream(cell, *weights, **keywords).steps(x)
    for n in (2, 3):
        fastrnn.set_num_threads(n)
        assert_same_bits(fastrnn.Stream(cell, *weights, **keywords).steps(x), expected)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            {"x": np.zeros((3, D), "f")},
            "ValueError: x: expected shape (T, N, D) = (T, 3, 7), got (3",
        ),
        ({"x": np.zeros((2, 3, 1), "f")}, "ValueError: x: expected shape (2, 3, 7), got (2, 3, 1)"),
        ({"x": np.zeros((2, 3, D))}, "TypeError: x: expected float32 like"),
        ({"x": None}, "TypeError: x: expected an array, got None"),
        (
            {"out": np.zeros((1, 3, H), "f")},
            "ValueError: out: expected shape (2, 3, 37), got (1, 3",
        ),
        ({"out": np.zeros((2, 3, H))}, "TypeError: out: expected float32 like"),
        ({"out": [1]}, "TypeError: out: expected an ndarray, got list"),
    ],
)
@pytest.mark.parametrize("name", ["numpy", "cython"])
def test_error_of_many_steps_leaves_the_state(name, change, error, rng):
    _, weights, _ = weights_of("lstm", np.float32, rng)
    stream = fastrnn.Stream("lstm", *weights, batch=3, backend=name)
    stream.steps(np.ones((2, 3, D), np.float32))
    before = stream.state
    with pytest.raises((TypeError, ValueError)) as caught:
        stream.steps(**({"x": np.ones((2, 3, D), np.float32)} | change))
    assert f"{caught.type.__name__}: {caught.value}".startswith(error)
    for key, a in stream.state.items():
        assert_same_bits(a, before[key])


@pytest.mark.parametrize("name", CELLS)
def test_many_steps_with_resets(name, implementation, dtype, rng):
    cell, weights, keywords = weights_of(name, dtype, rng)
    x, reset = rng.standard_normal((2 * T, 3, D)).astype(dtype), rng.random((2 * T, 3)) < 0.3
    one, many = (fastrnn.Stream(cell, *weights, batch=3, **keywords) for _ in range(2))
    expected = []
    for x_t, rows in zip(x, reset, strict=True):
        one.reset(rows)
        expected.append(one.step(x_t))
    for half in (slice(0, T), slice(T, None)):
        assert_same_bits(many.steps(x[half], reset=reset[half]), np.stack(expected[half]))


@pytest.mark.parametrize(
    ("reset", "error"),
    [
        (np.zeros((3, T)), "TypeError: reset: expected bool, got float64"),
        (
            np.zeros((3, T), bool),
            f"ValueError: reset: expected shape (T, N) = ({T}, 3), got (3, {T})",
        ),
    ],
)
def test_wrong_reset_of_many_steps_leaves_the_state(reset, error, backend, rng):
    _, weights, _ = weights_of("lstm", np.float32, rng)
    stream, x = fastrnn.Stream("lstm", *weights, batch=3), np.ones((T, 3, D), np.float32)
    stream.steps(x)
    before = stream.state
    with pytest.raises((TypeError, ValueError)) as caught:
        stream.steps(x, reset=reset)
    assert f"{caught.type.__name__}: {caught.value}" == error
    for key, a in stream.state.items():
        assert_same_bits(a, before[key])


@pytest.mark.parametrize("name", CELLS)
def test_output_may_lie_on_the_input(name, implementation, small_work_is_split, rng):
    """Also where threads share the units, and a late one reads what an early one has written."""
    (cell, keywords), size = CELLS[name], 129
    *weights, _ = arrays_of(cell, size, size, np.float32, rng)
    weights = [a if a is None else a / size for a in weights]
    keywords = {key: value for key, value in keywords.items() if key != "bh"}
    x = rng.standard_normal((40, 1, size)).astype(np.float32)
    fastrnn.set_num_threads(3)
    stream = fastrnn.Stream(cell, *weights, **keywords)
    expected = stream.steps(x)
    for shift in (0, 3, -3):
        memory = np.empty((50, 1, size), np.float32)
        given, out = memory[5:45], memory[5 + shift : 45 + shift]
        given[...] = x
        stream.reset()
        assert_same_bits(stream.steps(given, out), expected)
    stream.reset()
    for x_t, h in zip(x.copy(), expected, strict=True):
        assert_same_bits(stream.step(x_t, x_t), h)


def test_many_steps_of_any_layout_are_taken(rng):
    _, weights, _ = weights_of("lstm", np.float32, rng)
    x = rng.standard_normal((3, T, D)).astype(np.float32)
    stream = fastrnn.Stream("lstm", *weights, batch=3)
    expected = stream.steps(np.ascontiguousarray(x.swapaxes(0, 1)))
    stream.reset()
    assert_same_bits(stream.steps(x.swapaxes(0, 1)), expected)


@pytest.mark.parametrize("name", CELLS)
def test_stream_takes_transposed_weights(name, backend, rng):
    cell, (Wx, Wh, b), keywords = weights_of(name, np.float32, rng)
    x = rng.standard_normal((T, 1, D)).astype(np.float32)
    expected = fastrnn.Stream(cell, Wx, Wh, b, **keywords).steps(x)
    turned = (W if W is None else np.ascontiguousarray(W.T) for W in (Wx, Wh))
    stream = fastrnn.Stream(cell, *turned, b, **keywords, transposed=True)
    np.testing.assert_allclose(stream.steps(x), expected, rtol=1e-5, atol=1e-6)
    if backend == "cython":
        stream.reset()
        assert_same_bits(stream.steps(x), expected)


# ---- copies --------------------------------------------------------------------------------------


class Counted(fastrnn.Stream):
    """A subclass with a step and an attribute of its own."""

    def __init__(self, *args, **keywords):
        super().__init__(*args, **keywords)
        self.seen = []

    def step(self, x, out=None):
        self.seen.append(x)
        return super().step(x, out)


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {n}": lambda a, n=n: pickle.loads(pickle.dumps(a, n)) for n in (0, 2, 5)},
}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", [fastrnn.Stream, Counted])
@pytest.mark.parametrize("name", CELLS)
def test_copy_of_a_stream_has_a_state_of_its_own(name, kind, duplicate, implementation, dtype, rng):
    cell, weights, keywords = weights_of(name, dtype, rng)
    x = rng.standard_normal((2 * T, 3, D)).astype(dtype)
    stream = kind(cell, *weights, batch=3, **keywords)
    for x_t in x[:T]:
        stream.step(x_t)
    twin = duplicate(stream)
    assert type(twin) is kind
    expected = np.stack([stream.step(x_t) for x_t in x[T:]])
    assert_same_bits(np.stack([twin.step(x_t) for x_t in x[T:]]), expected)
    for key, a in stream.state.items():
        assert_same_bits(twin.state[key], a)
    stream.reset()
    assert twin.state["h"].any()
    if implementation != "numpy" or kind is Counted:
        fastrnn.set_backend("numpy")  # which is not the stream's
    third = duplicate(twin)
    twin.reset()
    for many in (stream, twin):
        assert_same_bits(many.steps(x[:T]), stream_of(kind, many, x[:T]))
    assert third.state["h"].any()


def stream_of(kind, like, x):
    """What a copy of a stream gives from the start."""
    twin = copy.deepcopy(like)
    twin.reset()
    return twin.steps(x)


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_copy_of_a_stream_goes_on_when_the_first_is_gone(duplicate, backend, rng):
    _, weights, _ = weights_of("lstm", np.float64, rng)
    x = rng.standard_normal((T, 1, D))
    expected = fastrnn.Stream("lstm", *weights).steps(x)
    stream = fastrnn.Stream("lstm", fastrnn.prepare("lstm", *weights))
    twin = duplicate(stream)
    del stream
    gc.collect()
    assert_same_bits(twin.steps(x), expected)


def test_step_of_a_subclass_is_called(x, rng):
    class Doubled(fastrnn.Stream):
        def step(self, x, out=None):
            return 2 * super().step(x, out)

    _, weights, _ = weights_of("lstm", np.float32, rng)
    plain, doubled = fastrnn.Stream("lstm", *weights, batch=3), Doubled("lstm", *weights, batch=3)
    assert_same_bits(doubled.step(x), 2 * plain.step(x))


# ---- chains --------------------------------------------------------------------------------------


def streams_of(names, dtype, rng, batch=3, kind=fastrnn.Stream, **options):
    """Streams that fit each other; the first takes x of D columns."""
    made = []
    for i, name in enumerate(names):
        cell, (Wx, Wh, b), keywords = weights_of(name, dtype, rng)
        if i:
            Wx = (rng.standard_normal((H, Wx.shape[1])) / 6).astype(dtype)
        made.append(kind(cell, Wx, Wh, b, batch=batch, **keywords, **options))
    return made


def head_of(dtype, rng, C=5):
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in ((H, C), C))


def one_by_one(streams, head, x):
    """What a chain is to give for x (N, D)."""
    for stream in streams:
        x = stream.step(x)
    return x if head is None else fastrnn.affine_forward(x, *head)[0]


def assert_same_states(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        assert a.keys() == e.keys()
        for key in e:
            assert_same_bits(a[key], e[key])


@pytest.fixture(params=[False, True], ids=["h", "head"])
def head(request, rng):
    return head_of(np.float32, rng) if request.param else None


@pytest.fixture
def chain(head, rng):
    return fastrnn.Chain(streams_of(["lstm", "gru"], np.float32, rng), head)


@pytest.mark.parametrize("batch", [1, 3, 33])
@pytest.mark.parametrize("headed", [False, True])
@pytest.mark.parametrize(
    "names",
    [["rnn_relu"], ["lstm", "gru"], ["gru_original", "rnn", "lstm"], ["min_gru", "ind_rnn", "mgu"]],
)
def test_chain_gives_the_bits_of_its_streams(
    names, headed, batch, implementation, dtype, small_work_is_split, rng
):
    x, reset = rng.standard_normal((T, batch, D)).astype(dtype), rng.random((T, batch)) < 0.3
    head = head_of(dtype, rng) if headed else None
    for n in (1, 2, 3):
        fastrnn.set_num_threads(n)
        streams = streams_of(names, dtype, rng, batch)
        chain = fastrnn.Chain(copy.deepcopy(streams), head)
        expected = np.stack([one_by_one(streams, head, x_t) for x_t in x])
        out = np.empty_like(expected)
        for x_t, out_t in zip(x, out, strict=True):
            assert chain.step(x_t, out_t) is out_t
        assert_same_bits(out, expected)
        assert_same_states(chain.state, [stream.state for stream in streams])
        for x_t, rows, out_t in zip(x, reset, out, strict=True):
            for stream in streams:
                stream.reset(rows)
            out_t[...] = one_by_one(streams, head, x_t)
        assert_same_bits(chain.steps(x, reset=reset), out)
        assert_same_states(chain.state, [stream.state for stream in streams])
        assert chain.steps(x[:0]).shape == (0, *expected.shape[1:])
        chain.reset()
        assert chain.steps(x, out) is out
        assert_same_bits(out, expected)


def test_step_of_a_chain_allocates_nothing(chain, x):
    assert_steps_allocate_nothing(chain, x)


def test_chain_of_any_streams(head, x, rng):
    """Of both backends, or with a step of their own: by their own methods."""
    plain = streams_of(["lstm", "gru"], np.float32, rng)
    expected = one_by_one(copy.deepcopy(plain), head, x)
    prepared = [(stream._weights.cell, stream._weights) for stream in plain]
    counted = [Counted(*weights, batch=3) for weights in prepared]
    chain = fastrnn.Chain(counted, head)
    assert_same_bits(chain.step(x), expected)
    assert [len(stream.seen) for stream in counted] == [1, 1]
    backends = ("numpy", "cython"), ("cython", "numpy"), ("numpy", "numpy")
    for names in backends:
        pairs = zip(prepared, names, strict=True)
        streams = [fastrnn.Stream(*weights, batch=3, backend=name) for weights, name in pairs]
        chain = fastrnn.Chain(streams, head)
        np.testing.assert_allclose(chain.step(x), expected, rtol=1e-4, atol=1e-5)
        chain.reset()
        np.testing.assert_allclose(chain.steps(x[None])[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_copy_of_a_chain_has_streams_of_its_own(duplicate, head, implementation, rng):
    xs = rng.standard_normal((2 * T, 3, D)).astype(np.float32)
    chain = fastrnn.Chain(streams_of(["lstm", "gru"], np.float32, rng), head)
    chain.steps(xs[:T])
    twin = duplicate(chain)
    expected = chain.steps(xs[T:])
    assert_same_bits(twin.steps(xs[T:]), expected)
    assert_same_states(twin.state, chain.state)
    chain.reset()
    assert twin.state[1]["h"].any() and not chain.state[1]["h"].any()


def test_reset_and_state_of_a_chain(chain, x):
    first = chain.step(x).copy()
    state = chain.state
    second = chain.step(x)
    chain.state = state
    assert_same_bits(chain.step(x), second)
    chain.reset([0, -1])
    assert [[bool(row.any()) for row in s["h"]] for s in chain.state] == [[False, True, False]] * 2
    with pytest.raises(IndexError, match=r"^rows: expected rows in \[-N, N\)"):
        chain.reset(3)
    chain.reset()
    assert_same_bits(chain.step(x), first)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (None, "TypeError: state: expected a list or a tuple, got NoneType"),
        ([], "ValueError: state: expected 2 dicts, got 0"),
        ([{}, {}], "ValueError: state[0]: expected ['c', 'h'], got []"),
        (1, "TypeError: state[1]: expected a dict, got int"),
        ({1: 0, "h": 0}, "ValueError: state[1]: expected ['h'], got [1, 'h']"),
        ({"h": np.zeros((3, 1), "f")}, "ValueError: state[1]: h: expected shape (3, 37), got (3,"),
        ({"h": np.zeros((3, H))}, "TypeError: state[1]: h: expected float32 like"),
    ],
)
def test_state_that_does_not_fit_a_chain_changes_nothing(chain, x, bad, error):
    chain.step(x)
    before = chain.state
    zeros = {key: np.zeros_like(a) for key, a in before[0].items()}
    given = bad if bad is None or isinstance(bad, list) else [zeros, bad]
    with pytest.raises((TypeError, ValueError)) as caught:
        chain.state = given
    assert f"{caught.type.__name__}: {caught.value}".startswith(error)
    assert_same_states(chain.state, before)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"streams": 3}, "TypeError: streams: expected a list or a tuple, got int"),
        ({"streams": []}, "ValueError: streams: expected at least one Stream, got none"),
        ({1: "lstm"}, "TypeError: streams[1]: expected a Stream, got str"),
        ({"again": 0}, "ValueError: streams[1]: expected a Stream of its own, got one from before"),
        ({"dtype": "d"}, "TypeError: streams[1]: expected float32 like streams[0], got float64"),
        ({"batch": 2}, "ValueError: streams[1]: expected a batch of 3 like streams[0], got 2"),
        ({"D": 8}, "ValueError: streams[1]: expected D = 37, the H before it, got 8"),
        ({"head": 1}, "TypeError: head: expected a list or a tuple, got int"),
        ({"head": (1,)}, "ValueError: head: expected w and b, got 1 of them"),
        ({"head": (None, np.zeros(2, "f"))}, "TypeError: w: expected an array, got None"),
        ({"head": (np.zeros((H, 2)), np.zeros(2))}, "TypeError: w: expected float32 like the str"),
        ({"head": (np.zeros((8, 2), "f"), np.zeros(2, "f"))}, "ValueError: w: expected shape (H, "),
        ({"head": (np.zeros((H, 2), "f"), np.zeros(3, "f"))}, "ValueError: b: expected shape (C,"),
    ],
)
def test_streams_and_head_that_do_not_fit_are_refused(change, error, backend, rng):
    dtype, batch, width = change.get("dtype", "f"), change.get("batch", 3), change.get("D", H)
    second = [np.zeros(shape, dtype) for shape in ((width, 5), (5, 5), 5)]
    streams = streams_of(["lstm"], np.float32, rng)
    streams.append(fastrnn.Stream("rnn", *second, batch=batch))
    if "head" in change:
        streams.pop()
    if "again" in change:
        streams[1] = streams[0]
    streams[1:] = [change.get(i, s) for i, s in enumerate(streams[1:], 1)]
    with pytest.raises((TypeError, ValueError)) as caught:
        fastrnn.Chain(change.get("streams", streams), change.get("head"))
    assert f"{caught.type.__name__}: {caught.value}".startswith(error)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"x": np.zeros((3, D))}, "TypeError: x: expected float32 like"),
        ({"x": np.zeros((3, H), "f")}, "ValueError: x: expected shape (3, 7), got (3, 37)"),
        ({"out": np.zeros((3, 6), "f")}, "ValueError: out: expected shape (3, 5), got (3, 6)"),
        ({"out": [1]}, "TypeError: out: expected an ndarray, got list"),
    ],
)
def test_error_of_a_step_leaves_the_states_of_a_chain(change, error, backend, rng, x):
    chain = fastrnn.Chain(streams_of(["lstm", "gru"], np.float32, rng), head_of(np.float32, rng))
    chain.step(x)
    before = chain.state
    with pytest.raises((TypeError, ValueError)) as caught:
        chain.step(**({"x": x} | change))
    assert f"{caught.type.__name__}: {caught.value}".startswith(error)
    assert_same_states(chain.state, before)


def test_chain_that_fails_midway_gives_all_states_back(head, x, rng):
    class Failing(fastrnn.Stream):
        def step(self, x, out=None):
            raise ValueError("midway")

    streams = streams_of(["lstm"], np.float32, rng)
    weights = [np.zeros(shape, "f") for shape in ((H, 3 * H), (H, 3 * H), 3 * H)]
    chain = fastrnn.Chain([*streams, Failing("gru", *weights, batch=3)], head)
    with pytest.raises(ValueError, match="midway"):
        chain.step(x)
    assert not any(a.any() for state in chain.state for a in state.values())


def test_chain_keeps_what_it_needs(chain, x):
    expected = chain.step(x)
    chain.reset()
    step = chain.step
    del chain
    gc.collect()
    assert_same_bits(step(x), expected)
