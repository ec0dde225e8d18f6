"""Whose threads compute: torch's own, which are at hand, or else as many of fastrnn's."""

import ctypes
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import torch

from fastrnn.backends import get_backend

try:
    from fastrnn.backends import _kernels
except ImportError:  # built without extensions
    _kernels = None

_ENTRIES = "GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads"
_FORKED = 0x40  # of the flags in /proc/PID/stat: and has run no other program since


def run(f: Callable, *args: object) -> object:
    """f(*args) with no more threads than torch would use."""
    bound = getattr(get_backend(), "bound_threads", None)
    if bound is None:
        return f(*args)
    before = bound(torch.get_num_threads())
    try:
        return f(*args)
    finally:
        bound(before)


def borrow() -> bool:
    """Have calls of the main thread run on torch's threads, for which these wait in a loop some
    milliseconds after each of torch's operations: beside others they would be in the way.

    Returns: whether they can be had.
    """
    entries = _openmp_entries()
    if _kernels is None or entries is None or _is_forked():
        return False
    _kernels.borrow_threads(threading.main_thread().ident, *entries)
    return True


def _openmp_entries():
    """Where _ENTRIES of the OpenMP library that torch uses are; None where it has none of them, as
    outside Linux."""
    if sys.platform != "linux":
        return None
    # What was preloaded comes before what torch was linked with.
    for path in None, torch._C.__file__:
        library = ctypes.CDLL(path)
        if all(hasattr(library, name) for name in _ENTRIES):
            return [ctypes.cast(library[name], ctypes.c_void_p).value for name in _ENTRIES]
    return None


def _is_forked():
    """Whether this process may miss threads of its parent's, for which OpenMP would wait."""
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2]
    return bool(int(after_name.split()[6]) & _FORKED)


borrow()
