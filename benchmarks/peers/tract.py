"""tract, which runs ONNX graphs on one thread: one row, step by step or many steps in one call.

Of a gru with D = 1 no long sequence: tract 0.23 fails there ("xw not contiguous").
"""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import tract

from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.operands import Operands
from fastrnn.benchmarks.peers import Idiom
from fastrnn.benchmarks.peers.graphs import graph


def build(case: Case, operands: Operands) -> dict[str, Idiom]:
    """The step race alone; inputs and outputs are tract's own tensors, as from step to step."""
    fails = case.cell == "gru" and case.direction == "steps" and case.D == 1
    made = graph(case, operands) if case.race == "step" and not fails else None
    if made is None:
        return {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(made.model)
        state = tract.onnx().load(path).into_model().into_runnable().spawn_state()
    inputs = [tract.Tensor.from_numpy(a) for a in made.inputs.values()]
    return {
        "": Idiom(
            partial(state.run, inputs),
            lambda outputs: made.collect(tensor.to_numpy() for tensor in outputs),
        )
    }
