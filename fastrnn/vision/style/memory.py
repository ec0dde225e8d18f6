"""How much memory a step takes, from shapes alone, and which segments keep it below a limit."""

import math
import os
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastrnn.optional import require
from fastrnn.vision.style.network import Segments
from fastrnn.vision.style.settings import LBFGS_HISTORY, Settings

if TYPE_CHECKING:
    import torch

# Of the largest output: its gradient, the gradient of what it was made from, and what a convolution
# lays out anew for each (measured, see docs/style.md).
WORKSPACE = 4
PROGRAM = 800_000_000  # bytes of Python with torch and torchvision


class Trace(NamedTuple):
    """What the modules of a network leave in memory: for each the storages that its backward keeps,
    address to bytes; its output's address, and its output's bytes."""

    saved: list[dict[int, int]]
    outputs: list[int]
    sizes: list[int]


def trace(modules: Sequence["torch.nn.Module"], size: tuple[int, int]) -> Trace:
    """Run a picture of (W, H) through the modules on the meta device, which knows shapes only.

    Raises ValueError that names the module for which it is too small.
    """
    torch = require("torch")
    x = torch.empty((1, 3, *size[::-1]), device="meta", requires_grad=True)
    saved, outputs = [], []
    for i, module in enumerate(modules):
        kept: dict[int, int] = {}

        def keep(tensor, kept=kept):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
            return tensor

        weights = {name: w.detach().to("meta") for name, w in module.named_parameters()}
        try:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                x = torch.func.functional_call(module, weights, x)
        except RuntimeError:
            raise ValueError(f"{size[0]} x {size[1]} pixels are too few for layer {i}") from None
        saved.append(kept)
        outputs.append(x)
    storages = [x.untyped_storage() for x in outputs]
    return Trace(saved, [s._cdata for s in storages], [s.nbytes() for s in storages])


def activations(traced: Trace, settings: Settings, segments: Segments) -> int:
    """Bytes that a step holds at most: what is kept between the segments and of the layers, content
    targets and the differences to them, one segment's activations, and the workspace."""
    kept = {}
    for i in {*settings.layers, *(stop - 1 for _, stop in segments)}:
        kept[traced.outputs[i]] = traced.sizes[i]
    inside = [
        sum(n for address, n in _union(traced.saved[start:stop]).items() if address not in kept)
        for start, stop in segments
    ]
    targets = 2 * sum(traced.sizes[layer] for layer in settings.content_layers)
    return sum(kept.values()) + targets + max(inside) + WORKSPACE * max(traced.sizes)


def _union(dicts: Sequence[dict[int, int]]) -> dict[int, int]:
    return {key: value for d in dicts for key, value in d.items()}


def choose_segments(
    traced: Trace, settings: Settings, cuts: Sequence[int], limit: float
) -> Segments:
    """The fewest segments with which a step's activations stay below the limit (bytes), or where
    none do those that hold the least.

    Inputs: cuts, the modules before which a segment may begin.
    """
    n = len(traced.saved)
    upto = [0, *accumulate(sum(kept.values()) for kept in traced.saved)]
    choices = []
    for count in range(1, len(cuts) + 2):
        goals = [upto[-1] * k / count for k in range(1, count)]
        inner = {min(cuts, key=lambda cut, goal=goal: abs(upto[cut] - goal)) for goal in goals}
        segments = [*pairwise([0, *sorted(inner), n])]
        choices.append(segments)
        if activations(traced, settings, segments) <= limit:
            return segments
    return min(choices, key=lambda segments: activations(traced, settings, segments))


def held(
    modules: Sequence["torch.nn.Module"], settings: Settings, size: tuple[int, int], device: str
) -> int:
    """Bytes on a device that are no activations: the program, the weights, and for a picture of
    (W, H) itself, its gradient and the like, and what the optimiser keeps."""
    vectors = 4 + (2 if settings.optimizer == "adam" else 2 * LBFGS_HISTORY + 4)
    vectors += settings.averaging > 0
    weights = sum(w.numel() for module in modules for w in module.parameters())
    program = 0 if device.startswith("cuda") else PROGRAM
    return program + 4 * (weights + vectors * 3 * math.prod(size))


def available(device: str) -> int | None:
    """The bytes of memory that a device has; None where nobody tells."""
    if device.startswith("cuda"):
        return require("torch").cuda.mem_get_info(device)[1]
    if device != "cpu" or not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak(device: str) -> int | None:
    """The most bytes that this process has had on a device so far; None where nobody tells."""
    if device.startswith("cuda"):
        return require("torch").cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024
