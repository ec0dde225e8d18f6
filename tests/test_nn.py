"""fastrnn.nn: stacks, directions, projections, states and resets, against torch.nn, whose weights
they take as they are, and against themselves in other words."""

import copy
import itertools
import pickle
import re

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from util import TWIN, assert_close, assert_same_bits

import fastrnn
from fastrnn import nn
from fastrnn.cells import Steps, laid_out
from fastrnn.gradcheck import eval_numerical_gradient_array
from fastrnn.nn import stack

N, T, D, H = 4, 7, 5, 6
KINDS = {
    "rnn": (nn.RNN, torch.nn.RNN, {}),
    "relu": (nn.RNN, torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, torch.nn.LSTM, {}),
    "projected": (nn.LSTM, torch.nn.LSTM, {"proj_size": 3}),
    "gru": (nn.GRU, torch.nn.GRU, {}),
}
kinds = pytest.mark.parametrize("kind", KINDS)
both_ways = pytest.mark.parametrize("bidirectional", [False, True], ids=["forwards", "both ways"])


def made(kind, *sizes, **keywords):
    """A module of ours."""
    module, _, own = KINDS[kind]
    return module(*(sizes or (D, H)), **own, seed=0, **keywords)


def pair(kind, dtype, **keywords):
    """A module of ours and PyTorch's with the same weights."""
    ours = made(kind, dtype=dtype, **keywords)
    _, module, own = KINDS[kind]
    theirs = module(D, H, batch_first=True, dtype=getattr(torch, dtype.name), **own, **keywords)
    assert {name: tuple(a.shape) for name, a in theirs.state_dict().items()} == ours.shapes
    ours.params = {name: a.numpy().copy() for name, a in theirs.state_dict().items()}
    return ours, theirs


def normal(rng, dtype, *shape):
    return rng.standard_normal(shape).astype(dtype)


def listed(state):
    return list(state) if isinstance(state, tuple) else [state]


def drawn_state(module, rng, n=N):
    rows = module.form.layers * module.form.directions
    sizes = [module.output_size, module.hidden_size][: len(module.form.record.states)]
    arrays = tuple(normal(rng, module.dtype, rows, n, size) for size in sizes)
    return arrays if len(arrays) > 1 else arrays[0]


def tensors(arrays):
    return [torch.tensor(a, requires_grad=True) for a in arrays]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@kinds
@both_ways
@pytest.mark.parametrize(
    ("num_layers", "bias", "ragged", "given"),
    [(1, True, False, False), (2, False, False, True), (3, True, True, True)],
    ids=str,
)
def test_values_and_gradients_are_those_of_torch(
    kind, bidirectional, num_layers, bias, ragged, given, backend, dtype, rng
):
    form = {"num_layers": num_layers, "bias": bias, "bidirectional": bidirectional}
    ours, theirs = pair(kind, dtype, **form)
    x, state = normal(rng, dtype, N, T, D), drawn_state(ours, rng) if given else None
    lengths = np.array([3, 7, 1, 5]) if ragged else None
    y, last, cache = ours.forward(x, state, lengths=lengths, training=True)

    (tx,), ts = tensors([x]), tensors(listed(state)) if given else []
    hx = (tuple(ts) if len(ts) > 1 else ts[0]) if given else None
    if ragged:
        tx_ = pack_padded_sequence(tx, lengths, batch_first=True, enforce_sorted=False)
        packed, tlast = theirs(tx_, hx)
        ty, _ = pad_packed_sequence(packed, batch_first=True, total_length=T)
    else:
        ty, tlast = theirs(tx, hx)
    dy, dlast = normal(rng, dtype, *y.shape), drawn_state(ours, rng)
    torch.autograd.backward([ty, *listed(tlast)], [*map(torch.tensor, [dy, *listed(dlast)])])
    dx, grads, dstate = ours.backward(dy, cache, dlast)

    tolerance = TWIN[dtype.name]
    for mine, its in zip([y, *listed(last)], [ty, *listed(tlast)], strict=True):
        assert_close(mine, its.detach().numpy(), tolerance)
    assert_close(dx, tx.grad.numpy(), tolerance)
    assert list(grads) == list(ours.params)
    for name, parameter in theirs.named_parameters():
        assert_close(grads[name], parameter.grad.numpy(), tolerance, name)
    for mine, its in zip(listed(dstate), ts, strict=False):
        assert_close(mine, its.grad.numpy(), tolerance)


@kinds
@both_ways
def test_gradients_are_numerical_ones(kind, bidirectional, rng):
    module = made(kind, bidirectional=bidirectional, num_layers=2, dtype=np.float64)
    x, state = rng.standard_normal((2, 4, D)), drawn_state(module, rng, 2)
    reset = np.array([[0, 1, 0, 0], [1, 0, 0, 1]], bool)
    lengths = np.array([4, 3])

    def y(_=None):
        return module.forward(x, state, lengths=lengths, reset=reset)[0]

    dy = rng.standard_normal(y().shape)
    _, _, cache = module.forward(x, state, lengths=lengths, reset=reset, training=True)
    dx, grads, dstate = module.backward(dy, cache)
    pairs = [(x, dx), *((module.params[name], grads[name]) for name in grads)]
    pairs += zip(listed(state), listed(dstate), strict=True)
    for a, da in pairs:
        # Truncated at h^2, rounded at 1e-16 / h.
        np.testing.assert_allclose(da, eval_numerical_gradient_array(y, a, dy, h=1e-5), atol=1e-9)


@kinds
@both_ways
def test_a_reset_begins_an_episode_of_its_own_in_both_directions(kind, bidirectional, rng):
    module = made(kind, bidirectional=bidirectional, num_layers=2)
    x = normal(rng, np.float32, 1, T, D)
    reset = np.zeros((1, T), bool)
    reset[0, [3, 5]] = True
    y, _, _ = module.forward(x, reset=reset)
    for begin, end in itertools.pairwise([0, 3, 5, T]):
        alone, _, _ = module.forward(x[:, begin:end])
        assert_close(y[:, begin:end], alone, 1e-6)


@kinds
def test_the_state_goes_on_where_a_sequence_is_cut(kind, rng):
    module = made(kind, num_layers=2)
    x = normal(rng, np.float32, N, T, D)
    y, last, _ = module.forward(x)
    first, state, _ = module.forward(x[:, :3])
    second, state, _ = module.forward(x[:, 3:], state)
    assert_same_bits(np.concatenate([first, second], axis=1), y)
    for a, b in zip(listed(state), listed(last), strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("gate_order", ["ifog", "fico", "iofg"])
def test_gates_of_an_lstm_in_any_order(gate_order, rng):
    usual, other = nn.LSTM(D, H, 2, seed=0), nn.LSTM(D, H, 2, gate_order=gate_order)
    places = ["ifgo".index(gate) for gate in other.form.record.orders[gate_order]]
    for name, a in usual.params.items():
        gates = np.split(a, 4)
        other.params[name] = np.concatenate([gates[place] for place in places])
    x = normal(rng, np.float32, N, T, D)
    assert_close(other.forward(x)[0], usual.forward(x)[0], 1e-6)


def test_the_original_gru_is_that_of_the_layers(rng):
    module = nn.GRU(D, H, reset_after=False, gate_order="zrn", seed=0)
    x, p = normal(rng, np.float32, N, T, D), module.params
    weights = p["weight_ih_l0"], p["weight_hh_l0"], p["bias_ih_l0"]
    keywords = {"gates": "zrn", "reset_after": False, "transposed": True}
    h, _ = fastrnn.gru_forward(
        x, np.zeros((N, H), np.float32), *weights, bh=p["bias_hh_l0"], **keywords
    )
    assert_same_bits(module.forward(x)[0], h)


def test_dropout_is_between_layers_in_training_alone(rng):
    module = nn.GRU(D, 50, 2, dropout=0.4, seed=3)
    x, dy = normal(rng, np.float32, N, T, D), normal(rng, np.float32, N, T, 50)
    plain = nn.GRU(D, 50, 2, seed=3)
    assert_same_bits(module.forward(x)[0], plain.forward(x)[0])
    y, _, cache = module.forward(x, training=True, rng=np.random.default_rng(1))
    (mask,) = cache.inner.masks
    assert 0.3 < np.mean(mask == 0) < 0.5
    assert_close(mask[mask != 0], np.full(np.count_nonzero(mask), 1 / 0.6, np.float32), 1e-6)
    below, above = nn.GRU(D, 50), nn.GRU(50, 50)
    for one, end in (below, "_l0"), (above, "_l1"):
        one.params = {
            name[: -len(end)] + "_l0": a for name, a in module.params.items() if name.endswith(end)
        }
    h, _, c0 = below.forward(x, training=True)
    expected, _, c1 = above.forward(h * mask, training=True)
    assert_same_bits(y, expected)
    dx, _, _ = module.backward(dy, cache)
    dh, _, _ = above.backward(dy, c1)
    assert_same_bits(dx, below.backward(dh * mask, c0)[0])
    again, _, _ = module.forward(x, training=True, rng=np.random.default_rng(1))
    assert_same_bits(again, y)
    other, _, _ = module.forward(x, training=True)
    assert not np.array_equal(other, y)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_begin_as_their_scheme_says(kind):
    H = 40
    for scheme in nn.init.SCHEMES:
        module, again = (
            made(kind, 30, H, num_layers=2, init=scheme, dtype=np.float64) for _ in range(2)
        )
        for name, a in module.params.items():
            assert_same_bits(a, again.params[name])
            if scheme == "pytorch":
                assert 0.9 * H**-0.5 < np.abs(a).max() <= H**-0.5
            elif name.startswith("bias"):
                ones = scheme == "keras" and module.form.cell == "lstm" and "ih" in name
                assert a.sum() == (H if ones else 0)
                assert not ones or a[H : 2 * H].all()
            elif scheme == "scaled":
                assert abs(np.std(a) * a.shape[1] ** 0.5 - 1) < 0.1
            elif name.startswith("weight_hh"):
                assert_close(a.T @ a, np.eye(a.shape[1]), 1e-12)


@kinds
@pytest.mark.parametrize("with_head", [False, True])
def test_a_stream_has_the_bits_of_forward(kind, with_head, backend, dtype, rng):
    module = made(kind, num_layers=3, dtype=dtype)
    P = module.output_size
    x, head = normal(rng, dtype, T, N, D), (normal(rng, dtype, P, 2), normal(rng, dtype, 2))
    expected, _, _ = module.forward(x.swapaxes(0, 1))
    if with_head:
        expected, _ = fastrnn.temporal_affine_forward(expected, *head)
    stream = module.stream(N, head=head if with_head else None)
    for t in range(T):
        assert_same_bits(stream.step(x[t]), expected[:, t])
    stream.reset()
    assert_same_bits(stream.steps(x), np.ascontiguousarray(expected.swapaxes(0, 1)))


def test_what_has_no_stream_says_why():
    with pytest.raises(ValueError, match="stream: expected bidirectional=False"):
        nn.LSTM(D, H, bidirectional=True).stream()
    with pytest.raises(ValueError, match="batch: expected an integer of at least 1, got 0"):
        nn.LSTM(D, H).stream(0)


@kinds
@pytest.mark.parametrize("every", [1, 3, 100])
def test_recomputed_gradients_have_the_same_bits(kind, every, backend, dtype, rng):
    module = made(kind, num_layers=2, dropout=0.3, dtype=dtype)
    x, state = normal(rng, dtype, N, T, D), drawn_state(module, rng)
    given = {"lengths": [7, 5, 0, 2], "reset": rng.random((N, T)) < 0.2, "training": True}
    results = []
    for checkpoint_every in None, every:
        module.rng = np.random.default_rng(5)
        y, last, cache = module.forward(x, state, checkpoint_every=checkpoint_every, **given)
        dx, grads, first = module.backward(y, cache, last)
        results.append([y, *listed(last), dx, *grads.values(), *listed(first)])
    for a, b in zip(*results, strict=True):
        if backend == "cython":  # the other sums in another order
            assert_same_bits(a, b)
        else:
            assert_close(a, b, TWIN[dtype.name])


def test_what_checkpoints_are_not_for_is_refused():
    x = np.zeros((N, T, D), np.float32)
    both = re.escape("checkpoint_every: expected None with bidirectional=True: the direction")
    with pytest.raises(ValueError, match=both):
        nn.GRU(D, H, bidirectional=True).forward(x, checkpoint_every=5)
    for every in 0, 2.5, True:
        with pytest.raises(ValueError, match="checkpoint_every: expected an integer of at least 1"):
            nn.GRU(D, H).forward(x, checkpoint_every=every)


@kinds
def test_modules_copy_and_pickle(kind, rng):
    module = made(kind, num_layers=2)
    x = normal(rng, np.float32, N, T, D)
    y = module.forward(x)[0]
    for other in copy.deepcopy(module), pickle.loads(pickle.dumps(module)):
        assert_same_bits(other.forward(x)[0], y)
        other.params["weight_ih_l0"] *= 2
    assert_same_bits(module.forward(x)[0], y)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 5), ValueError, "input_size: expected an integer of at least 1, got 0"),
        ((3, 2.5), ValueError, "hidden_size: expected an integer of at least 1, got 2.5"),
        ((3, 5, 0), ValueError, "num_layers: expected an integer of at least 1, got 0"),
        ({"dropout": 1}, ValueError, "dropout: expected a probability in [0, 1), got 1"),
        ({"bias": 1}, TypeError, "bias: expected a bool, got 1"),
        ({"bidirectional": "no"}, TypeError, "bidirectional: expected a bool, got 'no'"),
        (
            {"proj_size": 5},
            ValueError,
            "proj_size: expected 0, or less than hidden_size = 5, got 5",
        ),
        ({"proj_size": -1}, ValueError, "proj_size: expected an integer of at least 1, got -1"),
        ({"dtype": np.float16}, TypeError, "dtype: expected float32 or float64, got float16"),
        ({"gate_order": "gofi"}, ValueError, "gate_order: expected one of ['ifog', 'fico', 'ifgo'"),
        ({"gate_order": None}, ValueError, "gate_order: expected one of ['ifog', 'fico', 'ifgo', "),
        ({"dtype": None}, TypeError, "dtype: expected float32 or float64, got object"),
        ({"dtype": "floaty"}, TypeError, "dtype: expected float32 or float64: data type"),
        ({"seed": "a"}, TypeError, "seed: expected an integer of at least 0: "),
        ({"seed": -1}, ValueError, "seed: expected an integer of at least 0: "),
        ({"backend": "gpu"}, ValueError, "backend: expected "),
        ({"init": "zeros"}, ValueError, "init: expected one of ['pytorch', 'keras', 'scaled']"),
    ],
    ids=str,
)
def test_what_no_module_can_be_is_refused(arguments, error, message):
    keywords = arguments if isinstance(arguments, dict) else {}
    with pytest.raises(error, match=re.escape(message)):
        nn.LSTM(*((3, 5) if keywords else arguments), **keywords)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros((N, T))}, TypeError, "x: expected float32 like the weights, got float64"),
        (
            {"x": np.zeros((N, T), np.float32)},
            ValueError,
            "x: expected shape (N, T, D) = (N, T, 5), got (4, 7)",
        ),
        ({"state": np.zeros((2, N, H))}, TypeError, "h0, c0: expected a tuple of these, got nd"),
        (
            {"state": (np.zeros((1, N, H), np.float32),) * 2},
            ValueError,
            "h0: expected shape (2, 4, 6), got (1, 4, 6)",
        ),
        (
            {"state": (np.zeros((1, N, H)),)},
            TypeError,
            "h0, c0: expected a tuple of these, got 1 of",
        ),
        ({"rng": 0}, TypeError, "rng: expected a numpy.random.Generator, got int"),
        ({"lengths": [1, 2]}, ValueError, "lengths: expected shape (4,), got (2,)"),
        (
            {"reset": np.zeros((N, T + 1), bool)},
            ValueError,
            "reset: expected shape (N, T) = (4, 7), got (4, 8)",
        ),
        ({"training": 1}, TypeError, "training: expected a bool, got 1"),
    ],
    ids=str,
)
@both_ways
def test_what_forward_cannot_take_is_refused(change, error, message, bidirectional, backend):
    module = nn.LSTM(D, H, 1 if bidirectional else 2, bidirectional=bidirectional)
    given = {"x": np.zeros((N, T, D), np.float32)} | change
    with pytest.raises(error, match=re.escape(message)):
        module.forward(**given)


def test_parameters_are_checked_by_their_names():
    module = nn.LSTM(D, H, 2)
    x = np.zeros((N, T, D), np.float32)
    params = dict(module.params)
    with pytest.raises(ValueError, match="nonlinearity: expected one of"):
        nn.RNN(D, H, nonlinearity="sigmoid")
    for name, a, error, message in [
        ("weight_hh_l0", [[1.0]], TypeError, "weight_hh_l0: expected an ndarray, got list"),
        ("weight_hh_l1", np.zeros((18, H), np.float32), ValueError, "(24, 6), got (18, 6)"),
        ("bias_ih_l0", np.zeros(24), TypeError, "bias_ih_l0: expected float32, got float64"),
        ("weight_ih_l2", np.zeros((24, H)), ValueError, "params: expected ['weight_ih_l0', "),
    ]:
        module.params = params | {name: a}
        with pytest.raises(error, match=re.escape(message)):
            module.forward(x)


def test_gradients_need_what_fits_and_a_training_pass(rng):
    module = nn.LSTM(D, H)
    x = normal(rng, np.float32, N, T, D)
    y, _, cache = module.forward(x, training=True)
    with pytest.raises(ValueError, match=re.escape("dy: expected shape (4, 7, 6), got (4, 7, 5)")):
        module.backward(y[..., :5], cache)
    with pytest.raises(ValueError, match=re.escape("dcT: expected shape (1, 4, 6)")):
        module.backward(y, cache, (None, y))
    with pytest.raises(ValueError, match="training=False"):
        module.backward(y, module.forward(x)[2])
    with pytest.raises(TypeError, match=re.escape("cache that LSTM.forward returned, got tuple")):
        module.backward(y, (1, 2))
    for other in nn.LSTM(D, H, 2), nn.LSTM(D, H + 1), nn.LSTM(D, H, bias=False), nn.GRU(D, H):
        with pytest.raises(ValueError, match="cache: expected that of .* got that of another modu"):
            other.backward(y, cache)
    dx, grads, _ = module.backward(None, cache)
    assert not dx.any()
    assert not any(a.any() for a in grads.values())


@kinds
def test_nothing_at_all_is_a_batch_too(kind):
    module = made(kind, num_layers=2)
    for shape in (0, T, D), (N, 0, D):
        y, state, cache = module.forward(np.zeros(shape, np.float32), training=True)
        assert y.shape == (*shape[:2], module.output_size)
        dx, grads, dstate = module.backward(y, cache, state)
        assert dx.shape == shape
        assert not any(a.any() for a in grads.values())
        assert [a.shape for a in listed(dstate)] == [a.shape for a in listed(state)]


def test_a_module_says_what_it_is():
    assert repr(nn.GRU(3, 4)) == "GRU(3, 4)"
    assert repr(nn.RNN(3, 4, nonlinearity="relu")) == "RNN(3, 4, nonlinearity='relu')"
    text = "LSTM(3, 4, num_layers=2, bidirectional=True, dropout=0.5)"
    assert repr(nn.LSTM(3, 4, 2, bidirectional=True, dropout=0.5)) == text


@kinds
@both_ways
@pytest.mark.parametrize("layout", ["time_first", "packed"])
def test_stacks_of_any_layout_are_those_of_the_usual_one(kind, bidirectional, layout, rng):
    module = made(kind, bidirectional=bidirectional, num_layers=2, dtype=np.float64)
    form, weights = module.form, module._weights()
    x, reset = normal(rng, np.float64, N, T, D), rng.random((N, T)) < 0.3
    steps = Steps(np.array([7, 5, 5, 2]), layout=layout)
    state = listed(drawn_state(module, rng))
    own = {"lengths": steps.lengths}
    y, last, cache = stack.forward(form, weights, x, state, reset=reset, **own)
    dx, dfirst, grads = stack.backward(form, y, last, cache)
    own |= {"reset": laid_out(reset, steps), "layout": layout}
    there, last, cache = stack.forward(form, weights, laid_out(x, steps), state, **own)
    dx_there, dfirst_there, grads_there = stack.backward(form, there, last, cache)
    assert_close(there, laid_out(y, steps), 1e-14)
    assert_close(dx_there, laid_out(dx, steps), 1e-14)
    for a, b in zip(dfirst_there, dfirst, strict=True):
        assert_close(a, b, 1e-14)
    for layer, layer_there in zip(grads, grads_there, strict=True):
        for a, b in zip(itertools.chain(*layer), itertools.chain(*layer_there), strict=True):
            assert (a is None and b is None) or np.allclose(a, b, rtol=0, atol=1e-13)
