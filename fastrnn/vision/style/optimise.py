"""Style transfer by optimising a picture, from coarse to fine (Gatys et al. 2016)."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrnn.optional import require
from fastrnn.training import deferred_interrupt
from fastrnn.vision.style.checkpoint import State
from fastrnn.vision.style.objective import TERMS, Objective
from fastrnn.vision.style.pictures import Picture, Space
from fastrnn.vision.style.settings import LBFGS_HISTORY, Settings
from fastrnn.vision.style.transfer import Transfer

if TYPE_CHECKING:
    import torch

LAST_RATE = 0.1  # of the learning rate, Adam's
FIRST_MOVE = 0.03  # in the network's space, L-BFGS's


class Step(NamedTuple):
    """A step that was done: its number, from 1, of all; the size (W, H); the losses by TERMS before
    it; the pixels that all steps so far have computed."""

    number: int
    total: int
    size: tuple[int, int]
    losses: dict[str, float]
    pixels: int


class Result(NamedTuple):
    """A picture (H, W, 3) uint8; by TERMS, and for "total", the loss before every step; the sizes
    (W, H) of the scales, each of which had as many steps."""

    picture: np.ndarray
    losses: dict[str, np.ndarray]
    sizes: list[tuple[int, int]]


def style_transfer(
    content: Picture,
    styles: "Picture | Sequence[Picture]",
    *,
    masks: Sequence[Picture] | None = None,
    init: Picture = "content",
    on_step: Callable[[Step], object] | None = None,
    **settings,
) -> Result:
    """Paint the content in the style of others.

    Inputs: content; styles, one or more; masks, one for each style, white where it belongs; each a
    path, an image of Pillow's or an array (H, W, 3) uint8; init, what it begins with, "content",
    "noise" or a picture; on_step, called after every step; settings.Settings by name.
    Returns: Result. Raises ValueError, TypeError or OSError that names what cannot be right,
    FloatingPointError where a loss is not finite.
    """
    styles = [*styles] if isinstance(styles, list | tuple) else [styles]
    return run(Transfer(content, styles, masks=masks, init=init, **settings), on_step=on_step)


def run(
    transfer: Transfer,
    start: State | None = None,
    *,
    on_step: Callable[[Step], object] | None = None,
    on_save: Callable[[State], object] | None = None,
    save_every: int = 0,
) -> Result:
    """Optimise the picture of a transfer.

    Inputs: start, how far it had come, from where it continues to the same bits (None: not begun);
    on_step, called after every step; on_save, called with what start may be, which the next step
    changes, every save_every steps (0: never), on Ctrl-C and after the last step.
    Raises KeyboardInterrupt on Ctrl-C, after the step at hand; FloatingPointError where a loss is
    not finite.
    """
    s = transfer.settings
    x, losses, saved = start or State(transfer.initial(), [], {})
    x, total = x.to(transfer.space.device), s.steps * s.scales
    with deferred_interrupt() as interrupted:
        for scale in range(len(losses) // s.steps, s.scales):
            x = transfer.enlarged(x, scale)
            optimizer, objective = make_optimizer(x, s), transfer.objective(scale)
            if len(losses) % s.steps:
                optimizer.load_state_dict(saved)
            for step in range(len(losses) % s.steps, s.steps):
                terms = guarded_step(x, objective, optimizer, transfer.space, s, step)
                losses = [*losses, [*terms.values()]]
                if on_step:
                    on_step(_described(transfer, terms, len(losses), scale))
                due = save_every and len(losses) % save_every == 0
                if on_save and (due or interrupted() or len(losses) == total):
                    on_save(State(x.detach(), losses, optimizer.state_dict()))
                if interrupted():
                    raise KeyboardInterrupt
    columns = np.array(losses).T
    history = {"total": columns.sum(axis=0)} | dict(zip(TERMS, columns, strict=True))
    return Result(transfer.picture(x), history, transfer.sizes)


def _described(transfer, terms, done, scale):
    total = transfer.settings.steps * transfer.settings.scales
    return Step(done, total, transfer.sizes[scale], terms, transfer.pixels(done))


def make_optimizer(x: "torch.Tensor", settings: Settings) -> "torch.optim.Optimizer":
    """The optimiser of a picture (1, 3, H, W)."""
    optim = require("torch.optim")
    if settings.optimizer == "adam":
        return optim.Adam([x], lr=settings.learning_rate)
    return optim.LBFGS(
        [x],
        lr=settings.learning_rate,
        max_iter=1,
        history_size=LBFGS_HISTORY,
        tolerance_grad=0,
        tolerance_change=0,
    )


def learning_rate(settings: Settings, step: int, values: int) -> float:
    """Of a step at a scale, from 0, of a picture of so many values.

    Adam, which else does not come to rest, goes along half a cosine down to LAST_RATE of the rate
    that was set. For L-BFGS it stays, but torch makes its first step of an L1 norm of one rate,
    which float32 can hardly see: that step moves a value by FIRST_MOVE in the mean.
    """
    rate = settings.learning_rate
    if settings.optimizer == "adam":
        falling = (1 + math.cos(math.pi * step / settings.steps)) / 2
        return rate * (LAST_RATE + (1 - LAST_RATE) * falling)
    return rate * FIRST_MOVE * values if step == 0 else rate


def take_step(
    x: "torch.Tensor", objective: Objective, optimizer: "torch.optim.Optimizer", space: Space
) -> dict[str, float]:
    """Move the picture (1, 3, H, W) one step, in place, and back into what can be shown.

    Returns: the losses before. Raises FloatingPointError that names what is not finite.
    """
    losses = {}

    def closure():
        optimizer.zero_grad()
        terms = objective(x)
        losses.update((name, loss.item()) for name, loss in terms.items())
        for name, loss in losses.items():
            if not math.isfinite(loss):
                raise FloatingPointError(f"the {name} loss became {loss}")
        # So a pixel's gradient does not shrink as pixels become more, and what is negligible to
        # Adam (epsilon) or L-BFGS (the least curvature) is so at every size.
        total = sum(terms.values()) * x.numel()
        total.backward()
        return total

    optimizer.step(closure)
    space.clamp_(x)
    if not x.isfinite().all():
        raise FloatingPointError("the picture became NaN")
    return losses


def guarded_step(
    x: "torch.Tensor",
    objective: Objective,
    optimizer: "torch.optim.Optimizer",
    space: Space,
    settings: Settings,
    step: int,
) -> dict[str, float]:
    """take_step for a step at a scale, from 0, at its learning rate; its errors say what to do."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(settings, step, x.numel())
    try:
        return take_step(x, objective, optimizer, space)
    except FloatingPointError as error:
        height, width = x.shape[2:]
        raise FloatingPointError(
            f"{error} at step {step + 1} of {width} x {height} pixels; a lower learning rate than "
            f"{settings.learning_rate:g}, or the optimizer adam, may help"
        ) from None
