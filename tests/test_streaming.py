"""Streams and prepared weights: the bits of the sequence functions, and no state but their own."""

import copy
import gc
import os
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from util import assert_same_bits

import fastrnn
from fastrnn.backends import _kernels

CELLS = {
    "rnn": (1, {}),
    "rnn_relu": (1, {"nonlinearity": "relu"}),
    "lstm": (4, {"gates": "iofg"}),
    "gru": (3, {"bh": True}),
    "gru_original": (3, {"bh": True, "reset_after": False}),
}
T, D, H = 5, 7, 37


def weights_of(name, dtype, rng):
    """Cell, (Wx, Wh, b) and keywords."""
    G, keywords = CELLS[name]
    arrays = [rng.standard_normal(shape) for shape in ((D, G * H), (H, G * H), (G * H,), (G * H,))]
    Wx, Wh, b, bh = (a.astype(dtype) / 3 for a in arrays)
    keywords = keywords | ({"bh": bh} if "bh" in keywords else {})
    return name.split("_")[0], (Wx, Wh, b), keywords


def forward(cell, x, *weights, **keywords):
    h0 = np.zeros((len(x), H), x.dtype)
    return getattr(fastrnn, f"{cell}_forward")(x, h0, *weights, **keywords)


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


def test_step_with_out_allocates_nothing(stream, x):
    out = np.empty((3, H), np.float32)
    stream.step(x, out)
    tracemalloc.start()
    for _ in range(100):
        stream.step(x, out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1000


# ---- errors --------------------------------------------------------------------------------------


def unaligned():
    return np.frombuffer(bytearray(3 * H * 4 + 1), np.float32, 3 * H, offset=1).reshape(3, H)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"x": np.zeros((3, D))}, "TypeError: x: expected float32 like"),
        ({"x": np.zeros((2, D), "f")}, "ValueError: x: expected shape (3, 7), got (2, 7)"),
        ({"x": None}, "TypeError: x: expected float32 like"),
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
        ({"cell": "tanh"}, "cell: expected one of ['rnn', 'lstm', 'gru'], got 'tanh'"),
        ({"batch": 0}, "batch: expected an integer of at least 1, got 0"),
        ({"gates": "abcd"}, "gates: expected one of"),
        ({"cell": ["lstm"]}, "cell: expected one of ['rnn', 'lstm', 'gru'], got ['lstm']"),
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
        ({"x": None}, "TypeError: x: expected float32 like"),
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
    G, keywords = CELLS[name]
    cell, size = name.split("_")[0], 129
    shapes = (size, G * size), (size, G * size), (G * size,)
    weights = [rng.standard_normal(shape).astype(np.float32) / size for shape in shapes]
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
    turned = (np.ascontiguousarray(W.T) for W in (Wx, Wh))
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
