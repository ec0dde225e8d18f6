"""Pictures to look at: training curves, and a gallery of captions."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np

from fastrnn import figures


def plot_curves(
    path: Path | str, loss_history: Sequence[float], history: Sequence[dict[str, float]]
) -> None:
    """Training loss by iteration with the validation loss over it; BLEU by epoch beside it."""
    validated = [epoch for epoch in history if "val_loss" in epoch]
    figure = figures.new(10 if validated else 5.5, 4)
    axes = figure.subplots(1, 2 if validated else 1, squeeze=False)[0]
    iterations = np.arange(1, len(loss_history) + 1)
    axes[0].plot(iterations, loss_history, color="0.75", lw=0.8, label="training, each iteration")
    per_epoch = len(loss_history) / max(1, len(history))
    ends = [epoch["epoch"] * per_epoch for epoch in history]
    axes[0].plot(ends, [e["train_loss"] for e in history], "o-", ms=3, label="training, epoch mean")
    if validated:
        at = [epoch["epoch"] * per_epoch for epoch in validated]
        axes[0].plot(at, [e["val_loss"] for e in validated], "s-", ms=3, label="validation")
        for n in range(1, 5):
            epochs = [e["epoch"] for e in validated]
            axes[1].plot(epochs, [e[f"bleu{n}"] for e in validated], "o-", ms=3, label=f"BLEU-{n}")
        axes[1].set(xlabel="epoch", ylabel="BLEU of generated captions", ylim=(0, 1))
        axes[1].legend()
    axes[0].set(xlabel="iteration", ylabel="loss (nats a caption)", ylim=(0, None))
    axes[0].legend()
    for axis in axes:
        axis.grid(alpha=0.3)
    figures.save(figure, path)


def plot_gallery(
    path: Path | str,
    pictures: Sequence[np.ndarray],
    captions: Sequence[str],
    references: Sequence[Sequence[str]] | None = None,
    columns: int = 4,
) -> None:
    """Pictures, each with its generated caption and, below it in grey, two true ones."""
    rows = -(-len(pictures) // columns)
    figure = figures.new(3.3 * columns, 4.7 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(pictures) :]:
        axis.axis("off")
    for i, (axis, picture, caption) in enumerate(zip(axes, pictures, captions, strict=False)):
        axis.imshow(picture)
        axis.set(xticks=[], yticks=[])
        axis.set_title(fill(caption, 44), fontsize=8.5, fontweight="bold", loc="left")
        lines = [fill(reference, 52) for reference in (references[i] if references else ())[:2]]
        axis.set_xlabel("\n".join(lines), fontsize=7.5, color="0.4", loc="left")
        for spine in axis.spines.values():
            spine.set_visible(False)
    figures.save(figure, path)
