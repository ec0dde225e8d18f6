"""The rounds: every peer takes its turn in each, ratios are taken round by round."""

import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.peers import SUBJECT
from fastrnn.benchmarks.process import Peer

REFERENCE = "numpy"
Row = dict[str, object]


def race(
    cases: Sequence[Case],
    peers: Sequence[str],
    *,
    threads: int,
    isa: str = "best",
    rounds: int = 5,
    seconds: float = 0.2,
    progress: Callable[[Iterable[Case]], Iterable[Case]] = iter,
) -> list[Row]:
    """Run every case with fastrnn and its peers, after their results have matched the reference's.

    Inputs: cases; peers, names without fastrnn; threads a peer; isa of fastrnn's kernels ("best" or
    a name); rounds; seconds a turn; progress wraps the iteration over cases.
    Returns: a row a case: its fields and name, and by racer ("peer" or "peer idiom") "ratios", the
    racer's figure / fastrnn's. Of times "seconds" (medians), gflops of fastrnn, peak_gflops and
    share_of_peak; in the race "memory" "bytes" instead.
    Raises RuntimeError where a peer fails or its results are wrong.
    """
    names = [SUBJECT, *peers]
    rows = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastrnn-bench-")))
        start = partial(Peer, threads=threads, isa=isa)
        running = {n: stack.enter_context(start(n)) for n in dict.fromkeys([*names, REFERENCE])}
        for case in progress(cases):
            expected = str(folder / "expected.npz")
            running[REFERENCE].ask("expect", case=case.asdict(), path=expected)
            if case.race == "memory":
                figures = _grown(case, names, start, expected)
            else:
                figures = _timed(case, [running[name] for name in names], expected, rounds, seconds)
            rows.append({**case.asdict(), "name": case.name, **figures})
    return rows


def _timed(case: Case, peers: list[Peer], expected: str, rounds: int, seconds: float) -> Row:
    # One after the other: pools that spin while they wait would be in each other's way.
    racers = []
    for peer in peers:
        path = None if peer.name == REFERENCE else expected
        idioms = peer.ask("build", case=case.asdict(), path=path)
        racers += [(peer, idiom) for idiom in idioms]
    turns: dict[str, list[float]] = {}
    peaks = []
    for _ in range(rounds):
        for peer, idiom in racers:
            turn = peer.ask("time", idiom=idiom, seconds=seconds)
            turns.setdefault(f"{peer.name} {idiom}".strip(), []).append(turn)
        peaks.append(peers[0].ask("peak", dtype=case.dtype))
    return figures(case, turns, peaks)


def figures(case: Case, turns: dict[str, list[float]], peaks: list[float]) -> Row:
    """What the rounds of a case say.

    Inputs: turns, racer to its seconds in each round; peaks, operations a second in each round.
    """
    mine = turns[SUBJECT]
    shares = [case.flops / (t * peak) for t, peak in zip(mine, peaks, strict=True)]
    return {
        "seconds": {racer: statistics.median(theirs) for racer, theirs in turns.items()},
        "ratios": {
            racer: statistics.median(a / b for a, b in zip(theirs, mine, strict=True))
            for racer, theirs in turns.items()
            if racer != SUBJECT
        },
        "gflops": case.flops / statistics.median(mine) / 1e9,
        "peak_gflops": statistics.median(peaks) / 1e9,
        "share_of_peak": statistics.median(shares),
    }


def _grown(case: Case, names: list[str], start: Callable[[str], Peer], expected: str) -> Row:
    """Each peer in a fresh process, which is compared with the reference afterwards."""
    grown = {}
    for name in names:
        with start(name) as peer:
            size = peer.ask("grow", case=case.asdict())
            if size is not None:
                grown[name] = size
                peer.ask("build", case=case.asdict(), path=expected)
    mine = max(1, grown[SUBJECT])
    ratios = {name: size / mine for name, size in grown.items() if name != SUBJECT}
    return {"bytes": grown, "ratios": ratios}
