"""fastrnn itself, through its public functions."""

from dataclasses import replace

import numpy as np

import fastrnn
from fastrnn.benchmarks.cases import FORMS, Case
from fastrnn.benchmarks.operands import Operands, draw_form
from fastrnn.benchmarks.peers import Idiom

POSITIONAL = ("x", "h0", "Wx", "Wh", "u", "b")
LAYER_NORM = ("gain_x", "gain_h", "gain_c", "shift_c")


def build(case: Case, operands: Operands) -> dict[str, Idiom]:
    """The compiled kernels; and the plain cell, by whose time the cost is told."""
    fastrnn.set_backend("cython")
    plain = replace(case, form="")
    beside = idiom(plain, draw_form(plain))._replace(collect=None)
    return {"": idiom(case, operands), "plain": beside}


def idiom(case: Case, operands: Operands) -> Idiom:
    """Forward and backward by the current backend's functions."""
    forward, backward = (getattr(fastrnn, f"{case.functions}_{w}") for w in ("forward", "backward"))
    inputs = {name: a for name, a in operands.items() if name != "dh"}
    args = [inputs[name] for name in POSITIONAL if name in inputs]
    keywords = {name: a for name, a in inputs.items() if name not in POSITIONAL}
    if case.form == "layer norm":
        norm = {name: keywords.pop(name) for name in LAYER_NORM if name in keywords}
        keywords["layer_norm"] = fastrnn.LayerNorm(**norm)
    if case.form and (options := FORMS[case.form].options):
        keywords["options"] = options
    if case.functions == "rnn":
        keywords["nonlinearity"] = "relu"

    def run() -> tuple[np.ndarray, ...]:
        h, cache = forward(*args, **keywords)
        return h, *backward(operands["dh"], cache)

    names = "h", *(f"d{name}" for name in inputs)
    return Idiom(run, lambda result: dict(zip(names, result, strict=True)))
