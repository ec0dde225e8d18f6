"""RNN, LSTM and GRU nodes of ONNX models: run one by one, and read as modules.

Every direction, layout, form of the GRU, sequence_lens and initial states, peepholes, clip;
activations as they are by default, HardSigmoid of gates, and Relu of an RNN. Letters: N batch,
T steps, D input, H hidden, G gates, S directions.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from operator import contains
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrnn import storage
from fastrnn.cells import STANDARD, Steps
from fastrnn.nn import direction
from fastrnn.nn.assemble import Untold, assemble, check_shape, choose, naming, widened
from fastrnn.nn.direction import Form, Weights
from fastrnn.nn.modules import Recurrent
from fastrnn.optional import require
from fastrnn.options import Options
from fastrnn.weights import ORDERS, Layer, from_onnx, to_torch

OPERATORS = {name.upper(): name for name in STANDARD}
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
WEIGHTS = ("W", "R", "B", "P")
OUTPUTS = ("Y", "Y_h", "Y_c")
REVERSED = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
GATES, CANDIDATES = ("Sigmoid", "HardSigmoid"), ("Tanh",)
# What activations may be, as they are by default first.
ACTIVATIONS = {
    "rnn": (("Tanh", "Relu"),),
    "lstm": (GATES, CANDIDATES, CANDIDATES),
    "gru": (GATES, CANDIDATES),
}
SPELLED = {name.lower(): name for name in (*GATES, *CANDIDATES, "Relu")}
# What may lie between two nodes of a stack, moving numbers alone.
MOVES = ("Dropout", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
# What may lie between an input of a model, or zeros, and an initial state.
SHAPES = (
    *(*MOVES, "Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Gather", "Shape"),
    *("Slice", "Split", "Tile"),
)
MOST_UNITS = 1 << 16  # in nodes that are tried


class Node(NamedTuple):
    """What a node says of itself; its inputs and outputs by the standard's names."""

    name: str
    cell: str
    reversed: tuple[bool, ...]  # time, a direction each
    nonlinearity: tuple[str, ...]  # of an RNN, a direction each
    options: tuple[Options | None, ...]  # a direction each
    reset_after: bool  # of a GRU; True of others
    batch_first: bool
    hidden_size: int | None
    inputs: dict[str, str]
    outputs: dict[str, str]

    @property
    def kind(self) -> tuple[object, ...]:
        """What nodes of one stack have in common."""
        return self.cell, self.reversed, self.nonlinearity, self.options, self.reset_after


def parse(node: object) -> Node:
    """What a node (onnx.NodeProto) says of itself.

    Raises ValueError for an operator that is not recurrent, and for what fastrnn has not:
    input_forget, other activations.
    """
    value = require("onnx.helper").get_attribute_value
    given = {attribute.name: value(attribute) for attribute in node.attribute}
    name = _name(node)
    if node.op_type not in OPERATORS:
        raise ValueError(f"{name}: expected one of {[*OPERATORS]}, got {node.op_type}")
    cell = OPERATORS[node.op_type]

    def one_of(attribute, *expected):
        got = given.get(attribute, expected[0])
        got = got.decode() if isinstance(got, bytes) else got
        if got not in expected:
            wanted = " or ".join(map(repr, expected))
            raise ValueError(f"{name}: {attribute}: expected {wanted}, got {got!r}")
        return got

    one_of("input_forget", 0)
    reversed_ = REVERSED[one_of("direction", *REVERSED)]
    inputs = {k: v for k, v in zip(INPUTS, node.input, strict=False) if v}
    if "P" in inputs and cell != "lstm":
        raise ValueError(f"{name}: P: expected none of {node.op_type}, got {inputs['P']!r}")
    activations = _activations(name, cell, len(reversed_), given)
    return Node(
        name,
        cell,
        reversed_,
        tuple("relu" if first == "Relu" else "tanh" for first, _ in activations),
        tuple(_options(name, given.get("clip"), slope) for _, slope in activations),
        cell != "gru" or bool(one_of("linear_before_reset", 0, 1)),
        bool(one_of("layout", 0, 1)),
        given.get("hidden_size"),
        inputs,
        {k: v for k, v in zip(OUTPUTS, node.output, strict=False) if v},
    )


def _name(node: object) -> str:
    return node.name or next(filter(None, node.output), node.op_type)


def _activations(name, cell, S, attributes):
    """The first activation of each direction, of gates or of an RNN's states: what it is, and of
    HardSigmoid its slope. alpha and beta are told, in turn, of those alone that have them."""
    known = ACTIVATIONS[cell] * S
    given = [a.decode() for a in attributes.get("activations") or []]
    given = [SPELLED.get(a.lower(), a) for a in given] or [usual for usual, *_ in known]
    if len(given) != len(known) or not all(map(contains, known, given)):
        expected = [" or ".join(own) for own in known]
        raise ValueError(f"{name}: activations: expected {expected}, got {given}")
    alphas, betas = (iter(attributes.get(f"activation_{n}") or []) for n in ("alpha", "beta"))
    slopes = [_shortest(next(alphas, 0.2)) if a == "HardSigmoid" else None for a in given]
    for beta in (next(betas, 0.5) for a in given if a == "HardSigmoid"):
        if beta != 0.5:
            raise ValueError(f"{name}: activation_beta: expected 0.5 of HardSigmoid, got {beta}")
    return [*zip(given, slopes, strict=True)][:: len(ACTIVATIONS[cell])]


def _options(name, clip, slope):
    """Of cells, None for those of the plain ones. Raises ValueError for a number."""
    own = Options(clip=None if clip is None else _shortest(clip), hard_sigmoid=slope)
    for attribute, value in (("clip", own.clip), ("activation_alpha", slope)):
        if value is not None and not 0 < value < np.inf:
            raise ValueError(f"{name}: {attribute}: expected a number above 0, got {value}")
    return None if own == Options() else own


def _shortest(value):
    """The decimal number that was meant: attributes are float32."""
    return float(str(np.float32(value)))


# ---- running -------------------------------------------------------------------------------------


def run(node: object, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The results of one node, by the names of its outputs.

    Inputs: node, an onnx.NodeProto; values, arrays by the names of its inputs, of shapes as the
    standard has them.
    Raises ValueError for what fastrnn has not, a shape or a length, TypeError for a dtype.
    """
    own = parse(node)
    if missing := [value for value in own.inputs.values() if value not in values]:
        raise ValueError(f"{own.name}: expected {', '.join(missing)}, got {[*values]}")
    given = {name: np.asarray(values[value]) for name, value in own.inputs.items()}
    x, lengths = given["X"], given.get("sequence_lens")
    check_shape(f"{own.name}: X", x, ("N", "T", "D") if own.batch_first else ("T", "N", "D"))
    layers = [_as_one_bias(own.cell, layer) for layer in _layers(own, given)]
    x = x if own.batch_first else x.swapaxes(0, 1)
    states = _initial(own, given, len(x), layers[0].Wh.shape[0])
    outputs, lasts = [], []
    for d, (weights, reverse) in enumerate(zip(layers, own.reversed, strict=True)):
        form = Form(
            own.cell,
            gates=ORDERS["onnx"][own.cell],
            reset_after=own.reset_after,
            nonlinearity=own.nonlinearity[d],
            options=own.options[d],
        )
        initial = [None if s is None else s[d] for s in states]
        steps = Steps(lengths, reverse)
        h, last, _ = direction.forward(form, weights, x, initial, steps, False, None)
        outputs.append(h)
        lasts.append(last)
    y = np.stack(outputs, axis=2)  # (N, T, S, H)
    results = [y if own.batch_first else y.transpose(1, 2, 0, 3)]
    results += [np.stack(last, axis=int(own.batch_first)) for last in zip(*lasts, strict=True)]
    named = zip(OUTPUTS, results, strict=False)
    return {own.outputs[name]: a for name, a in named if name in own.outputs}


def _initial(node: Node, given: Mapping[str, np.ndarray], N: int, H: int) -> list:
    """h0, and of an lstm c0, (S, N, H) each, None for zeros."""
    names, S = [f"initial_{state}" for state in STANDARD[node.cell].states], len(node.reversed)
    for name in given.keys() & set(names):
        shape = (N, S, H) if node.batch_first else (S, N, H)
        check_shape(f"{node.name}: {name}", given[name], shape)
    states = [given.get(name) for name in names]
    return [a.swapaxes(0, 1) if node.batch_first and a is not None else a for a in states]


def _layers(node: Node, given: Mapping[str, np.ndarray]) -> list[Layer]:
    """The weights of each direction, their gates in ONNX's order."""
    W, R, B, P = (given.get(name) for name in WEIGHTS)
    S, G = len(node.reversed), len(STANDARD[node.cell].gates)
    check_shape(f"{node.name}: R", R, (S, f"{G}*H", "H"))
    H = R.shape[2]
    check_shape(f"{node.name}: R", R, (S, G * H, H))
    check_shape(f"{node.name}: W", W, (S, G * H, "D"))
    if B is not None:
        check_shape(f"{node.name}: B", B, (S, 2 * G * H))
    if P is not None:
        check_shape(f"{node.name}: P", P, (S, 3 * H))
    if node.hidden_size not in (None, H):
        raise ValueError(f"{node.name}: hidden_size: expected {H} as R has, got {node.hidden_size}")
    return from_onnx(node.cell, W, R, B, P, gates=ORDERS["onnx"][node.cell])


def _as_one_bias(cell: str, layer: Layer) -> Weights:
    """As the engine takes them: a second bias is the GRU's alone."""
    Wx, Wh, b, bh, _, peepholes = layer
    if b is None:
        b = bh = np.zeros(Wx.shape[1], Wx.dtype)
    biases = (b, bh) if STANDARD[cell].two_biases else (b + bh, None)
    return Weights(Wx, Wh, *biases, vectors=peepholes)


# ---- reading -------------------------------------------------------------------------------------


def of_file(path: Path, node: str | Sequence[str] | None, untold: Untold) -> Recurrent:
    """The module of one node of a model, or of several on top of each other."""
    with storage.reading(path, "an ONNX model"):
        model = require("onnx").load(path)
        constants = _constants(model)
        known = {_name(n): n for n in model.graph.node if n.op_type in OPERATORS}
        with naming(path):
            nodes = choose(known, node, "node", parse, partial(_is_on, model))
            for own in nodes:
                _check_from_outside(model, constants, own)
            return _module(nodes, constants, untold)


def _check_from_outside(model: object, constants: Mapping[str, object], node: Node) -> None:
    """Raises ValueError unless lengths and initial states are inputs of the model, or none, or
    zeros: a module gets them from its caller."""
    for name, value in node.inputs.items():
        outside = name in ("X", *WEIGHTS) or _is_from_outside(model, constants, node, value)
        if name == "sequence_lens" and (value in constants or not outside):
            raise ValueError(f"{node.name}: {name}: expected an input of the model, got {value!r}")
        if not outside:
            raise ValueError(
                f"{node.name}: {name}: expected zeros or an input of the model, got {value!r}"
            )


def _is_from_outside(model, constants, node, value):
    """Whether a value is inputs of the model and zeros alone, moved."""
    producers = _producers(model)
    inputs, seen, todo = {value.name for value in model.graph.input}, {""}, [value]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in constants:
            a = _array(node, name, constants[name])
            if a.dtype.kind == "f" and a.any():
                return False
        elif name in producers:
            between = producers[name]
            if between.op_type not in SHAPES or not _fills_with_zeros(between):
                return False
            todo += between.input if between.op_type != "Shape" else ()
        elif name not in inputs:
            return False
    return True


def _fills_with_zeros(node):
    to_array = require("onnx.numpy_helper").to_array
    filled = node.attribute if node.op_type == "ConstantOfShape" else ()
    return not any(to_array(attribute.t).any() for attribute in filled)


def _producers(model: object) -> dict[str, object]:
    """Nodes by the names of their results."""
    return {name: node for node in model.graph.node for name in node.output}


def _constants(model: object) -> dict[str, object]:
    """Tensors (onnx.TensorProto) that a model has as constants, by name."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and [a.name for a in node.attribute] == ["value"]:
            tensors[node.output[0]] = node.attribute[0].t
    return tensors


def _is_on(model: object, below: Node, above: Node) -> bool:
    """Whether a node reads what another one returns, side by side: what lies between is tried."""
    producers = _producers(model)
    between, name = [], above.inputs["X"]
    while name != below.outputs.get("Y"):
        node = producers.get(name)
        if node is None or node.op_type not in MOVES or len(between) > len(producers):
            return False
        between.insert(0, node)
        name = node.input[0]
    N, T, S, H = 2, 3, len(below.reversed), below.hidden_size or 0
    if not 0 < H <= MOST_UNITS:
        return False
    y = np.arange(N * T * S * H, dtype=np.float32).reshape(N, T, S, H)
    expected = y.reshape(N, T, S * H)
    given = y if below.batch_first else y.transpose(1, 2, 0, 3)
    wanted = expected if above.batch_first else expected.swapaxes(0, 1)
    try:
        return np.array_equal(_result(model, between, given), wanted)
    except Exception:  # of any kind: of another batch than it was made for, say
        return False


def _result(model, nodes, y):
    """What nodes, each of which reads the one before, make of y."""
    helper, first, last = require("onnx.helper"), nodes[0].input[0], nodes[-1].output[0]
    others = {name for node in nodes for name in node.input[1:]}
    constants = [n for n in model.graph.node if n.op_type == "Constant" and n.output[0] in others]
    graph = helper.make_graph(
        [*constants, *nodes],
        "between",
        [helper.make_tensor_value_info(first, helper.np_dtype_to_tensor_dtype(y.dtype), y.shape)],
        [helper.make_empty_tensor_value_info(last)],
        [tensor for tensor in model.graph.initializer if tensor.name in others],
    )
    made = helper.make_model(graph, opset_imports=model.opset_import)
    return require("onnx.reference").ReferenceEvaluator(made).run(None, {first: y})[0]


def _module(nodes: list[Node], constants: Mapping[str, object], untold: Untold) -> Recurrent:
    params, labels = {}, {}
    first = nodes[0]
    if first.reversed == (True,):
        raise ValueError(
            f"{first.name}: direction: expected 'forward' or 'bidirectional', got 'reverse', which "
            "fastrnn.nn.onnx.run takes"
        )
    if len({*zip(first.nonlinearity, first.options, strict=True)}) > 1:
        raise ValueError(f"{first.name}: activations: expected the same in both directions")
    for k, node in enumerate(nodes):
        for layer, end in zip(_constant_layers(node, constants), ("", "_reverse"), strict=False):
            own = to_torch(node.cell, layer, gates=ORDERS["onnx"][node.cell])
            params |= {f"{name}_l{k}{end}": a for name, a in own.items()}
            labels |= {f"{name}_l{k}{end}": f"{node.name}: {name}" for name in own}
    own = first.options[0] or Options()
    untold = untold._replace(nonlinearity=first.nonlinearity[0], reset_after=first.reset_after)
    untold = untold.with_options(clip=own.clip, hard_sigmoid=own.hard_sigmoid)
    return assemble(params, labels, untold)


def _constant_layers(node: Node, constants: Mapping[str, object]) -> list[Layer]:
    """The weights of each direction, which have to be constants."""
    given = {}
    for name, value in node.inputs.items():
        if name in WEIGHTS:
            if value not in constants:
                raise ValueError(f"{node.name}: {name}: expected a constant, got {value!r}")
            given[name] = widened(_array(node, name, constants[value]))
    return _layers(node, given)


def _array(node: Node, name: str, tensor: object) -> np.ndarray:
    """The numbers of a constant. Raises ValueError where they are not those that it declares."""
    try:
        return require("onnx.numpy_helper").to_array(tensor)
    except Exception as error:  # of many kinds
        raise ValueError(f"{node.name}: {name}: {error}") from None
