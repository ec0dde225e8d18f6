"""Layers in the graphs of torch.compile and torch.export: an operator of their own.

Its backward pass computes the forward pass once more, since what that keeps has no fixed number of
tensors.
"""

from collections.abc import Sequence as Several

import torch
from torch import Tensor

from fastrnn.cells import NAMES
from fastrnn.options import Options
from fastrnn.torch import threads
from fastrnn.torch.sequences import Sequence, sequence
from fastrnn.torch.tensors import FLOATS, arrays


def are_plain(tensors: Several[Tensor | None]) -> bool:
    """Whether fastrnn computes with them, as far as a tracer can tell."""
    given = [t for t in tensors if t is not None]
    dtype = given[0].dtype
    return (
        dtype in FLOATS
        and all(t.device.type == "cpu" and t.dtype == dtype for t in given)
        and not torch.is_autocast_enabled("cpu")
        and not torch.onnx.is_in_onnx_export()
    )


def compute(computation: Sequence, tensors: Several[Tensor | None]) -> Several[Tensor]:
    """autograd.compute, as one operator."""
    x, h0, c0, *weights = tensors
    form, kinds, layout, _, reset, masks, seed = computation
    about = form.cell, form.layers, form.bidirectional, form.nonlinearity, form.eps
    about = *about, numbers(form.options), list(kinds), layout
    return _forward(x, h0, c0, weights, reset, list(masks), seed, *about)


def numbers(options: Options | None) -> list[float]:
    """Options as an operator takes them, none for None."""
    return [] if options is None else [_NONE if v is None else float(v) for v in options]


_ARGUMENTS = (
    "Tensor x, Tensor? h0, Tensor? c0, Tensor[] weights, Tensor? reset, Tensor[] masks, "
    "Tensor? seed, str cell, int layers, bool bidirectional, str nonlinearity, float? eps, "
    "float[] options, str[] kinds, str layout"
)
_NONE = -1.0  # of options, which are not negative


def _computation(reset, masks, seed, cell, layers, bidirectional, nonlinearity, eps, *others):
    of_options, kinds, layout = others
    options = None
    if of_options:
        *values, of_seed, first_step = (None if v == _NONE else v for v in of_options)
        options = Options(*values, int(of_seed), int(first_step))
    about = cell, layers, bidirectional, nonlinearity, options, eps
    return sequence(*about, tuple(kinds), layout, None, reset, tuple(masks), seed)


@torch.library.custom_op("fastrnn::layers", mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor[]")
def _forward(x, h0, c0, weights, reset, masks, seed, *about):
    computation = _computation(reset, masks, seed, *about)
    given = arrays((x, h0, c0, *weights))
    results, _ = threads.run(computation.forward, False, *given)
    return [torch.from_numpy(a) for a in results]


@_forward.register_fake
def _(x, h0, c0, weights, reset, masks, seed, cell, layers, bidirectional, *others):
    *_, kinds, layout = others
    N, S = x.shape[1 if layout == "time_first" else 0], 2 if bidirectional else 1
    P = H = weights[0].shape[0] // len(NAMES[cell].gates)
    if "weight_hr" in kinds:
        P = weights[kinds.index("weight_hr")].shape[0]
    y = x.new_empty((*x.shape[:2], S * P))
    h = x.new_empty((layers * S, N, P))
    return [y, h, x.new_empty((layers * S, N, H))] if cell == "lstm" else [y, h]


@torch.library.custom_op(
    "fastrnn::layers_backward",
    mutates_args=(),
    schema=f"(Tensor?[] dresults, {_ARGUMENTS}) -> Tensor[]",
)
def _backward(dresults, x, h0, c0, weights, reset, masks, seed, *about):
    computation = _computation(reset, masks, seed, *about)
    given = arrays((x, h0, c0, *weights))

    def gradients():
        _, cache = computation.forward(True, *given)
        return computation.backward(cache, *arrays(dresults))

    run = threads.run(gradients)
    found = zip(given, run, strict=True)
    return [torch.from_numpy(d) for a, d in found if a is not None]


@_backward.register_fake
def _(dresults, x, h0, c0, weights, *others):
    return [t.new_empty(t.shape) for t in (x, h0, c0, *weights) if t is not None]  # C-contiguous


def _setup_context(ctx, inputs, output):
    x, h0, c0, weights, reset, masks, seed, *about = inputs
    ctx.save_for_backward(x, h0, c0, reset, seed, *weights, *masks)
    ctx.about, ctx.count = about, len(weights)
    ctx.set_materialize_grads(False)


def _gradients(ctx, dresults):
    x, h0, c0, reset, seed, *others = ctx.saved_tensors
    weights, masks = others[: ctx.count], others[ctx.count :]
    found = iter(_backward(dresults, x, h0, c0, weights, reset, masks, seed, *ctx.about))
    dx, dh0, dc0 = (None if t is None else next(found) for t in (x, h0, c0))
    nothing = [[] if a == [] else None for a in ctx.about]  # an empty list may be one of tensors
    return dx, dh0, dc0, [*found], None, [None] * len(masks), None, *nothing


_forward.register_autograd(_gradients, setup_context=_setup_context)
