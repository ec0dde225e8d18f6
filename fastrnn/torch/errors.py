"""Errors of what does not fit a module that torch.nn does not have."""

from collections.abc import Mapping

from torch import Tensor


def misfit(
    x: object, D: int, letters: str, hx: object, states: Mapping[str, object] | None, shapes: list
) -> TypeError | ValueError:
    """What is wrong with inputs.

    Inputs: x, which has to be a tensor with the axes that letters name, the last D; hx, in which
    states were found, by name, None where it is none; their shapes.
    """
    if not isinstance(x, Tensor):
        return TypeError(f"input: expected a tensor or a PackedSequence, got {type(x).__name__}")
    axes = letters.split(", ")
    short = "T" in axes and x.dim() == len(axes) and x.shape[axes.index("T")] == 0
    if x.dim() != len(axes) or x.shape[-1] != D or short:
        expected = f"({letters}) with D = {D}{', and at least one step' if short else ''}"
        return ValueError(f"input: expected shape {expected}, got {tuple(x.shape)}")
    if states is None:
        expected = "a tensor" if len(shapes) == 1 else "a tuple of h and c"
        return TypeError(f"hx: expected {expected}, got {type(hx).__name__}")
    for (name, s), shape in zip(states.items(), shapes, strict=True):
        if not isinstance(s, Tensor | None):
            return TypeError(f"{name}: expected a tensor, got {type(s).__name__}")
        if s is not None and s.shape != shape:
            return ValueError(f"{name}: expected shape {shape}, got {tuple(s.shape)}")
    raise AssertionError("inputs fit")


def check_dtypes(inputs: Mapping[str, Tensor | None], weights: Tensor) -> None:
    """Raise TypeError unless inputs, by name, are of the weights' dtype and on their device."""
    for name, t in inputs.items():
        if t is not None and (t.dtype, t.device) != (weights.dtype, weights.device):
            expected = f"{weights.dtype} on {weights.device} like the weights"
            raise TypeError(f"{name}: expected {expected}, got {t.dtype} on {t.device}")
