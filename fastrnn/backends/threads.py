"""How many threads a call may use: what the process may use, or what the user said.

The number never changes a result, only its time.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path

# libgomp's own choice keeps a thread that waits for the others spinning for milliseconds. Beside
# one busy process that made training on two cores ten times slower; this many turns, some 20 us,
# cost a few per cent on idle cores.
SPIN_COUNT = "4000"

_chosen: int | None = None
_forked = False
_followers: list[Callable[[int], None]] = []


def available_cpus() -> int:
    """CPUs this process may use: its affinity mask, bounded by the cgroup's quota."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cpus = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cpus = min(cpus, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        pass
    return cpus


def default_threads() -> int:
    """OMP_NUM_THREADS (its first level) where it is a positive number, else the CPUs at hand."""
    text = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(text) if text.isdecimal() and int(text) > 0 else available_cpus()


def set_num_threads(n: int) -> None:
    """Use at most n threads a call from now on.

    In a process forked from this one every call runs on one thread: the fork copies no threads of
    the OpenMP pool, so waiting for them would never end.

    Raises ValueError unless n is an integer of at least 1.
    """
    global _chosen
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise ValueError(f"n: expected an integer of at least 1, got {n!r}")
    _chosen = int(n)
    for follow in _followers:
        follow(_chosen)


def get_num_threads() -> int:
    """Most threads a call uses now (int)."""
    global _chosen
    if _forked:
        return 1
    if _chosen is None:
        _chosen = default_threads()
    return _chosen


def followed_by(set_threads: Callable[[int], None]) -> None:
    """Call set_threads with the number of threads, now and whenever it changes."""
    set_threads(get_num_threads())
    _followers.append(set_threads)


@contextmanager
def short_spins() -> Iterator[None]:
    """While the extension is imported: libgomp reads its environment once, when it is loaded. What
    the user has set stands, and child processes inherit nothing."""
    if os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    try:
        yield
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
