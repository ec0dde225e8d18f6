"""The scores that networks return, and the classes that they are compared with."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# What an auxiliary classifier's loss counts beside the last one's (Szegedy et al. 2015, section 5).
AUXILIARY = 0.3


def scores_of(out: object) -> tuple["torch.Tensor", ...]:
    """The scores (n, C) in what a network returns, and those of auxiliary classifiers. Raises
    TypeError where there are none."""
    found = out if isinstance(out, tuple) else (out,)
    found = tuple(scores for scores in found if scores is not None)
    if not found or any(getattr(scores, "ndim", None) != 2 for scores in found):
        raise TypeError(f"model: expected scores (n, classes), got {_described(out)}")
    return found


def _described(out: object) -> str:
    shape = getattr(out, "shape", None)
    return type(out).__name__ if shape is None else f"a tensor {tuple(shape)}"


def check_targets(phase: str, targets: "torch.Tensor", criterion: Callable, classes: int) -> None:
    """Raise ValueError where the classes of a batch are not those that a network has scores for,
    of which torch says little on a CPU, and on CUDA nothing more works."""
    if targets.is_floating_point():  # shares of each class
        if targets.ndim != 2 or targets.shape[1] != classes:
            raise ValueError(
                f"dataloaders[{phase!r}]: expected classes (n,) as integers, or shares "
                f"(n, {classes}), got {tuple(targets.shape)} {targets.dtype}"
            )
        return
    ignored = targets == getattr(criterion, "ignore_index", -1)
    wrong = targets[((targets < 0) | (targets >= classes)) & ~ignored]
    if targets.ndim != 1 or len(wrong):
        got = f"class {wrong[0]}" if targets.ndim == 1 else f"a tensor {tuple(targets.shape)}"
        raise ValueError(f"dataloaders[{phase!r}]: expected classes 0 to {classes - 1}, got {got}")
