"""How many threads a call may use: what the process may use, or what the user said.

The number never changes a result, only its time.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from numbers import Integral
from pathlib import Path

# With one of these OpenMP's library, which torch loads, binds the main thread to one CPU.
_BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
_CGROUPS = Path("/sys/fs/cgroup")

_chosen: int | None = None
_followers: list[Callable[[int, bool], None]] = []


def available_cpus() -> int:
    """CPUs this process may use: its affinity mask, bounded by the quotas of its cgroups."""
    try:
        cpus = len(cpus_beside_openmp() or os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cpus = os.cpu_count() or 1
    return min(cpus, _cpus_of_quotas())


@cache
def cpus_beside_openmp() -> frozenset[int]:
    """The CPUs of the process where the mask of its main thread does not tell, because OpenMP's
    library binds that or will do so; else none."""
    asked = [os.environ.get(name, "").lower() for name in _BINDING]
    if not {*asked} - {"", "false"} or not hasattr(os, "sched_getaffinity"):
        return frozenset()
    return frozenset(_openmp_places() or os.sched_getaffinity(0))


def _openmp_places() -> set[int]:
    """The CPUs that OpenMP's library found when it was loaded."""
    cpus: set[int] = set()
    for library in openmp_libraries():
        for place in range(library.omp_get_num_places()):
            found = (ctypes.c_int * library.omp_get_place_num_procs(place))()
            library.omp_get_place_proc_ids(place, found)
            cpus.update(found)
    return cpus


def openmp_libraries() -> list[ctypes.CDLL]:
    """OpenMP's libraries in this process; on Linux alone."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    paths = {line.split(maxsplit=5)[-1] for line in lines}
    names = ("libgomp", "libomp", "libiomp")
    libraries = []
    for path in sorted(p for p in paths if Path(p).name.startswith(names)):
        with suppress(OSError):  # replaced since it was loaded
            libraries.append(ctypes.CDLL(path))
    return libraries


def _cpus_of_quotas() -> int:
    return min([os.cpu_count() or 1, *_quotas(_CGROUPS, Path("/proc/self/cgroup"))])


def _quotas(root: Path, membership: Path) -> Iterator[int]:
    """The quotas of a process's cgroups and of those around them, in whole CPUs."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        mount = root / controllers  # of version 1; of version 2 there is no name
        if controllers and "cpu" not in controllers.split(","):
            continue
        for folder in (Path(path), *Path(path).parents):
            yield from _quota(mount / folder.relative_to("/"))


def _quota(folder: Path) -> Iterator[int]:
    try:
        if (limit := folder / "cpu.max").is_file():
            quota, period = limit.read_text().split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        if int(quota) > 0:
            yield max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):  # none here, or "max"
        pass


def default_threads() -> int:
    """OMP_NUM_THREADS (its first level) where it is a positive number, else the CPUs at hand."""
    return _from_environment() or available_cpus()


def _from_environment() -> int:
    text = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(text) if text.isdecimal() else 0


def set_num_threads(n: int) -> None:
    """Use at most n threads a call from now on.

    Raises ValueError unless n is an integer of at least 1.
    """
    global _chosen
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise ValueError(f"n: expected an integer of at least 1, got {n!r}")
    _chosen = int(n)
    for follow in _followers:
        follow(*_limit())


def get_num_threads() -> int:
    """Most threads a call uses now (int): what was set, else OMP_NUM_THREADS, else the CPUs that
    the calling thread may use now."""
    return _chosen or default_threads()


def _limit() -> tuple[int, bool]:
    """The number of threads, and whether the calling thread's CPUs bound it at every call."""
    said = _chosen or _from_environment()
    return (said, False) if said else (_cpus_of_quotas(), True)


def followed_by(set_threads: Callable[[int, bool], None]) -> None:
    """Call set_threads with the number of threads, now and whenever it changes."""
    set_threads(*_limit())
    _followers.append(set_threads)
