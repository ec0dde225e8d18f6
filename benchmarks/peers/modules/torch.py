"""PyTorch on the CPU: torch.nn's modules as they are."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from fastrnn.benchmarks import models
from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.models import first
from fastrnn.benchmarks.peers import Idiom


def build(case: Case, operands: dict[str, object]) -> dict[str, Idiom]:
    """One idiom: a case says how its module is used."""
    module, inputs = models.make(case)
    return {"": idiom(case, module, module, inputs)}


def idiom(case: Case, module: torch.nn.Module, call: Callable[..., object], inputs: tuple) -> Idiom:
    """What a case asks of a module, whose y call(*inputs) makes."""
    kinds = {"forward": _forward, "forward+backward": _both, "update": _update}
    return kinds[case.direction](module, call, inputs)


def _forward(module: torch.nn.Module, call: Callable[..., object], inputs: tuple) -> Idiom:
    run = partial(call, *inputs)
    return Idiom(run, lambda result: {"y": first(result).numpy()}, torch.inference_mode)


def _gradient(call: Callable[..., object], inputs: tuple) -> torch.Tensor:
    """dy, always the same."""
    with torch.no_grad():
        y = first(call(*inputs))
    return torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))


def _both(module: torch.nn.Module, call: Callable[..., object], inputs: tuple) -> Idiom:
    dy, (x, *others) = _gradient(call, inputs), inputs
    names, parameters = zip(*module.named_parameters(), strict=True)
    x.requires_grad_()

    def run() -> tuple[torch.Tensor, ...]:
        y = first(call(x, *others))
        return y, *torch.autograd.grad(y, (x, *parameters), dy)

    def collect(result: tuple[torch.Tensor, ...]) -> dict[str, np.ndarray]:
        named = zip(("y", "dx", *names), result, strict=True)
        return {name: a.detach().numpy() for name, a in named}

    return Idiom(run, collect)


def _update(module: torch.nn.Module, call: Callable[..., object], inputs: tuple) -> Idiom:
    dy, adam = _gradient(call, inputs), torch.optim.Adam(module.parameters(), fused=True)

    def run() -> torch.Tensor:
        adam.zero_grad()
        y = first(call(*inputs))
        y.backward(dy)
        adam.step()
        return y

    def collect(y: torch.Tensor) -> dict[str, np.ndarray]:
        gradients = {name: p.grad.numpy() for name, p in module.named_parameters()}
        return {"y": y.detach().numpy(), **gradients}

    return Idiom(run, collect)
