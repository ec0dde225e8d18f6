"""How long a transfer will take, and how much memory."""

import time
from typing import NamedTuple

from fastrnn.vision.style.optimise import guarded_step, make_optimizer
from fastrnn.vision.style.transfer import Transfer

TIMED_STEPS = 3  # at each scale; the first one prepares what the others find


class Estimate(NamedTuple):
    """seconds of a transfer, and the most bytes of memory."""

    seconds: float
    bytes: int


def estimate(transfer: Transfer, done: int = 0) -> Estimate:
    """What a transfer will take: the time from that of some steps at each scale, as larger pictures
    take more per pixel; the memory from the shapes at the largest. done: steps that are behind it.
    """
    steps, seconds = transfer.settings.steps, 0.0
    for scale in range(done // steps, len(transfer.sizes)):
        left = min(steps, steps * (scale + 1) - done)
        seconds += left * _seconds_a_step(transfer, scale, min(TIMED_STEPS, left))
    return Estimate(seconds, transfer.memory())


def _seconds_a_step(transfer: Transfer, scale: int, steps: int) -> float:
    x = transfer.enlarged(transfer.initial(), scale)
    objective, optimizer = transfer.objective(scale), make_optimizer(x, transfer.settings)
    seconds = []
    for step in range(steps):
        started = time.perf_counter()
        guarded_step(x, objective, optimizer, transfer.space, transfer.settings, step)
        seconds.append(time.perf_counter() - started)
    return min(seconds)
