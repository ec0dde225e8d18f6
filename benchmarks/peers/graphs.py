"""Recurrent layers as ONNX graphs, which several peers run: one RNN, LSTM or GRU node, forward, in
float32, its weights constants."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.operands import Operands
from fastrnn.nn import graphs
from fastrnn.weights import Layer


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


def _model(case: Case, operands: Operands, inputs: dict, outputs: dict) -> bytes:
    layer = Layer(*(operands.get(name) for name in ("Wx", "Wh", "b", "bh")))
    every_output = ("Y", "Y_h", "Y_c") if case.cell == "lstm" else ("Y", "Y_h")
    made = graphs.Graph()
    made.recurrent(
        case.cell,
        "X",
        [layer],
        initial=[name for name in inputs if name != "X"],
        outputs=[name if name in outputs else "" for name in every_output],
    )
    shapes = {name: a.shape for name, a in inputs.items()}
    return made.serialized(*({n: (np.float32, s) for n, s in d.items()} for d in (shapes, outputs)))
