"""Tensors and arrays of the same memory, and which tensors fastrnn computes with."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch._C._dynamo.eval_frame import get_eval_frame_callback
from torch.autograd import forward_ad

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


def _arrays(tensors: Iterable[torch.Tensor | None]) -> list[np.ndarray | None]:
    """Arrays of the tensors' memory; None for None."""
    return [None if t is None else t.numpy(force=True) for t in tensors]  # which detaches


def _plain_arrays(tensors: tuple[torch.Tensor | None, ...]) -> list[np.ndarray | None] | None:
    """The same of dense tensors on the CPU of one dtype, float32 or float64; None of others."""
    given = [t for t in tensors if t is not None]
    dtype = given[0].dtype
    if dtype not in FLOATS or not all(
        type(t) in _KINDS
        and t.is_cpu
        and t.layout is torch.strided
        and t.dtype is dtype
        and not t.is_neg()
        for t in given
    ):
        return None
    return _arrays(tensors)


def _members(module: torch.nn.Module, names: Iterable[str]) -> tuple[torch.Tensor | None, ...]:
    """Parameters of a module, or what has been put in their place."""
    return tuple(getattr(module, name) for name in names)


try:
    from fastrnn.torch import _arrays as compiled
except ImportError:  # built without extensions
    compiled, arrays, plain_arrays, members = None, _arrays, _plain_arrays, _members
else:
    arrays, plain_arrays, members = compiled.arrays, compiled.plain_arrays, compiled.members


def unseen(f: Callable, *args: object) -> object:
    """f(*args), unseen by torch.compile, which goes on within what it has given up on."""
    global _unseen
    if not torch.compiler.is_compiling():  # as it is where torch.compile looks into this very call
        callback = get_eval_frame_callback()
        if callback is None or callback is False:  # nobody looks, and disable takes 10 us
            return f(*args)
    if _unseen is None:
        _unseen = torch.compiler.disable(lambda f, *args: f(*args))
    return _unseen(f, *args)
