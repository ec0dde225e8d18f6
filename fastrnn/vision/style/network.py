"""The part of a network that a transfer looks at: the first modules of its features, frozen."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from fastrnn.optional import require
from fastrnn.vision import backbones
from fastrnn.vision.weights import Report, silent

if TYPE_CHECKING:
    import torch

# The modules [start, stop) whose activations are kept or computed again together.
Segments = Sequence[tuple[int, int]]


def load(
    backbone: str,
    weights: str,
    layers: Sequence[int],
    *,
    pooling: str,
    seed: int,
    device: str,
    report: Report = silent,
) -> list["torch.nn.Module"]:
    """The modules of a backbone's features up to the deepest of the layers.

    No weight wants a gradient; a rectifier works in place unless what it reads is one of the
    layers; a convolution pads with what lies at the edges; pooling, "max" or "average", is what the
    pooling layers take. Raises what backbones.build raises.
    """
    torch = require("torch")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        modules = [*backbones.build_features(backbone, weights, report)]
    modules = modules[: max(layers) + 1]
    if pooling == "average":
        modules = [_averaging(module) for module in modules]
    for i, module in enumerate(modules):
        if isinstance(module, torch.nn.ReLU):
            module.inplace = i - 1 not in layers
        _pad_by_edges(module)
        # Convolutions are faster with the channels innermost.
        module.requires_grad_(False).to(device, memory_format=torch.channels_last)
    return modules


def _pad_by_edges(module):
    # Zeros are seen as a frame, by which each place knows where it is: then the style's layout is
    # painted along with its strokes.
    for part in module.modules():
        if isinstance(part, require("torch.nn").Conv2d) and any(part.padding):
            part.padding_mode = "replicate"


def _averaging(module):
    nn = require("torch.nn")
    if not isinstance(module, nn.MaxPool2d):
        return module
    return nn.AvgPool2d(
        *(module.kernel_size, module.stride, module.padding, module.ceil_mode),
        count_include_pad=False,
    )


def features(
    modules: Sequence["torch.nn.Module"],
    x: "torch.Tensor",
    layers: Sequence[int],
    segments: Segments = (),
) -> list["torch.Tensor | None"]:
    """The output of each module that is one of the layers, None for the others.

    Inputs: x (N, 3, H, W) in the network's space. The activations inside all segments but the last
    are not kept for the gradient but computed again, one segment at a time; without segments all
    are kept. The gradients are the same (Chen et al. 2016, Training deep nets with sublinear memory
    cost).
    """
    torch = require("torch")
    checkpoint = require("torch.utils.checkpoint").checkpoint
    x = x.contiguous(memory_format=torch.channels_last)
    feats: list[torch.Tensor | None] = []
    for start, stop in segments or [(0, len(modules))]:
        run = partial(_run, modules[start:stop], [i in layers for i in range(start, stop)])
        if stop < len(modules):
            run = partial(checkpoint, run, use_reentrant=False, preserve_rng_state=False)
        x, kept = run(x)
        feats += kept
    return feats


def _run(modules, wanted, x):
    kept = []
    for module, keep in zip(modules, wanted, strict=True):
        x = module(x)
        kept.append(x if keep else None)
    return x, kept


def cuts(modules: Sequence["torch.nn.Module"]) -> list[int]:
    """The modules before which a segment may begin: all but the first and rectifiers, which may
    overwrite what they read."""
    rectifier = require("torch.nn").ReLU
    return [i for i in range(1, len(modules)) if not isinstance(modules[i], rectifier)]
