"""OpenVINO on the CPU, compiled for latency in float32; inputs are set once and outputs read where
they lie, the fastest way to call it."""

import sys
from functools import partial

import numpy as np

from fastrnn.backends.threads import default_threads
from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.operands import Operands
from fastrnn.benchmarks.peers import Idiom
from fastrnn.benchmarks.peers.graphs import graph

# Else a process beside the race reports to OpenVINO's makers that it was imported.
sys.modules["openvino_telemetry"] = None
import openvino  # noqa: E402


def build(case: Case, operands: Operands) -> dict[str, Idiom]:
    """What graphs.graph makes graphs of."""
    made = graph(case, operands)
    if made is None:
        return {}
    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": default_threads(),
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the CPU has it
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(made.model), "CPU", settings)
    request = compiled.create_infer_request()
    for name, a in made.inputs.items():
        request.set_tensor(name, openvino.Tensor(a, shared_memory=True))

    def collect(_: object) -> dict[str, np.ndarray]:
        return made.collect(request.get_tensor(name).data for name in made.outputs)

    return {"": Idiom(partial(request.infer, share_outputs=True), collect)}
