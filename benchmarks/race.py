"""Alternating rounds of the peers over cases; medians of times and of ratios round by round."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from fastrnn.benchmarks.cases import Case

PEERS = ("numpy", "cython")


class Peer:
    """A worker process; use as a context manager."""

    def __init__(self, backend: str, threads: int, isa: str) -> None:
        env = os.environ | {"OMP_NUM_THREADS": str(threads)}
        # NumPy's BLAS is a peer in one process and only in the way in the others.
        env["OPENBLAS_NUM_THREADS"] = env["MKL_NUM_THREADS"] = (
            str(threads) if backend == "numpy" else "1"
        )
        command = [sys.executable, "-m", "fastrnn.benchmarks.worker", backend, str(threads), isa]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        self._name = backend

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def ask(self, do: str, **arguments: object) -> float:
        """Send a command, wait for its answer. Raises RuntimeError where the worker has died."""
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            raise RuntimeError(f"the {self._name} worker died; its error is above") from None


def race(
    cases: Sequence[Case],
    *,
    threads: int,
    isa: str = "best",
    rounds: int = 5,
    seconds: float = 0.2,
    progress: Callable[[Iterable[Case]], Iterable[Case]] = iter,
) -> list[dict[str, object]]:
    """Time every case with every peer.

    Inputs: cases; threads a peer; isa of the compiled kernels ("best" or a name); rounds, in each
    of which the peers take turns; seconds a turn; progress wraps the iteration over cases.
    Returns: a row a case: the case's fields, seconds by peer (medians of the rounds), gflops and
    share of the peak of cython, ratio numpy / cython (median of the rounds' ratios).
    """
    rows = []
    with ExitStack() as stack:
        peers = {name: stack.enter_context(Peer(name, threads, isa)) for name in PEERS}
        for case in progress(cases):
            for peer in peers.values():
                peer.ask("build", case=case.asdict())
            turns: dict[str, list[float]] = {name: [] for name in [*PEERS, "peak"]}
            for _ in range(rounds):
                for name, peer in peers.items():
                    turns[name].append(peer.ask("time", seconds=seconds))
                turns["peak"].append(peers["cython"].ask("peak", dtype=case.dtype))
            rows.append(case.asdict() | _figures(case, turns))
    return rows


def _figures(case: Case, turns: dict[str, list[float]]) -> dict[str, object]:
    ratios = [slow / fast for slow, fast in zip(turns["numpy"], turns["cython"], strict=True)]
    rates = [case.flops / t for t in turns["cython"]]
    shares = [rate / peak for rate, peak in zip(rates, turns["peak"], strict=True)]
    return {
        "name": case.name,
        "seconds": {name: statistics.median(turns[name]) for name in PEERS},
        "gflops": statistics.median(rates) / 1e9,
        "peak_gflops": statistics.median(turns["peak"]) / 1e9,
        "share_of_peak": statistics.median(shares),
        "ratio": statistics.median(ratios),
    }
