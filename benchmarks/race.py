"""The rounds: every peer takes its turn in each, ratios are taken round by round."""

import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.peers import SUBJECT, knows, reference
from fastrnn.benchmarks.process import Peer

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
    racer's figure / fastrnn's. Of times "seconds" (medians, of a unit of the case), of cases with
    flops gflops of fastrnn, peak_gflops and share_of_peak, of those that train to the end
    "accuracy" by racer; in the race "memory" "bytes" instead.
    Raises RuntimeError where a peer fails or its results are wrong.
    """
    names = [SUBJECT, *peers]
    rows = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastrnn-bench-")))
        start = partial(Peer, folder=folder, threads=threads, isa=isa)
        needed = [
            name
            for name in dict.fromkeys([*names, *map(reference, cases)])
            if any(knows(name, case) for case in cases)
        ]
        running = {name: stack.enter_context(start(name)) for name in needed}
        for case in progress(cases):
            running[reference(case)].ask("expect", case=case.asdict())
            racing = [name for name in names if knows(name, case)]
            if case.race == "memory":
                found = _grown(case, racing, start)
            else:
                found = _timed(case, [running[name] for name in racing], rounds, seconds)
            rows.append({**case.asdict(), "name": case.name, **found})
    return rows


def _timed(case: Case, peers: list[Peer], rounds: int, seconds: float) -> Row:
    # One after the other: pools that spin while they wait would be in each other's way.
    racers: dict[str, tuple[Peer, str]] = {}
    accuracies: dict[str, float] = {}
    for peer in peers:
        built = peer.ask("build", case=case.asdict(), compare=peer.name != reference(case))
        for idiom, accuracy in built.items():
            racer = f"{peer.name} {idiom}".strip()
            racers[racer] = peer, idiom
            if accuracy is not None:
                accuracies[racer] = accuracy
    turns: dict[str, list[float]] = {racer: [] for racer in racers}
    peaks = []
    for _ in range(rounds):
        for racer, (peer, idiom) in racers.items():
            turns[racer].append(peer.ask("time", idiom=idiom, seconds=seconds))
        if case.flops:
            peaks.append(peers[0].ask("peak", dtype=case.dtype))
    found = figures(case, turns, peaks)
    return {**found, "accuracy": accuracies} if accuracies else found


def figures(case: Case, turns: dict[str, list[float]], peaks: list[float]) -> Row:
    """What the rounds of a case say.

    Inputs: turns, racer to the seconds of a call in each round; peaks, operations a second in each
    round (empty: shares of the peak are not asked for).
    """
    mine = turns[SUBJECT]
    row = {
        "seconds": {racer: statistics.median(t) / case.units for racer, t in turns.items()},
        "ratios": {
            racer: statistics.median(a / b for a, b in zip(theirs, mine, strict=True))
            for racer, theirs in turns.items()
            if racer != SUBJECT
        },
    }
    if peaks:
        shares = [case.flops / (t * peak) for t, peak in zip(mine, peaks, strict=True)]
        row["gflops"] = case.flops / statistics.median(mine) / 1e9
        row["peak_gflops"] = statistics.median(peaks) / 1e9
        row["share_of_peak"] = statistics.median(shares)
    return row


def _grown(case: Case, names: list[str], start: Callable[[str], Peer]) -> Row:
    """Each peer in a fresh process, which is compared with the reference afterwards."""
    grown = {}
    for name in names:
        with start(name) as peer:
            size = peer.ask("grow", case=case.asdict())
            if size is not None:
                grown[name] = size
                peer.ask("build", case=case.asdict(), compare=True)
    mine = max(1, grown[SUBJECT])
    ratios = {name: size / mine for name, size in grown.items() if name != SUBJECT}
    return {"bytes": grown, "ratios": ratios}
