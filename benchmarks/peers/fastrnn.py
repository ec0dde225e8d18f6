"""fastrnn itself, through its public functions."""

from functools import partial

import numpy as np

import fastrnn
from fastrnn import optim
from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.operands import Operands, captioner
from fastrnn.benchmarks.peers import Idiom

WEIGHTS = ("Wx", "Wh", "b")
GRADIENTS = ("dx", "dh0", "dWx", "dWh", "db", "dbh")


def build(case: Case, operands: Operands) -> dict[str, Idiom]:
    """The compiled kernels; beside variable lengths also the same shape at full length, against
    which a step's cost is judged."""
    fastrnn.set_backend("cython")
    if case.direction == "stream":
        return {"": _stream(case, operands)}
    idioms = functions(case, operands)
    if "lengths" in operands:
        full = {name: a for name, a in operands.items() if name != "lengths"}
        idioms["full length"] = Idiom(_both(case, full).run, None)
    return idioms


def functions(case: Case, operands: Operands) -> dict[str, Idiom]:
    """The functions of the current backend."""
    kinds = {"forward": _forward, "forward+backward": _both, "iteration": _iteration}
    return {"": kinds.get(case.direction, _step)(case, operands)}


def _options(operands: Operands, *names: str) -> dict[str, np.ndarray]:
    return {name: operands[name] for name in names if name in operands}


def _bound(case: Case, operands: Operands) -> partial:
    """The forward function with its operands."""
    args = [operands[name] for name in ("x", "h0", *WEIGHTS)]
    forward = getattr(fastrnn, f"{case.cell}_forward")
    return partial(forward, *args, **_options(operands, "bh", "lengths"))


def _forward(case: Case, operands: Operands) -> Idiom:
    return Idiom(_bound(case, operands), lambda result: {"h": result[0]})


def _both(case: Case, operands: Operands) -> Idiom:
    forward, dh = _bound(case, operands), operands["dh"]
    backward = getattr(fastrnn, f"{case.cell}_backward")

    def run() -> tuple[np.ndarray, ...]:
        h, cache = forward()
        return h, *backward(dh, cache)

    return Idiom(run, lambda result: dict(zip(("h", *GRADIENTS), result, strict=False)))


def _step(case: Case, operands: Operands) -> Idiom:
    step = getattr(fastrnn, f"{case.cell}_step_forward")
    states = _options(operands, "h0", "c0").values()
    weights = [operands[name] for name in WEIGHTS]
    run = partial(step, operands["x"][:, 0], *states, *weights, **_options(operands, "bh"))
    return Idiom(run, lambda result: dict(zip("hc", result[:-1], strict=False)))


def _stream(case: Case, operands: Operands) -> Idiom:
    weights = [operands[name] for name in WEIGHTS]
    stream = fastrnn.Stream(case.cell, *weights, batch=case.N, **_options(operands, "bh"))
    x = operands["x"][:, 0]
    before = {name[0]: a for name, a in _options(operands, "h0", "c0").items()}

    def collect(_: np.ndarray) -> dict[str, np.ndarray]:
        stream.state = before
        stream.step(x)
        return stream.state

    return Idiom(partial(stream.step, x), collect)


def _iteration(case: Case, operands: Operands) -> Idiom:
    """As CaptioningSolver updates: a new dict of gradients, then each parameter by its rule."""
    model = captioner(case)
    states: dict[str, dict[str, object]] = {name: {} for name in model.params}

    def run() -> tuple[float, dict[str, np.ndarray]]:
        loss, grads = model.loss(operands["features"], operands["captions"])
        for name, dw in grads.items():
            model.params[name], _ = optim.adam(model.params[name], dw, states[name])
        return loss, grads

    return Idiom(run, lambda result: {"loss": np.array(result[0]), **result[1]})
