"""Tensors and arrays of the same memory, and which tensors fastrnn computes with."""

import sys
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch.autograd import forward_ad

from fastrnn.backends import bound_threads

FLOATS = frozenset({torch.float32, torch.float64})
# Subclasses may mean other things by their elements.
_KINDS = frozenset({torch.Tensor, torch.nn.Parameter})
_unseen: Callable | None = None


def is_observed() -> bool:
    """Whether something follows torch's operations one by one, or wants them in another precision:
    a tracer, a dispatch mode, a transformation of torch.func, forward differentiation, autocast."""
    return (
        torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or forward_ad._current_level >= 0
        or torch.is_autocast_enabled("cpu")
    )


def are_plain(tensors: Iterable[torch.Tensor | None]) -> bool:
    """Whether all but None are dense tensors on the CPU of one dtype, float32 or float64."""
    dtype = None
    for t in tensors:
        if t is None:
            continue
        if type(t) not in _KINDS or not t.is_cpu or t.layout is not torch.strided:
            return False
        if t.dtype is not dtype:
            if dtype is not None or t.dtype not in FLOATS:
                return False
            dtype = t.dtype
    return True


def as_array(t: torch.Tensor | None) -> np.ndarray | None:
    """The elements of a tensor on the CPU, not copied."""
    return None if t is None else t.numpy(force=True)  # detaches


def unseen(f: Callable, *args: object) -> object:
    """f(*args), unseen by torch.compile, which goes on within what it has given up on."""
    global _unseen
    if "torch._dynamo" not in sys.modules:  # which takes seconds to import
        return f(*args)
    if _unseen is None:
        _unseen = torch.compiler.disable(lambda f, *args: f(*args))
    return _unseen(f, *args)


def on_torchs_threads(f: Callable, *args: object) -> object:
    """f(*args), with no more threads than torch would use."""
    before = bound_threads(torch.get_num_threads())
    try:
        return f(*args)
    finally:
        bound_threads(before)
