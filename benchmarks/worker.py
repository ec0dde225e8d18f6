"""One peer in its own process: python -m fastrnn.benchmarks.worker BACKEND THREADS ISA.

Reads a JSON command a line from stdin, answers with a JSON line. Peers do not share a process since
their thread pools spin and slow each other down.
"""

import json
import statistics
import sys
import time

import numpy as np

import fastrnn
from fastrnn.backends import get_backend
from fastrnn.benchmarks.cases import Case, build

# Largest difference from the reference, relative to the largest element: rounding of sums over up
# to 25,600 rows in another order.
TOLERANCE = {"float32": 1e-4, "float64": 1e-12}


def check(case: Case, backend: str) -> None:
    """Raises AssertionError unless the backend's results are the reference's."""
    with fastrnn.use_backend("numpy"):
        expected = build(case)()
    with fastrnn.use_backend(backend):
        got = build(case)()
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        worst = np.max(np.abs(a - b)) / np.max(np.abs(b))
        if not worst <= TOLERANCE[case.dtype]:
            raise AssertionError(f"{case.name}: result {i} differs by {worst:.1e}")


def measure(run, seconds: float) -> float:
    """Median seconds of a call over at least so many seconds and three calls."""
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(times) < 3:
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def peak(dtype: str, threads: int) -> float:
    """Floating-point operations a second of the multiply-add loop, the best of three."""
    kernels = get_backend("cython")._kernels
    one = np.ones(1, dtype)
    best = 0.0
    for _ in range(3):
        begun = time.perf_counter()
        done = kernels.fma_peak(one, 400_000, threads)
        best = max(best, done / (time.perf_counter() - begun))
    return best


def main(backend: str, threads: str, isa: str) -> None:
    """Serve commands until stdin ends."""
    fastrnn.set_num_threads(int(threads))
    if isa != "best":
        fastrnn.use_isa(isa)
    fastrnn.set_backend(backend)
    case, run = None, None
    for line in sys.stdin:
        command = json.loads(line)
        answer: object = None
        if command["do"] == "build":
            case = Case(**command["case"])
            check(case, backend)
            run = build(case)
            run()
        elif command["do"] == "time":
            answer = measure(run, command["seconds"])
        elif command["do"] == "peak":
            answer = peak(command["dtype"], int(threads))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
