"""Pictures that several programs draw: training curves, a classifier's confusions and reliability,
galleries."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastrnn import figures, fonts
from fastrnn.printing import printable

MOST_WITH_NUMBERS = 15
MOST_WITH_NAMES = 40
# Of names at a matrix: inches that they may take anyhow, and at most.
WIDTH, WIDEST = 1.8, 4.5
SLANT = 0.71  # the sine of 45 degrees
LINE = 1.2  # from a line to the next, in the font's size
# Of a picture in a gallery: inches, the fonts of its title and its notes, lines of each.
COLUMN = 3.3
TITLE, NOTE = 8.5, 7.5
MOST_LINES = 6


def plot_confusion(
    path: Path | str, confusion: Sequence[Sequence[int]], classes: Sequence[str]
) -> None:
    """A confusion matrix (C, C), rows true and columns predicted, coloured by the share of the true
    class; up to 15 classes with counts and percentages, above 40 not every class is named.

    Raises ValueError unless there is a row and a column for every class.
    """
    counts, shape = np.asarray(confusion), (len(classes), len(classes))
    if counts.shape != shape:
        raise ValueError(f"confusion: expected shape {shape}, got {counts.shape}")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ticks = range(0, len(classes), -(-len(classes) // MOST_WITH_NAMES))
    size = 9 if len(classes) <= MOST_WITH_NUMBERS else 7
    side = min(max(2.6, 0.7 * len(classes)), 11)  # of the matrix, in inches
    names, space = _tick_names([printable(classes[i]) for i in ticks], side / len(ticks), size)
    figure = figures.new(side + space + 1.9, side + SLANT * space + 0.9)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, shrink=0.8, format="{x:.0%}", label="share of the true class")
    axes.set_yticks(ticks, names, fontsize=size, parse_math=False)
    slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(ticks, names, fontsize=size, parse_math=False, **slanted)
    axes.set(xlabel="predicted", ylabel="true")
    if len(classes) <= MOST_WITH_NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            text = f"{counts[row, column]}\n{share:.1%}"
            color = "white" if share > 0.5 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=color)
    figures.save(figure, path)


def _tick_names(names: list[str], apart: float, size: float) -> tuple[list[str], float]:
    """Names in as many lines as fit between slanted ones so many inches apart, and how wide they
    are in inches."""
    lines = max(1, int(SLANT * apart / (LINE * size / 72)))
    longest = max(fonts.width(name, size) for name in names)
    # A little wider than an even part, as lines end after words.
    inches = min(max(WIDTH, 1.25 * longest / lines), WIDEST)
    parts = [fonts.folded(name, inches, lines, size) for name in names]
    space = max(fonts.width(line, size) for part in parts for line in part)
    return ["\n".join(part) for part in parts], space


def plot_reliability(path: Path | str, report: dict) -> None:
    """Accuracy against confidence by bin of a classifier's report, the diagonal that a calibrated
    classifier lies on, and below it how many examples each bin has (Guo et al. 2017, figure 1)."""
    bins = report["reliability"]
    figure = figures.new(5, 5.8)
    axes, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    axes.plot((0, 1), (0, 1), "--", color="0.6", lw=1, label="calibrated")
    filled = [b for b in bins if b["count"]]
    confidence, accuracy = ([b[key] for b in filled] for key in ("confidence", "accuracy"))
    axes.plot(confidence, accuracy, "o-", ms=5, label="this model")
    axes.set(ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    figure.suptitle(f"expected calibration error {report['ece']:.4f}")
    finish(axes)
    centres = (np.arange(len(bins)) + 0.5) / len(bins)
    total = sum(b["count"] for b in bins)
    below.bar(centres, [b["count"] / total for b in bins], 0.9 / len(bins))
    below.yaxis.set_major_formatter("{x:.0%}")
    below.set(xlabel="confidence", ylabel="examples")
    below.set_axisbelow(True)
    below.grid(alpha=0.3)
    figures.save(figure, path)


def plot_curves(
    path: Path | str,
    loss_history: Sequence[float],
    history: Sequence[dict[str, float]],
    validation: str,
) -> None:
    """Training loss by iteration with the epochs' means and the validation's over it; where there
    are accuracies of an epoch, these beside it.

    Inputs: a Solver's loss_history and history, whose epochs may have train_accuracy and, by the
    name of the validation's split, dev or val, dev_loss and dev_accuracy.
    """
    accuracy = f"{validation}_accuracy"
    judged = any("train_accuracy" in epoch or accuracy in epoch for epoch in history)
    figure = figures.new(10 if judged else 5.5, 4)
    axes = figure.subplots(1, 2 if judged else 1, squeeze=False)[0]
    plot_loss(axes[0], loss_history, history, validation, "loss (nats)")
    if judged:
        plot_epochs(axes[1], history, "train_accuracy", "C0o-", "training")
        plot_epochs(axes[1], history, accuracy, "C1s-", validation)
        axes[1].set(xlabel="epoch", ylabel="accuracy", xlim=(0.5, history[-1]["epoch"] + 0.5))
        finish(axes[1])
    figures.save(figure, path)


def plot_loss(
    axes,
    loss_history: Sequence[float],
    history: Sequence[dict[str, float]],
    validation: str,
    label: str,
) -> None:
    """Into axes: the loss of every iteration, the epochs' means, and the validation's losses."""
    iterations = np.arange(1, len(loss_history) + 1)
    axes.plot(iterations, loss_history, color="0.75", lw=0.8, label="training, each iteration")
    per_epoch = len(loss_history) / max(1, len(history))
    plot_epochs(axes, history, "train_loss", "C0o-", "training, epoch mean", per_epoch)
    plot_epochs(axes, history, f"{validation}_loss", "C1s-", validation, per_epoch)
    axes.set(xlabel="iteration", ylabel=label, ylim=(0, None))
    finish(axes)


def plot_epochs(
    axes, history: Sequence[dict[str, float]], key: str, style: str, label: str, scale: float = 1
) -> None:
    """Into axes: a figure of the epochs that have it, against their numbers times scale."""
    points = [(epoch["epoch"] * scale, epoch[key]) for epoch in history if key in epoch]
    if points:
        axes.plot(*zip(*points, strict=True), style, ms=3, label=label)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def finish(axes) -> None:
    """A grid, and the legend above the axes, where no curve can lie under it."""
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8)


def gallery(
    pictures: Sequence[np.ndarray],
    titles: Sequence[str],
    notes: Sequence[Sequence[str]] | None = None,
    *,
    colors: Sequence[str] | None = None,
    heading: str | None = None,
    columns: int = 4,
):
    """A figure of pictures, each below its title, in black or a colour of its own, and above its
    notes, lines in grey; heading stands over all of them."""
    rows = -(-len(pictures) // columns)
    above = [_folded(title, TITLE, "bold") for title in titles]
    below = [
        [line for note in of for line in _folded(note, NOTE)] for of in notes or [()] * len(titles)
    ]
    height = COLUMN
    for texts, size in ((above, TITLE), (below, NOTE)):
        height += max(map(len, texts), default=0) * LINE * size / 72
    figure = figures.new(COLUMN * columns, height * rows + 0.3)
    figure.suptitle(heading, fontsize=9, color="0.4")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set(xticks=[], yticks=[], anchor="NW")  # titles of a row on one line
        for spine in axis.spines.values():
            spine.set_visible(False)
    for i, (axis, picture) in enumerate(zip(axes, pictures, strict=False)):
        axis.imshow(picture)
        text = {"loc": "left", "parse_math": False}
        color = colors[i] if colors else "black"
        title, note = "\n".join(above[i]), "\n".join(below[i])
        axis.set_title(title, fontsize=TITLE, fontweight="bold", color=color, **text)
        axis.set_xlabel(note, fontsize=NOTE, color="0.4", **text)
    return figure


def _folded(text: str, size: float, weight: str = "normal") -> list[str]:
    """A title or note in lines that are as wide as its picture."""
    return fonts.folded(printable(text), COLUMN - 0.25, MOST_LINES, size, weight)
