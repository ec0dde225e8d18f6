"""Layer-normalised LSTM and GRU: the three oracles, what every cell promises, errors."""

import copy

import numpy as np
import pytest
import torch
from util import TWIN, assert_close, assert_same_bits

import fastrnn
import fastrnn.torch
from fastrnn import LayerNorm, Options, Stream, nn, prepare
from fastrnn.backends import _kernels
from fastrnn.cells import WITH_NORM
from fastrnn.gradcheck import eval_numerical_gradient_array
from fastrnn.layers import recurrent

GATES = {"lstm": 4, "gru": 3}
RECORDS = {"lstm": recurrent.LSTM, "gru": recurrent.GRU}
MASKED = Options(zoneout_h=0.2, dropout_h=0.3, dropout_x=0.2, dropout_weights=0.2, seed=3)
GATED = Options(dropout_candidate=0.3, hard_sigmoid=0.2, clip=2.0, seed=2)
CASES = [
    ("lstm", {}),
    *(("lstm", {"gates": gates}) for gates in ("fico", "ifgo", "iofg")),
    ("lstm", {"c0": False, "transposed": True}),
    ("lstm", {"options": MASKED._replace(zoneout_c=0.3)}),
    ("lstm", {"options": GATED, "eps": 0.1, "gates": "fico"}),
    ("gru", {}),
    ("gru", {"bh": True, "gates": "zrn"}),
    ("gru", {"bh": True, "transposed": True}),
    ("gru", {"options": MASKED, "bh": True}),
    ("gru", {"options": GATED, "eps": 0.1}),
]
# Weights as they lie and packed; threads that share rows, and units.
SHAPES = [
    (1, 1, 1, 1),
    (1, 2, 3, 9),
    (2, 3, 5, 33),
    (5, 6, 7, 17),
    (33, 4, 16, 40),
    (3, 40, 33, 130),
]


@pytest.fixture(autouse=True)
def work_is_split(small_work_is_split):
    """Threads share units, or rows, however little there is to do."""


def operands_of(cell, keywords, rng, dtype, N, T, D, H):
    """Arrays by name, those of the LayerNorm too, and the keywords that are none."""

    def a(*shape):
        return rng.standard_normal(shape).astype(dtype)

    GH, keywords = GATES[cell] * H, dict(keywords)
    arrays = {"x": a(N, T, D), "h0": a(N, H), "Wx": a(D, GH), "Wh": a(H, GH), "b": a(GH)}
    if keywords.get("transposed"):
        arrays |= {name: np.ascontiguousarray(arrays[name].T) for name in ("Wx", "Wh")}
    if keywords.pop("bh", False):
        arrays["bh"] = a(GH)
    if cell == "lstm" and keywords.pop("c0", True):
        arrays["c0"] = a(N, H)
    arrays |= {name: a(width * H) for name, width in WITH_NORM[cell].norm.items()}
    return arrays, keywords


def norm_of(cell, arrays, eps=1e-5):
    return LayerNorm(**{name: arrays[name] for name in WITH_NORM[cell].norm}, eps=eps)


def forward(cell, arrays, *, eps=1e-5, weights=("Wx", "Wh", "b"), **keywords):
    first = [arrays[name] if isinstance(name, str) else name for name in ("x", "h0", *weights)]
    rest = {name: arrays[name] for name in ("c0", "bh") if name in arrays and len(weights) == 3}
    rest |= {"c0": arrays["c0"]} if "c0" in arrays else {}
    norm = norm_of(cell, arrays, eps)
    return getattr(fastrnn, f"{cell}_forward")(*first, layer_norm=norm, **rest, **keywords)


def backward(cell, h, cache, seed=4, **keywords):
    """Gradients of random upstream ones."""
    rng, last = np.random.default_rng(seed), ("hT", "cT") if cell == "lstm" else ("hT",)
    dlast = {f"d{name}": getattr(cache, name) for name in last}
    dlast = {name: rng.standard_normal(a.shape).astype(a.dtype) for name, a in dlast.items()}
    dh = rng.standard_normal(cache.h.shape).astype(h.dtype)
    return getattr(fastrnn, f"{cell}_backward")(dh, cache, **dlast, **keywords)


def results(cell, arrays, backend=None, backward_on=None, **keywords):
    """Outputs, last states and gradients by name."""
    h, cache = forward(cell, arrays, backend=backend, **keywords)
    names = ["x", "h0", "Wx", "Wh", "b", *(n for n in ("bh", "c0") if n in arrays)]
    gradients = backward(cell, h, cache, backend=backward_on or backend)
    found = zip([*names, *WITH_NORM[cell].norm], gradients, strict=True)
    last = {name: a for name in ("hT", "cT") if (a := getattr(cache, name, None)) is not None}
    return {"h": h} | last | {f"d{name}": d for name, d in found}


def assert_all(compare, actual, expected, *tolerance):
    for name, a in expected.items():
        compare(actual[name], a, *tolerance, name)


# ---- oracles -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "keywords"), CASES, ids=str)
def test_gradients_are_those_of_calculus(cell, keywords, backend, rng):
    arrays, keywords = operands_of(cell, keywords, rng, np.float64, 2, 4, 3, 5)
    h, cache = forward(cell, arrays, **keywords)
    dh = rng.standard_normal(h.shape)
    gradients = getattr(fastrnn, f"{cell}_backward")(dh, cache)
    names = ["x", "h0", "Wx", "Wh", "b", *(n for n in ("bh", "c0") if n in arrays)]
    for name, d in zip([*names, *WITH_NORM[cell].norm], gradients, strict=True):
        numerical = eval_numerical_gradient_array(
            lambda _: forward(cell, arrays, **keywords)[0], arrays[name], dh
        )
        assert_close(d, numerical, 1e-6, name)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("cell", "keywords"), CASES, ids=str)
def test_kernels_equal_the_reference(cell, keywords, shape, dtype, isa, rng):
    arrays, keywords = operands_of(cell, keywords, rng, dtype, *shape)
    if dtype == np.float32:  # roundings of a state are not to grow from step to step
        keywords.setdefault("eps", 1.0)
    fastrnn.set_num_threads(1)
    actual = results(cell, arrays, **keywords)
    assert_all(assert_close, actual, results(cell, arrays, "numpy", **keywords), TWIN[dtype.name])
    for n in (2, 3):
        fastrnn.set_num_threads(n)
        assert_all(assert_same_bits, results(cell, arrays, **keywords), actual)
    plain = forward(cell, arrays, **keywords | {"options": None})
    h, kept = forward(cell, arrays, **keywords | {"options": None}, training=False)
    assert_same_bits(h, plain[0])
    assert_same_bits(kept.hT, plain[1].hT)
    last, _ = forward(
        cell, arrays, **keywords | {"options": None}, training=False, return_sequence=False
    )
    assert_same_bits(last, kept.hT)


def torch_loop(cell, t, eps):
    """h of all steps in torch's operations, gates i f o g and r z n."""
    x, h, c, H = t["x"], t["h0"], t.get("c0"), t["h0"].shape[1]
    layer_norm, hs = torch.nn.functional.layer_norm, []
    for step in range(x.shape[1]):
        a = layer_norm(x[:, step] @ t["Wx"], t["b"].shape, t["gain_x"], eps=eps) + t["b"]
        u = layer_norm(h @ t["Wh"], t["b"].shape, t["gain_h"], eps=eps)
        if cell == "lstm":
            i, f, o, g = (a + u).split(H, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * layer_norm(c, (H,), t["gain_c"], t["shift_c"], eps).tanh()
        else:
            (ar, az, an), (ur, uz, un) = a.split(H, 1), (u + t["bh"]).split(H, 1)
            r, z = (ar + ur).sigmoid(), (az + uz).sigmoid()
            h = (1 - z) * (an + r * un).tanh() + z * h
        hs.append(h)
    return torch.stack(hs, 1)


@pytest.mark.parametrize("eps", [1e-5, 0.1])
@pytest.mark.parametrize("shape", [(3, 5, 4, 18), (17, 3, 30, 70)], ids=str)
@pytest.mark.parametrize("cell", GATES)
def test_a_loop_of_torch_has_the_same_values_and_gradients(cell, shape, eps, backend, rng):
    arrays, _ = operands_of(cell, {"bh": cell == "gru"}, rng, np.float64, *shape)
    h, cache = forward(cell, arrays, eps=eps)
    tensors = {name: torch.tensor(a, requires_grad=True) for name, a in arrays.items()}
    expected = torch_loop(cell, tensors, eps)
    dh = rng.standard_normal(h.shape)
    expected.backward(torch.tensor(dh))
    assert_close(h, expected.detach().numpy(), 1e-12)
    gradients = getattr(fastrnn, f"{cell}_backward")(dh, cache)
    beside = ["c0"] if cell == "lstm" else ["bh"]
    names = ["x", "h0", "Wx", "Wh", "b", *beside, *WITH_NORM[cell].norm]
    for name, d in zip(names, gradients, strict=True):
        assert_close(d, tensors[name].grad.numpy(), 1e-11, name)


# ---- the numbers of a row ------------------------------------------------------------------------


@pytest.mark.parametrize("cell", GATES)
def test_rows_far_from_zero_lose_no_more_than_their_own_roundings(cell, backend, rng):
    """LN takes the mean away, so 1000 more in every number of x Wx changes nothing else."""
    arrays, _ = operands_of(cell, {}, rng, np.float32, 4, 3, 8, 40)
    arrays["x"][..., 0] = 1
    h, _ = forward(cell, arrays)
    arrays["Wx"][0] += 1000
    shifted, _ = forward(cell, arrays)
    wide = {name: a.astype(np.float64) for name, a in arrays.items()}
    assert_close(shifted.astype(np.float64), forward(cell, wide)[0], 1000 * 2**-20)
    assert_close(shifted, h, 1000 * 2**-20)


@pytest.mark.parametrize("cell", GATES)
def test_a_row_without_variance_is_finite(cell, implementation, dtype):
    shape = {"x": (2, 3, 4), "h0": (2, 5), "Wx": (4, 5 * GATES[cell])}
    arrays = {name: np.zeros(size, dtype) for name, size in shape.items()}
    GH = arrays["Wx"].shape[1]
    arrays |= {"Wh": np.zeros((5, GH), dtype), "b": np.zeros(GH, dtype)}
    arrays |= {name: np.ones(w * 5, dtype) for name, w in WITH_NORM[cell].norm.items()}
    assert all(np.isfinite(a).all() for a in results(cell, arrays).values())


def test_of_a_single_unit_nothing_is_left_of_c(implementation, dtype, rng):
    """LN(c) is 0 whatever c is, and its gradient, with however large a scale, exactly 0."""
    arrays, _ = operands_of("lstm", {}, rng, dtype, 33, 3, 4, 1)
    h, cache = forward("lstm", arrays)
    *_, dc0, _, _, _, _ = fastrnn.lstm_backward(h, cache)
    assert not dc0.any()


@pytest.mark.parametrize("where", ["x", "h0"])
@pytest.mark.parametrize("cell", GATES)
def test_nan_stays_in_its_row(cell, where, implementation, rng):
    arrays, _ = operands_of(cell, {}, rng, np.float32, 9, 3, 4, 21)
    h, _ = forward(cell, arrays)
    arrays[where][2] = np.nan
    other, _ = forward(cell, arrays)
    assert np.isnan(other[2]).all()
    assert_same_bits(np.delete(other, 2, axis=0), np.delete(h, 2, axis=0))


# ---- what every cell promises --------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["batch_first", "time_first", "packed"])
@pytest.mark.parametrize("reset_to", ["zeros", "initial"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", GATES)
def test_lengths_resets_and_layouts(cell, reverse, reset_to, layout, implementation, rng):
    N, T, D, H = 5, 6, 3, 19
    arrays, _ = operands_of(cell, {"bh": cell == "gru"}, rng, np.float64, N, T, D, H)
    lengths, reset = np.array([6, 4, 4, 1, 0]), rng.random((N, T)) < 0.3
    given = {"lengths": lengths, "reverse": reverse, "reset_to": reset_to}
    given["options"] = Options(zoneout_h=0.3, dropout_h=0.3, dropout_x=0.3, seed=11)
    expected, cache = forward(cell, arrays, reset=reset, **given, backend="numpy")
    dh = rng.standard_normal(expected.shape)
    gradients = getattr(fastrnn, f"{cell}_backward")(dh, cache, backend="numpy")
    taken = (np.arange(T) < lengths[:, None]).T

    def laid_out(a):
        if layout == "batch_first":
            return a
        a = np.ascontiguousarray(a.swapaxes(0, 1))
        return a[taken] if layout == "packed" else a

    there = arrays | {"x": laid_out(arrays["x"])}
    h, cache = forward(cell, there, reset=laid_out(reset), layout=layout, **given)
    assert_close(h, laid_out(expected), 1e-12)
    dx, *others = getattr(fastrnn, f"{cell}_backward")(laid_out(dh), cache)
    assert_close(dx, laid_out(gradients[0]), 1e-11)
    for a, b in zip(others, gradients[1:], strict=True):
        assert_close(a, b, 1e-11)


@pytest.mark.parametrize("rows", [3, 50])
@pytest.mark.parametrize("cell", GATES)
def test_index_reads_rows_of_a_table(cell, rows, implementation, dtype, rng):
    arrays, _ = operands_of(cell, {}, rng, dtype, 6, 7, 5, 17)
    table = rng.standard_normal((rows, 5)).astype(dtype)
    index = rng.integers(rows, size=(6, 7))
    expected = results(cell, arrays | {"x": table[index]}, eps=1.0)
    actual = results(cell, arrays | {"x": table}, eps=1.0, index=index)
    dx = np.zeros_like(table)
    np.add.at(dx, index, expected["dx"])
    assert_all(assert_close, actual, expected | {"dx": dx}, TWIN[dtype.name])


@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (9, 4, 6, 50)], ids=str)
@pytest.mark.parametrize("cell", GATES)
def test_the_width_of_a_vector_changes_no_bit(cell, shape, dtype, rng):
    """Of instruction sets that fuse multiply-adds."""
    arrays, _ = operands_of(cell, {"bh": cell == "gru"}, rng, dtype, *shape)
    found = []
    for isa in [name for name in _kernels.isas() if name != "baseline"]:
        fastrnn.use_isa(isa)
        found.append(results(cell, arrays))
    for other in found[1:]:
        assert_all(assert_same_bits, other, found[0])


@pytest.mark.parametrize("cell", GATES)
def test_caches_go_from_one_backend_to_the_other(cell, dtype, rng):
    arrays, _ = operands_of(cell, {"bh": cell == "gru"}, rng, dtype, 5, 6, 4, 13)
    expected = results(cell, arrays, "numpy", eps=1.0)
    for pair in (("numpy", "cython"), ("cython", "numpy")):
        found = results(cell, arrays, *pair, eps=1.0)
        assert_all(assert_close, found, expected, TWIN[dtype.name])


@pytest.mark.parametrize("shape", [(5, 8, 3, 20), (1, 4, 3, 9), (40, 6, 3, 30)], ids=str)
@pytest.mark.parametrize("cell", GATES)
def test_pieces_have_the_bits_of_the_whole(cell, shape, isa, rng):
    T, record = shape[1], RECORDS[cell]
    arrays, _ = operands_of(cell, {"bh": cell == "gru"}, rng, np.float32, *shape)
    whole, cache = forward(cell, arrays)
    dh = rng.standard_normal(whole.shape).astype(np.float32)
    nothing = (None,) * len(record.states)
    expected = recurrent.backward(record, dh, nothing, cache)
    expected = [*expected[2:5], *recurrent._given(*expected[5:])]
    first, pieces = {k: arrays[k] for k in ("h0", "c0") if k in arrays}, []
    for steps in (slice(0, 3), slice(3, T)):
        h, last = forward(cell, arrays | first | {"x": arrays["x"][:, steps]})
        assert_same_bits(h, np.ascontiguousarray(whole[:, steps]))
        first = {f"{k[0]}0": getattr(last, k) for k in ("hT", "cT") if hasattr(last, k)}
        pieces.append((steps, last))
    dlast, onto = nothing, [np.zeros_like(d) for d in expected]
    for steps, last in reversed(pieces):
        _, dlast, *_ = recurrent.backward(record, dh[:, steps], dlast, last, onto=onto)
    for a, b in zip(onto, expected, strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("shape", [(1, 4, 3, 9), (2, 5, 3, 40), (9, 4, 5, 33)], ids=str)
@pytest.mark.parametrize("cell", GATES)
def test_streams_steps_and_prepared_weights(cell, shape, backend, dtype, rng):
    N, T, _, H = shape
    keywords = {"bh": cell == "gru", "c0": False}
    arrays, _ = operands_of(cell, keywords, rng, dtype, *shape)
    arrays["h0"][...] = 0
    norm, bias = norm_of(cell, arrays), {k: arrays[k] for k in ("bh",) if k in arrays}
    h, _ = forward(cell, arrays, training=False)
    weights = prepare(cell, *(arrays[k] for k in ("Wx", "Wh", "b")), **bias, training=True)
    calls = [forward(cell, arrays, eps=1.0, weights=w) for w in (("Wx", "Wh", "b"), (weights,))]
    for a, b in zip(*(backward(cell, *call) for call in calls), strict=True):
        assert_close(a, b, TWIN[dtype.name])
    given = LayerNorm(*(a if a is None else a.copy() for a in norm[:-1]), norm.eps)
    stream = Stream(cell, weights, batch=N, layer_norm=given)
    for name in WITH_NORM[cell].norm:
        getattr(given, name)[...] = np.nan  # it reads copies
    time_first = np.ascontiguousarray(arrays["x"].swapaxes(0, 1))
    compare = assert_same_bits if backend == "cython" else lambda a, b: assert_close(a, b, 1e-5)
    compare(stream.steps(time_first), np.ascontiguousarray(h.swapaxes(0, 1)))
    stream.reset()
    twin, states = copy.copy(stream), [np.zeros((N, H), dtype)] * len(RECORDS[cell].states)
    step = getattr(fastrnn, f"{cell}_step_forward")
    for t in range(T):
        compare(stream.step(time_first[t]), np.ascontiguousarray(h[:, t]))
        compare(twin.step(time_first[t]), np.ascontiguousarray(h[:, t]))
        *states, _ = step(time_first[t], *states, weights, layer_norm=norm, training=False)
        compare(states[0], np.ascontiguousarray(h[:, t]))


@pytest.mark.parametrize("cell", GATES)
def test_a_step_is_a_sequence_of_one(cell, implementation, dtype, rng):
    arrays, _ = operands_of(cell, {"bh": cell == "gru"}, rng, dtype, 3, 1, 4, 21)
    h, cache = forward(cell, arrays, options=MASKED)
    states = [arrays[name] for name in ("h0", "c0") if name in arrays]
    weights = [arrays[name] for name in ("Wx", "Wh", "b")]
    given = {k: arrays[k] for k in ("bh",) if k in arrays}
    given |= {"layer_norm": norm_of(cell, arrays), "options": MASKED}
    step = getattr(fastrnn, f"{cell}_step_forward")
    *after, own = step(arrays["x"][:, 0], *states, *weights, **given)
    assert_close(after[0], h[:, 0].copy(), TWIN[dtype.name])
    zeros = [np.zeros_like(h[:, 0])] * (len(states) - 1)
    gradients = getattr(fastrnn, f"{cell}_step_backward")(h[:, 0], *zeros, own)
    expected = list(getattr(fastrnn, f"{cell}_backward")(h, cache))
    expected[0] = expected[0][:, 0].copy()
    if cell == "lstm":
        expected.insert(2, expected.pop(5))  # of c0, which a step has beside h
    for a, b in zip(gradients, expected, strict=True):
        assert_close(a, b, TWIN[dtype.name])


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5)], ids=str)
@pytest.mark.parametrize("cell", GATES)
def test_without_rows_or_steps_gradients_are_zeros(cell, shape, backend, rng):
    arrays, _ = operands_of(cell, {"bh": cell == "gru"}, rng, np.float32, *shape)
    h, cache = forward(cell, arrays)
    assert h.shape == (*shape[:2], shape[3])
    _, _, *weights = getattr(fastrnn, f"{cell}_backward")(h, cache)
    assert not any(d.any() for d in weights)


# ---- errors --------------------------------------------------------------------------------------


def wrong(cell, norm, **changes):
    return norm._replace(**{name: f(getattr(norm, name)) for name, f in changes.items()})


WRONG = [
    ("lstm", {"gain_x": lambda a: a[:-1]}, r"gain_x: expected shape (4*H,) = (20,), got (19,)"),
    ("gru", {"gain_h": lambda a: a[None]}, r"gain_h: expected shape (3*H,) = (15,), got (1, 15)"),
    ("lstm", {"shift_c": lambda a: a[:4]}, r"shift_c: expected shape (H,) = (5,), got (4,)"),
    ("gru", {"gain_c": lambda a: np.ones(5)}, r"gain_c: expected None for gru"),
    ("lstm", {"eps": lambda a: 0.0}, r"eps: expected a number above 0, got 0.0"),
    ("lstm", {"eps": lambda a: float("nan")}, r"eps: expected a number above 0, got nan"),
    ("gru", {"eps": lambda a: "x"}, r"eps: expected a number above 0, got 'x'"),
    ("gru", {"eps": lambda a: True}, r"eps: expected a number above 0, got True"),
]


@pytest.mark.parametrize(("cell", "changes", "text"), WRONG, ids=str)
def test_wrong_parameters_are_refused(cell, changes, text, backend, rng):
    arrays, _ = operands_of(cell, {}, rng, np.float64, 2, 3, 4, 5)
    norm, weights = norm_of(cell, arrays), [arrays[k] for k in ("Wx", "Wh", "b")]
    bad, states = wrong(cell, norm, **changes), [arrays["h0"]] * len(RECORDS[cell].states)
    _, cache = forward(cell, arrays)
    calls = [
        lambda: getattr(fastrnn, f"{cell}_forward")(
            arrays["x"], arrays["h0"], *weights, layer_norm=bad
        ),
        lambda: getattr(fastrnn, f"{cell}_step_forward")(
            arrays["x"][:, 0], *states, *weights, layer_norm=bad
        ),
        lambda: getattr(fastrnn, f"{cell}_backward")(cache.h, cache._replace(layer_norm=bad)),
        lambda: Stream(cell, *weights, layer_norm=bad),
    ]
    for call in calls:
        with pytest.raises(ValueError) as error:
            call()
        assert str(error.value) == text


def test_other_things_are_refused(backend, rng):
    arrays, _ = operands_of("lstm", {}, rng, np.float32, 2, 3, 4, 5)
    norm = norm_of("lstm", arrays)
    given = [arrays[k] for k in ("x", "h0", "Wx", "Wh", "b")]
    with pytest.raises(TypeError, match="layer_norm: expected fastrnn.LayerNorm, got dict"):
        fastrnn.lstm_forward(*given, layer_norm=norm._asdict())
    with pytest.raises(ValueError, match="peepholes: expected None with layer_norm"):
        fastrnn.lstm_forward(*given, layer_norm=norm, peepholes=np.ones(15, "f"))
    narrow = {"Wh": given[3][:2], "projection": np.ones((5, 2), "f")}
    prepared = prepare("lstm", given[2], b=given[4], **narrow)
    for call in (
        lambda: fastrnn.lstm_forward(given[0], given[1][:, :2], prepared, layer_norm=norm),
        lambda: fastrnn.lstm_forward(
            given[0], given[1][:, :2], given[2], b=given[4], **narrow, layer_norm=norm
        ),
        lambda: Stream("lstm", prepared, layer_norm=norm),
        lambda: Stream("lstm", given[2], b=given[4], **narrow, layer_norm=norm),
    ):
        with pytest.raises(ValueError, match="projection: expected None with layer_norm"):
            call()
    wide = norm._replace(gain_c=norm.gain_c.astype(np.float64))
    with pytest.raises(TypeError, match="gain_c: expected float32 like h, got float64"):
        fastrnn.lstm_forward(*given, layer_norm=wide)
    with pytest.raises(TypeError, match="gain_c: expected an array, got None"):
        fastrnn.lstm_forward(*given, layer_norm=norm._replace(gain_c=None))
    with pytest.raises(ValueError, match="layer_norm: expected None for rnn nonlinearity='tanh'"):
        Stream("rnn", *(a[..., :5] for a in given[2:]), layer_norm=norm)
    gru, _ = operands_of("gru", {}, rng, np.float32, 2, 3, 4, 5)
    with pytest.raises(ValueError, match="layer_norm: expected None for gru reset_after=False"):
        forward("gru", gru, reset_after=False)
    _, cache = forward("lstm", arrays)
    with pytest.raises(ValueError, match="x_product: expected shape"):
        fastrnn.lstm_backward(cache.h, cache._replace(x_product=cache.x_product[:, :2]))
    with pytest.raises(TypeError, match="options: expected fastrnn.Options with layer_norm, got"):
        fastrnn.lstm_backward(cache.h, cache._replace(options=None))
    with pytest.raises(TypeError, match="layer_norm: expected fastrnn.LayerNorm, got tuple"):
        fastrnn.lstm_backward(cache.h, cache._replace(layer_norm=tuple(norm)))
    onto = [np.zeros_like(a) for a in (*given[2:], *norm[:-1])]
    with pytest.raises(
        ValueError,
        match="onto: expected dWx, dWh, db, dgain_x, dgain_h, dgain_c, dshift_c, got 6 of them",
    ):
        recurrent.backward(RECORDS["lstm"], None, (None, None), cache, onto=onto[:-1])


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_gradients_do_not_grow_with_the_length(cell, rng):
    """As modules begin; from gains of 1 an LSTM's are a thousand times as large."""
    norms = []
    for T in (10, 300):
        module = getattr(nn, cell)(20, 64, layer_norm=True, dtype="float64", seed=0)
        dy = np.zeros((2, T, 64))
        dy[:, -1] = rng.standard_normal((2, 64))
        cache = module.forward(rng.standard_normal((2, T, 20)), training=True)[2]
        _, grads, _ = module.backward(dy, cache)
        norms.append(np.sqrt(sum((dw**2).sum() for dw in grads.values())))
    assert norms[1] < 2 * norms[0]
    of_torch = getattr(fastrnn.torch, f"LayerNorm{cell}")(20, 64)
    for name, w in module.params.items():
        if name.startswith(("gain", "shift")):
            np.testing.assert_array_equal(getattr(of_torch, name).detach().numpy(), w)
