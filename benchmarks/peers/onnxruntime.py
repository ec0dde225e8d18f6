"""ONNX Runtime on the CPU, which packs constant weights when a session is made; inputs and outputs
are bound once, the fastest way to call it."""

import numpy as np
import onnxruntime

from fastrnn.backends.threads import default_threads
from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.operands import Operands
from fastrnn.benchmarks.peers import Idiom
from fastrnn.benchmarks.peers.graphs import Graph, graph


def build(case: Case, operands: Operands) -> dict[str, Idiom]:
    """What graphs.graph makes graphs of."""
    made = graph(case, operands)
    if made is None:
        return {}
    session = start(made.model)
    binding, results = _bind(session, made)

    def collect(_: None) -> dict[str, np.ndarray]:
        return made.collect(value.numpy() for value in results)

    return {"": Idiom(lambda: session.run_with_iobinding(binding), collect)}


def start(model: bytes) -> onnxruntime.InferenceSession:
    """A session that runs a model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = default_threads()
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _bind(session: onnxruntime.InferenceSession, made: Graph):
    """The binding, and where it leaves its outputs."""
    binding, results = session.io_binding(), []
    for name, a in made.inputs.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(a))
    for name, shape in made.outputs.items():
        results.append(onnxruntime.OrtValue.ortvalue_from_numpy(np.empty(shape, np.float32)))
        binding.bind_ortvalue_output(name, results[-1])
    return binding, results
