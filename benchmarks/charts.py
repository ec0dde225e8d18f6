"""The pictures of a run: bench.png, ratios and shares of the peak; scaling.png, time against T, N
and H; latency.png, one step of one row."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fastrnn import figures
from fastrnn.benchmarks import results
from fastrnn.benchmarks.cases import SCALING, Case
from fastrnn.benchmarks.peers import SUBJECT
from fastrnn.benchmarks.race import Row

WIN, LOSS = ("#9ecae1", "#2171b5"), ("#fb6a4a", "#a50f15")  # forward, forward+backward
COLOURS = {
    "fastrnn": "#2171b5",
    "numpy": "0.55",
    "torch": "#d95f02",
    "onnxruntime": "#7b3294",
    "jax": "#1b7837",
    "openvino": "#e7298a",
    "tract": "#a6761d",
    "ncnn": "#66a61e",
}
# Of the ratios' axis; those outside of its limits are not shown.
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
# Of the idioms of one peer.
STYLES = ("-", "--", ":")


def draw(out: Path, rows: Sequence[Row]) -> list[str]:
    """Draw what the rows allow; returns the files' names."""
    drawers = {"layers": _ratios, "scaling": _scaling, "step": _latency}
    names = {"layers": "bench.png", "scaling": "scaling.png", "step": "latency.png"}
    drawn = []
    for race, some in results.by_race(rows).items():
        if race in drawers:
            cells = results.group(some, lambda row: row["cell"])
            figures.save(drawers[race](cells), out / names[race])
            drawn.append(names[race])
    return drawn


# ---- ratios and shares of the peak ---------------------------------------------------------------


def _ratios(cells: dict[str, list[Row]]):
    """A column a cell: above, times as fast as the best peer; below, the share of the FMA peak."""
    shapes = max(len(_shapes(rows)) for rows in cells.values())
    figure = figures.new(1.2 + 4.2 * len(cells), 1.6 + 0.76 * shapes)
    grid = figure.subplots(2, len(cells), sharex="row", squeeze=False)
    for column, (cell, rows) in enumerate(cells.items()):
        above, below = grid[:, column]
        colours = [_colour(row) for row in rows]
        _bars_of_ratios(above, rows, colours)
        above.set(title=cell, xlabel="best peer's time / fastrnn's")
        below.barh(_places(rows), [row["share_of_peak"] for row in rows], 0.38, color=colours)
        below.set(xlim=(0, 1), xlabel="share of the measured FMA peak")
        above.set_xlim(_limits(row for rows in cells.values() for row in rows))
        for axis in (above, below):
            names = _shapes(rows) if column == 0 else [""] * shapes
            axis.set_yticks(np.arange(len(names)), names, fontsize=8)
            axis.set_ylim(shapes - 0.45, -0.55)
            axis.grid(axis="x", alpha=0.3)
            axis.set_axisbelow(True)
            axis.set_ylabel("(N,T,D,H)" if column == 0 else "", fontsize=8)
    figure.legend(handles=_keys(grid[0, 0]), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _bars_of_ratios(axis, rows: list[Row], colours: list[str]) -> None:
    """To the right of 1 where fastrnn wins, to the left where it loses."""
    best = [results.best(row) for row in rows]
    ratios = np.array([ratio for _, ratio in best])
    axis.barh(_places(rows), ratios - 1, 0.38, left=1, color=colours)
    for y, (peer, ratio) in zip(_places(rows), best, strict=True):
        label = peer and f" {ratio:.2f} {peer}"
        axis.text(max(1, ratio), y, label, va="center", fontsize=7)
    axis.axvline(1, color="0.2", lw=1)
    axis.set_xscale("log")
    axis.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axis.set_xticks([], minor=True)


def _limits(rows: Iterable[Row]) -> tuple[float, float]:
    """With room for the names of the peers."""
    ratios = results.best_ratios(rows)
    return 0.9 * min([0.8, *ratios]), 3 * max([1, *ratios])


def _shapes(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(Case.of(row).shape for row in rows))


def _places(rows: list[Row]) -> list[float]:
    """Where the bars of rows lie: a line a shape, forward above forward+backward."""
    shapes, offset = _shapes(rows), {"forward": -0.2, "forward+backward": 0.2}
    return [shapes.index(Case.of(row).shape) + offset[row["direction"]] for row in rows]


def _colour(row: Row) -> str:
    lost = results.best(row)[1] < 1
    return (LOSS if lost else WIN)[row["direction"] == "forward+backward"]


def _keys(axis) -> list:
    """Legend entries, drawn nowhere else."""
    ways = ("forward", "forward+backward")
    names = (*ways, *(f"{way}, slower than the best peer" for way in ways))
    return [
        axis.barh([0], [np.nan], color=colour, label=name)
        for name, colour in zip(names, WIN + LOSS, strict=True)
    ]


# ---- lines ---------------------------------------------------------------------------------------


def _scaling(cells: dict[str, list[Row]]):
    """A row a cell; log-log time against T, N and H, a line a peer."""
    figure = figures.new(11, 0.8 + 3 * len(cells))
    grid = figure.subplots(len(cells), len(SCALING), squeeze=False)
    for axes, (cell, rows) in zip(grid, cells.items(), strict=True):
        at = {(row["N"], row["T"], row["D"], row["H"]): row for row in rows}
        for axis, (letter, line) in zip(axes, SCALING.items(), strict=True):
            points = [at[shape] for shape in line if shape in at]
            _lines(axis, points, letter, 1e3)
            fixed = ", ".join(f"{n} = {points[0][n]}" for n in "NTH" if n != letter)
            axis.set(title=f"{cell}, D = H, {fixed}", xlabel=letter, ylabel="ms forward+backward")
    grid[0, 0].legend(fontsize=8)
    return figure


def _latency(cells: dict[str, list[Row]]):
    """A row of panels for each kind of D, a panel a cell; microseconds of a step against H, a line
    an idiom."""
    kinds = {cell: results.group(rows, results.inputs) for cell, rows in cells.items()}
    names = list(dict.fromkeys(name for some in kinds.values() for name in some))
    figure = figures.new(0.6 + 4.2 * len(cells), 4.2 * len(names))
    grid = figure.subplots(len(names), len(cells), sharey="row", squeeze=False)
    for axes, name in zip(grid, names, strict=True):
        for axis, (cell, some) in zip(axes, kinds.items(), strict=True):
            ways = results.group(some[name], lambda row: row["direction"])
            for style, (way, rows) in zip(STYLES, ways.items(), strict=False):
                _line(axis, rows, SUBJECT, "H", 1e6, f"{SUBJECT} {way}", style)
            _lines(axis, next(iter(ways.values())), "H", 1e6, without=SUBJECT)
            axis.set(title=f"one {cell} step, N = 1, {name}", xlabel="H")
        axes[0].set_ylabel("microseconds")
    keys = {line.get_label(): line for axis in grid.flat for line in axis.get_lines()}
    figure.legend(handles=[*keys.values()], loc="outside lower center", ncols=5, fontsize=8)
    return figure


def _lines(axis, rows: list[Row], letter: str, unit: float, without: str = "") -> None:
    """A line a racer; the idioms of a peer share its colour."""
    racers = dict.fromkeys(racer for row in rows for racer in row["seconds"])
    for peer, names in results.group(racers, results.peer_of).items():
        if peer != without:
            for style, name in zip(STYLES, names, strict=False):
                _line(axis, rows, name, letter, unit, name, style)


def _line(axis, rows, racer, letter, unit, label, style) -> None:
    timed = [row for row in rows if racer in row["seconds"]]
    axis.plot(
        [row[letter] for row in timed],
        [unit * row["seconds"][racer] for row in timed],
        style,
        marker="o",
        ms=3,
        color=COLOURS[results.peer_of(racer)],
        label=label,
        zorder=3 if racer == SUBJECT else 2,
    )
    axis.set(xscale="log", yscale="log")
    sizes = [row[letter] for row in rows]
    axis.set_xticks(sizes, map(str, sizes))
    axis.set_xticks([], minor=True)
    axis.grid(alpha=0.3)
