"""fastrnn.torch: the same modules, converted."""

from functools import partial

import torch

import fastrnn
from fastrnn.benchmarks import models
from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.peers import Idiom
from fastrnn.benchmarks.peers.modules.torch import idiom
from fastrnn.torch import convert


def build(case: Case, operands: dict[str, object]) -> dict[str, Idiom]:
    """The converted module; beside one that loops because of episodes a single call, beside the
    smallest call what it costs without tensors."""
    module, inputs = models.make(case)
    module = convert(module)
    idioms = {"": idiom(case, module, module, inputs)}
    if case.resets is not None:
        return {"": idiom(case, module, module.at_once, inputs), "loop": idioms[""]}
    if case.direction == "forward" and not case.form and case.N == case.T == 1:
        idioms["functions"] = _functions(case, module, *inputs)
    return idioms


def _functions(case: Case, layer: torch.nn.Module, x: torch.Tensor) -> Idiom:
    """What the layer calls, on its weights as they lie."""
    Wx, Wh, b, bh = (w.detach().numpy() for w in layer.parameters())
    options = {
        "rnn": {"b": b + bh},
        "lstm": {"b": b + bh, "gates": "ifgo"},
        "gru": {"b": b, "bh": bh},
    }[case.cell]
    h0 = torch.zeros(case.N, case.H, dtype=x.dtype).numpy()
    forward = getattr(fastrnn, f"{case.cell}_forward")
    run = partial(forward, x.numpy(), h0, Wx, Wh, transposed=True, training=False, **options)
    return Idiom(run, lambda result: {"y": result[0]})
