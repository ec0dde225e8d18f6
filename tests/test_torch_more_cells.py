"""fastrnn.torch's cells that torch.nn does not have, and torch.nn's with options: fastrnn's kernels
beside the same formulas in torch's operations, and both beside fastrnn.nn."""

import copy

import pytest
import torch
from test_torch_modules import (  # the fixture is used by being here
    D,
    H,
    N,
    T,
    assert_equal,
    leaf,
    results,
    torchs_threads_do_not_wait,  # noqa: F401
)
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint
from util import assert_same_bits

import fastrnn.nn
import fastrnn.torch
from fastrnn import Options

STILL = Options(clip=1.5, clip_gradient=0.4)
ZONEOUT = Options(zoneout_h=0.3)
MASKED = Options(zoneout_h=0.2, dropout_x=0.3, dropout_h=0.25, dropout_weights=0.2, first_step=3)
GATED = MASKED._replace(dropout_candidate=0.3, hard_sigmoid=0.2, clip=0.8)
OF_C = GATED._replace(zoneout_c=0.4)
FORMS = [
    ("RNN", {"options": MASKED._replace(clip=1.0)}),
    ("RNN", {"options": Options(cap=0.5, zoneout_h=0.2), "nonlinearity": "relu"}),
    ("LSTM", {"options": OF_C}),
    ("LSTM", {"options": MASKED, "proj_size": 2}),
    ("GRU", {"options": GATED, "bias": False}),
    ("LayerNormLSTM", {}),
    ("LayerNormLSTM", {"options": OF_C, "bias": False, "eps": 0.1}),
    ("LayerNormGRU", {"options": STILL}),
    ("LayerNormGRU", {"options": GATED}),
    ("PeepholeLSTM", {"options": ZONEOUT._replace(zoneout_c=0.5)}),
    ("MGU", {}),
    ("MGU", {"bias": False}),
    *(("MinGRU", {"nonlinearity": name}) for name in ("linear", "positive")),
    *(("MinLSTM", {"nonlinearity": name}) for name in ("linear", "positive")),
    *(("IndRNN", {"nonlinearity": name}) for name in ("relu", "tanh")),
]
ALONE = ["LayerNormLSTM", "LayerNormGRU", "PeepholeLSTM", "MGU", "MinGRU", "MinLSTM", "IndRNN"]
IN_PLACE = {"num_layers": 2, "bidirectional": True, "dropout": 0.3}


def made(name, *, dtype=torch.float64, **keywords):
    torch.manual_seed(0)
    module = getattr(fastrnn.torch, name)(D, H, **keywords).to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():  # gains and shifts that are not those at the start
            parameter += 0.3 * torch.randn_like(parameter)
    module.use = "fastrnn"
    return module


@pytest.fixture
def only_kernels(monkeypatch):
    """torch's operations are an error."""

    def refused(*_, **__):
        raise AssertionError("torch computes")

    monkeypatch.setattr(fastrnn.torch.sequences.Sequence, "reference", refused)


def by_torch(module):
    twin = copy.deepcopy(module)
    twin.use = "torch"
    return twin


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("several", [False, True], ids=["one", "stack"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("name", "own"), FORMS, ids=str)
def test_kernels_and_formulas_agree(name, own, training, several, dtype):
    module = made(name, dtype=dtype, batch_first=True, **own, **(IN_PLACE if several else {}))
    module.train(training)
    x = leaf(N, T, D, dtype=dtype)
    packed = pack_padded_sequence(x, [2, 5, 3], batch_first=True, enforce_sorted=False)
    reset = torch.rand(N, T) < 0.3
    for given, keywords in ((x, {}), (packed, {}), (x, {"reset": reset}), (x[0], {})):
        expected = results(by_torch(module), given, **keywords)
        assert_equal(results(module, given, **keywords), expected)
    hx = pytree.tree_map(lambda s: s.detach().requires_grad_(), module(x)[1])
    assert_equal(results(module, x, hx), results(by_torch(module), x, hx))


@pytest.mark.parametrize(("name", "own"), FORMS, ids=str)
def test_calls_are_computed_by_kernels(name, own, only_kernels):
    module, x = made(name, **own), leaf(T, N, D, dtype=torch.float64)
    results(module, x)
    with torch.no_grad():
        module.eval()(x)


@pytest.mark.parametrize(("name", "own"), FORMS, ids=str)
def test_derivatives_of_derivatives(name, own):
    own = dict(own)
    if "options" in own:  # whose clipped gradients are of no function
        own["options"] = own["options"]._replace(clip_gradient=None)
    module, x = made(name, **own), leaf(3, 2, D, dtype=torch.float64)
    parameters = [p.detach().clone().requires_grad_() for p in module.parameters()]
    names = [name for name, _ in module.named_parameters()]

    def outputs(x, *values):
        torch.manual_seed(1)
        given = dict(zip(names, values, strict=True))
        y, hx = torch.func.functional_call(module, given, (x,))
        return y, *(hx if isinstance(hx, tuple) else (hx,))

    assert torch.autograd.gradcheck(outputs, (x, *parameters))
    assert torch.autograd.gradgradcheck(outputs, (x, *parameters))


@pytest.mark.parametrize("name", ["LSTM", "LayerNormGRU"])
def test_gradients_of_what_predictions_expect_of_zoneout(name):
    module, x = made(name, options=ZONEOUT).eval(), leaf(3, 2, D, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: module(x)[0], (x,))
    expected = module(x)[0].detach()
    with torch.no_grad():
        assert_equal([module(x)[0]], [expected])


@pytest.mark.parametrize("name", ALONE)
def test_it_is_the_module_of_fastrnn_nn(name, tmp_path):
    kind, keywords = {
        "LayerNormLSTM": ("LSTM", {"layer_norm": True}),
        "LayerNormGRU": ("GRU", {"layer_norm": True}),
        "PeepholeLSTM": ("LSTM", {"peepholes": True}),
    }.get(name, (name, {}))
    theirs = getattr(fastrnn.nn, kind)(D, H, 2, bidirectional=True, **keywords)
    ours = made(name, dtype=torch.float32, num_layers=2, bidirectional=True, batch_first=True)
    state = ours.state_dict()
    assert [*state] == [*theirs.params]
    theirs.params = {k: v.numpy() for k, v in state.items()}
    x = torch.randn(N, T, D)
    with torch.no_grad():
        y, _ = ours(x)
    assert_same_bits(theirs.forward(x.numpy())[0], y.numpy())
    if kind != name:  # nn.load knows it
        torch.save(state, tmp_path / "model.pt")
        back = fastrnn.nn.load(tmp_path / "model.pt")
        assert back.form == theirs.form
        assert_same_bits(back.forward(x.numpy())[0], y.numpy())


def test_what_is_random_is_drawn_by_torch_and_in_training_alone():
    module = made("LSTM", options=OF_C, num_layers=2)
    x = torch.randn(T, N, D, dtype=torch.float64)

    def run(seed):
        torch.manual_seed(seed)
        return module(x)[0].detach()

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    module.eval()
    assert torch.equal(run(1), run(2))
    assert module.options == OF_C


def test_a_checkpoint_draws_the_same_again():
    module, x = made("LayerNormLSTM", options=OF_C), leaf(T, N, D, dtype=torch.float64)
    gradients = []
    for call in (module, lambda x: checkpoint(module, x, use_reentrant=False)):
        torch.manual_seed(3)
        gradients.append(torch.autograd.grad(call(x)[0].sum(), [x, *module.parameters()]))
    assert_equal(*gradients)


@pytest.mark.parametrize(("name", "own"), FORMS, ids=str)
def test_in_one_graph_of_torch_compile(name, own):
    torch._dynamo.reset()
    module, x = made(name, num_layers=2, dropout=0.2, **own), leaf(T, N, D, dtype=torch.float64)
    with torch._dynamo.config.patch(allow_rnn=True):
        graph = torch.compile(module, fullgraph=True, backend="aot_eager")
        for training in (True, False):
            module.train(training)
            assert_equal(results(graph, x), results(module, x))
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ALONE)
def test_packed_sequences_break_a_graph(name):
    torch._dynamo.reset()
    module, x = made(name), torch.randn(T, N, D, dtype=torch.float64)
    packed = pack_padded_sequence(x, [5, 3, 2])
    y, _ = torch.compile(module, backend="eager")(packed)
    assert torch.equal(y.data, module(packed)[0].data)
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ALONE)
def test_modules_are_torchs_in_all_else(name, tmp_path):
    module = made(name, dtype=torch.float32, num_layers=2, batch_first=True)
    torch.save(module.state_dict(), tmp_path / "model.pt")
    other = copy.deepcopy(module)
    other.reset_parameters()
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    x = torch.randn(N, T, D)
    assert torch.equal(module(x)[0], other(x)[0])
    half = copy.deepcopy(module).bfloat16()(x.bfloat16())[0]
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), module(x)[0], rtol=0.1, atol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(module(x)[0].float(), module(x)[0].float())
    empty = torch.func.vmap(lambda x: module(x)[0])(x[:, None])
    torch.testing.assert_close(empty[:, 0], module(x)[0])
    assert repr(module) == f"{name}({D}, {H}, num_layers=2, batch_first=True)"


@pytest.mark.filterwarnings("ignore:`torch.jit.", "ignore:Iterating over a tensor")
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python")
def test_torch_jit():
    module, x = made("LayerNormLSTM"), torch.randn(T, N, D, dtype=torch.float64)
    traced = torch.jit.trace(module, (x,))
    assert_equal([traced(x)[0]], [module(x)[0]])
    for refused in (module, made("LSTM", options=ZONEOUT)):
        with pytest.raises(TypeError, match=r"^torch.jit.script: expected what torch.nn has"):
            torch.jit.script(refused)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("MGU", {"hx": "h"}, "hx: expected a tensor, got str"),
        ("MGU", {"hx": (2, N, H + 1)}, r"h: expected shape \(1, 3, 6\), got \(2, 3, 7\)"),
        (
            "MinGRU",
            {"x": (T, N, D + 1)},
            r"input: expected shape \(T, N, D\) with D = 4, got",
        ),
        ("IndRNN", {"x": (0, N, D)}, r"input: expected shape .* got \(0, 3, 4\)"),
        ("LSTM", {"options": ZONEOUT, "hx": "h"}, "hx: expected a tuple of h and c, got str"),
        ("LSTM", {"options": ZONEOUT, "x": (T, N, 1, D)}, r"got \(5, 3, 1, 4\)"),
        ("LayerNormLSTM", {"hx": (1, N, H)}, "hx: expected a tuple of h and c, got Tensor"),
        ("LayerNormGRU", {"x": "x"}, "input: expected a tensor or a PackedSequence, got str"),
        (
            "LayerNormGRU",
            {"options": Options(zoneout_c=0.1)},
            "zoneout_c: expected nothing",
        ),
        ("GRU", {"options": {"clip": 1}}, "options: expected fastrnn.Options, got dict"),
        ("MGU", {"options": ZONEOUT}, "options: expected nothing for mgu"),
        ("MGU", {"eps": 0.1}, "eps: expected None for MGU, got 0.1"),
        ("LayerNormLSTM", {"eps": 0}, "eps: expected a number above 0, got 0"),
        ("MinGRU", {"nonlinearity": "tanh"}, "nonlinearity: expected one of"),
        ("MinLSTM", {"num_layers": 0}, "num_layers: expected"),
        ("IndRNN", {"bias": 1}, "bias: expected"),
        ("IndRNN", {"dropout": 1.5}, "dropout: expected"),
    ],
)
def test_what_does_not_fit_is_named(name, given, message):
    def shaped(v):
        return torch.zeros(v, dtype=torch.float64) if isinstance(v, tuple) else v

    given = dict(given)
    x, hx = shaped(given.pop("x", (T, N, D))), shaped(given.pop("hx", None))
    with pytest.raises((TypeError, ValueError), match=message):
        made(name, **given)(x, hx)


@pytest.mark.parametrize(("name", "own"), FORMS, ids=str)
def test_a_batch_without_rows(name, own):
    module = made(name, bidirectional=True, **own)
    y, hx = module(torch.zeros(T, 0, D, dtype=torch.float64))
    assert y.shape == (T, 0, 2 * own.get("proj_size", H))
    assert all(s.shape[:2] == (2, 0) for s in pytree.tree_leaves(hx))


@pytest.mark.parametrize("name", ["MinGRU", "LayerNormLSTM", "PeepholeLSTM"])
def test_dtypes_are_the_weights(name):
    module, x = made(name, dtype=torch.float32), torch.zeros(T, N, D)
    h, c = torch.zeros(1, N, H), torch.zeros(1, N, H, dtype=torch.float64)
    with pytest.raises(TypeError, match=r"^input: expected torch.float32 on cpu like the weights"):
        module(x.double())
    with pytest.raises(TypeError, match=r"^[hc]: expected torch.float32 on cpu .* torch.float64"):
        module(x, c if name == "MinGRU" else (h, c))


def test_options_are_checked_where_they_are_set():
    module = made("LSTM")
    module.options = ZONEOUT
    assert copy.deepcopy(module).options == ZONEOUT
    for wrong in (Options(zoneout_h=1.5), Options(cap=2.0)):
        with pytest.raises(ValueError, match=r"^(zoneout_h|cap): expected"):
            module.options = wrong
    with pytest.raises(TypeError, match=r"^options: expected fastrnn.Options, got dict$"):
        module.options = {"zoneout_h": 0.1}
    with pytest.raises(TypeError, match=r"^options: expected nothing for ind_rnn$"):
        made("IndRNN").options = ZONEOUT


def test_gradients_in_a_graph_of_what_does_not_lie_as_it_is_read():
    """By torch's own compiler, which trusts in what it was told of strides."""
    torch._dynamo.reset()
    module = made("MGU", num_layers=2)
    graph = torch.compile(module, fullgraph=True)
    x = torch.randn(N, T, D, dtype=torch.float64).transpose(0, 1)
    assert_equal(results(graph, x.requires_grad_()), results(module, x))
    torch._dynamo.reset()


def test_a_packed_sequence_that_is_none():
    rows = torch.zeros(5, D, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"^batch_sizes: expected those of 5 rows, got \[2, 2\]$"):
        made("MGU")(PackedSequence(rows, torch.tensor([2, 2])))
