"""Style transfer by optimising a picture, from coarse to fine (Gatys et al. 2016)."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrnn.optional import require
from fastrnn.training import deferred_interrupt
from fastrnn.vision.style.checkpoint import State
from fastrnn.vision.style.objective import TERMS, Objective
from fastrnn.vision.style.pictures import Picture, Space, cropped
from fastrnn.vision.style.settings import LBFGS_HISTORY, Settings
from fastrnn.vision.style.transfer import Transfer

if TYPE_CHECKING:
    import torch

LAST_RATE = 0.1  # of the learning rate, Adam's
FIRST_MOVE = 0.03  # in the network's space, L-BFGS's
RISE = 0.01  # of the loss, in that of features and Gram matrices that are 0, that is no failure


class Step(NamedTuple):
    """A step that was done: its number, from 1, of all; the size (W, H); the losses by TERMS before
    it; the pixels that all steps so far have computed."""

    number: int
    total: int
    size: tuple[int, int]
    losses: dict[str, float]
    pixels: int


class Result(NamedTuple):
    """A picture (H, W, 3) uint8, or (H, W, 4), as transparent as the content; by TERMS, and for
    "total", the loss before every step; the sizes (W, H) of the scales, each of which had as many
    steps."""

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
    FloatingPointError where a loss is not finite or the steps of a scale made it higher.
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
    not finite or the steps of a scale made it higher.
    """
    s, scales = transfer.settings, len(transfer.sizes)
    state = start or State(transfer.initial(), [], {})
    with deferred_interrupt() as interrupted:
        for scale in range(len(state.losses) // s.steps, scales):
            state = _begun(state, transfer, scale)
            x, losses, saved, average = state
            optimizer, objective = make_optimizer(x, s, saved), transfer.objective(scale)
            for step in range(len(losses) % s.steps, s.steps):
                terms = guarded_step(x, objective, optimizer, transfer.space, s, step)
                losses = [*losses, [*terms.values()]]
                if step == s.steps - 1:
                    check_descent(losses[-s.steps :], s, transfer.sizes[scale])
                average = averaged(average, x, s.averaging, step)
                state = State(x.detach(), losses, optimizer.state_dict(), average)
                if on_step:
                    on_step(_described(transfer, terms, len(losses), scale))
                due = save_every and len(losses) % save_every == 0
                if on_save and (due or interrupted() or len(losses) == transfer.steps):
                    on_save(state)
                if interrupted():
                    raise KeyboardInterrupt
    columns = np.array(state.losses).T
    history = {"total": columns.sum(axis=0)} | dict(zip(TERMS, columns, strict=True))
    return Result(transfer.picture(state.shown), history, transfer.sizes)


def _begun(state: State, transfer: Transfer, scale: int) -> State:
    """A state in the size of a scale, whether that has begun or not."""
    if len(state.losses) % transfer.settings.steps:
        return state._replace(picture=transfer.enlarged(state.picture, scale))
    x = transfer.enlarged(state.shown, scale)
    return State(x, state.losses, _enlarged(state.optimizer, x.shape[2:]))


def _enlarged(saved: dict[str, object], shape: Sequence[int]) -> dict[str, object]:
    """What Adam goes on with at a larger scale: its moments, enlarged. L-BFGS, whose curvature is
    that of the smaller picture, begins anew."""
    moments = saved.get("state", {}).get(0, {})
    if "exp_avg" not in moments:
        return {}
    interpolate = partial(
        require("torch.nn.functional").interpolate, mode="bilinear", align_corners=False
    )
    larger = {name: interpolate(moments[name], tuple(shape)) for name in ("exp_avg", "exp_avg_sq")}
    return saved | {"state": {0: moments | larger}}


def check_descent(
    losses: Sequence[Sequence[float]], settings: Settings, size: tuple[int, int]
) -> None:
    """Raise FloatingPointError where all steps of a scale together have made the loss higher."""
    s, first, last = settings, sum(losses[0]), sum(losses[-1])
    if last > first + RISE * (s.content_weight + s.style_weight + s.tv_weight):
        raise FloatingPointError(
            f"the loss rose from {first:.3g} to {last:.3g} in the {s.steps} steps of {size[0]} x "
            f"{size[1]} pixels; {_remedy(s)}"
        )


def averaged(
    average: "torch.Tensor | None", x: "torch.Tensor", decay: float, step: int
) -> "torch.Tensor | None":
    """The average of the pictures of a scale after a step of it, from 0, in which each counts decay
    times as much as the next, and the first ones the same (decay 0: None, there is none)."""
    if not decay:
        return None
    if average is None:
        return x.detach().clone()
    return average.to(x.device).lerp(x.detach(), max(1 - decay, 1 / (step + 1)))


def _described(transfer, terms, done, scale):
    return Step(done, transfer.steps, transfer.sizes[scale], terms, transfer.pixels(done))


def make_optimizer(
    x: "torch.Tensor", settings: Settings, saved: dict[str, object] | None = None
) -> "torch.optim.Optimizer":
    """The optimiser of a picture (1, 3, H, W), with a state_dict that was saved (None or empty: at
    its beginning)."""
    optim = require("torch.optim")
    if settings.optimizer == "adam":
        optimizer = optim.Adam([x], lr=settings.learning_rate)
    else:
        optimizer = optim.LBFGS(
            [x],
            lr=settings.learning_rate,
            max_iter=1,
            history_size=LBFGS_HISTORY,
            tolerance_grad=0,
            tolerance_change=0,
        )
    if saved:
        optimizer.load_state_dict(saved)
    return optimizer


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
        height, width = cropped(x).shape[2:]
        raise FloatingPointError(
            f"{error} at step {step + 1} of {width} x {height} pixels; {_remedy(settings)}"
        ) from None


def _remedy(settings):
    other = ", or the optimizer adam," if settings.optimizer == "lbfgs" else ""
    return f"a lower learning rate than {settings.learning_rate:g}{other} may help"
