"""fastrnn itself, through its public functions."""

from functools import partial

import numpy as np

import fastrnn
from fastrnn import optim
from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.operands import WAYS, Operands, captioner
from fastrnn.benchmarks.peers import Idiom

WEIGHTS = ("Wx", "Wh", "b")
GRADIENTS = ("dh0", "dWx", "dWh", "db", "dbh")


def build(case: Case, operands: Operands) -> dict[str, Idiom]:
    """The compiled kernels; beside variable lengths also the same shape at full length, against
    which a step's cost is judged."""
    fastrnn.set_backend("cython")
    if case.direction in ("stream", "steps"):
        return {"": _stream(case, operands)}
    idioms = functions(case, operands)
    if "lengths" in operands:
        full = {name: a for name, a in operands.items() if name != "lengths"}
        idioms["full length"] = functions(case, full)[""]._replace(collect=None)
    return idioms


def functions(case: Case, operands: Operands) -> dict[str, Idiom]:
    """The functions of the current backend."""
    kinds = {
        "forward": _inference,
        "steps": _inference,
        "forward+backward": _both,
        "bidirectional": _bidirectional,
        "iteration": _iteration,
    }
    return {"": kinds.get(case.direction, _step)(case, operands)}


def _options(operands: Operands, *names: str) -> dict[str, np.ndarray]:
    return {name: operands[name] for name in names if name in operands}


def _prepared(case: Case, operands: Operands) -> fastrnn.PreparedWeights:
    weights = [operands[name] for name in WEIGHTS]
    return fastrnn.prepare(case.cell, *weights, **_options(operands, "bh"))


def _inference(case: Case, operands: Operands) -> Idiom:
    """Weights prepared once, nothing kept for a backward pass."""
    forward, states = getattr(fastrnn, f"{case.cell}_forward"), _options(operands, "c0")
    args = operands["x"], operands["h0"], _prepared(case, operands)
    return Idiom(partial(forward, *args, **states, training=False), lambda result: {"h": result[0]})


def _bound(case: Case, operands: Operands, way: str = "", **options: bool) -> partial:
    """The forward function with the operands of one way."""
    args = [operands["x"], *(operands[name + way] for name in ("h0", *WEIGHTS))]
    options |= _options(operands, "lengths", "reset")
    options |= {"bh": operands[f"bh{way}"]} if case.cell == "gru" else {}
    return partial(getattr(fastrnn, f"{case.cell}_forward"), *args, **options)


def _both(case: Case, operands: Operands) -> Idiom:
    forward, dh = _bound(case, operands), operands["dh"]
    backward = getattr(fastrnn, f"{case.cell}_backward")

    def run() -> tuple[np.ndarray, ...]:
        h, cache = forward()
        return h, *backward(dh, cache)

    return Idiom(run, lambda result: dict(zip(("h", "dx", *GRADIENTS), result, strict=False)))


def _bidirectional(case: Case, operands: Operands) -> Idiom:
    """What one layer of both ways gives: their states side by side, one gradient of x."""
    forwards = [_bound(case, operands, way, reverse=way != "") for way in WAYS]
    backward = getattr(fastrnn, f"{case.cell}_backward")
    dhs = np.split(operands["dh"], 2, axis=-1)

    def run() -> tuple[np.ndarray, np.ndarray, list, list]:
        hs, caches = zip(*(forward() for forward in forwards), strict=True)
        (dx, *first), (other, *second) = map(backward, dhs, caches)
        dx += other
        return np.concatenate(hs, axis=-1), dx, first, second

    def collect(result: tuple[np.ndarray, np.ndarray, list, list]) -> dict[str, np.ndarray]:
        h, dx, *gradients = result
        named = {"h": h, "dx": dx}
        for way, some in zip(WAYS, gradients, strict=True):
            named |= {name + way: a for name, a in zip(GRADIENTS, some, strict=False)}
        return named

    return Idiom(run, collect)


def _step(case: Case, operands: Operands) -> Idiom:
    """As _inference."""
    step = getattr(fastrnn, f"{case.cell}_step_forward")
    states = _options(operands, "h0", "c0").values()
    weights = _prepared(case, operands)
    run = partial(step, operands["x"][:, 0], *states, weights, training=False)
    return Idiom(run, lambda result: dict(zip("hc", result[:-1], strict=False)))


def _stream(case: Case, operands: Operands) -> Idiom:
    """A step a call, or all of them, into an array that is there."""
    weights = [operands[name] for name in WEIGHTS]
    stream = fastrnn.Stream(case.cell, *weights, batch=case.N, **_options(operands, "bh"))
    x, call = np.ascontiguousarray(operands["x"].swapaxes(0, 1)), stream.steps
    if case.one_step:
        x, call = x[0], stream.step
    run = partial(call, x, out=np.empty((*x.shape[:-1], case.H), x.dtype))
    before = {name[0]: a for name, a in _options(operands, "h0", "c0").items()}

    def collect(_: np.ndarray) -> dict[str, np.ndarray]:
        stream.state = before
        h = run()
        return stream.state if case.one_step else {"h": h.swapaxes(0, 1)}

    return Idiom(run, collect)


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
