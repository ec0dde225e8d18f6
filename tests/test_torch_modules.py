"""fastrnn.torch beside torch.nn: the same outputs, states and gradients of every call, by fastrnn's
kernels where they are to compute, by torch.nn's own code elsewhere."""

import copy
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint
from util import TWIN

import fastrnn.torch
from fastrnn.torch import tensors

NAMES = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")
LAYERS = NAMES[:3]
DTYPES = (torch.float32, torch.float64)
N, T, D, H = 3, 5, 4, 6


@pytest.fixture(autouse=True)
def torchs_threads_do_not_wait():
    """On a busy machine those of OpenMP may wait for each other for minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def only_fastrnn(monkeypatch):
    """torch.nn's own code is an error."""

    def refused(*_):
        raise AssertionError("torch.nn computes")

    for name in NAMES:
        monkeypatch.setattr(getattr(nn, name), "forward", refused)
        monkeypatch.setattr(getattr(fastrnn.torch, name), "use", "fastrnn")


def pair(name, *args, dtype=torch.float32, **keywords):
    """A module of torch.nn and one of fastrnn.torch of the same parameters."""
    torch.manual_seed(0)
    theirs = getattr(nn, name)(*args, **keywords).to(dtype)
    ours = getattr(fastrnn.torch, name)(*args, **keywords).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    ours.use = "fastrnn"
    return theirs, ours


def tensors_of(tree):
    """The tensors of reals in a tree, also in packed sequences."""
    found = []
    for leaf in pytree.tree_leaves(tree, is_leaf=lambda a: isinstance(a, PackedSequence)):
        leaf = leaf.data if isinstance(leaf, PackedSequence) else leaf
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
            found.append(leaf)
    return found


def results(module, *args, **keywords):
    """Outputs of a module, and the gradients of its inputs and parameters."""
    args, keywords = pytree.tree_map_only(
        torch.Tensor,
        lambda t: t.detach().clone().requires_grad_(t.requires_grad),
        (args, keywords),
    )
    torch.manual_seed(1)
    outputs = tensors_of(module(*args, **keywords))
    douts = [torch.linspace(-1, 1, t.numel(), dtype=t.dtype).view_as(t) for t in outputs]
    inputs = [t for t in tensors_of((args, keywords)) if t.requires_grad]
    inputs += [p for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(outputs, inputs, douts, allow_unused=True)
    return [*outputs, *gradients]


def assert_equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            tolerance = TWIN[str(a.dtype).removeprefix("torch.")]
            largest = float(b.detach().abs().max()) if b.numel() else 0
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(1, largest))


def leaf(*shape, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype, requires_grad=True)


# ---- torch's own inputs of its modules -----------------------------------------------------------


def _module_inputs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_modules import module_db
    return {info.module_cls.__name__: info for info in module_db if info.module_cls in OF_TORCH}


OF_TORCH = [getattr(nn, name) for name in NAMES]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_what_torch_tests_its_modules_with(name, dtype, training, recwarn):
    info = _module_inputs()[name]
    inputs = info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=training
    )
    assert inputs
    for given in inputs:
        made, called = given.constructor_input, given.forward_input
        theirs, ours = pair(name, *made.args, dtype=dtype, **made.kwargs)
        expected = results(theirs.train(training), *called.args, **called.kwargs)
        got = results(ours.train(training), *called.args, **called.kwargs)
        assert_equal(got, expected)


# ---- layers --------------------------------------------------------------------------------------

VARIANTS = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "one layer, no bias": {"bias": False},
    "no bias": {"bias": False, "num_layers": 2},
    "both directions": {"bidirectional": True, "num_layers": 2, "batch_first": True},
    "dropout": {"dropout": 0.4, "num_layers": 3, "bidirectional": True},
    "dropout, batch_first": {"dropout": 0.4, "num_layers": 2, "batch_first": True},
    "all dropped": {"dropout": 1.0, "num_layers": 2},
}
CASES = [(name, keywords) for name in LAYERS for keywords in VARIANTS.values()]
CASES += [("LSTM", {"proj_size": 2, "num_layers": 2, "bidirectional": True, "dropout": 0.3})]
CASES += [("RNN", {"nonlinearity": "relu", "num_layers": 2})]
case = pytest.mark.parametrize(("name", "keywords"), CASES, ids=str)


def states(name, keywords, batch=(N,), dtype=torch.float32):
    """hx with a gradient."""
    rows = keywords.get("num_layers", 1) * (1 + keywords.get("bidirectional", False))
    h = leaf(rows, *batch, keywords.get("proj_size") or H, dtype=dtype)
    return (h, leaf(rows, *batch, H, dtype=dtype)) if name == "LSTM" else h


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_states", [False, True])
@case
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_layers_give_what_torch_gives(name, keywords, with_states, dtype):
    theirs, ours = pair(name, D, H, dtype=dtype, **keywords)
    x = leaf(*((N, T) if keywords.get("batch_first") else (T, N)), D, dtype=dtype)
    hx = states(name, keywords, dtype=dtype) if with_states else None
    for training in (True, False):
        assert_equal(results(ours.train(training), x, hx), results(theirs.train(training), x, hx))
    with torch.inference_mode():
        assert_equal(tensors_of(ours(x, hx)), tensors_of(theirs(x, hx)))
    assert all(a.is_contiguous() for a in tensors_of(ours(x, hx)))


@pytest.mark.parametrize("with_states", [False, True])
@pytest.mark.parametrize("enforce_sorted", [False, True])
@case
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_packed_sequences_give_what_torch_gives(name, keywords, enforce_sorted, with_states):
    theirs, ours = pair(name, D, H, **keywords)
    batch_first = keywords.get("batch_first", False)
    x = leaf(*((N, T) if batch_first else (T, N)), D)
    lengths = [5, 3, 3] if enforce_sorted else [3, 5, 1]

    def packed(module):
        def call(x, hx):
            sequence = pack_padded_sequence(x, lengths, batch_first, enforce_sorted)
            y, last = module(sequence, hx)
            for a, b in zip(y[1:], sequence[1:], strict=True):
                assert a is b
            return pad_packed_sequence(y, batch_first)[0], last

        call.parameters = module.parameters
        return call

    hx = states(name, keywords) if with_states else None
    got, expected = (results(packed(module), x, hx) for module in (ours, theirs))
    assert_equal(got, expected)


@case
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_fastrnn_computes(name, keywords, only_fastrnn):
    module = getattr(fastrnn.torch, name)(D, H, **keywords)
    for x in (leaf(T, N, D), leaf(T, D), pack_sequence([leaf(T, D), leaf(2, D)])):
        sum(a.sum() for a in tensors_of(module(x))).backward()
        with torch.no_grad():
            assert not any(a.requires_grad for a in tensors_of(module(x)))


@pytest.mark.parametrize("name", LAYERS)
def test_one_row_one_step_and_no_batch(name):
    for shape in [(1, N, D), (T, 1, D), (1, 1, D), (T, D), (1, D)]:
        theirs, ours = pair(name, D, H, num_layers=2, bidirectional=True)
        x = leaf(*shape)
        batch = () if len(shape) == 2 else (shape[1],)
        for hx in (None, states(name, {"num_layers": 2, "bidirectional": True}, batch)):
            assert_equal(results(ours, x, hx), results(theirs, x, hx))


def test_states_may_be_expanded_parameters_and_weights_may_be_frozen():
    theirs, ours = pair("LSTM", D, H, batch_first=True)
    start = leaf(1, 1, H)
    for module in (theirs, ours):
        module.weight_hh_l0.requires_grad_(False)
        module.bias_ih_l0.requires_grad_(False)
    x = torch.randn(T, N, D).transpose(0, 1)  # no gradient, not contiguous

    def expanded(module):
        def call(x, h):
            return module(x, (h.expand(-1, N, -1), h.expand(-1, N, -1)))

        call.parameters = module.parameters
        return call

    assert_equal(results(expanded(ours), x, start), results(expanded(theirs), x, start))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_wrong_gets_torchs_errors(name):
    theirs, ours = pair(name, D, H)
    x = torch.randn(N, D) if name.endswith("Cell") else torch.randn(T, N, D)
    state = theirs(x)[0] if name == "LSTMCell" else theirs(x)
    state = state if name.endswith("Cell") else state[1]
    wrong = [
        (x[..., :3],),
        (x.double(),),
        (x.expand(2, *x.shape).expand(2, *[2, *x.shape]),),
        (x, state[..., :2] if isinstance(state, torch.Tensor) else (state[0], state[1][..., :2])),
        (x[:0],),
        (x.numpy(),),
    ]
    for args in wrong:
        try:
            theirs(*args)
        except Exception as error:
            with pytest.raises(type(error)) as raised:
                ours(*args)
            assert str(raised.value) == str(error)
        else:
            ours(*args)


def test_same_wrong_states_and_packed_data_of_three_axes():
    theirs, ours = pair("LSTM", D, H)
    state = torch.zeros(1, N, H + 1)
    packed = PackedSequence(torch.randn(3, 2, D), torch.tensor([2, 1]))
    for args in ((torch.randn(T, N, D), (state, state)), (packed,)):
        with pytest.raises(RuntimeError) as expected:
            theirs(*args)
        with pytest.raises(RuntimeError) as raised:
            ours(*args)
        assert str(raised.value) == str(expected.value)


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [([1, 2], 3), ([2, 1], 4), ([2, 1], 2), ([2, 0], 2), ([-1], 1), ([3, 0, 1], 4), ([], 0)],
)
def test_what_no_packing_is_is_torchs(sizes, rows):
    theirs, ours = pair("GRU", D, H, bidirectional=True)
    packed = PackedSequence(torch.randn(rows, D), torch.tensor(sizes, dtype=torch.int64))
    try:
        expected = theirs(packed)[0].data
    except Exception as error:
        with pytest.raises(type(error)) as raised:
            ours(packed)
        assert str(raised.value) == str(error)
    else:
        assert_equal([ours(packed)[0].data], [expected])


@pytest.mark.parametrize("name", NAMES)
def test_what_is_changed_between_the_passes_is_an_error(name):
    _, module = pair(name, D, H)
    x = leaf(N, D) if name.endswith("Cell") else leaf(1, 1, D)
    for change in ("weight", "input", "output"):
        given = x * 1
        y = module(given)
        y = y if isinstance(y, torch.Tensor) else y[0]
        if change == "output":
            y = y.mul_(2)
        with torch.no_grad():
            if change == "weight":
                next(module.parameters()).add_(1)
            elif change == "input":
                given.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_an_output_that_is_a_copy_may_be_changed():
    theirs, ours = pair("LSTM", D, H, bidirectional=True)

    def doubled(module):
        def call(x):
            y, (h, c) = module(x)
            return y.mul_(2), h.add_(1), c.mul_(3)

        call.parameters = module.parameters
        return call

    x = leaf(T, N, D)
    assert_equal(results(doubled(ours), x), results(doubled(theirs), x))


def test_gradients_do_not_share_memory():
    for name in NAMES:
        _, module = pair(name, D, H)
        y = module(torch.randn(N, D) if name.endswith("Cell") else torch.randn(T, N, D))
        (y if isinstance(y, torch.Tensor) else y[0]).sum().backward()
        where = [p.grad.data_ptr() for p in module.parameters()]
        assert len(set(where)) == len(where)


# ---- derivatives ---------------------------------------------------------------------------------


def flat(module):
    def call(x, *_):
        return tuple(tensors_of(module(x)))

    return call


GRADCHECKED = [(name, {}) for name in NAMES] + [
    ("LSTM", {"num_layers": 2, "bidirectional": True, "proj_size": 2, "batch_first": True}),
    ("GRU", {"num_layers": 2, "bidirectional": True, "bias": False}),
]


@pytest.mark.parametrize(("name", "keywords"), GRADCHECKED, ids=str)
def test_derivatives_and_derivatives_of_derivatives(name, keywords, only_fastrnn):
    module = getattr(fastrnn.torch, name)(2, 3, dtype=torch.float64, **keywords)
    x = leaf(2, 2, dtype=torch.float64) if "Cell" in name else leaf(3, 2, 2, dtype=torch.float64)
    inputs = (x, *module.parameters())
    assert torch.autograd.gradcheck(flat(module), inputs, check_batched_grad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(flat(module), inputs, fast_mode=True)


def test_derivatives_of_derivatives_of_packed_sequences_with_resets_and_dropout(only_fastrnn):
    module = fastrnn.torch.GRU(
        2, 3, 2, dropout=0.5, bidirectional=True, batch_first=True, dtype=torch.float64
    )
    x, reset = leaf(3, 4, 2, dtype=torch.float64), torch.rand(3, 4) < 0.4

    def call(x, *_):
        torch.manual_seed(0)
        packed = pack_padded_sequence(x, [2, 4, 3], batch_first=True, enforce_sorted=False)
        y, h = module(packed, reset=reset)
        return y.data, h

    inputs = (x, *module.parameters())
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


# ---- resets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_a_reset_row_is_many_rows(name):
    module = getattr(fastrnn.torch, name)(D, H, 2, bidirectional=True, batch_first=True)
    x, reset = leaf(2, 6, D), torch.zeros(2, 6, dtype=torch.bool)
    reset[0, 2] = reset[0, 3] = reset[1, 4] = True
    y, _ = module(x, reset=reset)
    pieces = [x[0, :2], x[0, 2:3], x[0, 3:], x[1, :4], x[1, 4:]]
    apart = torch.cat([module(piece)[0] for piece in pieces])
    torch.testing.assert_close(y.flatten(0, 1), apart)


@case
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_resets_are_the_same_without_fastrnns_kernels(name, keywords):
    module = getattr(fastrnn.torch, name)(D, H, **keywords)
    batch_first = keywords.get("batch_first", False)
    reset = torch.rand(N, T) < 0.4
    x = leaf(*((N, T) if batch_first else (T, N)), D)
    packed = pack_padded_sequence(x, [3, 5, 1], batch_first, enforce_sorted=False)
    for given, starts in ((x, reset), (packed, reset), (x[0], reset[0, : len(x[0])])):
        starts = torch.ones(len(given), dtype=torch.bool) if starts.dim() == 1 else starts
        found = {}
        for use in ("auto", "torch"):
            module.use = use
            torch.manual_seed(0)
            found[use] = tensors_of(module(given, reset=starts))
        assert_equal(found["auto"], found["torch"])


def test_wrong_resets_are_named():
    module = fastrnn.torch.GRU(D, H)
    x = torch.randn(T, N, D)
    with pytest.raises(TypeError, match=r"reset: expected a tensor of torch\.bool, got ndarray"):
        module(x, reset=np.zeros((N, T), bool))
    with pytest.raises(
        TypeError, match=r"expected a tensor of torch\.bool, got a tensor of torch\.f"
    ):
        module(x, reset=torch.zeros(N, T))
    with pytest.raises(
        ValueError, match=r"reset: expected shape \(N, T\) = \(3, 5\), got \(5, 3\)"
    ):
        module(x, reset=torch.zeros(T, N, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"reset: expected shape \(T,\) = \(5,\), got \(3, 5\)"):
        module(x[:, 0], reset=torch.zeros(N, T, dtype=torch.bool))
    with pytest.raises(
        ValueError, match=r"reset: expected shape \(N, T\) = \(1, 5\), got \(2, 5\)"
    ):
        module(pack_sequence([x[:, 0]]), reset=torch.zeros(2, T, dtype=torch.bool))


# ---- where torch.nn computes ---------------------------------------------------------------------


def test_other_dtypes_devices_and_autocast_are_torchs():
    for name in NAMES:
        shape = (N, D) if name.endswith("Cell") else (T, N, D)
        theirs, ours = pair(name, D, H, dtype=torch.bfloat16)
        x = torch.randn(shape, dtype=torch.bfloat16)
        for a, b in zip(tensors_of(ours(x)), tensors_of(theirs(x)), strict=True):
            assert torch.equal(a, b)
        theirs, ours = pair(name, D, H)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for a, b in zip(*(tensors_of(m(x.float())) for m in (ours, theirs)), strict=True):
                assert a.dtype == b.dtype
                assert torch.equal(a, b)
        outputs = tensors_of(ours.to("meta")(torch.empty(shape, device="meta")))
        assert all(a.is_meta for a in outputs)


def test_subclasses_of_tensor_stay_what_they_are():
    class Mine(torch.Tensor):
        pass

    x = torch.randn(T, N, D).as_subclass(Mine)
    assert type(fastrnn.torch.GRU(D, H)(x)[0]) is Mine


def test_arrays_are_the_tensors_memory_with_and_without_the_extension():
    x, y = torch.randn(3, 4), nn.Parameter(torch.randn(2, 5)[:, 1:4].T)
    for plain in (tensors.plain_arrays, tensors._plain_arrays):
        a, none, b = plain((x, None, y))
        assert none is None
        a[0, 0] = 7
        assert x[0, 0] == 7
        assert np.array_equal(b, y.detach().numpy())
        assert b.strides == y.detach().numpy().strides
        for other in (
            x.double(),
            x.half(),
            x.long(),
            x.to("meta"),
            x.to_sparse(),
            x.to_mkldnn(),
            torch._neg_view(x),
            x.as_subclass(type("Mine", (torch.Tensor,), {})),
            torch.randn([1] * 9),
        ):
            assert plain((x, other)) is None or other.dim() == 9
    cell = nn.GRUCell(D, H, bias=False)
    del cell._parameters["weight_hh"]
    cell.weight_hh = x
    for members in (tensors.members, tensors._members):
        weight, other, bias = members(cell, ("weight_ih", "weight_hh", "bias_hh"))
        assert weight is cell.weight_ih and other is x and bias is None
    for every in (tensors.arrays, tensors._arrays):
        index, flags, none = every([torch.arange(3), torch.tensor([True]), None])
        assert (index.dtype, flags.dtype, none) == (np.int64, bool, None)


@pytest.mark.parametrize("name", NAMES)
def test_the_numpy_backend_computes_as_well(name, only_fastrnn):
    module = getattr(fastrnn.torch, name)(D, H)
    x = leaf(N, D) if name.endswith("Cell") else leaf(T, N, D)
    expected = results(module, x)
    with fastrnn.use_backend("numpy"):
        assert_equal(results(module, x), expected)


def test_use_says_who_computes(only_fastrnn):
    for name in NAMES:
        module = getattr(fastrnn.torch, name)(D, H)
        x = torch.randn(N, D) if name.endswith("Cell") else torch.randn(T, N, D)
        module(x)
        module.use = "torch"
        with pytest.raises(AssertionError, match=r"torch\.nn computes"):
            module(x)


@pytest.mark.parametrize(
    ("name", "steps", "size", "training", "computed"),
    [
        ("RNN", 2, H, True, False),
        ("RNN", 2, H, False, True),
        ("RNN", 3, H, False, True),
        ("LSTM", 1, H, True, True),
        ("RNNCell", 1, 128, True, False),
        ("RNNCell", 1, 128, False, True),
        ("RNNCell", 1, 512, False, False),
        ("LSTMCell", 1, 128, True, True),
        ("LSTMCell", 1, 148, True, False),
        ("LSTMCell", 20, 64, True, False),
        ("LSTMCell", 20, 64, False, True),
        ("LSTMCell", 20, 128, False, False),
        ("GRUCell", 1, 128, False, True),
        ("GRUCell", 1, 257, False, False),
    ],
)
def test_the_faster_computes(name, steps, size, training, computed, only_fastrnn):
    module = getattr(fastrnn.torch, name)(D, size)
    x = torch.randn(steps * N, D) if name.endswith("Cell") else torch.randn(steps, N, D)
    module.use = "auto"
    with torch.set_grad_enabled(training):
        if computed:
            module(x)
        else:
            with pytest.raises(AssertionError, match=r"torch\.nn computes"):
                module(x)


def test_short_projected_sequences_are_torchs(only_fastrnn):
    module = fastrnn.torch.LSTM(D, H, proj_size=2)
    module.use = "auto"
    module(torch.randn(16, N, D))
    with pytest.raises(AssertionError, match=r"torch\.nn computes"):
        module(torch.randn(15, N, D))
    module(torch.randn(15, N, D), reset=torch.zeros(N, 15, dtype=torch.bool))


@pytest.mark.filterwarnings("ignore:`torch.jit.script:FutureWarning")
def test_transformations_of_functions_are_torchs():
    module = fastrnn.torch.GRU(D, H)
    x, parameters = torch.randn(T, N, D), dict(module.named_parameters())

    def loss(parameters):
        return torch.func.functional_call(module, parameters, (x,))[0].square().sum()

    gradients = torch.func.grad(loss)(parameters)
    loss(parameters).backward()
    for name, p in module.named_parameters():
        torch.testing.assert_close(gradients[name], p.grad)
    _, tangent = torch.func.jvp(lambda x: module(x)[0], (x,), (x,))
    assert tangent.shape == (T, N, H)


# ---- weights -------------------------------------------------------------------------------------


def test_weights_are_read_at_every_call(only_fastrnn):
    for name, weight in (("LSTM", "weight_hh_l0"), ("GRUCell", "weight_hh")):
        module = getattr(fastrnn.torch, name)(D, H)
        x = torch.randn(N, D) if name.endswith("Cell") else torch.randn(T, N, D)

        def output(module=module, x=x):
            with torch.no_grad():
                y = module(x, None)
            return y if isinstance(y, torch.Tensor) else y[0]

        before = output()
        getattr(module, weight).data.copy_(torch.zeros(()))  # as target networks are updated
        zeroed = output()
        assert not torch.equal(before, zeroed) or name == "GRUCell"
        other = {weight: torch.ones_like(getattr(module, weight))}
        with torch.no_grad():
            called = torch.func.functional_call(module, other, (x,))
        called = called if isinstance(called, torch.Tensor) else called[0]
        assert torch.equal(output(), zeroed)
        dropped = getattr(module, weight)
        del module._parameters[weight]  # as hooks that drop weights do
        setattr(module, weight, torch.ones_like(dropped.data))
        assert torch.equal(output(), called)


@pytest.mark.parametrize("name", ["LSTM", "GRUCell"])
def test_parametrizations(name, only_fastrnn):
    for parametrize in (
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        parametrizations.orthogonal,
    ):
        module = getattr(fastrnn.torch, name)(D, H)
        weight = "weight_hh" if name.endswith("Cell") else "weight_hh_l0"
        parametrize(module, weight)
        y = module(torch.randn(N, D) if name.endswith("Cell") else torch.randn(T, N, D))
        (y if isinstance(y, torch.Tensor) else y[0]).sum().backward()
        original = next(module.parametrizations[weight].parameters())
        assert original.grad is not None


def test_modules_are_copied_saved_and_shown_as_torchs():
    for name in NAMES:
        theirs, ours = pair(name, D, H)
        x = torch.randn(N, D) if name.endswith("Cell") else torch.randn(T, N, D)
        expected = tensors_of(ours(x))
        file = io.BytesIO()
        torch.save(ours, file)
        file.seek(0)
        copies = copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))
        for other in (*copies, torch.load(file, weights_only=False)):
            assert type(other) is type(ours)
            assert isinstance(other, getattr(nn, name))
            for a, b in zip(tensors_of(other(x)), expected, strict=True):
                assert torch.equal(a, b)
        assert repr(ours) == repr(theirs)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        if name in LAYERS:
            ours.flatten_parameters()
        ours.share_memory()
        assert tensors_of(ours.double()(x.double()))[0].dtype == torch.float64


# ---- what users write ----------------------------------------------------------------------------


def test_subclass_with_its_own_initialization(only_fastrnn):
    class Amp(fastrnn.torch.LSTM):
        def reset_parameters(self):
            super().reset_parameters()
            nn.init.orthogonal_(self.weight_hh_l0)

        def forward(self, x, hx=None):
            y, hx = super().forward(x, hx)
            return y + self.weight_ih_l0.mean(), hx

    module = Amp(D, H)
    Q = module.weight_hh_l0[:H]
    torch.testing.assert_close(module.weight_hh_l0.T @ module.weight_hh_l0, torch.eye(H))
    assert Q.shape == (H, H)
    assert module(torch.randn(T, N, D))[0].shape == (T, N, H)


def test_loop_over_a_cell_is_the_layer(only_fastrnn):
    layer, cell = fastrnn.torch.LSTM(D, H), fastrnn.torch.LSTMCell(D, H)
    for name, p in cell.named_parameters():
        p.data.copy_(getattr(layer, f"{name}_l0").data)
    x, hx, outputs = torch.randn(T, N, D), None, []
    for x_t in x:
        hx = cell(x_t, hx)
        outputs.append(hx[0])
    y, (_, c) = layer(x)
    torch.stack(outputs).sum().backward()
    y.sum().backward()
    assert torch.equal(torch.stack(outputs), y)
    assert torch.equal(hx[1], c[0])
    for name, p in cell.named_parameters():
        torch.testing.assert_close(p.grad, getattr(layer, f"{name}_l0").grad)


def test_rollouts_of_one_step_carry_their_state(only_fastrnn):
    module = fastrnn.torch.GRU(D, H, batch_first=True)
    x, h = torch.randn(8, T, D), None
    with torch.no_grad():
        whole, last = module(x)
        for t in range(T):
            y, h = module(x[:, t : t + 1], h)
            torch.testing.assert_close(y[:, 0], whole[:, t])
    torch.testing.assert_close(h, last)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoints_and_saving_elsewhere(use_reentrant, only_fastrnn):
    module = fastrnn.torch.LSTM(D, H, 2, dropout=0.5)
    x = leaf(T, N, D)

    def gradients(call):
        torch.manual_seed(1)
        x.grad = None
        module.zero_grad()
        y, _ = call(x)
        y.square().sum().backward()
        return [y, x.grad, *(p.grad for p in module.parameters())]

    expected = gradients(module)
    again = gradients(lambda x: checkpoint(module, x, use_reentrant=use_reentrant))
    with torch.autograd.graph.save_on_cpu():
        moved = gradients(module)
    for a, b, c in zip(expected, again, moved, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "loss",
    [
        lambda y: torch.complex(y.new_ones(y.shape), y).conj().mul(1 + 2j).abs().sum(),
        lambda y: y.mul(torch._neg_view(torch.full_like(y, 0.3))).sum(),
        lambda y: y.mul(torch._efficientzerotensor(y.shape)).sum() + y[..., 0].sum(),
    ],
    ids=["conjugate", "negative", "zeros that are not there"],
)
def test_gradients_that_are_not_what_lies_in_memory(name, loss):
    theirs, ours = pair(name, D, H)
    x = torch.randn(N, D) if name.endswith("Cell") else torch.randn(T, N, D)
    found = []
    for module in theirs, ours:
        module.use = "fastrnn"
        y = module(x)
        loss(y[0] if isinstance(y, tuple) else y).backward()
        found.append([p.grad for p in module.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_that_are_not_what_lies_in_memory(name):
    theirs, ours = pair(name, D, H)
    ours.use = "fastrnn"
    shape = (N, D) if name.endswith("Cell") else (T, N, D)
    given = [torch._neg_view(torch.randn(shape))]
    if name != "LSTM":  # torch.nn's reads what is not there
        given.append(torch._efficientzerotensor(shape))
    for x in given:
        with torch.no_grad():
            y, wanted = ours(x), theirs(x)
        torch.testing.assert_close(y, wanted)


@pytest.mark.parametrize("name", ["GRU", "LSTMCell"])
def test_sparse_gradients_are_refused_aloud(name):
    _, ours = pair(name, D, H)
    ours.use = "fastrnn"
    y = ours(torch.randn(N, D) if name.endswith("Cell") else torch.randn(T, N, D))
    y = y[0] if isinstance(y, tuple) else y
    index = torch.zeros(y.shape, dtype=torch.long)
    with pytest.raises((TypeError, RuntimeError, NotImplementedError)):
        torch.gather(y, 0, index, sparse_grad=True).sum().backward()


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("Cell")])
@pytest.mark.parametrize("bias", ["bias_ih", "bias_hh"])
def test_a_cell_may_have_one_bias(name, bias):
    theirs, ours = pair(name, D, H)
    ours.use = "fastrnn"
    x = torch.randn(N, D)
    for module in theirs, ours:
        module.register_parameter(bias, None)
    assert_equal(results(ours, x), results(theirs, x))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("name", NAMES)
def test_modules_are_leaves_of_torch_fx(name):
    _, ours = pair(name, D, H)
    traced = torch.fx.symbolic_trace(torch.nn.Sequential(ours))
    assert [node.op for node in traced.graph.nodes] == ["placeholder", "call_module", "output"]
