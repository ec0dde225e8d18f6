"""Has fastrnn become slower between two runs? Judged by ratios to peers, which a slower or a busier
machine leaves alone, not by time."""

from typing import NamedTuple

from fastrnn.benchmarks import results
from fastrnn.benchmarks.tables import Table


class Verdict(NamedTuple):
    """A row of both runs: its ratios to the peer whose ratio kept up best, and new / old - 1."""

    name: str
    peer: str
    old: float
    new: float
    change: float


def compare(old: dict[str, object], new: dict[str, object]) -> list[Verdict]:
    """The rows that two runs have in common.

    A new version of one peer, or a bad moment of it, changes one ratio; a slower fastrnn changes
    all of them. So of the peers that both runs have, the one with the least loss is taken.

    Inputs: old and new, of results.read. Raises ValueError where they share no row or no peer.
    """
    before = {row["name"]: results.by_peer(row) for row in old["rows"]}
    verdicts = []
    for row in new["rows"]:
        ratios, past = results.by_peer(row), before.get(row["name"], {})
        changes = {peer: ratios[peer] / past[peer] - 1 for peer in past if peer in ratios}
        if changes:
            peer = max(changes, key=changes.get)
            verdicts.append(Verdict(row["name"], peer, past[peer], ratios[peer], changes[peer]))
    if not verdicts:
        raise ValueError("the two runs have no row with a peer in common")
    return verdicts


def slower(verdicts: list[Verdict], tolerance: float) -> list[Verdict]:
    """Those that lost more than the tolerance, the worst first."""
    return sorted((v for v in verdicts if v.change < -tolerance), key=lambda v: v.change)


def table(verdicts: list[Verdict]) -> Table:
    """For the reader: row, peer, both ratios, change."""
    rows = [[v.name, v.peer, f"{v.old:.2f}", f"{v.new:.2f}", f"{v.change:+.0%}"] for v in verdicts]
    return Table("Slower", ["row", "peer", "old ratio", "new ratio", "change"], rows, [])
