"""Whose threads compute: as many of fastrnn's as torch would use, while torch's own are not in the
way."""

import functools
import os
from collections.abc import Callable, Iterable

import numpy as np
import torch

from fastrnn.backends import get_backend
from fastrnn.backends.threads import openmp_libraries

# Operations a thread from which on it pays to send torch's threads home: with two threads that, and
# making them anew, takes 0.1 ms; else they compete for up to 10 ms after torch's last work.
LARGE = 5e7
SOFT = 1  # of OpenMP's omp_pause_resource_t

_forked = False


def _note_fork():
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def run(f: Callable, *args: object, operations: float = 0) -> object:
    """f(*args), of about so many operations, with no more threads than torch would use."""
    bound = getattr(get_backend(), "bound_threads", None)
    if bound is None:
        return f(*args)
    threads = torch.get_num_threads()
    if operations > LARGE * threads > LARGE:
        send_home()
    before = bound(threads)
    try:
        return f(*args)
    finally:
        bound(before)


def operations_of(arrays: Iterable[np.ndarray | None]) -> float:
    """Of a forward pass with x, h, c and the weights; 0 where they are few."""
    x, _, _, *weights = arrays
    if x.size < 1000:
        return 0
    rows = x.size // x.shape[-1]
    return 2.0 * rows * sum(w.size for w in weights if w is not None)


def send_home() -> None:
    """End OpenMP's idle threads, which wait for torch's next work in a loop that takes their CPUs;
    then they are made anew."""
    # After a fork there are none, and OpenMP would wait for them.
    for pause in () if _forked else _pauses():
        pause(SOFT)


@functools.cache
def _pauses():
    functions = (getattr(lib, "omp_pause_resource_all", None) for lib in openmp_libraries())
    return [f for f in functions if f is not None]  # which came with OpenMP 5.0
