"""Training curves of a captioner."""

from collections.abc import Sequence
from pathlib import Path

from fastrnn import figures, plots


def plot_curves(
    path: Path | str, loss_history: Sequence[float], history: Sequence[dict[str, float]]
) -> None:
    """Training loss by iteration with the validation loss over it; BLEU by epoch beside it."""
    validated = any("val_loss" in epoch for epoch in history)
    figure = figures.new(10 if validated else 5.5, 4)
    axes = figure.subplots(1, 2 if validated else 1, squeeze=False)[0]
    plots.plot_loss(axes[0], loss_history, history, "val", "loss (nats a caption)")
    if validated:
        for n in range(1, 5):
            plots.plot_epochs(axes[1], history, f"bleu{n}", "o-", f"BLEU-{n}")
        axes[1].set(xlabel="epoch", ylabel="BLEU of generated captions", ylim=(0, 1))
        plots.finish(axes[1])
    figures.save(figure, path)
