"""ONNX Runtime on the CPU: one RNN, LSTM or GRU node, forward, in float32.

Its weights are constants, which it packs when the session is made; inputs and outputs are bound
once, the fastest way to call it.
"""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fastrnn.backends.threads import default_threads
from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.operands import Operands
from fastrnn.benchmarks.peers import Idiom
from fastrnn.benchmarks.peers.conventions import ONNX, OURS, reorder

OPSET, IR_VERSION = 14, 8  # any newer runtime reads them


def build(case: Case, operands: Operands) -> dict[str, Idiom]:
    """A sequence, or a step as a sequence of one; no gradients, no float64."""
    if case.dtype != "float32" or case.direction not in ("forward", "step", "stream"):
        return {}
    inputs = {"X": np.ascontiguousarray(operands["x"].swapaxes(0, 1)), "h0": operands["h0"][None]}
    if "c0" in operands:
        inputs["c0"] = operands["c0"][None]
    sequence = case.direction == "forward"
    states = {"Y_h": "h", "Y_c": "c"} if "c0" in operands else {"Y_h": "h"}
    outputs = {"Y": "h"} if sequence else states
    session = start(_model(case, operands, inputs, outputs))
    binding, results = _bind(session, case, inputs, outputs)

    def collect(_: None) -> dict[str, np.ndarray]:
        arrays = {outputs[name]: value.numpy() for name, value in results.items()}
        if sequence:  # Y is (T, 1, N, H)
            return {"h": arrays["h"][:, 0].swapaxes(0, 1)}
        return {name: a[0] for name, a in arrays.items()}

    return {"": Idiom(lambda: session.run_with_iobinding(binding), collect)}


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
    return serialized(
        [node],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, _shape(n, case)) for n in outputs],
        constants,
    )


def serialized(nodes: list, inputs: list, outputs: list, constants: dict[str, np.ndarray]) -> bytes:
    """A graph in ONNX's format."""
    tensors = [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    return model.SerializeToString()


def _shape(output: str, case: Case) -> tuple[int, ...]:
    return (case.T, 1, case.N, case.H) if output == "Y" else (1, case.N, case.H)


def start(model: bytes) -> onnxruntime.InferenceSession:
    """A session that runs a model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = default_threads()
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _bind(session, case: Case, inputs: dict, outputs: dict):
    """The binding, and where it leaves its outputs."""
    binding, results = session.io_binding(), {}
    for name, a in inputs.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(a))
    for name in outputs:
        empty = np.empty(_shape(name, case), np.float32)
        results[name] = onnxruntime.OrtValue.ortvalue_from_numpy(empty)
        binding.bind_ortvalue_output(name, results[name])
    return binding, results
