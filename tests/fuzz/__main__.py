"""Runs cases in processes of their own: one that dies or hangs is a finding like any other."""

import argparse
import faulthandler
import os
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Threads that spin while they wait would cost more than the cases; read when the libraries load.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from fastrnn.backends import _kernels

from .judge import fault_of
from .memory import Memory

HANGS = 120  # seconds that a case may take
CASE, DONE, FAULTS, STOP = range(4)  # what a worker and its supervisor tell each other


def main() -> int:
    """The exit code: 1 where there was a fault."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="cases of a torture test")
    parser.add_argument("--seconds", type=float, default=120, help="how long at most")
    parser.add_argument("--cases", type=int, default=10**12, help="how many at most")
    parser.add_argument("--seed", type=int, default=None, help="the first (default: a new one)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--case", type=int, help="this one alone, in this process")
    parser.add_argument("--worker", nargs=4, metavar="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    faulthandler.enable()
    if args.worker:
        path, *numbers = args.worker
        work(path, range(*map(int, numbers)))
        return 0
    if args.case is not None:
        fault = fault_of(args.case, ready(), explain=True)
        print(fault or "no fault")
        return fault is not None
    seed = time.time_ns() // 10**6 * 1000 if args.seed is None else args.seed
    print(f"from case {seed} on", flush=True)
    jobs = [range(seed + i, seed + args.cases, args.jobs) for i in range(args.jobs)]
    return run(jobs, args.seconds)


def run(jobs: list[range], seconds: float) -> int:
    """The cases of each job in a process; the exit code."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(jobs)) as pool:
        paths = (Path(folder, str(i)) for i in range(len(jobs)))
        told = np.array(list(pool.map(lambda *job: supervise(*job, begin + seconds), paths, jobs)))
    done, faults = told[:, DONE].sum(), told[:, FAULTS].sum()
    print(f"{done} cases in {time.monotonic() - begin:.0f} s, {faults} faults")
    return int(faults > 0)


def supervise(path: Path, cases: range, deadline: float) -> np.ndarray:
    """Has them worked on, by one process after the other where one dies; what these told."""
    told = np.memmap(path, np.int64, "w+", shape=4)
    while cases and time.monotonic() < deadline:
        told[CASE] = cases.start
        numbers = map(str, (cases.start, cases.stop, cases.step))
        worker = subprocess.Popen(
            [sys.executable, "-m", __spec__.parent, "--worker", str(path), *numbers]
        )
        seen, since = -1, time.monotonic()
        while worker.poll() is None:
            time.sleep(0.05)
            told[STOP] = (now := time.monotonic()) > deadline
            if seen != told[DONE]:
                seen, since = int(told[DONE]), now
            elif now - since > HANGS:
                worker.kill()
        if worker.returncode == 0:
            break
        case = int(told[CASE])
        print(f"case {case}: its process ended with {worker.returncode}", flush=True)
        told[DONE] += 1
        told[FAULTS] += 1
        cases = cases[cases.index(case) + 1 :]
    return np.array(told)


def work(path: str, cases: range) -> None:
    """Case after case, until all are done or the supervisor says so."""
    told, memory = np.memmap(path, np.int64, "r+", shape=4), ready()
    for case in cases:
        if told[STOP]:
            return
        told[CASE] = case
        if fault := fault_of(case, memory):
            print(f"case {case}: {fault}", flush=True)
            told[FAULTS] += 1
        told[DONE] += 1


def ready() -> Memory:
    """Warnings are errors, and small work is split between threads."""
    warnings.simplefilter("error")
    _kernels.set_flops_per_thread(1)
    return Memory()


if __name__ == "__main__":
    sys.exit(main())
