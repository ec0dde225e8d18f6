"""Batches whose pictures are mixed with one another, and so are their classes."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.optional import require

if TYPE_CHECKING:
    import torch

    Batch = tuple[torch.Tensor, torch.Tensor]


def mixed(
    batches: Callable[[int, int], Iterable["Batch"]],
    *,
    mixup: float,
    cutmix: float,
    classes: int,
    seed: int,
) -> Callable[[int, int], Iterable["Batch"]]:
    """batches(epoch, first) of a Training, each picture mixed with the one before it: all
    pixels (Zhang et al. 2018, equation 1) or a rectangle of them (Yun et al. 2019, section 3.1).

    Inputs: batches, of pictures (n, 3, H, W) and classes (n,); mixup and cutmix, the parameter of
    the beta distribution that each draws its share from (0: it is not done; of two one is drawn a
    batch); classes, how many there are. What is random depends on the seed, the epoch and the
    batch's number alone.
    Returns: the same of pictures and shares (n, classes) of the classes.
    """
    torch, v2 = require("torch"), require("torchvision.transforms.v2")
    known = (v2.MixUp, mixup), (v2.CutMix, cutmix)
    ways = [way(alpha=alpha, num_classes=classes) for way, alpha in known if alpha]
    if not ways:
        return batches

    def of(epoch: int, first: int) -> Iterable["Batch"]:
        for number, batch in enumerate(batches(epoch, first), first):
            rng = np.random.default_rng((seed, epoch, number, 2))
            with torch.random.fork_rng(devices=()):
                torch.default_generator.manual_seed(int(rng.integers(2**63)))
                yield ways[rng.integers(len(ways))](*batch)

    return of
