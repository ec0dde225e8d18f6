"""One peer in its own process: python -m fastrnn.benchmarks.worker PEER FOLDER.

Reads a JSON command a line from stdin and answers with a JSON line: {"answer": value} or
{"error": text}. Between two commands it is idle: an answer is given when the threads of its pools
have gone to sleep.
"""

import json
import os
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from timeit import Timer
from typing import TextIO

import numpy as np

from fastrnn.backends import get_backend, get_num_threads
from fastrnn.benchmarks import memory, operands, peers
from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.peers import Idiom

EXPECTED = "expected.npz"
# Largest difference from the reference, relative to the largest element: rounding of sums over up
# to 25,600 rows in another order.
TOLERANCE = {"float32": 1e-4, "float64": 1e-12}
# Of accuracies: each library trains its own model.
TOLERANCE_OF_FIT = 0.01
# A shorter sample would time the clock.
SAMPLE_SECONDS = 1e-4
# A first call that takes longer is a sample; else what it loses by waking threads would show.
WARM_SECONDS = 0.5
# Pools that spin after a call stop by then.
SETTLE_SECONDS = 0.5


class Worker:
    """A peer's commands; each public method is one. In the folder are the files of the cases and
    the results of the reference."""

    def __init__(self, peer: str, folder: Path) -> None:
        self._peer, self._folder = peer, folder
        self._idioms: dict[str, Idiom] = {}

    def expect(self, case: dict) -> None:
        """Write the results of a case, which other workers are compared with."""
        (idiom,) = self._built(compared(Case(**case))).values()
        np.savez(self._folder / EXPECTED, **results(idiom))

    def build(self, case: dict, compare: bool) -> dict[str, float | None]:
        """Make a case ready and compare its results with those of expect.

        Returns: the idioms that can be timed, with the accuracy among their results (None: there is
        none, or nothing was compared).
        Raises ValueError where a result differs.
        """
        self._idioms = {}  # the last case's memory
        timed = Case(**case)
        case = compared(timed) if compare else timed
        self._idioms = self._built(case)
        if not compare:
            return dict.fromkeys(self._idioms)
        with np.load(self._folder / EXPECTED) as file:
            expected = dict(file)
        tolerance = TOLERANCE_OF_FIT if case.direction == "fit" else TOLERANCE[case.dtype]
        accuracies = dict.fromkeys(self._idioms)
        for name, idiom in self._idioms.items():
            if idiom.collect:
                got = results(idiom)
                check(got, expected, tolerance)
                accuracies[name] = float(got["accuracy"]) if "accuracy" in got else None
        if case != timed:
            self._idioms = self._built(timed)
            for idiom in self._idioms.values():
                idiom.run()  # as those that were compared have: what compiles does so now
        return accuracies

    def time(self, idiom: str, seconds: float) -> float:
        """Median seconds of a call."""
        return measure(self._idioms[idiom], seconds)

    def grow(self, case: dict) -> int | None:
        """Bytes by which this process grows at most while it runs a case; None where it cannot."""
        case = Case(**case)
        for idiom in self._built(replace(case, N=1, T=1)).values():
            idiom.run()  # loads what every case needs
        idioms = [*self._built(case).values()]
        if not idioms:
            return None
        before = memory.resident_bytes()
        idioms[0].run()
        return memory.peak_resident_bytes() - before

    def peak(self, dtype: str) -> float:
        """Floating-point operations a second of fastrnn's multiply-add loop, the best of three."""
        kernels, one, best = get_backend("cython")._kernels, np.ones(1, dtype), 0.0
        for _ in range(3):
            begun = time.perf_counter()
            done = kernels.fma_peak(one, 400_000, get_num_threads())
            best = max(best, done / (time.perf_counter() - begun))
        return best

    def _built(self, case: Case) -> dict[str, Idiom]:
        return peers.find(self._peer, case).build(case, operands.draw(case, self._folder))


def compared(case: Case) -> Case:
    """The case whose results are compared before this one is timed: where gradients have steps
    roundings of float32 fall on both sides of them."""
    return replace(case, dtype="float64") if case.steep else case


def results(idiom: Idiom) -> dict[str, np.ndarray]:
    """Everything that an idiom computes, by name."""
    with idiom.within():
        return idiom.collect(idiom.run())


def check(got: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    """Raises ValueError unless each expected array is among the results, within tolerance of its
    largest element."""
    for name, b in expected.items():
        a = got.get(name)
        if a is None or a.shape != b.shape:
            raise ValueError(f"{name}: expected shape {b.shape}, got {getattr(a, 'shape', None)}")
        worst, largest = np.max(np.abs(a - b)), np.max(np.abs(b))
        if not worst <= tolerance * largest:  # a NaN is not
            with np.errstate(divide="ignore"):  # by inf of zeros
                share = worst / largest
            raise ValueError(f"{name} differs from the reference by {share:.1e} of its largest")


def measure(idiom: Idiom, seconds: float) -> float:
    """Median seconds of a call, of as many samples as the time allows after two calls."""
    timer = Timer(idiom.run)
    with idiom.within():
        first = timer.timeit(1)  # wakes the threads and fills the caches
        if first >= max(seconds, WARM_SECONDS):
            return first
        calls = max(1, round(SAMPLE_SECONDS / timer.timeit(1)))
        samples: list[float] = []
        stop = time.perf_counter() + seconds
        while not samples or time.perf_counter() < stop:
            samples.append(timer.timeit(calls) / calls)
    return statistics.median(samples)


def settle() -> None:
    """Wait until no thread of this process is busy."""
    stop = time.perf_counter() + SETTLE_SECONDS
    while time.perf_counter() < stop:
        used = time.process_time()
        time.sleep(0.005)
        if time.process_time() - used < 0.001:
            return


def serve(peer: str, folder: Path, commands: TextIO, answers: TextIO) -> None:
    """Obey commands until there are no more."""
    worker = Worker(peer, folder)
    for line in commands:
        command = json.loads(line)
        try:
            answer = {"answer": getattr(worker, command.pop("do"))(**command)}
        except Exception as error:
            answer = {"error": " ".join(str(error).split()) or type(error).__name__}
        settle()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    # Whatever a library prints goes to stderr, not between the answers.
    stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.argv[1], Path(sys.argv[2]), sys.stdin, stdout)
