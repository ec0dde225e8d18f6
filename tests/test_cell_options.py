"""Options of cells and peepholes: the three oracles, their random bits, errors."""

import numpy as np
import pytest
import torch
from util import TWIN, assert_close, assert_same_bits

import fastrnn
from fastrnn import Options, Stream, nn, prepare
from fastrnn.gradcheck import eval_numerical_gradient_array
from fastrnn.layers import recurrent
from fastrnn.options import DROPOUT_CANDIDATE, DROPOUT_H, DROPOUT_WEIGHTS, DROPOUT_X, below

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
ALL = [
    Options(),
    Options(zoneout_h=0.3, seed=5),
    Options(dropout_h=0.5, seed=2**64 - 1),
    Options(dropout_x=0.4, seed=7),
    Options(dropout_weights=0.4, seed=8, first_step=2),
    Options(clip=0.5),
    Options(zoneout_h=0.2, dropout_h=0.3, dropout_x=0.2, dropout_weights=0.2, clip=1.5, seed=3),
]
GATED = [*ALL, Options(dropout_candidate=0.3, seed=2), Options(hard_sigmoid=0.2, clip=2.0)]
CASES = [
    *(("rnn", {}, o) for o in ALL),
    *(("rnn", {"nonlinearity": "relu"}, o) for o in (*ALL, Options(cap=0.3, clip=0.8))),
    *(("lstm", {"peepholes": True}, o) for o in (*GATED, Options(zoneout_c=0.4, seed=1))),
    *(("lstm", {"gates": gates}, GATED[6]) for gates in ("ifgo", "fico", "iofg")),
    ("lstm", {"gates": "iofg", "peepholes": True}, Options(zoneout_h=0.1, zoneout_c=0.5)),
    *(("gru", {}, o) for o in GATED),
    *(("gru", {"reset_after": False}, o) for o in GATED),
    ("gru", {"gates": "zrn", "bh": True}, GATED[6]),
]
CLIPPED_GRADIENTS = [(cell, Options(clip_gradient=0.05)) for cell in GATES]
SHAPES = [(3, 5, 4, 7), (2, 3, 5, 17), (1, 1, 3, 9), (5, 4, 3, 40)]


def operands_of(cell, keywords, rng, dtype, N, T, D, H):
    """Arrays by name, and the keywords that are none."""

    def a(*shape):
        return (rng.standard_normal(shape) * 0.6).astype(dtype)

    GH = GATES[cell] * H
    arrays = {"x": a(N, T, D), "h0": a(N, H), "Wx": a(D, GH), "Wh": a(H, GH), "b": a(GH)}
    arrays["Wh"] *= np.dtype(dtype).type(
        H**-0.5
    )  # roundings of a state are not to grow from step to step
    if cell == "lstm":
        arrays["c0"] = a(N, H)
    for name, shape in (("peepholes", 3 * H), ("bh", GH)):
        if keywords.get(name):
            arrays[name] = a(shape)
    return arrays, {k: v for k, v in keywords.items() if k not in arrays}


def forward(cell, arrays, **keywords):
    first = [arrays[name] for name in ("x", "h0", "Wx", "Wh", "b")]
    rest = {k: v for k, v in arrays.items() if k in ("c0", "peepholes", "bh")}
    return getattr(fastrnn, f"{cell}_forward")(*first, **rest, **keywords)


def upstream(cell, rng, h, cache):
    """dh, dhT and of an lstm dcT."""
    last = {"dhT": cache.hT} | ({"dcT": cache.cT} if cell == "lstm" else {})
    d = {name: rng.standard_normal(a.shape).astype(a.dtype) for name, a in last.items()}
    return rng.standard_normal(h.shape).astype(h.dtype), d


def results(cell, arrays, seed=4, **keywords):
    """Outputs, last states and gradients."""
    h, cache = forward(cell, arrays, **keywords)
    dh, last = upstream(cell, np.random.default_rng(seed), h, cache)
    backend = keywords.get("backend")
    gradients = getattr(fastrnn, f"{cell}_backward")(dh, cache, **last, backend=backend)
    return [h, cache.hT, *([cache.cT] if cell == "lstm" else []), *gradients]


# ---- oracles -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "keywords", "options"), CASES, ids=str)
def test_gradients_are_those_of_calculus(cell, keywords, options, rng):
    arrays, keywords = operands_of(cell, keywords, rng, np.float64, 2, 4, 3, 5)
    h, cache = forward(cell, arrays, options=options, **keywords)
    dh, last = upstream(cell, rng, h, cache)
    gradients = getattr(fastrnn, f"{cell}_backward")(dh, cache, **last)
    names = [
        name for name in ("x", "h0", "Wx", "Wh", "b", "bh", "c0", "peepholes") if name in arrays
    ]
    for name, d in zip(names, gradients, strict=True):

        def loss(_):
            h, cache = forward(cell, arrays, options=options, **keywords)
            states = sum((getattr(cache, key[1:]) * d).sum() for key, d in last.items())
            return np.array((h * dh).sum() + states)

        numerical = eval_numerical_gradient_array(loss, arrays[name], np.array(1.0))
        assert_close(d, numerical, 1e-7, name)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("cell", "keywords", "options"), [*CASES, *((c, {}, o) for c, o in CLIPPED_GRADIENTS)], ids=str
)
def test_kernels_equal_the_reference(cell, keywords, options, shape, dtype, isa, rng):
    arrays, keywords = operands_of(cell, keywords, rng, dtype, *shape)
    given = keywords | {"options": options}
    actual = results(cell, arrays, **given, backend="cython")
    for a, b in zip(actual, results(cell, arrays, **given, backend="numpy"), strict=True):
        assert_close(a, b, TWIN[dtype.name])
    for n in (2, 3):
        fastrnn.set_num_threads(n)
        for a, b in zip(results(cell, arrays, **given, backend="cython"), actual, strict=True):
            assert_same_bits(a, b)
    found = [
        forward(cell, arrays, **given, training=False, backend=backend)
        for backend in ("cython", "numpy")
    ]
    for a, b in zip(*((h, cache.hT) for h, cache in found), strict=True):
        assert_close(a, b, TWIN[dtype.name])


@pytest.mark.parametrize("layout", ["batch_first", "time_first", "packed"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", GATES)
def test_lengths_resets_and_layouts(cell, reverse, layout, rng):
    N, T, D, H = 4, 6, 3, 9
    arrays, _ = operands_of(cell, {"peepholes": cell == "lstm"}, rng, np.float64, N, T, D, H)
    lengths, reset = np.array([6, 4, 4, 1]), rng.random((N, T)) < 0.3
    options = Options(zoneout_h=0.3, dropout_h=0.3, dropout_x=0.3, seed=11)
    given = {"options": options, "lengths": lengths, "reverse": reverse, "reset": reset}
    expected = results(cell, arrays, **given, backend="numpy")
    for a, b in zip(results(cell, arrays, **given), expected, strict=True):
        assert_close(a, b, 1e-12)
    if layout == "batch_first":
        return
    taken = (np.arange(T) < lengths[:, None]).T

    def laid_out(a):
        a = np.ascontiguousarray(a.swapaxes(0, 1))
        return a[taken] if layout == "packed" else a

    there = arrays | {"x": laid_out(arrays["x"])}
    given |= {"reset": laid_out(reset), "layout": layout}
    h, cache = forward(cell, there, **given)
    assert_close(h, laid_out(expected[0]), 1e-12)
    gradients = getattr(fastrnn, f"{cell}_backward")(h, cache)
    h, cache = forward(cell, arrays, **given | {"reset": reset, "layout": "batch_first"})
    own = getattr(fastrnn, f"{cell}_backward")(h, cache)
    assert_close(gradients[0], laid_out(own[0]), 1e-12)
    for a, b in zip(gradients[1:], own[1:], strict=True):
        assert_close(a, b, 1e-12)


def masks(options, kind, p, N, width, step=0):
    """As what they are documented: NumPy's Philox, 16 bits a unit."""
    key = np.array([options.seed, 0], np.uint64)
    rows = []
    for n in range(N):
        counter = np.array([0, step, n, kind], np.uint64)
        words = np.random.Philox(key=key, counter=counter).random_raw(width)
        rows.append(words.view(np.uint16)[:width])
    return torch.tensor(np.array(rows) >= round(p * 2**16)).double()


def torch_loop(cell, t, options, relu=False):
    """h of all steps in torch's operations, gates i f o g and r z n."""
    x, h, c = t["x"], t["h0"], t.get("c0")
    N, T, D = x.shape
    H, o = h.shape[1], options
    keep = masks(o, DROPOUT_X, o.dropout_x, N, D)
    x = x * keep[:, None] / (1 - o.dropout_x)
    G = t["Wh"].shape[1] // H
    kept = masks(o, DROPOUT_WEIGHTS, o.dropout_weights, G * H, H).T
    Wh = t["Wh"] * kept / (1 - o.dropout_weights)
    keep_h = masks(o, DROPOUT_H, o.dropout_h, N, H) / (1 - o.dropout_h)
    p = t["peepholes"].split(H) if "peepholes" in t else (0, 0, 0)
    hs = []

    def act(a, f):
        return f(a if o.clip is None else a.clamp(-o.clip, o.clip))

    for s in range(T):
        step = o.first_step + s
        stays = [masks(o, k, q, N, H, step) == 0 for k, q in enumerate((o.zoneout_h, o.zoneout_c))]
        left = keep_h * h
        drop = masks(o, DROPOUT_CANDIDATE, o.dropout_candidate, N, H, step)
        drop = drop / (1 - o.dropout_candidate)
        a, u = x[:, s] @ t["Wx"] + t["b"], left @ Wh
        if cell == "lstm":
            ai, af, ao, ag = (a + u).split(H, 1)
            i, f = act(ai + p[0] * c, torch.sigmoid), act(af + p[1] * c, torch.sigmoid)
            new_c = f * c + i * drop * act(ag, torch.tanh)
            new = act(ao + p[2] * new_c, torch.sigmoid) * new_c.tanh()
            c = torch.where(stays[1], c, new_c)
        elif cell == "gru":
            (ar, az, an), (ur, uz, un) = a.split(H, 1), u.split(H, 1)
            r, z = act(ar + ur, torch.sigmoid), act(az + uz, torch.sigmoid)
            new = (1 - z) * drop * act(an + r * un, torch.tanh) + z * h
        else:
            new = act(a + u, torch.relu if relu else torch.tanh)
            new = new if o.cap is None else new.clamp(max=o.cap)
        h = torch.where(stays[0], h, new)
        hs.append(h)
    return torch.stack(hs, 1)


@pytest.mark.parametrize(
    ("cell", "keywords", "options"),
    [c for c in CASES if set(c[1]) <= {"peepholes", "nonlinearity"} and not c[2].hard_sigmoid],
    ids=str,
)
def test_a_loop_of_torch_has_the_same_values_and_gradients(cell, keywords, options, rng):
    arrays, keywords = operands_of(cell, keywords, rng, np.float64, 3, 5, 4, 18)
    h, cache = forward(cell, arrays, options=options, **keywords)
    dh = rng.standard_normal(h.shape)
    gradients = getattr(fastrnn, f"{cell}_backward")(dh, cache)
    tensors = {name: torch.tensor(a, requires_grad=True) for name, a in arrays.items()}
    expected = torch_loop(cell, tensors, options, keywords.get("nonlinearity") == "relu")
    assert_close(h, expected.detach().numpy(), 1e-12)
    names = [name for name in ("x", "h0", "Wx", "Wh", "b", "c0", "peepholes") if name in arrays]
    wanted = torch.autograd.grad(expected, [tensors[n] for n in names], torch.tensor(dh))
    for a, b in zip(gradients, wanted, strict=True):
        assert_close(a, b.numpy(), 1e-11)


# ---- random bits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.999])
def test_units_are_dropped_with_their_probability(p):
    dropped = below(3, DROPOUT_H, p, range(100), 1000)
    assert abs(dropped.mean() - p) < 4 * (p * (1 - p) / 1e5) ** 0.5 + 1e-5


@pytest.mark.parametrize("cell", GATES)
def test_neither_the_other_rows_nor_the_pieces_change_a_bit(cell, rng):
    N, T, D, H = 5, 8, 3, 20
    arrays, _ = operands_of(cell, {"peepholes": cell == "lstm"}, rng, np.float32, N, T, D, H)
    options = Options(zoneout_h=0.3, dropout_h=0.4, dropout_x=0.2, seed=9)
    whole, cache = forward(cell, arrays, options=options)
    record = {"rnn": recurrent.RNN, "lstm": recurrent.LSTM, "gru": recurrent.GRU}[cell]
    dh = rng.standard_normal(whole.shape).astype(np.float32)
    expected = recurrent.backward(record, dh, (None,) * len(record.states), cache)
    h0, c0 = arrays["h0"], arrays.get("c0")
    pieces = []
    for begin in (0, 3):
        steps = slice(begin, 3 if begin == 0 else T)
        piece = (
            arrays | {"x": arrays["x"][:, steps], "h0": h0} | ({"c0": c0} if c0 is not None else {})
        )
        h, last = forward(cell, piece, options=options._replace(first_step=begin))
        assert_same_bits(h, np.ascontiguousarray(whole[:, steps]))
        h0, c0 = last.hT, getattr(last, "cT", None)
        pieces.append((steps, last))
    dlast = (None,) * len(record.states)
    onto = [np.zeros_like(d) for d in expected[2:] if d is not None]
    for steps, last in reversed(pieces):
        _, dlast, *_ = recurrent.backward(record, dh[:, steps], dlast, last, onto=onto)
    for a, b in zip(onto, [d for d in expected[2:] if d is not None], strict=True):
        assert_same_bits(a, b)
    lengths = np.array([1, 8, 3, 8, 5])  # sorted otherwise within
    h, _ = forward(cell, arrays, options=options, lengths=lengths)
    for n, length in enumerate(lengths):
        assert_same_bits(h[n, :length], whole[n, :length])


def test_the_same_weights_are_dropped_in_any_layout(rng):
    arrays, _ = operands_of("lstm", {}, rng, np.float64, 3, 4, 5, 6)
    options = Options(dropout_weights=0.5, seed=4)
    h, _ = forward("lstm", arrays, options=options)

    def order(a, gates):
        return np.concatenate([np.split(a, 4, axis=-1)["ifog".index(g)] for g in gates], axis=-1)

    turned = arrays | {name: order(arrays[name], "ifgo") for name in ("Wx", "Wh", "b")}
    assert_close(forward("lstm", turned, options=options, gates="ifgo")[0], h, 1e-13)
    turned |= {name: np.ascontiguousarray(turned[name].T) for name in ("Wx", "Wh")}
    other, _ = forward("lstm", turned, options=options, gates="ifgo", transposed=True)
    assert_close(other, h, 1e-13)


# ---- inference, steps, modules -------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "cython"])
@pytest.mark.parametrize("cell", GATES)
def test_streams_steps_and_prepared_weights_at_inference(cell, backend, rng):
    N, T, D, H = 2, 5, 3, 9
    arrays, _ = operands_of(cell, {"peepholes": cell == "lstm"}, rng, np.float32, N, T, D, H)
    arrays["h0"][...] = 0
    arrays.pop("c0", None)
    options = Options(zoneout_h=0.3, dropout_h=0.5, dropout_x=0.5, dropout_weights=0.5, clip=1.0)
    given = {"options": options, "backend": backend}
    h, _ = forward(cell, arrays, **given, training=False)
    weights = [arrays[name] for name in ("Wx", "Wh", "b")]
    beside = {"peepholes": arrays["peepholes"]} if cell == "lstm" else {}
    stream = Stream(cell, *weights, batch=N, **beside, **given)
    assert_same_bits(stream.steps(arrays["x"].swapaxes(0, 1).copy()), h.swapaxes(0, 1).copy())
    stream.reset()
    states = [np.zeros((N, H), np.float32)] * (2 if cell == "lstm" else 1)
    step = getattr(fastrnn, f"{cell}_step_forward")
    prepared = prepare(cell, *weights, backend=backend)
    for t in range(T):
        x = arrays["x"][:, t].copy()
        assert_same_bits(stream.step(x), h[:, t].copy())
        *states, _ = step(x, *states, prepared, **beside, **given, training=False)
        assert_same_bits(states[0], h[:, t].copy())


def test_zoneout_at_inference_is_its_expectation(rng):
    arrays, _ = operands_of("gru", {}, rng, np.float64, 1, 1, 3, 4)
    plain, _ = forward("gru", arrays)
    h, _ = forward("gru", arrays, options=Options(zoneout_h=0.25), training=False)
    assert_close(h[:, 0], 0.25 * arrays["h0"] + 0.75 * plain[:, 0], 1e-14)


@pytest.mark.parametrize("cell", GATES)
def test_a_step_in_training_is_a_sequence_of_one(cell, rng, dtype):
    arrays, _ = operands_of(cell, {"peepholes": cell == "lstm"}, rng, dtype, 3, 1, 4, 9)
    options = Options(zoneout_h=0.3, dropout_h=0.2, dropout_x=0.2, dropout_weights=0.2, seed=6)
    h, cache = forward(cell, arrays, options=options)
    states = [arrays[name] for name in ("h0", "c0") if name in arrays]
    weights = [arrays[name] for name in ("Wx", "Wh", "b")]
    beside = {"peepholes": arrays["peepholes"]} if cell == "lstm" else {}
    step = getattr(fastrnn, f"{cell}_step_forward")
    *after, own = step(arrays["x"][:, 0], *states, *weights, options=options, **beside)
    assert_same_bits(after[0], h[:, 0].copy())
    zeros = [np.zeros_like(h[:, 0])] * (len(states) - 1)
    gradients = getattr(fastrnn, f"{cell}_step_backward")(h[:, 0], *zeros, own)
    dx, dh0, *_ = getattr(fastrnn, f"{cell}_backward")(h, cache)
    assert_same_bits(gradients[0], dx[:, 0].copy())
    assert_same_bits(gradients[1], dh0)


@pytest.mark.parametrize("backend", ["numpy", "cython"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("cell", "keywords"), [("rnn", {"nonlinearity": "relu"}), ("lstm", {})])
def test_numbers_of_numpy_do_not_change_the_dtype(cell, keywords, training, backend, rng):
    own = {"cap": 0.5} if cell == "rnn" else {"hard_sigmoid": 0.25, "dropout_candidate": 0.25}
    own |= {"zoneout_h": 0.5, "dropout_x": 0.25, "clip": 1.5, "clip_gradient": 0.0625}
    arrays, _ = operands_of(cell, {}, rng, np.float32, 2, 3, 4, 9)
    found = []
    for kind in (np.float64, float):  # in this order: what was checked is remembered
        options = Options(**{name: kind(value) for name, value in own.items()})
        given = keywords | {"options": options, "training": training, "backend": backend}
        h, cache = forward(cell, arrays, **given)
        backward = getattr(fastrnn, f"{cell}_backward")
        found.append([h, *(backward(h, cache, backend=backend) if training else ())])
    for a, b in zip(*found, strict=True):
        assert a.dtype == np.float32
        assert_same_bits(a, b)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_modules(kind, bidirectional, rng):
    options = Options(zoneout_h=0.2, dropout_h=0.2, dropout_x=0.1)
    own = {"peepholes": True} if kind == "LSTM" else {}
    given = {"bidirectional": bidirectional, "dtype": np.float64, "seed": 3, "options": options}
    modules = [getattr(nn, kind)(4, 5, 2, **own, **given, backend=b) for b in ("numpy", "cython")]
    x = rng.standard_normal((3, 9, 4))
    found = []
    for m in modules:
        y, _, cache = m.forward(x, training=True, rng=np.random.default_rng(5))
        dx, grads, _ = m.backward(y, cache)
        found.append([y, dx, *grads.values()])
        assert list(grads) == list(m.params)
    for a, b in zip(*found, strict=True):
        assert_close(a, b, 1e-12)
    m = modules[1]
    assert not np.array_equal(*(m.forward(x, training=True)[0] for _ in range(2)))
    assert_same_bits(*(m.forward(x)[0] for _ in range(2)))
    if not bidirectional:
        y, _, cache = m.forward(x, training=True, rng=np.random.default_rng(5), checkpoint_every=2)
        dx, grads, _ = m.backward(y, cache)
        for a, b in zip([y, dx, *grads.values()], found[1], strict=True):
            assert_same_bits(a, b)
        steps = m.stream(3).steps(x.swapaxes(0, 1).copy())
        assert_same_bits(steps, m.forward(x)[0].swapaxes(0, 1).copy())


# ---- errors --------------------------------------------------------------------------------------

WRONG = [
    (
        "rnn",
        {"zoneout_h": 1.0},
        ValueError,
        r"zoneout_h: expected a probability in \[0, 1\), got 1.0",
    ),
    ("lstm", {"zoneout_c": -0.1}, ValueError, r"zoneout_c: expected a probability"),
    ("gru", {"zoneout_c": 0.1}, ValueError, r"zoneout_c: expected nothing for gru .*, got 0.1"),
    ("rnn", {"dropout_candidate": 0.1}, ValueError, "dropout_candidate: expected nothing for rnn"),
    ("rnn", {"cap": 1.0}, ValueError, "cap: expected nothing for rnn nonlinearity='tanh', got 1.0"),
    ("lstm", {"clip": 0.0}, ValueError, "clip: expected a number above 0, got 0.0"),
    ("lstm", {"clip": float("nan")}, ValueError, "clip: expected a number above 0, got nan"),
    ("lstm", {"hard_sigmoid": "x"}, ValueError, "hard_sigmoid: expected a number above 0, got 'x'"),
    ("lstm", {"seed": -1}, ValueError, r"seed: expected an integer in \[0, 2\*\*64\), got -1"),
    ("lstm", {"seed": 2**64}, ValueError, "seed: expected an integer"),
    ("lstm", {"first_step": 1.5}, ValueError, "first_step: expected an integer"),
    ("lstm", {"dropout_h": [0.1]}, ValueError, "dropout_h: expected a probability"),
]


@pytest.mark.parametrize("backend", ["numpy", "cython"])
@pytest.mark.parametrize(("cell", "wrong", "error", "text"), WRONG, ids=str)
def test_values_out_of_range_are_refused(cell, wrong, error, text, backend, rng):
    arrays, _ = operands_of(cell, {}, rng, np.float32, 2, 3, 4, 5)
    with pytest.raises(error, match=text):
        forward(cell, arrays, options=Options(**wrong), backend=backend)
    with pytest.raises(error, match=text):
        Stream(cell, *[arrays[k] for k in ("Wx", "Wh", "b")], options=Options(**wrong))


def test_other_things_are_refused(rng):
    arrays, _ = operands_of("lstm", {"peepholes": True}, rng, np.float32, 2, 3, 4, 5)
    with pytest.raises(TypeError, match="options: expected fastrnn.Options, got dict"):
        forward("lstm", arrays, options={"clip": 1.0})
    short = arrays | {"peepholes": arrays["peepholes"][:-1]}
    with pytest.raises(
        ValueError, match=r"peepholes: expected shape \(3\*H,\) = \(15,\), got \(14,\)"
    ):
        forward("lstm", short)
    wide = arrays | {"peepholes": arrays["peepholes"].astype(np.float64)}
    with pytest.raises(TypeError, match="peepholes: expected float32 like x, got float64"):
        forward("lstm", wide)
    weights = [arrays[k] for k in ("Wx", "Wh", "b")]
    with pytest.raises(ValueError, match=r"peepholes: expected shape \(15,\), got \(14,\)"):
        Stream("lstm", *weights, peepholes=short["peepholes"])
    with pytest.raises(TypeError, match="peepholes: expected nothing for rnn"):
        Stream("rnn", *(w[..., :5] for w in weights), peepholes=arrays["peepholes"])
    table = arrays | {"x": arrays["x"][0]}
    index = np.zeros((2, 3), int)
    with pytest.raises(ValueError, match="dropout_x: expected 0 with an index, got 0.5"):
        forward("lstm", table, index=index, options=Options(dropout_x=0.5))
    _, cache = forward("lstm", arrays, options=Options(clip=1.0))
    with pytest.raises(ValueError, match="clip: expected a number above 0, got -1.0"):
        fastrnn.lstm_backward(cache.h, cache._replace(options=Options(clip=-1.0)))
    with pytest.raises(ValueError, match="peepholes: expected shape"):
        fastrnn.lstm_backward(cache.h, cache._replace(peepholes=short["peepholes"]))
