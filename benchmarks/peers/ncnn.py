"""ncnn on one thread: a layer that takes and returns its states; one row, step by step or many
steps in one call, in float32."""

from pathlib import Path
from tempfile import TemporaryDirectory

import ncnn
import numpy as np

from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.operands import Operands
from fastrnn.benchmarks.peers import Idiom

MAGIC = 7767517  # of a file of parameters


def build(case: Case, operands: Operands) -> dict[str, Idiom]:
    """The step race alone."""
    if case.race != "step" or case.dtype != "float32":
        return {}
    inputs = {name: operands[name] for name in ("h0", "c0") if name in operands}
    inputs = {"x": operands["x"][0], **inputs}
    states = [name[0] for name in inputs if name != "x"]
    net = _net(case, operands, [*inputs], ["y", *states])
    # A copy: the matrix itself lies in the array, which it does not keep alive.
    mats = {name: ncnn.Mat(a).clone() for name, a in inputs.items()}
    wanted = states if case.one_step else ["y"]

    def run() -> list[ncnn.Mat]:
        extractor = net.create_extractor()
        for name, mat in mats.items():
            extractor.input(name, mat)
        return [extractor.extract(name)[1] for name in wanted]

    def collect(outputs: list[ncnn.Mat]) -> dict[str, np.ndarray]:
        arrays = dict(zip(wanted, map(np.array, outputs), strict=True))
        return arrays if case.one_step else {"h": arrays["y"][None]}

    return {"": Idiom(run, collect)}


def _net(case: Case, operands: Operands, inputs: list[str], outputs: list[str]) -> ncnn.Net:
    """One layer behind its inputs."""
    net = ncnn.Net()
    net.opt.num_threads = 1
    for kind in ("packed", "storage", "arithmetic"):
        setattr(net.opt, f"use_fp16_{kind}", False)
    names = " ".join([*inputs, *outputs])
    layer = f"{case.cell.upper()} layer {len(inputs)} {len(outputs)} {names}"
    lines = [
        f"{MAGIC}",
        f"{len(inputs) + 1} {len(inputs) + len(outputs)}",
        *(f"Input {name} 0 1 {name}" for name in inputs),
        f"{layer} 0={case.H} 1={operands['Wx'].size}",
    ]
    net.load_param_mem("\n".join(lines) + "\n")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.bin"
        path.write_bytes(b"".join(map(_written, _weights(case, operands))))
        net.load_model(str(path))
    return net


def _weights(case: Case, operands: Operands) -> list[np.ndarray]:
    """Rows of gates in our order; of a gru's two biases those of r and z as one."""
    b, H = operands["b"], case.H
    if case.cell == "gru":
        bh = operands["bh"]
        b = np.concatenate([b[: 2 * H] + bh[: 2 * H], b[2 * H :], bh[2 * H :]])
    return [operands["Wx"].T, b, operands["Wh"].T]


def _written(a: np.ndarray) -> bytes:
    """Behind the mark of float32."""
    return bytes(4) + a.tobytes()
