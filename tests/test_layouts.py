"""Arrays of steps in another layout give the bits of (N, T, ...), forward and backward."""

import re

import numpy as np
import pytest
from util import BY_NAME, LAYERS, SEQUENCES, assert_same_bits, draw, upstream

import fastrnn

NAMES = [name for name in SEQUENCES if "index" not in LAYERS[name].operands]
SIZES = 9, 7, 5, 11  # N, T, D, H
OF_STEPS = ("x", "h", "c", "activations", "candidate", "reset")
layouts = pytest.mark.parametrize("layout", ["time_first", "packed"])


def laid(a, layout, lengths):
    """An array (N, T, ...) in that layout."""
    a = np.ascontiguousarray(np.swapaxes(a, 0, 1))
    return a[np.arange(len(a))[:, None] < lengths] if layout == "packed" else a


def forward(name, operands, **keywords):
    layer = LAYERS[name]
    by_name = {n: operands[n] for n in BY_NAME if n in operands}
    arrays = [a for n, a in operands.items() if n not in by_name]
    function = getattr(fastrnn, f"{layer.function}_forward")
    return function(*arrays, **by_name, **layer.keywords, **keywords)


def backward(name, dh, cache):
    layer = LAYERS[name]
    last = {f"d{state}": np.ones_like(getattr(cache, state)) for state in layer.last_states}
    return getattr(fastrnn, f"{layer.function}_backward")(dh, cache, **last)


@layouts
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_layouts_give_the_same_bits(
    name, layout, threads, implementation, small_work_is_split, dtype, rng
):
    fastrnn.set_num_threads(threads)
    operands = draw(LAYERS[name], rng, dtype, *SIZES)
    if layout == "packed":
        lengths = operands.get("lengths", np.full(SIZES[0], SIZES[1]))
        operands["lengths"] = np.sort(lengths)[::-1]
    lengths = operands.get("lengths")
    there = {n: laid(a, layout, lengths) if n in OF_STEPS else a for n, a in operands.items()}

    h, cache = forward(name, operands)
    (dh,) = upstream([h])
    dx, *gradients = backward(name, dh, cache)
    h_there, cache_there = forward(name, there, layout=layout)
    dx_there, *gradients_there = backward(name, laid(dh, layout, lengths), cache_there)

    assert_same_bits(h_there, laid(h, layout, lengths))
    assert_same_bits(dx_there, laid(dx, layout, lengths))
    for a, b in zip(gradients_there, gradients, strict=True):
        assert_same_bits(a, b)
    for field, b in cache._asdict().items():
        if isinstance(b, np.ndarray):
            b = laid(b, layout, lengths) if field in OF_STEPS else b
            assert_same_bits(getattr(cache_there, field), b, field)
    assert_same_bits(forward(name, there, layout=layout, training=False)[0], h_there)


@layouts
def test_caches_of_any_layout_go_to_the_other_backend(layout, rng):
    operands = draw(LAYERS["gru_bh_lengths"], rng, np.dtype(np.float64), *SIZES)
    operands["lengths"] = np.sort(operands["lengths"])[::-1]
    operands["x"] = laid(operands["x"], layout, operands["lengths"])
    results = []
    for there, back in ("numpy", "cython"), ("cython", "numpy"):
        h, cache = forward("gru_bh_lengths", operands, layout=layout, backend=there)
        with fastrnn.use_backend(back):
            results.append(backward("gru_bh_lengths", upstream([h])[0], cache))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_nothing_packed_is_nothing(implementation, dtype):
    x, h0 = np.zeros((0, 5), dtype), np.zeros((3, 4), dtype)
    Wx, Wh, b = np.ones((5, 4), dtype), np.ones((4, 4), dtype), np.ones(4, dtype)
    for N in 0, 3:
        steps = {"layout": "packed", "lengths": np.zeros(N, int)}
        h, cache = fastrnn.rnn_forward(x, h0[:N], Wx, Wh, b, **steps)
        dx, dh0, *_ = fastrnn.rnn_backward(h, cache, dhT=h0[:N] + 1)
        assert h.shape == (0, 4)
        assert dx.shape == x.shape
        assert_same_bits(dh0, h0[:N] + 1)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"layout": "NTD"},
            "layout: expected one of ['batch_first', 'time_first', 'packed'], got ",
        ),
        ({"layout": ["packed"]}, "layout: expected one of ['batch_first', "),
        ({"layout": "packed"}, "x: expected shape (U, D)"),
        (
            {"layout": "packed", "x": np.zeros((12, 5))},
            "lengths: expected integers with layout='packed', got None",
        ),
        (
            {"layout": "packed", "x": np.zeros((12, 5)), "lengths": [4, 4, 5]},
            "lengths: expected integers that fall, with the sum U = 12, got [4 4 5]",
        ),
        (
            {"layout": "packed", "x": np.zeros((12, 5)), "lengths": [5, 5, 3]},
            "lengths: expected integers that fall, with the sum U = 12, got [5 5 3]",
        ),
        (
            {"layout": "packed", "x": np.zeros((12, 5)), "lengths": [13, 0, -1]},
            "lengths: expected integers in [0, 12], got 13 at (0,)",
        ),
        (
            {"layout": "packed", "x": np.zeros((12, 5)), "lengths": [12, 0]},
            "lengths: expected shape (3,), got (2,)",
        ),
        (
            {"layout": "time_first", "x": np.zeros((4, 2, 5))},
            "h0: expected shape (N, H) = (2, H), got (3, 4)",
        ),
        (
            {"layout": "time_first", "x": np.zeros((4, 3, 5)), "reset": np.zeros((3, 4), bool)},
            "reset: expected shape (T, N) = (4, 3), got (3, 4)",
        ),
        (
            {"layout": "time_first", "x": np.zeros((4, 3, 5)), "lengths": [5, 4, 4]},
            "lengths: expected integers in [0, T] = [0, 4], got 5 at (0,)",
        ),
        (
            {"layout": "time_first", "x": np.zeros((7, 5)), "index": np.zeros((3, 4), int)},
            "layout: expected 'batch_first' with an index, got 'time_first'",
        ),
    ],
)
def test_what_does_not_fit_a_layout_is_refused(keywords, message, backend):
    arrays = {"x": np.zeros((3, 4, 5)), "h0": np.zeros((3, 4)), "Wx": np.zeros((5, 4))}
    arrays |= {"Wh": np.zeros((4, 4)), "b": np.zeros(4)}
    with pytest.raises(ValueError, match=re.escape(message)):
        fastrnn.rnn_forward(**(arrays | keywords))


def test_a_cache_whose_layout_was_changed_is_refused(backend, rng):
    x, h0 = rng.standard_normal((3, 4, 5)), np.zeros((3, 4))
    weights = np.zeros((5, 4)), np.zeros((4, 4)), np.zeros(4)
    h, cache = fastrnn.rnn_forward(x, h0, *weights)
    for layout, message in {
        "time_first": "h0: expected shape (N, H) = (4, H), got (3, 4)",
        "packed": "cache: expected the cache that rnn_forward returned, got RNNCache of an x with ",
        None: "layout: expected one of",
    }.items():
        with pytest.raises((ValueError, TypeError), match=re.escape(message)):
            fastrnn.rnn_backward(h, cache._replace(layout=layout))
    h, cache = fastrnn.rnn_step_forward(x[:, 0], h0, *weights)
    for layout in "time_first", "packed":
        message = f"takes one step, but it has layout={layout!r}"
        with pytest.raises(ValueError, match=message):
            fastrnn.rnn_step_backward(h, cache._replace(layout=layout))
