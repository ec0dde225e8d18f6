"""The report of a run of `fastrnn transfer`."""

from pathlib import Path

import numpy as np

from fastrnn import report
from fastrnn.report.classifier import classified
from fastrnn.vision.thumbnails import thumbnail
from fastrnn.vision.transfer.data import Pictures
from fastrnn.vision.transfer.training import Training


def write(
    folder: Path,
    name: str,
    figures: dict,
    pictures: Pictures,
    proba: np.ndarray,
    trainings: list[Training] = (),
) -> None:
    """Add to a run's report what it says of pictures, N with probabilities (N, C), and their
    figures; of a training also how it went. What keeps the report from being made is a warning."""
    names = pictures.names()

    def show(i: int) -> dict[str, object]:
        return {"lines": [("file", names[i])], "pictures": [thumbnail(pictures.paths[i], names[i])]}

    with report.attempted(folder):
        sections = _training(trainings) if trainings else {}
        y = np.array(pictures.labels)
        judged = classified(f"Pictures of {name}", figures, y, proba, pictures.classes, show)
        report.add(folder, sections | {name: judged})


def _training(trainings: list[Training]) -> dict[str, dict]:
    parts, stages = [], ("frozen", "finetuned") if len(trainings) > 1 else ("",)
    scores = {"train_accuracy": "training", "val_accuracy": "val"}
    for training, title in zip(trainings, stages, strict=True):
        history = training.loss_history, training.history
        parts += report.training_curves(*history, "val", scores, title=title)
    history = [epoch for training in trainings for epoch in training.history]
    tiles = {
        "accuracy before": trainings[0].pretrain["val_accuracy"],
        "accuracy, best epoch": max(epoch["val_accuracy"] for epoch in history),
        "epochs": len(history),
        "seconds": sum(epoch["seconds"] for epoch in history),
    }
    return {"training": report.section("Training", parts, tiles)}
