"""Recurrent layers as ONNX graphs, which several peers run: one RNN, LSTM or GRU node, forward, in
float32, its weights constants."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.operands import Operands
from fastrnn.benchmarks.peers.conventions import ONNX, OURS, reorder

OPSET, IR_VERSION = 14, 8  # any newer runtime reads them


class Graph(NamedTuple):
    """A model in ONNX's format, its inputs, and the shapes of its outputs, both by name."""

    model: bytes
    inputs: dict[str, np.ndarray]
    outputs: dict[str, tuple[int, ...]]

    def collect(self, arrays: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """Its outputs by our names, in our layout."""
        named = dict(zip(self.outputs, arrays, strict=True))
        if "Y" in named:  # (T, 1, N, H)
            return {"h": named["Y"][:, 0].swapaxes(0, 1)}
        return {name[-1]: a[0] for name, a in named.items()}


def graph(case: Case, operands: Operands) -> Graph | None:
    """A sequence, or a step as a sequence of one; None of gradients and of float64."""
    sequence = case.direction in ("forward", "steps")
    if case.dtype != "float32" or not (sequence or case.one_step):
        return None
    inputs = {"X": np.ascontiguousarray(operands["x"].swapaxes(0, 1)), "h0": operands["h0"][None]}
    if "c0" in operands:
        inputs["c0"] = operands["c0"][None]
    outputs = {"Y": (case.T, 1, case.N, case.H)}
    if not sequence:
        outputs = {f"Y_{name[0]}": a.shape for name, a in inputs.items() if name != "X"}
    return Graph(_model(case, operands, inputs, outputs), inputs, outputs)


def weights(
    cell: str, Wx: np.ndarray, Wh: np.ndarray, b: np.ndarray, bh: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Our weights as inputs W, R, B of a node of one direction."""
    bh = np.zeros_like(b) if bh is None else bh
    Wx, Wh, b, bh = (reorder(w, OURS[cell], ONNX[cell]) for w in (Wx, Wh, b, bh))
    return {"W": Wx.T[None], "R": Wh.T[None], "B": np.concatenate([b, bh])[None]}


def _model(case: Case, operands: Operands, inputs: dict, outputs: dict) -> bytes:
    given = {name: operands[name] for name in ("Wx", "Wh", "b", "bh") if name in operands}
    constants = weights(case.cell, **given)
    every_output = ("Y", "Y_h", "Y_c") if case.cell == "lstm" else ("Y", "Y_h")
    node = helper.make_node(
        case.cell.upper(),
        # An empty name stands for an input or output that is left out.
        ["X", *constants, "", "h0", *(["c0"] if "c0" in inputs else [])],
        [name if name in outputs else "" for name in every_output],
        hidden_size=case.H,
        **({"linear_before_reset": 1} if case.cell == "gru" else {}),
    )
    shapes = {name: a.shape for name, a in inputs.items()}
    return serialized([node], _infos(shapes), _infos(outputs), constants)


def _infos(shapes: dict[str, tuple[int, ...]]) -> list:
    return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]


def serialized(nodes: list, inputs: list, outputs: list, constants: dict[str, np.ndarray]) -> bytes:
    """A graph in ONNX's format."""
    tensors = [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    return model.SerializeToString()
