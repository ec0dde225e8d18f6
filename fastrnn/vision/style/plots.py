"""The losses of a transfer, drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fastrnn import figures

# The total lies under the terms, which it would hide where one of them is nearly all of it.
STYLES = {
    "total": {"color": "0.7", "lw": 4},
    "content": {"color": "C0", "lw": 1.4},
    "style": {"color": "C1", "lw": 1.4},
    "tv": {"color": "C2", "lw": 1.4},
}
LABELS = {"tv": "total variation"}


def plot_losses(
    path: Path | str, losses: Mapping[str, np.ndarray], sizes: Sequence[tuple[int, int]]
) -> None:
    """Each loss by step on a logarithmic axis, with a line where a larger scale begins.

    Inputs: losses by name (steps,), "total" and objective.TERMS; the scales' sizes (W, H).
    """
    figure = figures.new(8, 4.5)
    axes = figure.subplots()
    steps = np.arange(1, len(losses["total"]) + 1)
    per_scale = len(steps) / len(sizes)
    for name, style in STYLES.items():
        shown = np.where(losses[name] > 0, losses[name], np.nan)
        axes.plot(steps, shown, label=LABELS.get(name, name), **style)
    axes.set_yscale("log")
    # A picture that begins as the content has a first content loss of nearly 0.
    positive = np.concatenate([values[values > 0] for values in losses.values()])
    axes.set_ylim(bottom=np.quantile(positive, 0.01) / 2 if len(positive) else None)
    for i, (width, height) in enumerate(sizes):
        if i:
            axes.axvline(i * per_scale + 0.5, color="0.6", lw=0.8, ls="--")
        axes.text(
            *((i + 0.5) * per_scale + 0.5, 1.01),
            f"{width} × {height}",
            transform=axes.get_xaxis_transform(),
            ha="center",
            fontsize=8,
            color="0.4",
        )
    axes.set(xlabel="step", ylabel="loss, weighted", xlim=(0.5, len(steps) + 0.5))
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", frameon=False, fontsize=8)
    figures.save(figure, path)
