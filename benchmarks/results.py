"""What a run's rows say: who was the best peer, by how much, and where fastrnn loses."""

import math
import statistics
from collections.abc import Callable, Container, Iterable
from pathlib import Path

from fastrnn import storage
from fastrnn.benchmarks.cases import RACES
from fastrnn.benchmarks.peers import SUBJECT
from fastrnn.benchmarks.race import Row

FORMAT = 1


def read(path: Path | str) -> dict[str, object]:
    """A run's bench.json. Raises ValueError that names the file where it is none."""
    result = storage.read_json(path)
    if result.get("format") != FORMAT:
        found = result.get("format", "none")
        raise ValueError(f"{path}: not a bench.json, expected format {FORMAT}, got {found}")
    return result


def peer_of(racer: str) -> str:
    """The peer of a racer, "peer" or "peer idiom"."""
    return racer.split()[0]


def by_racer(row: Row) -> dict[str, float]:
    """The ratio to fastrnn of each idiom of each peer."""
    return {racer: r for racer, r in row["ratios"].items() if peer_of(racer) != SUBJECT}


def by_peer(row: Row) -> dict[str, float]:
    """Each peer's ratio to fastrnn, of its best idiom."""
    ratios: dict[str, float] = {}
    for racer, ratio in by_racer(row).items():
        peer = peer_of(racer)
        ratios[peer] = min(ratio, ratios.get(peer, math.inf))
    return ratios


def best(row: Row) -> tuple[str, float]:
    """The fastest peer and its ratio, below 1 where it beats fastrnn; "" and NaN without peers."""
    return min(by_peer(row).items(), key=lambda item: item[1], default=("", math.nan))


def peers(rows: Iterable[Row]) -> list[str]:
    """The peers of some rows, in the order in which they raced."""
    return list(dict.fromkeys(peer for row in rows for peer in by_peer(row)))


def without(rows: Iterable[Row], left_out: Container[str]) -> list[Row]:
    """Rows as they would be had some peers not raced."""
    return [
        row
        | {"ratios": {r: ratio for r, ratio in row["ratios"].items() if peer_of(r) not in left_out}}
        for row in rows
    ]


def group(rows: Iterable[Row], key: Callable[[Row], object]) -> dict[object, list[Row]]:
    """Rows by a key, in their order."""
    groups: dict[object, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def by_race(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by race, in the order of cases.RACES."""
    groups = group(rows, lambda row: row["race"])
    return {race: groups[race] for race in RACES if race in groups}


def inputs(row: Row) -> str:
    """What D is."""
    return "D = H" if row["D"] == row["H"] else f"D = {row['D']}"


def best_ratios(rows: Iterable[Row]) -> list[float]:
    """The ratios to the best peers, of the rows that have one."""
    return [ratio for _, ratio in map(best, rows) if not math.isnan(ratio)]


def summary(rows: Iterable[Row]) -> str:
    """Geometric mean of the ratios to the best peer, the least one, and how many are below 1."""
    ratios = best_ratios(rows)
    if not ratios:
        return "no peer to compare with"
    if len(ratios) == 1:
        return f"{ratios[0]:.2f}"
    mean, below = statistics.geometric_mean(ratios), sum(ratio < 1 for ratio in ratios)
    least = f"least {min(ratios):.2f}, {below} below 1"
    return f"{mean:.2f} (geometric mean of {len(ratios)} rows; {least})"


def cost_of_lengths(row: Row, steps: int) -> float | None:
    """The time of a step in sequences of different lengths / of one at full length, given the
    number of steps; None where that was not raced."""
    full = row["ratios"].get(f"{SUBJECT} full length")
    return None if full is None else row["N"] * row["T"] / steps / full
