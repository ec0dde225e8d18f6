"""A race's rows as a table, as JSON and as a picture."""

import platform
from pathlib import Path

import numpy as np

from fastrnn import storage
from fastrnn.optional import require


def table(rows: list[dict[str, object]]) -> str:
    """Text columns: case, time by peer, GFLOP/s, share of the FMA peak, ratio to NumPy."""
    head = f"{'case':48} {'numpy':>11} {'cython':>11} {'GFLOP/s':>8} {'of peak':>8} {'ratio':>6}"
    lines = [head, "-" * len(head)]
    for row in rows:
        numpy, cython = (_time(row["seconds"][peer]) for peer in ("numpy", "cython"))
        lines.append(
            f"{row['name']:48} {numpy:>11} {cython:>11} {row['gflops']:8.1f} "
            f"{row['share_of_peak']:8.0%} {row['ratio']:6.1f}"
        )
    ratios = [row["ratio"] for row in rows]
    mean = np.exp(np.mean(np.log(ratios)))
    lines.append(f"cython is {mean:.1f} times as fast (geometric mean), {min(ratios):.1f} at least")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def write(out: Path, rows: list[dict[str, object]], config: dict[str, object]) -> None:
    """Write bench.json and bench.png into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    machine = {"processor": _processor(), "python": platform.python_version()}
    storage.write_json(out / "bench.json", {"machine": machine, "config": config, "rows": rows})
    _draw(out / "bench.png", rows)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _draw(path: Path, rows: list[dict[str, object]]) -> None:
    """Two bars a case: how many times as fast as NumPy, and the share of the FMA peak."""
    figure = require("matplotlib.figure").Figure(
        figsize=(11, 1.4 + 0.24 * len(rows)), layout="constrained"
    )
    require("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    at = np.arange(len(rows))
    colours = ["tab:blue" if "rnn" in row["name"] else "tab:orange" for row in rows]
    left.barh(at, [row["ratio"] for row in rows], color=colours)
    left.axvline(1, color="0.3", lw=1)
    left.set(xscale="log", xlabel="NumPy's time / cython's", yticks=at)
    left.set_yticklabels([row["name"] for row in rows], fontsize=8)
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.set_xlim(right=1.6 * max(row["ratio"] for row in rows))
    for y, row in zip(at, rows, strict=True):
        left.text(row["ratio"], y, f" {row['ratio']:.1f}", va="center", fontsize=7.5)
    right.barh(at, [row["share_of_peak"] for row in rows], color=colours)
    right.set(xlim=(0, 1), xlabel="share of the measured FMA peak")
    for axis in (left, right):
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    with storage.replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
