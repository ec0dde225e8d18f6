"""The smaller cells and the normalised ones as modules of fastrnn.nn: the functions' values,
calculus, streams, pieces, files."""

import numpy as np
import pytest
from util import CALCULUS, TWIN, assert_close, assert_same_bits

import fastrnn
from fastrnn import Options, nn
from fastrnn.gradcheck import eval_numerical_gradient_array

FUNCTIONS = {"MGU": "mgu", "MinGRU": "min_gru", "MinLSTM": "min_lstm", "IndRNN": "ind_rnn"}
FORMS = [
    *((kind, {}) for kind in FUNCTIONS),
    *((kind, {"nonlinearity": "positive"}) for kind in ("MinGRU", "MinLSTM")),
    ("IndRNN", {"nonlinearity": "tanh"}),
    *(("MGU", {"gate_order": "nf"}), ("MinGRU", {"gate_order": "nz"})),
    ("MinLSTM", {"gate_order": "nfi", "bias": False}),
]
NORMALISED = [  # with an eps that leaves numerical gradients their digits
    ("LSTM", {"layer_norm": True, "eps": 0.1}),
    ("LSTM", {"layer_norm": True, "gate_order": "fico", "eps": 0.5, "bias": False}),
    ("GRU", {"layer_norm": True, "eps": 0.1, "options": Options(hard_sigmoid=0.2)}),
    ("GRU", {"layer_norm": True, "eps": 0.1, "gate_order": "zrn"}),
]


def made(kind, *sizes, **keywords):
    """A module whose gains and shifts are not those at the start."""
    m, rng = getattr(nn, kind)(*sizes, **keywords), np.random.default_rng(0)
    for a in m.params.values():
        a += (0.1 * rng.standard_normal(a.shape)).astype(a.dtype)
    return m


@pytest.mark.parametrize("backend", ["numpy", "cython"])
@pytest.mark.parametrize(("kind", "own"), FORMS, ids=str)
def test_a_layer_is_its_function(kind, own, backend, rng, dtype):
    m = getattr(nn, kind)(3, 9, dtype=dtype, seed=1, backend=backend, **own)
    x, h0 = (rng.standard_normal(s).astype(dtype) for s in ((2, 5, 3), (2, 9)))
    given = [
        m.params[f"{name}_l0"] for name in ("weight_ih", "weight_hh") if f"{name}_l0" in m.params
    ]
    b = m.params.get("bias_l0", np.zeros(len(given[0]), dtype))
    keywords = {"gates" if name == "gate_order" else name: v for name, v in own.items()}
    keywords.pop("bias", None)
    forward = getattr(fastrnn, f"{FUNCTIONS[kind]}_forward")
    h, cache = forward(x, h0, *given, b, transposed=True, backend=backend, **keywords)
    y, state, _ = m.forward(x, h0[None])
    assert_same_bits(y, h)
    assert_same_bits(state[0], cache.hT)


@pytest.mark.parametrize("backend", ["numpy", "cython"])
@pytest.mark.parametrize(("kind", "own"), NORMALISED, ids=str)
def test_a_normalised_layer_is_its_function(kind, own, backend, rng, dtype):
    m = made(kind, 3, 9, dtype=dtype, seed=1, backend=backend, **own)
    x, h0 = (rng.standard_normal(s).astype(dtype) for s in ((2, 5, 3), (2, 9)))
    p = {name.removesuffix("_l0"): a for name, a in m.params.items()}
    b, bh = (p.get(f"bias_{end}", np.zeros_like(p["gain_ih"])) for end in ("ih", "hh"))
    norm = fastrnn.LayerNorm(p["gain_ih"], p["gain_hh"], eps=own.get("eps", 1e-5))
    keywords = {"gates": m.form.gates, "options": own.get("options"), "transposed": True}
    if kind == "LSTM":
        norm = norm._replace(gain_c=p["gain_c"], shift_c=p["shift_c"])
        b = b + bh
        forward, state = fastrnn.lstm_forward, (h0[None], np.zeros_like(h0)[None])
    else:
        keywords["bh"] = bh
        forward, state = fastrnn.gru_forward, h0[None]
    given = x, h0, p["weight_ih"], p["weight_hh"], b
    h, _ = forward(*given, layer_norm=norm, backend=backend, **keywords)
    assert_same_bits(m.forward(x, state)[0], h)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("kind", "own"), FORMS + NORMALISED, ids=str)
def test_gradients_of_stacks(kind, own, bidirectional, rng):
    given = {"bidirectional": bidirectional, "dtype": np.float64, "seed": 1} | own
    m, other = (made(kind, 3, 4, 2, **given, backend=b) for b in ("cython", "numpy"))
    x, lengths = rng.standard_normal((3, 5, 3)), [5, 2, 4]
    y, _, cache = m.forward(x, lengths=lengths, training=True)
    dx, grads, _ = m.backward(y, cache)
    assert list(grads) == list(m.params)

    def loss(_):
        return np.array((m.forward(x, lengths=lengths)[0] ** 2).sum() / 2)

    for name, a in [*m.params.items(), ("x", x)]:
        numerical = eval_numerical_gradient_array(loss, a, np.array(1.0))
        assert_close(dx if name == "x" else grads[name], numerical, CALCULUS, name)
    y, _, cache = other.forward(x, lengths=lengths, training=True)
    for name, d in other.backward(y, cache)[1].items():
        assert_close(grads[name], d, TWIN["float64"], name)


@pytest.mark.parametrize(("kind", "own"), FORMS[:4] + NORMALISED, ids=str)
def test_streams_and_pieces_have_the_same_bits(kind, own, rng):
    m = made(kind, 3, 20, 2, seed=1, **own)
    x = rng.standard_normal((2, 9, 3)).astype(np.float32)
    y, _, cache = m.forward(x, training=True)
    assert_same_bits(m.stream(2).steps(x.swapaxes(0, 1).copy()), y.swapaxes(0, 1).copy())
    again, _, pieces = m.forward(x, training=True, checkpoint_every=4)
    assert_same_bits(again, y)
    (dx, grads, _), (dx2, grads2, _) = m.backward(y, cache), m.backward(y, pieces)
    assert_same_bits(dx2, dx)
    for name in grads:
        assert_same_bits(grads2[name], grads[name], name)


@pytest.mark.parametrize("init", ["pytorch", "keras", "scaled"])
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_they_begin_by_any_scheme(kind, init):
    m = getattr(nn, kind)(3, 50, init=init, seed=0)
    assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in m.params.values())
    if kind == "IndRNN":
        u = m.params["weight_hh_l0"]
        assert u.shape == (50,) and u.min() >= 0 and u.max() < 1


@pytest.mark.parametrize(("kind", "own"), NORMALISED, ids=str)
def test_a_normalised_module_goes_into_a_file_and_back(kind, own, dtype, tmp_path, rng):
    m = made(kind, 3, 9, 2, bidirectional=True, dtype=dtype, seed=1, **own)
    nn.save(m, tmp_path / "m.safetensors")
    back = nn.load(tmp_path / "m.safetensors")
    assert (back.form, [*back.params]) == (m.form, [*m.params])
    assert repr(back) == repr(m)
    x = rng.standard_normal((2, 5, 3)).astype(dtype)
    assert_same_bits(back.forward(x)[0], m.forward(x)[0])


@pytest.mark.parametrize(("kind", "own"), FORMS, ids=str)
def test_a_smaller_module_goes_into_a_file_and_back(kind, own, dtype, tmp_path, rng):
    m = made(kind, 3, 9, 2, bidirectional=True, dropout=0.25, dtype=dtype, seed=1, **own)
    nn.save(m, tmp_path / "m.safetensors")
    again = nn.load(m.params, cell=m.form.cell, nonlinearity=m.form.nonlinearity)
    x = rng.standard_normal((2, 5, 3)).astype(dtype)
    back = nn.load(tmp_path / "m.safetensors")
    assert repr(back) == repr(m)
    assert_same_bits(back.forward(x)[0], m.forward(x)[0])
    assert again.form._replace(gates=None) == m.form._replace(gates=None)  # whose order none tells


def test_a_smaller_module_whose_weights_do_not_tell():
    params = nn.MinGRU(3, 4).params
    with pytest.raises(ValueError, match=r"^cell: expected None or one of .*'mgu'.*, got 'lstm'$"):
        nn.load(params, cell="lstm")
    with pytest.raises(ValueError, match=r"^cell: expected one of .*'min_gru'.* whose bias_l0 is$"):
        nn.load(params)
    with pytest.raises(ValueError, match=r"^cell: expected None or one of"):
        nn.load(params, cell=["min_gru"])
    computed = dict(params)
    computed["parametrizations.bias_l0.original0"] = computed.pop("bias_l0")
    with pytest.raises(ValueError, match=r"^parametrizations\.bias_l0\.original0: expected"):
        nn.load(computed, cell="min_gru")
    with pytest.raises(ValueError, match=r"weight_ih_l0: expected shape \(G\*H, D\) with 3 for G"):
        nn.load(params, cell="min_lstm")
    with pytest.raises(TypeError, match="options: expected nothing for min_gru"):
        nn.load(params, cell="min_gru", options=Options(clip=1.0))


@pytest.mark.parametrize("init", ["pytorch", "keras", "scaled"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_gains_and_shifts_begin_so_that_gradients_stay(kind, init):
    params = getattr(nn, kind)(3, 50, layer_norm=True, init=init, seed=0).params
    begins = {name: {*a} for name, a in params.items() if not name.startswith(("weight", "bias"))}
    expected = {"gain_ih_l0": {1}, "gain_hh_l0": {1}}
    if kind == "LSTM":
        expected = {**expected, "gain_hh_l0": {0.5}, "gain_c_l0": {1}, "shift_c_l0": {0}}
    assert begins == expected


@pytest.mark.parametrize(
    ("kind", "keywords", "error", "message"),
    [
        ("LSTM", {"peepholes": True}, ValueError, "peepholes: expected False with layer_norm=True"),
        ("LSTM", {"proj_size": 2}, ValueError, "proj_size: expected 0 with layer_norm=True, got 2"),
        ("GRU", {"reset_after": False}, ValueError, "reset_after: expected True with layer_norm"),
        ("GRU", {"layer_norm": 1}, TypeError, "layer_norm: expected"),
        ("LSTM", {"eps": 0.0}, ValueError, r"eps: expected a number above 0, got 0\.0"),
        ("GRU", {"layer_norm": False, "eps": 0.5}, ValueError, "eps: expected 1e-05 without layer"),
    ],
)
def test_what_no_normalised_module_can_be(kind, keywords, error, message):
    with pytest.raises(error, match=f"^{message}"):
        getattr(nn, kind)(3, 4, **{"layer_norm": True} | keywords)


def test_what_has_no_place_for_a_normalised_module(tmp_path):
    m = nn.LSTM(3, 4, layer_norm=True, eps=0.1)
    with pytest.raises(ValueError, match=r"^layer_norm: expected False, got LSTM\(3, 4, layer_n"):
        nn.to_onnx(m, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    gains = {f"gain_{end}_l0": np.ones(4, "f") for end in ("ih", "hh")}
    with pytest.raises(ValueError, match=r"^gain_ih_l0: expected none of a rnn$"):
        nn.load(nn.RNN(3, 4).params | gains)
    with pytest.raises(ValueError, match=r"^gain_c_l0: expected an array"):
        nn.load({k: a for k, a in m.params.items() if k != "gain_c_l0"})


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="gate_order: expected one of .*'fn', 'nf'.*, got 'rzn'"):
        nn.MGU(3, 4, gate_order="rzn")
    with pytest.raises(ValueError, match="nonlinearity: expected one of"):
        nn.MinGRU(3, 4, nonlinearity="tanh")
    with pytest.raises(TypeError, match="module: expected an RNN, LSTM or GRU of fastrnn.nn"):
        nn.to_onnx(nn.IndRNN(3, 4), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    m = nn.MinLSTM(3, 4, 2, bidirectional=True, nonlinearity="positive")
    assert repr(m) == "MinLSTM(3, 4, num_layers=2, bidirectional=True, nonlinearity='positive')"
