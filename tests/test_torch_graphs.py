"""fastrnn.torch in what records a model instead of running it: torch.compile, torch.export,
torch.fx, torch.jit and torch.onnx; and in models that are converted."""

import io

import pytest
import torch
from test_torch_modules import (  # the fixture is used by being here
    LAYERS,
    NAMES,
    D,
    H,
    N,
    T,
    assert_equal,
    leaf,
    results,
    tensors_of,
    torchs_threads_do_not_wait,  # noqa: F401
)
from torch import nn

import fastrnn.torch
from fastrnn import Options
from fastrnn.torch import compiled

# What torch warns of while it records, whoever wrote the module.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        *("`torch.jit.", "Converting a tensor to a Python boolean", "You are using the legacy"),
        *(
            "The feature will be removed",
            "Exporting a model to ONNX with a batch_size",
            "The tensor attributes self",
            "The .grad attribute of a",
        ),
    )
]


class Model(nn.Module):
    def __init__(self, name="LSTM", **keywords):
        super().__init__()
        self.before = nn.Linear(D, D)
        self.layer = getattr(fastrnn.torch, name)(D, H, **keywords)

    def forward(self, x):
        y = self.layer(self.before(x))
        return y if isinstance(y, torch.Tensor) else y[0]


@pytest.fixture
def dynamo():
    """torch's tracer, which takes recurrent modules, as the documentation has it."""
    import torch._dynamo

    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        yield
    torch._dynamo.reset()


def recorded(model, x):
    """The operators of what torch.compile records as one graph."""
    found = []

    def backend(graph, _):
        found.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    torch.compile(model, fullgraph=True, backend=backend)(x)
    return found


VARIANTS = [
    ("RNN", {"batch_first": True}),
    ("LSTM", {"num_layers": 2, "bidirectional": True}),
    ("LSTM", {"num_layers": 2, "proj_size": 2, "bias": False}),
    ("GRU", {"num_layers": 2, "dropout": 0.5}),
]


@pytest.mark.parametrize(("name", "keywords"), VARIANTS, ids=str)
def test_compiled_models_are_the_same(name, keywords, dynamo):
    model, x = Model(name, **keywords).eval(), leaf(T, N, D)
    model.layer.use = "fastrnn"
    assert "fastrnn.layers.default" in recorded(model, x)
    compiled_model = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_equal(results(compiled_model, x), results(model, x))
    with torch.no_grad():
        assert_equal([compiled_model(x)], [model(x)])


def test_compiled_models_drop_elements_and_reset_states(dynamo):
    layer = fastrnn.torch.GRU(D, H, 2, dropout=0.5)
    reset = torch.rand(N, T) < 0.4
    run = torch.compile(lambda x: layer(x, reset=reset)[0], fullgraph=True, backend="aot_eager")
    y = run(leaf(T, N, D))
    assert not torch.equal(y, run(leaf(T, N, D)))
    layer.eval()
    x = leaf(T, N, D)
    torch.testing.assert_close(run(x), layer(x, reset=reset)[0])


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells_in_a_graph_are_torchs(name, dynamo):
    model, x = Model(name), torch.randn(N, D)
    assert not any("fastrnn" in target for target in recorded(model, x))
    compiled_model = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_equal(results(compiled_model, x), results(model, x))


def test_torch_compile_does_not_look_into_what_it_has_given_up_on(dynamo):
    model, x = Model(), torch.randn(T, N, D)
    with torch._dynamo.config.patch(allow_rnn=False):
        compiled_model = torch.compile(model, backend="aot_eager")
        with torch._dynamo.config.patch(error_on_recompile=True):
            assert_equal(results(compiled_model, x), results(model, x))
    reasons = "".join(torch._dynamo.utils.counters["graph_break"])
    assert "ndarray" not in reasons
    assert "get_num_threads" not in reasons


@pytest.mark.parametrize("options", [None, Options(dropout_h=0.3, clip=1.5)])
def test_the_operator_is_as_torch_wants_it(options):
    torch.manual_seed(0)
    weights = [leaf(4 * H, D), leaf(4 * H, H), leaf(4 * H), leaf(4 * H)]
    kinds = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    seed = None if options is None else torch.tensor(7)
    of_options = compiled.numbers(options)
    about = seed, "lstm", 1, False, "tanh", None, of_options, kinds, "time_first"
    given = leaf(T, N, D), leaf(1, N, H), None, weights, torch.rand(N, T) < 0.4, [], *about
    torch.library.opcheck(compiled._forward, given)


@pytest.mark.parametrize("strict", [False, True])
def test_exported_models_are_the_same(strict, dynamo):
    model, x = Model(bidirectional=True).eval(), torch.randn(T, N, D)
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        model, (x,), dynamic_shapes=[{0: dynamic, 1: dynamic}], strict=strict
    )
    assert any(str(node.target) == "fastrnn.layers.default" for node in program.graph.nodes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    for given in (x, torch.randn(2 * T, N - 1, D)):
        assert_equal([torch.export.load(file).module()(given)], [model(given)])
        file.seek(0)


@pytest.mark.parametrize("name", NAMES)
def test_scripted_and_traced_models_are_torchs(name):
    model = Model(name).eval()
    x = torch.randn(N, D) if name.endswith("Cell") else torch.randn(T, N, D)
    traced = torch.jit.trace(model, x)
    module = nn.Sequential(getattr(fastrnn.torch, name)(D, H))
    weights = list(module.parameters())
    scripted = torch.jit.script(module)
    assert type(module[0]) is getattr(nn, name)  # torch.jit.script has put it there
    assert all(a is b for a, b in zip(module.parameters(), weights, strict=True))
    fastrnn.torch.convert(module)
    for a, b in ((traced(x), model(x)), (scripted(x), module(x))):
        assert_equal(tensors_of(a), tensors_of(b))
    file = io.BytesIO()
    torch.jit.save(scripted, file)
    file.seek(0)
    assert_equal(tensors_of(torch.jit.load(file)(x)), tensors_of(module(x)))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_leaves_of_torch_fx(name):
    model, x = Model(name), torch.randn(T, N, D)
    graph = torch.fx.symbolic_trace(model)
    assert "layer" in [node.target for node in graph.graph.nodes if node.op == "call_module"]
    assert torch.equal(graph(x), model(x))


def test_onnx_files_have_onnxs_own_operators():
    onnx = pytest.importorskip("onnx")
    file = io.BytesIO()
    torch.onnx.export(Model().eval(), (torch.randn(T, N, D),), file, dynamo=False)
    operators = [node.op_type for node in onnx.load_from_string(file.getvalue()).graph.node]
    assert "LSTM" in operators


def test_what_torch_onnx_exports_has_torchs_operators(monkeypatch):
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    program = torch.export.export(Model().eval(), (torch.randn(T, N, D),), strict=False)
    targets = [str(node.target) for node in program.graph.nodes]
    assert "aten.lstm.input" in targets
    assert not any("fastrnn" in target for target in targets)


# ---- convert -------------------------------------------------------------------------------------


class Mine(nn.LSTM):
    def forward(self, x, hx=None):
        return super().forward(x, hx)


def test_convert_changes_classes_in_place_and_says_so():
    shared = nn.GRUCell(D, H)
    model = nn.ModuleDict(
        {
            "encoder": nn.Sequential(nn.Linear(D, D), nn.LSTM(D, H)),
            "cells": nn.ModuleList([shared, shared, nn.RNNCell(D, H)]),
            "normed": nn.utils.parametrizations.weight_norm(nn.GRU(D, H), "weight_hh_l0"),
            "mine": Mine(D, H),
            "scripted": torch.jit.script(nn.LSTM(D, H)),
        }
    )
    encoder, x, calls, lines = model["encoder"][1], torch.randn(T, N, D), [], []
    encoder.register_forward_hook(lambda *_: calls.append(1))
    parameters, expected = list(model.parameters()), tensors_of(model["encoder"](x))
    normed = tensors_of(model["normed"](x))

    assert fastrnn.torch.convert(model, report=lines.append) is model
    assert model["encoder"][1] is encoder
    assert type(encoder) is fastrnn.torch.LSTM
    assert type(model["cells"][1]) is fastrnn.torch.GRUCell
    assert isinstance(model["normed"], fastrnn.torch.GRU)
    assert type(model["mine"]) is Mine
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert_equal(tensors_of(model["encoder"](x)), expected)
    assert_equal(tensors_of(model["normed"](x)), normed)
    assert len(calls) == 2
    assert lines == [
        "encoder.1: fastrnn.torch.LSTM in place of torch.nn.LSTM",
        "cells.0: fastrnn.torch.GRUCell in place of torch.nn.GRUCell",
        "cells.2: fastrnn.torch.RNNCell in place of torch.nn.RNNCell",
        "normed: fastrnn.torch.GRU in place of torch.nn.GRU",
        "mine: left as it is: test_torch_graphs.Mine is a subclass of torch.nn's",
        "scripted: left as it is: a compiled LSTM; convert before",
    ]
    lines.clear()
    fastrnn.torch.convert(torch.nn.Linear(2, 3), report=lines.append)
    assert lines.pop() == "module: no recurrent module in this Linear" and not lines
    fastrnn.torch.convert(model, report=lines.append)
    assert lines[0] == "encoder.1: fastrnn.torch's already"
    assert [line.split(": ", 1)[1] for line in lines[:4]] == ["fastrnn.torch's already"] * 4


def test_convert_takes_a_module_alone_and_nothing_else(caplog):
    with caplog.at_level("INFO", logger="fastrnn.torch"):
        assert type(fastrnn.torch.convert(nn.GRU(D, H))) is fastrnn.torch.GRU
    assert caplog.messages == ["module: fastrnn.torch.GRU in place of torch.nn.GRU"]
    quantized = nn.Sequential()
    quantized.add_module("lstm", type("LSTM", (nn.Module,), {})())
    lines = []
    fastrnn.torch.convert(quantized, report=lines.append)
    assert lines == ["lstm: left as it is: test_torch_graphs.LSTM is not torch.nn's"]
    with pytest.raises(TypeError, match=r"module: expected a torch\.nn\.Module, got dict"):
        fastrnn.torch.convert({})
