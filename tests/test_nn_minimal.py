"""The smaller cells as modules of fastrnn.nn: the functions' values, calculus, streams, pieces."""

import numpy as np
import pytest
from util import CALCULUS, TWIN, assert_close, assert_same_bits

import fastrnn
from fastrnn import nn
from fastrnn.gradcheck import eval_numerical_gradient_array

FUNCTIONS = {"MGU": "mgu", "MinGRU": "min_gru", "MinLSTM": "min_lstm", "IndRNN": "ind_rnn"}
FORMS = [
    *((kind, {}) for kind in FUNCTIONS),
    *((kind, {"nonlinearity": "positive"}) for kind in ("MinGRU", "MinLSTM")),
    ("IndRNN", {"nonlinearity": "tanh"}),
    *(("MGU", {"gate_order": "nf"}), ("MinGRU", {"gate_order": "nz"})),
    ("MinLSTM", {"gate_order": "nfi", "bias": False}),
]


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


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("kind", "own"), FORMS, ids=str)
def test_gradients_of_stacks(kind, own, bidirectional, rng):
    given = {"bidirectional": bidirectional, "dtype": np.float64, "seed": 1} | own
    m, other = (getattr(nn, kind)(3, 4, 2, **given, backend=b) for b in ("cython", "numpy"))
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


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_streams_and_pieces_have_the_same_bits(kind, rng):
    m = getattr(nn, kind)(3, 20, 2, seed=1)
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


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="gate_order: expected one of .*'fn', 'nf'.*, got 'rzn'"):
        nn.MGU(3, 4, gate_order="rzn")
    with pytest.raises(ValueError, match="nonlinearity: expected one of"):
        nn.MinGRU(3, 4, nonlinearity="tanh")
    with pytest.raises(
        TypeError, match="module: expected an RNN, LSTM or GRU of fastrnn.nn, got MGU"
    ):
        nn.save(nn.MGU(3, 4), tmp_path / "m.safetensors")
    with pytest.raises(TypeError, match="module: expected an RNN, LSTM or GRU of fastrnn.nn"):
        nn.to_onnx(nn.IndRNN(3, 4), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    m = nn.MinLSTM(3, 4, 2, bidirectional=True, nonlinearity="positive")
    assert repr(m) == "MinLSTM(3, 4, num_layers=2, bidirectional=True, nonlinearity='positive')"
