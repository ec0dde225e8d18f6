"""Models in ONNX's format, as they are written: opset 14, which every newer runtime reads.

RNN, LSTM and GRU nodes lie with time first (layout 0) and have their gates in ONNX's order.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fastrnn.cells import STANDARD
from fastrnn.layers import checks
from fastrnn.nn.modules import Recurrent
from fastrnn.nn.state_dict import in_layers
from fastrnn.optional import require
from fastrnn.options import Options
from fastrnn.storage import replacing
from fastrnn.weights import Layer
from fastrnn.weights import to_onnx as weights_in_onnx

OPSET, IR_VERSION = 14, 8

Axes = Sequence[int | str]  # a name stands for any size


class Graph:
    """A graph in the making: every method adds nodes and returns the names of their results."""

    def __init__(self) -> None:
        self._onnx, self._helper = require("onnx"), require("onnx.helper")
        self._nodes, self._constants = [], {}

    def constant(self, a: np.ndarray, name: str | None = None) -> str:
        """An array."""
        name = name or f"constant_{len(self._constants)}"
        a = np.require(a, requirements="C")
        tensor = require("onnx.numpy_helper").from_array(a, name)
        self._constants[name] = tensor
        return name

    def add(
        self,
        operator: str,
        *inputs: str | np.ndarray,
        outputs: Sequence[str] | None = None,
        **attributes: object,
    ) -> str:
        """A node, of whose inputs arrays are constants; outputs, the names of its results, "" for
        one that is left out (None: one result). Returns the name of the first result."""
        name = f"{operator.lower()}_{len(self._nodes)}"
        names = [a if isinstance(a, str) else self.constant(a) for a in inputs]
        outputs = [name] if outputs is None else list(outputs)
        node = self._helper.make_node(operator, names, outputs, name=name, **attributes)
        self._nodes.append(node)
        return outputs[0]

    def cast(self, a: str, dtype: np.dtype | type) -> str:
        """An array in another dtype."""
        return self.add("Cast", a, to=self._helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def recurrent(
        self,
        cell: str,
        x: str,
        layers: Sequence[Layer],
        *,
        gates: str | None = None,
        reset_after: bool = True,
        nonlinearity: str = "tanh",
        options: Options | None = None,
        lengths: str = "",
        initial: Iterable[str] = (),
        outputs: Sequence[str] | None = None,
    ) -> tuple[str, ...]:
        """A node of one layer, in each direction one of weights.

        Inputs: x (T, N, D); layers as weights.to_onnx takes them; options of the cells, of which
        ONNX has those that concern predictions, but zoneout; lengths (N,), int32; initial, each
        (directions, N, H); outputs as add's.
        Returns: y (T, directions, N, H), the last states, each (directions, N, H).
        Raises ValueError for zoneout.
        """
        of_options = _in_predictions(cell, nonlinearity, options or Options(), len(layers))
        n, given = len(self._nodes), weights_in_onnx(cell, layers, gates=gates)
        weights = {name: self.constant(a, f"{name}_{n}") for name, a in given.items()}
        attributes = {"hidden_size": given["R"].shape[-1]}
        if len(layers) == 2:
            attributes["direction"] = "bidirectional"
        if cell == "gru":
            attributes["linear_before_reset"] = int(reset_after)
        if outputs is None:
            outputs = [f"{name}_{n}" for name in ("Y", "Y_h", *(["Y_c"] if cell == "lstm" else []))]
        own = (weights.get(name, "") for name in "WRB")  # an empty name is one that is left out
        initial = [*initial] or [""] * len(STANDARD[cell].states)
        inputs = [x, *own, lengths, *initial, weights.get("P", "")]
        while not inputs[-1]:
            inputs.pop()
        self.add(cell.upper(), *inputs, outputs=outputs, **attributes, **of_options)
        return tuple(outputs)

    def parts(self, a: str, n: int, size: int) -> list[str]:
        """An array as n of so many rows each."""
        names = [f"{a}_{i}" for i in range(n)]
        self.add("Split", a, np.full(n, size), outputs=names, axis=0)
        return names

    def side_by_side(self, y: str, directions: int, H: int) -> str:
        """What recurrent returns as y, as (T, N, directions*H)."""
        if directions == 1:
            return self.add("Squeeze", y, np.array([1]))
        turned = self.add("Transpose", y, perm=[0, 2, 1, 3])
        return self.add("Reshape", turned, np.array([0, 0, directions * H]))

    def serialized(
        self,
        inputs: Mapping[str, tuple[type | np.dtype, Axes]],
        outputs: Mapping[str, tuple[type | np.dtype, Axes]],
    ) -> bytes:
        """The model in ONNX's format; inputs and outputs, dtype and shape by name."""
        helper = self._helper

        def infos(values):
            return [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(axes)
                )
                for name, (dtype, axes) in values.items()
            ]

        graph = helper.make_graph(
            self._nodes, "fastrnn", infos(inputs), infos(outputs), list(self._constants.values())
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="fastrnn"
        )
        self._onnx.checker.check_model(model)
        return model.SerializeToString()


def _in_predictions(
    cell: str, nonlinearity: str, options: Options, directions: int
) -> dict[str, object]:
    """Attributes of a node that say what its cells do otherwise than the plain ones."""
    for name in ("zoneout_h", "zoneout_c"):
        if value := getattr(options, name):
            raise ValueError(f"{name}: expected 0, got {value}: ONNX has no zoneout")
    attributes = {}
    clips = [value for value in (options.clip, options.cap) if value is not None]
    if clips:  # relu of what is clipped to a cap is capped
        attributes["clip"] = float(min(clips))
    if nonlinearity == "relu":
        attributes["activations"] = ["Relu"] * directions
    if (slope := options.hard_sigmoid) is not None:
        candidates = ["Tanh"] * len(STANDARD[cell].states)
        attributes["activations"] = ["HardSigmoid", *candidates] * directions
        attributes["activation_alpha"] = [float(slope)] * directions
        attributes["activation_beta"] = [0.5] * directions
    return attributes


def to_onnx(
    module: Recurrent, path: Path | str, *, lengths: bool = False, state: bool = False
) -> None:
    """Write a module as an ONNX model of opset 14, atomically.

    Inputs: module, an RNN, LSTM or GRU of fastrnn.nn; path; lengths, whether the model takes the
    lengths of its rows; state, whether it takes the states to begin from.
    The model takes x (N, T, D), where they are wanted lengths (N,), int32, h0 (L*S, N, H) and of an
    LSTM c0, and returns y (N, T, S*H), hT and of an LSTM cT, like h0; N and T may be any.
    Raises TypeError for another module, ValueError for a projection or zoneout, which ONNX has not,
    OSError where it cannot be written.
    """
    layers = in_layers(module)
    lengths, state = checks.flag("lengths", lengths), checks.flag("state", state)
    if module.proj_size:
        raise ValueError(f"proj_size: expected 0, got {module.proj_size}: ONNX has no projection")
    graph, form = Graph(), module.form
    L, S, H, record = form.layers, form.directions, module.hidden_size, form.record
    states = dict.fromkeys(record.initial_fields, (module.dtype, (L * S, "N", H)))
    inputs = {"x": (module.dtype, ("N", "T", module.input_size))}
    inputs |= {"lengths": (np.int32, ("N",))} if lengths else {}
    inputs |= states if state else {}
    parts = [graph.parts(name, L, S) for name in states] if state else []
    x, lasts = graph.add("Transpose", "x", perm=[1, 0, 2]), []
    for k, layer in enumerate(layers):
        y, *last = graph.recurrent(
            form.cell,
            x,
            layer,
            reset_after=form.reset_after,
            nonlinearity=form.nonlinearity,
            options=form.options,
            lengths="lengths" if lengths else "",
            initial=[part[k] for part in parts],
        )
        x = graph.side_by_side(y, S, H)
        lasts.append(last)
    graph.add("Transpose", x, perm=[1, 0, 2], outputs=["y"])
    for name, last in zip(record.last_fields, zip(*lasts, strict=True), strict=True):
        graph.add("Concat", *last, axis=0, outputs=[name])
    outputs = {"y": (module.dtype, ("N", "T", S * H))}
    outputs |= dict(zip(record.last_fields, states.values(), strict=True))
    write(path, graph.serialized(inputs, outputs))


def write(path: Path | str, model: bytes) -> None:
    """Write a model atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(model)
