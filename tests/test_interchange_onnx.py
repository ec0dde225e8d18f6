"""ONNX: the standard's own tests of its recurrent nodes, models there and back, onnxruntime."""

import re
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import gru, lstm, rnn
from sklearn.exceptions import NotFittedError
from util import GATES, TWIN, assert_close, assert_same_bits

from fastrnn import Options, nn
from fastrnn.captioning import CaptioningRNN
from fastrnn.nn.graphs import OPSET
from fastrnn.nn.onnx import run
from fastrnn.text import TextClassifier, Training
from fastrnn.text.model import encode
from fastrnn.text.settings import complete

N, T, D, H = 3, 4, 5, 6
MODULES = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
FORMS = {
    **{cell: (cell, {}) for cell in GATES},
    **{f"{cell}_both_stacked": (cell, {"num_layers": 3, "bidirectional": True}) for cell in GATES},
    "rnn_relu": ("rnn", {"nonlinearity": "relu", "bidirectional": True}),
    "gru_original": ("gru", {"reset_after": False, "num_layers": 2}),
    "lstm_without_bias": ("lstm", {"bias": False}),
    "lstm_in_another_order": ("lstm", {"gate_order": "ifog"}),
    "lstm_peepholes": ("lstm", {"peepholes": True, "bidirectional": True, "gate_order": "fico"}),
    "lstm_peepholes_without_bias": ("lstm", {"peepholes": True, "bias": False}),
    "rnn_clipped": ("rnn", {"options": Options(clip=0.3), "num_layers": 2}),
    "lstm_hard": (
        "lstm",
        {"options": Options(hard_sigmoid=0.25, clip=0.7), "bidirectional": True, "num_layers": 2},
    ),
    "gru_hard": ("gru", {"options": Options(hard_sigmoid=0.2), "bidirectional": True}),
    "gru_original_hard": (
        "gru",
        {"options": Options(hard_sigmoid=0.3, clip=1.5), "reset_after": False},
    ),
}
every_form = pytest.mark.parametrize("form", FORMS)


def module_of(form, **others):
    cell, keywords = FORMS[form]
    return MODULES[cell](D, H, **keywords, seed=0, **others)


def as_states(state):
    return state if isinstance(state, tuple) else (state,)


# ---- nodes ---------------------------------------------------------------------------------------


def node_tests():
    """name, node, inputs, outputs of the standard's tests. They are asked for one by one, since
    collect_testcases runs those of all other operators, too."""
    tests = []
    for module, exporter in ((rnn, rnn.RNN), (lstm, lstm.LSTM), (gru, gru.GRU)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                module,
                "expect",
                lambda node, inputs, outputs, name: tests.append((name, node, inputs, outputs)),
            )
            for name in sorted(dir(exporter)):
                if name.startswith("export"):
                    getattr(exporter, name)()
    return tests


NODE_TESTS = {name: rest for name, *rest in node_tests()}


def test_the_standard_has_so_many_node_tests():
    assert len(NODE_TESTS) >= 12  # in onnx 1.16; 18 in 1.23


@pytest.mark.parametrize("name", NODE_TESTS)
def test_nodes_give_what_the_standard_says(name, backend):
    node, inputs, outputs = NODE_TESTS[name]
    values = dict(zip(filter(None, node.input), inputs, strict=True))
    expected = dict(zip(filter(None, node.output), outputs, strict=True))
    results = run(node, values)
    assert results.keys() == expected.keys()
    for output, a in expected.items():
        assert results[output].dtype == a.dtype
        np.testing.assert_allclose(results[output], a, rtol=1e-3, atol=1e-7)  # the standard's own


def start(model):
    """A session of onnxruntime on a file or a model."""
    source = str(model) if not isinstance(model, onnx.ModelProto) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])


def node_of(operator, rng, directions, **attributes):
    """A node with all its inputs, and arrays for them, with time first."""
    G, S = GATES[operator.lower()], directions
    shapes = {"X": (T, N, D), "W": (S, G * H, D), "R": (S, G * H, H), "B": (S, 2 * G * H)}
    shapes |= {"lengths": (N,), "h": (S, N, H)}
    shapes |= {"c": (S, N, H), "P": (S, 3 * H)} if operator == "LSTM" else {}
    values = {name: rng.standard_normal(shape).astype("f") / 2 for name, shape in shapes.items()}
    values["lengths"] = np.array([2, 1, T], np.int32)
    outputs = ["Y", "Y_h", "Y_c"] if operator == "LSTM" else ["Y", "Y_h"]
    node = helper.make_node(operator, [*values], outputs, "node", hidden_size=H, **attributes)
    return node, values


def model_of(nodes, inputs, outputs, constants=()):
    infos = [
        [helper.make_tensor_value_info(name, t, None) for name, t in values.items()]
        for values in (inputs, dict.fromkeys(outputs, TensorProto.FLOAT))
    ]
    tensors = [numpy_helper.from_array(a, name) for name, a in dict(constants).items()]
    graph = helper.make_graph(nodes, "test", *infos, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


MODULES_BY_OPERATOR = {cell.upper(): module for cell, module in MODULES.items()}
# Numbers that are not told are as they are by default; the rest is told in turn.
HARD = [
    {},
    {"activation_alpha": [0.3, 0.1], "activation_beta": [0.5, 0.5]},
    {"activation_alpha": [0.3], "clip": 1.5},
]
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
NODES = [
    *(("RNN", {"activations": [a] * 2}) for a in ("Tanh", "Relu")),
    ("RNN", {"activations": ["Relu", "Tanh"]}),
    ("LSTM", {"input_forget": 0}),
    *(("GRU", {"linear_before_reset": after}) for after in (0, 1)),
    *((operator, {"clip": 0.4}) for operator in MODULES_BY_OPERATOR),
    ("RNN", {"clip": 0.4, "activations": ["Relu", "Relu"]}),
    *(("LSTM", {"activations": ["HardSigmoid", "Tanh", "Tanh"] * 2, **own}) for own in HARD),
    *(("GRU", {"activations": ["hardsigmoid", "tanh"] * 2, **own}) for own in HARD),
    ("GRU", {"activations": ["Sigmoid", "Tanh", "HardSigmoid", "Tanh"], "activation_alpha": [0.4]}),
]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("operator", "attributes"), NODES, ids=str)
def test_nodes_give_what_onnxruntime_gives(operator, attributes, direction, rng):
    S = DIRECTIONS[direction]
    halves = {k: v[: len(v) * S // 2 or 1] for k, v in attributes.items() if isinstance(v, list)}
    node, values = node_of(operator, rng, S, **attributes | halves | {"direction": direction})
    types = {k: TensorProto.INT32 if k == "lengths" else TensorProto.FLOAT for k in values}
    expected = start(model_of([node], types, node.output)).run(None, values)
    for a, b in zip(run(node, values).values(), expected, strict=True):
        assert_close(a, b, TWIN["float32"])


@pytest.mark.parametrize("operator", ["RNN", "LSTM", "GRU"])
def test_nodes_with_the_batch_first_give_the_same_bits(operator, rng):
    node, values = node_of(operator, rng, 2, direction="bidirectional")
    other, _ = node_of(operator, rng, 2, direction="bidirectional", layout=1)
    turned = {k: values[k].swapaxes(0, 1) if k in "Xhc" else values[k] for k in values}
    expected, results = run(node, values), run(other, turned)
    assert_same_bits(results["Y"], expected["Y"].transpose(2, 0, 1, 3))
    for name in [*node.output][1:]:
        assert_same_bits(results[name], expected[name].swapaxes(0, 1))


REFUSED_NODES = [
    ({"clip": 0.0}, "node: clip: expected a number above 0, got 0.0"),
    ({"clip": float("nan")}, "node: clip: expected a number above 0, got nan"),
    ({"input_forget": 1}, "node: input_forget: expected 0, got 1"),
    ({"layout": 2}, "node: layout: expected 0 or 1, got 2"),
    (
        {"direction": "backward"},
        "node: direction: expected 'forward' or 'reverse' or 'bidirectional', got 'backward'",
    ),
    *(
        (
            {"activations": given},
            r"node: activations: expected \['Sigmoid or HardSigmoid', 'Tanh', 'Tanh'\], "
            rf"got \[{', '.join(map(repr, given))}\]",
        )
        for given in (["Sigmoid", "HardSigmoid", "Tanh"], ["Affine", "Tanh", "Tanh"], ["Sigmoid"])
    ),
    (
        {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_beta": [0.25]},
        "node: activation_beta: expected 0.5 of HardSigmoid, got 0.25",
    ),
    (
        {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [-0.25]},
        "node: activation_alpha: expected a number above 0, got -0.25",
    ),
    ({"hidden_size": 7}, "node: hidden_size: expected 6 as R has, got 7"),
]
REFUSED_VALUES = [
    ("X", (T, N), r"node: X: expected shape \(T, N, D\), got \(4, 3\)"),
    ("W", (1, 23, D), r"node: W: expected shape \(1, 24, D\), got \(1, 23, 5\)"),
    ("R", (2, 24, H), r"node: R: expected shape \(1, 4\*H, H\), got \(2, 24, 6\)"),
    ("R", (1, 20, H), r"node: R: expected shape \(1, 24, 6\), got \(1, 20, 6\)"),
    ("B", (1, 24), r"node: B: expected shape \(1, 48\), got \(1, 24\)"),
    ("h", (1, N + 1, H), r"node: initial_h: expected shape \(1, 3, 6\), got \(1, 4, 6\)"),
    ("c", (2, N, H), r"node: initial_c: expected shape \(1, 3, 6\), got \(2, 3, 6\)"),
    ("P", (1, 4 * H), r"node: P: expected shape \(1, 18\), got \(1, 24\)"),
    ("lengths", (N + 1,), r"lengths: expected shape \(3,\), got \(4,\)"),
]


@pytest.mark.parametrize(("attributes", "message"), REFUSED_NODES, ids=lambda a: str(a)[:20])
def test_nodes_that_fastrnn_has_not_are_refused(attributes, message, rng):
    node, values = node_of("LSTM", rng, 1)
    for name, value in attributes.items():
        for i, attribute in reversed([*enumerate(node.attribute)]):
            if attribute.name == name:
                del node.attribute[i]
        node.attribute.append(helper.make_attribute(name, value))
    with pytest.raises(ValueError, match=f"^{message}$"):
        run(node, values)


@pytest.mark.parametrize(("name", "shape", "message"), REFUSED_VALUES)
def test_values_that_do_not_fit_are_refused(name, shape, message, rng):
    node, values = node_of("LSTM", rng, 1)
    values[name] = np.zeros(shape, values[name].dtype)
    with pytest.raises(ValueError, match=f"^{message}$"):
        run(node, values)


def test_what_is_no_recurrent_node_is_refused():
    with pytest.raises(ValueError, match=r"^y: expected one of \['RNN', 'LSTM', 'GRU'\], got Add$"):
        run(helper.make_node("Add", ["a", "b"], ["y"]), {})
    with pytest.raises(ValueError, match=r"^node: expected W, R, got \['X'\]$"):
        run(helper.make_node("LSTM", ["X", "W", "R"], ["Y"], "node"), {"X": np.zeros((1, 1, 1))})


# ---- stacks --------------------------------------------------------------------------------------


@every_form
@pytest.mark.parametrize(
    "given", [{}, {"lengths": True}, {"lengths": True, "state": True}], ids=str
)
def test_onnxruntime_runs_stacks_to_the_same_results(form, given, tmp_path, rng):
    module, path = module_of(form), tmp_path / "model.onnx"
    nn.to_onnx(module, path, **given)
    session = start(path)
    L = module.form.layers * module.form.directions
    for rows, steps in ((N, T), (1, 7)):
        values = {"x": rng.standard_normal((rows, steps, D)).astype("f")}
        lengths = state = None
        if "lengths" in given:
            lengths = values["lengths"] = rng.integers("state" in given, steps + 1, rows).astype(
                np.int32
            )
        if "state" in given:
            names = module.form.record.initial_fields
            states = {name: rng.standard_normal((L, rows, H)).astype("f") for name in names}
            values, state = values | states, tuple(states.values())
            state = state if len(state) > 1 else state[0]
        y, last, _ = module.forward(values["x"], state, lengths=lengths)
        results = session.run(None, values)
        for a, b in zip(results, (y, *as_states(last)), strict=True):
            assert_close(a, b, TWIN["float32"])


@every_form
def test_stacks_come_back_bit_for_bit(form, dtype, tmp_path):
    module, path = module_of(form, dtype=dtype), tmp_path / "model.onnx"
    nn.to_onnx(module, path, lengths=True, state=True)
    back = nn.load(path, dropout=0.25)
    assert back.form._replace(gates=module.form.gates) == module.form
    assert back.dropout == 0.25
    nn.save(module, tmp_path / "model.safetensors")
    expected = nn.load(tmp_path / "model.safetensors")
    if module.form.gates != back.form.gates:
        return  # those of `save` keep their order
    assert back.params.keys() == expected.params.keys()
    for name, a in expected.params.items():
        assert_same_bits(back.params[name], a, name)


def test_models_say_their_opset(tmp_path):
    nn.to_onnx(nn.GRU(D, H), tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]


def test_what_onnx_has_not_is_not_written(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match=r"^proj_size: expected 0, got 2: ONNX has no projection$"):
        nn.to_onnx(nn.LSTM(D, H, proj_size=2), path)
    message = "^zoneout_c: expected 0, got 0.1: ONNX has no zoneout$"
    with pytest.raises(ValueError, match=message):
        nn.to_onnx(nn.LSTM(D, H, options=Options(zoneout_c=0.1)), path)
    with pytest.raises(
        TypeError, match=r"^module: expected an RNN, LSTM or GRU of fastrnn.nn, got"
    ):
        nn.to_onnx(object(), path)
    assert not path.exists()


def test_what_concerns_training_alone_is_not_written(tmp_path):
    options = Options(
        dropout_x=0.2, dropout_h=0.3, dropout_candidate=0.1, clip_gradient=1.0, seed=3
    )
    for name, own in (("plain", None), ("options", options)):
        nn.to_onnx(nn.LSTM(D, H, options=own, seed=0), tmp_path / f"{name}.onnx")
    written = [(tmp_path / f"{name}.onnx").read_bytes() for name in ("plain", "options")]
    assert written[0] == written[1]
    assert nn.load(tmp_path / "plain.onnx", options=options).form.options == options


def test_a_capped_relu_is_a_clipped_one(tmp_path, rng):
    options = Options(cap=0.4, clip=2.0)
    module = nn.RNN(D, H, nonlinearity="relu", options=options, seed=0)
    nn.to_onnx(module, tmp_path / "model.onnx")
    back = nn.load(tmp_path / "model.onnx")
    assert back.form.options == Options(clip=0.4)
    x = 2 * rng.standard_normal((N, T, D)).astype("f")
    assert_close(back.forward(x)[0], module.forward(x)[0], TWIN["float32"])


# ---- models of others ----------------------------------------------------------------------------


def chain(rng, *between, operator="LSTM", directions=2, sizes=(D, 2 * H)):
    """A model with two nodes, "low" and "high", and what lies between them."""
    G, nodes, constants = GATES[operator.lower()], [], {}
    direction = {1: "forward", 2: "bidirectional"}[directions]
    for name, x, size in zip(("low", "high"), ("x", "between"), sizes, strict=True):
        shapes = {"W": (directions, G * H, size), "R": (directions, G * H, H)}
        for letter, shape in shapes.items():
            constants[f"{name}.{letter}"] = rng.standard_normal(shape).astype("f")
        inputs = [x, f"{name}.W", f"{name}.R"]
        options = {"hidden_size": H, "direction": direction}
        nodes.append(helper.make_node(operator, inputs, [f"{name}.Y"], name, **options))
    names = ["low.Y", *(f"moved_{i}" for i in range(1, len(between))), "between"]
    for i, (kind, constant, attributes) in enumerate(between):
        inputs = [names[i], *([] if constant is None else [f"constant_{i}"])]
        if constant is not None:
            constants[f"constant_{i}"] = np.array(constant)
        nodes.insert(-1, helper.make_node(kind, inputs, [names[i + 1]], **attributes))
    return model_of(nodes, {"x": TensorProto.FLOAT}, ["high.Y"], constants)


TURNED = ("Transpose", None, {"perm": [0, 2, 1, 3]})
JOINED = [TURNED, ("Reshape", [0, 0, -1], {})]
TWICE = ("Transpose", None, {"perm": [1, 0, 2]})
ONE_STACK = [
    JOINED,
    [*JOINED, ("Dropout", None, {})],
    [*JOINED, TWICE, ("Identity", None, {}), TWICE],
]
NO_STACK = [
    [("Reshape", [0, 0, -1], {}), ("Identity", None, {})],  # the batch is between the directions
    [*JOINED, TWICE],
    [*JOINED, ("Relu", None, {})],
    [TURNED, ("Reshape", [T, N, 2 * H], {})],  # of this batch alone
]


@pytest.mark.parametrize("between", ONE_STACK, ids=len)
def test_nodes_on_top_of_each_other_are_one_stack(between, tmp_path, rng):
    model, x = chain(rng, *between), rng.standard_normal((T, N, D)).astype("f")
    onnx.save(model, tmp_path / "model.onnx")
    module = nn.load(tmp_path / "model.onnx")
    assert module.form.layers == 2
    (y,) = start(model).run(None, {"x": x})  # (T, S, N, H)
    expected = y.transpose(2, 0, 1, 3).reshape(N, T, 2 * H)
    assert_close(module.forward(x.swapaxes(0, 1))[0], expected, TWIN["float32"])


@pytest.mark.parametrize("between", NO_STACK, ids=len)
def test_nodes_that_may_be_no_stack_are_chosen_by_name(between, tmp_path, rng):
    path = tmp_path / "model.onnx"
    onnx.save(chain(rng, *between), path)
    message = r"node: expected one or several of \['low', 'high'\], got None, and they are not one"
    with pytest.raises(ValueError, match=f"^{path}: {message}"):
        nn.load(path)
    assert nn.load(path, node="high").input_size == 2 * H
    assert nn.load(path, node=["low", "high"]).form.layers == 2


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", [torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU])
def test_what_torch_exports_is_read(kind, batch_first, tmp_path, rng):
    theirs = kind(D, H, 2, bidirectional=True, batch_first=batch_first).eval()
    x = torch.from_numpy(rng.standard_normal((N, T, D)).astype("f"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its older exporter, which needs no other package
        axes = {"input_names": ["x"], "dynamic_axes": {"x": [0, 1]}}
        torch.onnx.export(theirs, (x,), tmp_path / "model.onnx", dynamo=False, **axes)
    with torch.no_grad():
        y = theirs(x if batch_first else x.swapaxes(0, 1))[0]
    module = nn.load(tmp_path / "model.onnx")
    expected = y if batch_first else y.swapaxes(0, 1)
    assert_close(module.forward(x.numpy())[0], expected.numpy(), TWIN["float32"])


REFUSED_MODELS = {
    "an_unknown_name": (
        {"node": "other"},
        lambda model: None,
        r"node: expected one or several of \['low', 'high'\], got 'other'",
    ),
    "no_names": (
        {"node": []},
        lambda model: None,
        r"node: expected one or several of \['low', 'high'\], got \[\]",
    ),
    "two_kinds": (
        {"node": ["low", "high"]},
        lambda model: (
            model.graph.node[-1]
            .attribute[0]
            .CopyFrom(helper.make_attribute("direction", "forward"))
        ),
        "node: expected one or several .*, which are of different kinds or sizes",
    ),
    "weights_that_are_no_constants": (
        {"node": "low"},
        lambda model: model.graph.node[0].input.__setitem__(1, "x"),
        "low: W: expected a constant, got 'x'",
    ),
    "another_size": (
        {"node": ["high", "low"]},
        lambda model: None,
        r"low: weight_ih: expected shape \(24, 12\), got \(24, 5\)",
    ),
    "numbers_that_are_not_finite": (
        {"node": "low"},
        lambda model: model.graph.initializer[0].CopyFrom(
            numpy_helper.from_array(np.full((2, 4 * H, D), np.nan, "f"), "low.W")
        ),
        "low: weight_ih: expected finite numbers, got others",
    ),
    "a_dtype": (
        {"node": "low"},
        lambda model: model.graph.initializer[1].CopyFrom(
            numpy_helper.from_array(np.zeros((2, 4 * H, H)), "low.R")
        ),
        "not an ONNX model .TypeError: low: weight_ih: expected float64 like the others, got float",
    ),
    "first_states": (
        {"node": "low"},
        lambda model: model.graph.node[0].input.extend(["", "", "low.R"]),
        "low: initial_h: expected zeros or an input of the model, got 'low.R'",
    ),
    "a_shape_of_more_numbers_than_there_are": (
        {"node": "low"},
        lambda model: model.graph.initializer[0].dims.__setitem__(0, 1 << 40),
        "low: W: ",
    ),
}


@pytest.mark.parametrize("case", REFUSED_MODELS)
def test_models_that_do_not_fit_are_refused(case, tmp_path, rng):
    (keywords, change, message), path = REFUSED_MODELS[case], tmp_path / "model.onnx"
    model = chain(rng, *JOINED)
    change(model)
    onnx.save(model, path)
    with pytest.raises(ValueError, match=f"^{path}: {message}") as error:
        nn.load(path, **keywords)
    assert "\n" not in str(error.value)


def test_time_backwards_alone_is_no_module(tmp_path, rng):
    node, values = node_of("GRU", rng, 1, direction="reverse", linear_before_reset=1)
    weights = {name: values.pop(name) for name in "WRB"}
    path = tmp_path / "model.onnx"
    onnx.save(model_of([node], dict.fromkeys(values, TensorProto.FLOAT), ["Y"], weights), path)
    with pytest.raises(ValueError, match="node: direction: expected 'forward' or 'bidirectional'"):
        nn.load(path)


# ---- classifiers and captioners ------------------------------------------------------------------

TEXTS = ["good film", "bad bad film", "a good plot", "no", "what a bad plot no good"] * 2
TEXT_MODELS = {
    **{name: {"model": name} for name in ("bow", "avg", "rnn", "lstm", "gru")},
    "ensemble": {"model": "gru", "ensemble": 2},
    "dropped": {"model": "lstm", "recurrent_dropout": 0.3},
    "warm": {"model": "bow", "calibrate": True},
    "warm_ensemble": {"model": "gru", "ensemble": 2, "calibrate": True},
    "both_mean_max_last": {
        **{"model": "lstm", "bidirectional": True},
        "pooling": "mean+max+last",
    },
}


@pytest.mark.parametrize("name", TEXT_MODELS)
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("lengths", [True, False])
def test_onnxruntime_classifies_texts_alike(name, lengths, several, tmp_path):
    sizes = {} if name in ("bow", "avg") else {"hidden_dim": 4, "embedding_dim": 3}
    settings = complete({"epochs": 2, "seed": 0, **TEXT_MODELS[name], **sizes})
    y = np.arange(len(TEXTS)) % 3
    y = np.eye(3)[y] if several else y
    model = Training(settings, TEXTS, y, ["a", "b", "c"], dev=(TEXTS, y)).run()
    assert (model.temperature != 1) == settings["calibrate"]
    model.to_onnx(tmp_path / "model.onnx", lengths=lengths)
    session = start(tmp_path / "model.onnx")
    for texts in ([*TEXTS, "", "unknown words"], TEXTS[2:3]):
        texts = texts if lengths else texts[:1]
        sentences = encode(model.vocabulary, texts, settings)
        values = {"words": sentences.padded().astype(np.int64)}
        values |= {"lengths": sentences.lengths.astype(np.int32)} if lengths else {}
        (probabilities,) = session.run(None, values)
        assert_close(probabilities, model.predict_proba(texts), TWIN["float32"])


def test_zoneout_and_cells_that_onnx_has_not_are_not_written(tmp_path):
    """Nor half a captioner."""
    given = {"hidden_dim": 4, "embedding_dim": 3, "epochs": 1, "random_state": 0}
    estimator = TextClassifier("gru", zoneout=0.1, **given)
    estimator.fit(TEXTS, [text.startswith("bad") for text in TEXTS])
    words = {word: i for i, word in enumerate(["<NULL>", "<START>", "<END>"])}
    for model in (estimator, CaptioningRNN(words, cell_type="lstm", zoneout=0.1)):
        with pytest.raises(ValueError, match="^zoneout_h: expected 0, got 0.1: ONNX has no zone"):
            model.to_onnx(tmp_path / "model")
    estimator = TextClassifier("min_gru", **given).fit(TEXTS, [*map(len, TEXTS)])
    for model in (estimator, CaptioningRNN(words, cell_type="min_gru")):
        with pytest.raises(ValueError, match=r"^cell: expected one of \['rnn', 'lstm', 'gru'\]"):
            model.to_onnx(tmp_path / "model")
    assert not [*tmp_path.iterdir()]


def test_estimators_write_their_networks(tmp_path):
    estimator = TextClassifier("gru", hidden_dim=4, embedding_dim=3, epochs=1, random_state=0)
    with pytest.raises(NotFittedError):
        estimator.to_onnx(tmp_path / "model.onnx")
    estimator.fit(TEXTS, [text.startswith("bad") for text in TEXTS])
    estimator.to_onnx(tmp_path / "model.onnx")
    estimator.model_.to_onnx(tmp_path / "other.onnx")
    written = [(tmp_path / f"{name}.onnx").read_bytes() for name in ("model", "other")]
    assert written[0] == written[1]


@pytest.mark.parametrize("cell", GATES)
def test_onnxruntime_steps_captioners_alike(cell, tmp_path, rng):
    words = {word: i for i, word in enumerate(["<NULL>", "<START>", "<END>", "a", "b"])}
    model = CaptioningRNN(words, D, 3, H, cell, seed=0)
    for name, w in model.params.items():
        model.params[name] = w + rng.standard_normal(w.shape).astype("f") / 4
    model.to_onnx(tmp_path / "captioner")
    first, step = (start(tmp_path / "captioner" / f"{name}.onnx") for name in ("initial", "step"))
    for rows in (N, 1):
        features = rng.standard_normal((rows, D)).astype("f")
        state, theirs = model.initial_state(features), first.run(None, {"features": features})
        for _ in range(3):
            for a, b in zip(theirs, state, strict=True):
                assert_close(a, b, TWIN["float32"])
            said = rng.integers(len(words), size=rows)
            scores, state = model.step(said, state)
            values = {"words": said, **dict(zip("hc", theirs, strict=False))}
            their_scores, *theirs = step.run(None, values)
            assert_close(their_scores, scores, TWIN["float32"])


def stack_of_two(**inputs):
    """A model of two RNNs on top of each other, of which the upper one has these inputs, too; nodes
    that make them come with them."""
    nodes = [value for value in inputs.values() if not isinstance(value, str)]
    names = {name: v if isinstance(v, str) else v.output[0] for name, v in inputs.items()}
    rng = np.random.default_rng(0)
    constants = {
        "W": rng.standard_normal((1, H, H)).astype(np.float32),
        "R": rng.standard_normal((1, H, H)).astype(np.float32),
        "ones": np.ones((1, 1, H), np.float32),
        "zeros": np.zeros((1, 1, H), np.float32),
        "shape": np.array([1, 2, H]),
        "lengths": np.array([2, 3], np.int32),
        "axes": np.array([1]),
    }
    more = ["", names.get("sequence_lens", ""), names.get("initial_h", "")]
    nodes = [
        onnx.helper.make_node("RNN", ["x", "W", "R"], ["y", "last"], hidden_size=H),
        onnx.helper.make_node("Squeeze", ["y", "axes"], ["between"]),
        *nodes,
        onnx.helper.make_node("RNN", ["between", "W", "R", *more], ["z"], hidden_size=H),
    ]
    of = onnx.TensorProto.FLOAT
    infos = [
        onnx.helper.make_tensor_value_info("x", of, ["T", 2, H]),
        onnx.helper.make_tensor_value_info("h", of, [2, 2, H]),
    ]
    outputs = [onnx.helper.make_tensor_value_info("z", of, None)]
    tensors = [numpy_helper.from_array(a, name) for name, a in constants.items()]
    graph = onnx.helper.make_graph(nodes, "stack", infos, outputs, tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)])


def made(operator, *inputs, **attributes):
    return onnx.helper.make_node(operator, inputs, ["made"], **attributes)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, None),
        ({"initial_h": "zeros"}, None),
        ({"initial_h": made("Expand", "zeros", "shape")}, None),
        ({"initial_h": made("ConstantOfShape", "shape")}, None),
        ({"initial_h": made("Slice", "h", "axes", "axes", "axes")}, None),
        ({"initial_h": "last"}, "initial_h: expected zeros or an input of the model, got 'last'"),
        ({"initial_h": "ones"}, "initial_h: expected zeros or an input of the model, got 'ones'"),
        (
            {"initial_h": made("Expand", "ones", "shape")},
            "initial_h: expected zeros or an input of",
        ),
        (
            {"initial_h": made("Identity", "ones")},
            "initial_h: expected zeros or an input of the mo",
        ),
        (
            {
                "initial_h": made(
                    "ConstantOfShape", "shape", value=numpy_helper.from_array(np.ones(1, "f"))
                )
            },
            "initial_h: expected zeros or an input of the model, got 'made'",
        ),
        (
            {"sequence_lens": "lengths"},
            "sequence_lens: expected an input of the model, got 'length",
        ),
    ],
)
def test_what_a_caller_would_not_know_of_is_refused(inputs, message, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(stack_of_two(**inputs).SerializeToString())
    if message is None:
        assert nn.load(path).form.layers == 2
    else:
        with pytest.raises(ValueError, match=re.escape(message)):
            nn.load(path)
