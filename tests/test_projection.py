"""LSTM with a projection beside what every cell has (util.LAYERS): options and peepholes, PyTorch,
steps, streams and prepared weights, errors."""

import copy
import pickle

import numpy as np
import pytest
import torch
from util import TWIN, assert_close, assert_same_bits

import fastrnn
from fastrnn import Chain, Options, Stream, prepare
from fastrnn.cells import LSTM
from fastrnn.gradcheck import eval_numerical_gradient_array
from fastrnn.layers import recurrent
from fastrnn.options import DROPOUT_CANDIDATE, DROPOUT_H, DROPOUT_WEIGHTS, DROPOUT_X, below

# N, T, D, H, P: weights as they lie and packed, rows and units shared, P of a unit and all but one.
SHAPES = [(1, 1, 1, 2, 1), (2, 3, 5, 33, 7), (3, 2, 4, 18, 17), (33, 4, 16, 40, 16)]
SHAPES += [(3, 9, 33, 130, 65)]
OPTIONS = [
    None,
    Options(zoneout_h=0.3, zoneout_c=0.2, seed=5),
    Options(dropout_h=0.4, dropout_candidate=0.3, seed=2**64 - 1),
    Options(dropout_x=0.3, dropout_weights=0.4, clip=0.5, hard_sigmoid=0.2, seed=7),
]
NAMES = ("x", "h0", "Wx", "Wh", "b", "c0", "peepholes", "projection")


def drawn(rng, dtype, N, T, D, H, P, peepholes=True):
    """Arrays by name, in the order of the gradients."""
    shapes = [(N, T, D), (N, P), (D, 4 * H), (P, 4 * H), (4 * H,), (N, H), (3 * H,), (H, P)]
    arrays = {
        name: rng.standard_normal(shape).astype(dtype)
        for name, shape in zip(NAMES, shapes, strict=True)
    }
    for name in ("Wx", "Wh", "projection"):
        arrays[name] /= np.dtype(dtype).type(len(arrays[name]) ** 0.5)
    return arrays if peepholes else {n: a for n, a in arrays.items() if n != "peepholes"}


def forward(arrays, **keywords):
    return fastrnn.lstm_forward(**arrays, **keywords)


def results(arrays, backward=None, **keywords):
    """Outputs and gradients."""
    h, cache = forward(arrays, **keywords)
    rng = np.random.default_rng(1)
    dh, dhT, dcT = (rng.standard_normal(a.shape).astype(a.dtype) for a in (h, cache.hT, cache.cT))
    backward = backward or keywords.get("backend")
    gradients = fastrnn.lstm_backward(dh, cache, dhT=dhT, dcT=dcT, backend=backward)
    return [h, cache.hT, cache.cT, *gradients]


# ---- oracles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_are_those_of_calculus(options, rng):
    arrays = drawn(rng, np.float64, 2, 4, 3, 5, 3)
    given = {"options": options, "lengths": [4, 3], "reset": rng.random((2, 4)) < 0.3}
    given["reset_to"] = "initial"
    h, cache = forward(arrays, **given)
    dh, dcT = rng.standard_normal(h.shape), rng.standard_normal(cache.cT.shape)
    gradients = fastrnn.lstm_backward(dh, cache, dcT=dcT)

    def loss(_):
        h, cache = forward(arrays, **given)
        return np.array((h * dh).sum() + (cache.cT * dcT).sum())

    for name, d in zip(NAMES, gradients, strict=True):
        numerical = eval_numerical_gradient_array(loss, arrays[name], np.array(1.0))
        assert_close(d, numerical, 1e-7, name)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_kernels_equal_the_reference(options, shape, isa, dtype, small_work_is_split, rng):
    arrays, N, T = drawn(rng, dtype, *shape), *shape[:2]
    given = {"options": options, "gates": "ifgo", "lengths": rng.integers(T + 1, size=N)}
    given |= {"reset": rng.random((N, T)) < 0.3, "reverse": True}
    expected = results(arrays, **given, backend="numpy")
    fastrnn.set_num_threads(1)
    actual = results(arrays, **given)
    for a, b in zip(actual, expected, strict=True):
        assert_close(a, b, TWIN[dtype.name])
    for n in (2, 3):
        fastrnn.set_num_threads(n)
        for a, b in zip(results(arrays, **given), actual, strict=True):
            assert_same_bits(a, b)
    for a, b in zip(results(arrays, "cython", **given, backend="numpy"), expected, strict=True):
        assert_close(a, b, TWIN[dtype.name])  # the caches are the same


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_those_of_torch(shape, implementation, dtype, rng):
    _, _, D, H, P = shape
    theirs = torch.nn.LSTM(D, H, proj_size=P, batch_first=True, dtype=getattr(torch, dtype.name))
    Wx, Wh, b, bh, Whr = (p.detach().numpy() for p in theirs.parameters())
    arrays = drawn(rng, dtype, *shape)
    arrays = {name: arrays[name] for name in ("x", "h0", "c0")}
    own = {"Wx": Wx, "Wh": Wh, "b": b + bh, "projection": Whr, "transposed": True}
    h, hT, cT, *gradients = results(arrays, **own, gates="ifgo")
    x, h0, c0 = (torch.tensor(a, requires_grad=True) for a in arrays.values())
    y, last = theirs(x, (h0[None], c0[None]))
    outputs = [y, *(state[0] for state in last)]
    for a, out in zip((h, hT, cT), outputs, strict=True):
        assert_close(a, out.detach().numpy(), TWIN[dtype.name])
    rng = np.random.default_rng(1)
    douts = [torch.tensor(rng.standard_normal(a.shape).astype(dtype)) for a in (h, hT, cT)]
    w_ih, w_hh, b_ih, _, w_hr = theirs.parameters()
    wanted = torch.autograd.grad(outputs, [x, h0, w_ih, w_hh, b_ih, c0, w_hr], douts)
    for a, d in zip(gradients, wanted, strict=True):
        assert_close(a, d.numpy(), TWIN[dtype.name])


def loop_of_torch(t, o, H, P):
    """h of all steps in PyTorch's operations."""

    def kept(kind, p, *shape, step=0):
        dropped = below(o.seed, kind, p, range(shape[0]), shape[1], step)
        return torch.tensor(~dropped).double() / (1 - p)

    (N, T, D), h, c = t["x"].shape, t["h0"], t["c0"]
    x = t["x"] * kept(DROPOUT_X, o.dropout_x, N, D)[:, None]
    Wh = t["Wh"] * kept(DROPOUT_WEIGHTS, o.dropout_weights, 4 * H, P).T
    of_h, (p_i, p_f, p_o) = kept(DROPOUT_H, o.dropout_h, N, P), t["peepholes"].split(H)
    gate, found = (lambda a: (0.2 * a + 0.5).clamp(0, 1)) if o.hard_sigmoid else torch.sigmoid, []
    clip = (lambda a: a) if o.clip is None else (lambda a: a.clamp(-o.clip, o.clip))
    for s in range(T):
        a_i, a_f, a_o, a_g = (x[:, s] @ t["Wx"] + t["b"] + (of_h * h) @ Wh).split(H, 1)
        i, f = (gate(clip(a + p * c)) for a, p in ((a_i, p_i), (a_f, p_f)))
        g = kept(DROPOUT_CANDIDATE, o.dropout_candidate, N, H, step=s) * torch.tanh(clip(a_g))
        new_c = f * c + i * g
        new_h = (gate(clip(a_o + p_o * new_c)) * torch.tanh(new_c)) @ t["projection"]
        h = torch.where(torch.tensor(below(o.seed, 0, o.zoneout_h, range(N), P, s)), h, new_h)
        c = torch.where(torch.tensor(below(o.seed, 1, o.zoneout_c, range(N), H, s)), c, new_c)
        found.append(h)
    return torch.stack(found, 1)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_loop_of_torch_has_the_same_values_and_gradients(options, rng):
    arrays = drawn(rng, np.float64, 3, 5, 4, 18, 7)
    h, cache = forward(arrays, options=options)
    dh = rng.standard_normal(h.shape)
    tensors = {name: torch.tensor(a, requires_grad=True) for name, a in arrays.items()}
    y = loop_of_torch(tensors, options or Options(), 18, 7)
    assert_close(h, y.detach().numpy(), 1e-12)
    wanted = torch.autograd.grad(y, list(tensors.values()), torch.tensor(dh))
    for a, d in zip(fastrnn.lstm_backward(dh, cache), wanted, strict=True):
        assert_close(a, d.numpy(), 1e-11)


# ---- pieces, steps, streams ----------------------------------------------------------------------


def test_pieces_make_the_whole(isa, dtype, rng):
    arrays, options = drawn(rng, dtype, 5, 8, 3, 20, 9), OPTIONS[1]._replace(dropout_h=0.2)
    whole, cache = forward(arrays, options=options)
    dh = rng.standard_normal(whole.shape).astype(dtype)
    expected = recurrent.backward(LSTM, dh, (None, None), cache)
    pieces, states = [], {name: arrays[name] for name in ("h0", "c0")}
    for begin, end in ((0, 3), (3, 8)):
        piece = arrays | states | {"x": arrays["x"][:, begin:end]}
        h, last = forward(piece, options=options._replace(first_step=begin))
        assert_same_bits(h, np.ascontiguousarray(whole[:, begin:end]))
        states = {"h0": last.hT, "c0": last.cT}
        pieces.append((dh[:, begin:end], last))
    dlast, onto = (None, None), [np.zeros_like(d) for d in expected[2:] if d is not None]
    for d, last in reversed(pieces):
        _, dlast, *_ = recurrent.backward(LSTM, d, dlast, last, onto=onto)
    for a, b in zip((*dlast, *onto), (*expected[1], *expected[2:5], *expected[6:]), strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("options", [None, OPTIONS[1]], ids=str)
def test_steps_streams_and_prepared_weights(options, transposed, implementation, dtype, rng):
    N, T, H, P = 3, 5, 17, 9
    arrays = drawn(rng, dtype, N, T, 4, H, P)
    if transposed:
        turned = {n: np.ascontiguousarray(arrays[n].T) for n in ("Wx", "Wh", "projection")}
        arrays |= turned
    weights = {name: arrays[name] for name in ("Wx", "Wh", "b", "projection")}
    others = {"peepholes": arrays["peepholes"], "options": options}
    form = {"transposed": transposed}
    h, cache = forward(arrays, options=options, **form, training=False)
    x, steps = arrays["x"].swapaxes(0, 1).copy(), h.swapaxes(0, 1).copy()
    prepared = prepare("lstm", **weights, **form)
    state = {"h": arrays["h0"], "c": arrays["c0"]}
    for given in ({**weights, **form}, {"Wx": prepared}):
        stream = Stream("lstm", **given, **others, batch=N)
        stream.state = state
        assert_same_bits(stream.steps(x), steps)
        assert_same_bits(stream.state["c"], cache.cT)
        stream.state = state
        states = list(state.values())
        for t in range(T):
            *states, _ = fastrnn.lstm_step_forward(x[t], *states, **given, **others, training=False)
            assert_same_bits(states[0], steps[t])
            assert_same_bits(stream.step(x[t]), steps[t])
    for twin in (copy.copy(prepared), pickle.loads(pickle.dumps(prepared))):
        given = {name: a for name, a in arrays.items() if name not in weights}
        assert_same_bits(forward(given | {"Wx": twin}, options=options, training=False)[0], h)


@pytest.mark.parametrize("training", [False, True])
def test_prepared_weights_go_backward(training, implementation, dtype, rng):
    arrays = drawn(rng, dtype, 9, 4, 5, 20, 7)
    given = {name: arrays.pop(name) for name in ("Wx", "Wh", "b", "projection")}
    prepared = prepare("lstm", **given, training=training)
    for a, b in zip(results(arrays | {"Wx": prepared}), results(arrays | given), strict=True):
        assert_same_bits(a, b)


def test_a_chain_hands_on_what_is_projected(backend, rng):
    first, second = (drawn(rng, np.float32, 2, 4, D, 12, 5, False) for D in (3, 5))
    streams = []
    for arrays in (first, second):
        arrays["h0"][...], arrays["c0"][...] = 0, 0
        weights = {name: arrays[name] for name in ("Wx", "Wh", "b", "projection")}
        streams.append(Stream("lstm", **weights, batch=2))
    head = rng.standard_normal((5, 3)).astype("f"), rng.standard_normal(3).astype("f")
    second["x"], _ = forward(first, training=False)
    expected, _ = fastrnn.temporal_affine_forward(forward(second, training=False)[0], *head)
    chain, x = Chain(streams, head), first["x"].swapaxes(0, 1).copy()
    for t in range(4):
        assert_same_bits(chain.step(x[t]), np.ascontiguousarray(expected[:, t]))
    chain.reset()
    assert_same_bits(chain.steps(x), expected.swapaxes(0, 1).copy())


# ---- errors --------------------------------------------------------------------------------------

WRONG = [
    ({"projection": np.ones((5, 5)), "Wh": np.ones((5, 20)), "h0": np.ones((2, 5))}, ValueError),
    ({"projection": np.ones((5, 6)), "Wh": np.ones((6, 20)), "h0": np.ones((2, 6))}, ValueError),
    ({"projection": np.ones((4, 3))}, ValueError),
    ({"projection": np.ones((5, 3), "f")}, TypeError),
    ({"projection": None}, ValueError),
    ({"Wh": np.ones((5, 20))}, ValueError),
    ({"h0": np.ones((2, 5))}, ValueError),
    ({"c0": np.ones((2, 3))}, ValueError),
]
TEXTS = [
    "projection: expected shape (H, P) with P below H = 5, got (5, 5)",
    "projection: expected shape (H, P) with P below H = 5, got (5, 6)",
    "projection: expected shape (H, P) = (5, 3), got (4, 3)",
    "projection: expected float64 like x, got float32",
    "c0: expected shape (N, H) = (2, 3), got (2, 5)",
    "Wh: expected shape (P, 4*H) = (3, 20), got (5, 20)",
    "Wh: expected shape (P, 4*H) = (5, 20), got (3, 20)",
    "Wx: expected shape (D, 4*H) = (4, 12), got (4, 20)",
]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [(*wrong, text) for wrong, text in zip(WRONG, TEXTS, strict=True)],
    ids=TEXTS,
)
def test_what_does_not_fit_is_refused(change, error, text, backend, rng):
    arrays = drawn(rng, np.float64, 2, 3, 4, 5, 3, False)
    with pytest.raises(error) as caught:
        forward(arrays | change)
    assert type(caught.value) is error and str(caught.value) == text
    _, cache = forward(arrays)
    changed = cache._replace(**change)
    if "Wh" not in change or "h0" in change:  # else h is the first that does not fit
        with pytest.raises((ValueError, TypeError), match="expected"):
            fastrnn.lstm_backward(cache.h, changed)


def test_a_cache_that_is_not_narrower_is_refused(backend, rng):
    """Of a tampered cache whose shapes fit: the kernels' rows have room for H."""
    arrays = drawn(rng, np.float64, 2, 3, 4, 5, 3, False)
    _, cache = forward(arrays)
    wide = {"h0": (2, 7), "Wh": (7, 20), "h": (2, 3, 7), "hT": (2, 7), "projection": (5, 7)}
    changed = cache._replace(**{name: np.ones(shape) for name, shape in wide.items()})
    with pytest.raises(
        ValueError, match=r"^projection: expected shape \(H, P\) with P below H = 5"
    ):
        fastrnn.lstm_backward(None, changed)


@pytest.mark.parametrize("backend", ["numpy", "cython"])
def test_prepared_weights_and_streams_are_checked(backend, rng):
    arrays = drawn(rng, np.float64, 2, 3, 4, 5, 3, False)
    weights = {name: arrays[name] for name in ("Wx", "Wh", "b", "projection")}
    wide = weights | {"projection": np.ones((5, 5)), "Wh": np.ones((5, 20))}
    for make in (prepare, Stream):
        with pytest.raises(ValueError, match="projection: expected shape .* with P below H = 5"):
            make("lstm", **wide, backend=backend)
        for cell, G in (("rnn", 1), ("gru", 3)):
            other = [np.ones((4, 5 * G)), np.ones((5, 5 * G)), np.ones(5 * G)]
            with pytest.raises(TypeError, match=f"^projection: expected nothing for {cell}$"):
                make(cell, *other, projection=weights["projection"], backend=backend)
    prepared, held = prepare("lstm", **weights, backend=backend), "which hold it"
    given = {"x": arrays["x"], "h0": arrays["h0"], "Wx": prepared}
    with pytest.raises(TypeError, match=f"projection: expected nothing .*, {held}"):
        forward(given, projection=weights["projection"], backend=backend)
    with pytest.raises(TypeError, match=f"projection: expected nothing .*, {held}"):
        Stream("lstm", prepared, projection=weights["projection"], backend=backend)


def test_onto_has_the_gradient_of_the_projection(rng):
    arrays = drawn(rng, np.float64, 2, 3, 4, 5, 3, False)
    _, cache = forward(arrays)
    onto = [np.zeros_like(arrays[name]) for name in ("Wx", "Wh", "b")]
    with pytest.raises(ValueError, match="onto: expected dWx, dWh, db, dprojection, got 3 of them"):
        recurrent.backward(LSTM, cache.h, (None, None), cache, onto=onto)
