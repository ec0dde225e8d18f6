"""A published network with a new last layer, and what trains it: the layers' learning rates, the
schedule."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastrnn.optional import require
from fastrnn.vision import backbones
from fastrnn.vision.weights import Report, silent

if TYPE_CHECKING:
    import torch

HEAD_SCALE = 0.01  # of torch's initial weights


def new_network(
    settings: dict[str, object], classes: int, report: Report = silent
) -> tuple["torch.nn.Module", "torch.nn.Linear"]:
    """A network with another last layer, random from the settings' seed, and this layer; report is
    build's.

    Raises what backbones.build does. Seeds torch's generator.
    """
    torch = require("torch")
    torch.manual_seed(settings["seed"])
    model = backbones.build(settings["backbone"], settings["weights"], report)
    head = backbones.replace_head(model, lambda n: torch.nn.Linear(n, classes))
    with torch.no_grad():  # its first gradients would else undo what the other layers know
        for w in head.parameters():
            w.mul_(HEAD_SCALE)
    # Convolutions on the CPU take half the time.
    return model.to(memory_format=torch.channels_last), head


def fold(
    layer: "torch.nn.Linear", mean: "torch.Tensor", std: "torch.Tensor", into: "torch.nn.Linear"
) -> None:
    """Give a layer the weights with which it makes of x what another makes of (x - mean) / std."""
    torch = require("torch")
    with torch.no_grad():
        W = layer.weight.double() / std.double()
        b = layer.bias.double() - W @ mean.double()
        into.weight.copy_(W)
        into.bias.copy_(b)


def parameter_groups(
    model: "torch.nn.Module",
    head: "torch.nn.Module",
    learning_rate: float,
    layer_decay: float,
    head_factor: float,
    weight_decay: float,
) -> list[dict[str, object]]:
    """An optimizer's groups for discriminative learning rates (Howard and Ruder 2018, section 3.2).

    Modules that have parameters of their own, in order of registration, have learning rates from
    learning_rate * layer_decay, geometrically, to learning_rate; head has learning_rate *
    head_factor. Matrices and convolutions decay; biases, norms and other vectors do not.
    """
    owners = [m for m in model.modules() if [*m.parameters(recurse=False)]]
    groups, last = [], max(1, len(owners) - 2)
    for i, module in enumerate(owners):
        lr = learning_rate * (head_factor if module is head else layer_decay ** (1 - i / last))
        for decays in (True, False):
            named = module.named_parameters(recurse=False)
            params = [w for name, w in named if decays == (name.endswith("weight") and w.ndim > 1)]
            if params:
                decay = weight_decay if decays else 0.0
                groups.append({"params": params, "lr": lr, "weight_decay": decay})
    return groups


def warmup_cosine(steps: int, warmup: float) -> Callable[[int], float]:
    """The factor on the learning rate at a step: up from near 0 in a share of the steps, then down
    to 0 on a half cosine (Loshchilov and Hutter 2017, equation 5)."""
    rising = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return factor
