"""Computations on arrays as functions of tensors that torch differentiates.

A computation is an object with
- forward(training, *arrays) -> results, cache: arrays, and what backward needs, in tuples;
- backward(cache, *dresults) -> gradients of the arrays; a dresult may be None, for zeros;
- reference(*tensors) -> results: the same in torch's operations, for derivatives of derivatives.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fastrnn.torch import threads
from fastrnn.torch.tensors import arrays, is_observed


class Computation(Protocol):
    """See the module."""

    def forward(self, training: bool, *arrays: np.ndarray | None) -> tuple[tuple, object]: ...

    def backward(self, cache: tuple, *dresults: np.ndarray | None) -> Sequence: ...

    def reference(self, *tensors: Tensor | None) -> tuple[Tensor, ...]: ...


def is_differentiated(tensors: Sequence[object]) -> bool:
    """Whether a gradient is wanted of any of them, of which some may be no tensors."""
    return torch.is_grad_enabled() and any(getattr(t, "requires_grad", False) for t in tensors)


def compute(
    computation: Computation,
    tensors: Sequence[Tensor | None],
    arrays: Sequence[np.ndarray | None],
) -> tuple[Tensor, ...]:
    """The results, with a gradient where one is wanted of any of the tensors; arrays are theirs."""
    if is_differentiated(tensors):
        return _Differentiable.apply(computation, arrays, *tensors)
    results, _ = threads.run(computation.forward, False, *arrays)
    return tuple(map(torch.from_numpy, results))


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, computation, given, *tensors):
        run = threads.run(computation.forward, True, *given)
        results, cache = run
        outputs = tuple(map(torch.from_numpy, results))
        # All that is kept goes through save_for_backward: torch sees there what was changed since,
        # and its hooks (checkpoints, saving elsewhere) get hold of it.
        owners = dict(zip(map(id, (*given, *results)), (*tensors, *outputs), strict=True))
        saved = [*tensors]
        ctx.cache = _taken_apart(cache, owners, saved)
        ctx.save_for_backward(*saved)
        ctx.computation, ctx.count = computation, len(tensors)
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx, *douts):
        wanted = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled() or is_observed() or any(map(is_batch, douts)):
            inputs = ctx.saved_tensors[: ctx.count]
            return None, None, *gradients_by_torch(ctx.computation, inputs, wanted, douts)
        cache = _put_together(ctx.cache, arrays(ctx.saved_tensors))
        run = ctx.computation.backward, cache, *arrays(douts)
        gradients = threads.run(*run)
        return (
            None,
            None,
            *(
                torch.from_numpy(d) if want else None
                for d, want in zip(gradients, wanted, strict=True)
            ),
        )


def gradients_by_torch(
    computation: Computation,
    inputs: Sequence[Tensor | None],
    wanted: Sequence[bool],
    douts: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Gradients that can be differentiated in turn, of the inputs for which they are wanted."""
    with torch.enable_grad():
        # Views, for one tensor may be two inputs.
        inputs = [t if t is None else t.view_as(t) for t in inputs]
        outputs = computation.reference(*inputs)
    given = [(out, dout) for out, dout in zip(outputs, douts, strict=True) if dout is not None]
    if not given:
        return [None] * len(inputs)
    of = [t for t, want in zip(inputs, wanted, strict=True) if want]
    gradients = iter(
        torch.autograd.grad(
            [out for out, _ in given],
            of,
            [dout for _, dout in given],
            create_graph=torch.is_grad_enabled(),
            allow_unused=True,
        )
    )
    return [next(gradients) if want else None for want in wanted]


def is_batch(dout: Tensor | None) -> bool:
    """Whether it is many gradients, of torch.autograd.grad with is_grads_batched."""
    return dout is not None and torch._C._functorch.is_legacy_batchedtensor(dout)


class _Place(int):
    """Stands for a saved tensor."""


def _taken_apart(tree, owners, saved):
    """The tree with a place for every array, whose tensor is appended to saved."""
    parts = []
    for part in tree:
        if type(part) is np.ndarray:
            saved.append(owners.get(id(part)))
            if saved[-1] is None:
                saved[-1] = torch.from_numpy(part)
            part = _Place(len(saved) - 1)
        elif isinstance(part, _BRANCHES):
            part = _taken_apart(part, owners, saved)
        parts.append(part)
    return _like(tree, parts)


def _put_together(tree, arrays):
    parts = []
    for part in tree:
        if type(part) is _Place:
            part = arrays[part]
        elif isinstance(part, _BRANCHES):
            part = _put_together(part, arrays)
        parts.append(part)
    return _like(tree, parts)


_BRANCHES = tuple, list


def _like(tree, parts):
    """The parts as what the tree is: a list, a tuple, a named one."""
    kind = type(tree)
    return tuple.__new__(kind, parts) if issubclass(kind, tuple) else parts
