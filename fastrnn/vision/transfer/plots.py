"""Pictures of what a classifier of pictures says."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastrnn import figures
from fastrnn.optional import require
from fastrnn.plots import gallery
from fastrnn.vision.images import open_rgb
from fastrnn.vision.transfer.data import Pictures
from fastrnn.vision.transfer.training import Batches, outputs

if TYPE_CHECKING:
    import torch

# What most published weights had their pictures standardised by.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RIGHT, WRONG = "tab:green", "tab:red"
HEADING = "true class / predicted class"
SHOWN = 12
SIDE = 400  # pixels of a picture in a grid


def visualize_model(
    device: "torch.device | str",
    dataloaders: Mapping[str, Batches],
    model: "torch.nn.Module",
    class_names: Sequence[str],
    num_images: int = 6,
    *,
    path: Path | str | None = None,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
):
    """The first pictures of dataloaders["val"], each below its true and its predicted class, in
    green where the two agree, else in red.

    Inputs: as train_model's; num_images, the most that are drawn; path, of a PNG file to write;
    mean and std, by which the pictures are standardised.
    Returns: a matplotlib figure. The model's training mode stays as it is. Raises ValueError for
    less than one picture.
    """
    if num_images < 1:
        raise ValueError(f"num_images: expected at least 1, got {num_images}")
    pictures, titles, colors = [], [], []
    for picture, true, predicted in _predicted(device, dataloaders["val"], model, num_images):
        shown = picture.permute(1, 2, 0).cpu().numpy() * np.array(std) + np.array(mean)
        pictures.append(shown.clip(0, 1))
        titles.append(f"{class_names[true]} / {class_names[predicted]}")
        colors.append(RIGHT if true == predicted else WRONG)
    figure = gallery(pictures, titles, colors=colors, heading=HEADING, columns=3)
    if path is not None:
        figures.save(figure, path)
    return figure


def _predicted(device, batches, model, count):
    """The first pictures, each with its true and predicted class."""
    device, modes = require("torch").device(device), [(m, m.training) for m in model.modules()]
    found = []
    try:
        for inputs, targets in batches:
            ((scores, _),) = outputs(model, [(inputs, targets)], device)
            found += zip(inputs, targets.tolist(), scores.argmax(dim=1).tolist(), strict=True)
            if len(found) >= count:
                break
    finally:
        for module, training in modes:
            module.training = training
    return found[:count]


def plot_predictions(path: Path | str, pictures: Pictures, proba: np.ndarray) -> None:
    """Twelve pictures with true class, predicted class and its probability, and their files' names:
    the errors, in red, the most confident first, then the right ones, in green, the least confident
    first.

    Inputs: pictures, N with C classes; proba (N, C).
    """
    predicted, confidence = proba.argmax(axis=1), proba.max(axis=1)
    right = predicted == np.array(pictures.labels)
    order = np.lexsort((np.where(right, confidence, -confidence), right))[:SHOWN]
    names, shown, titles, notes = pictures.names(), [], [], []
    for i in order.tolist():
        image = open_rgb(pictures.paths[i], SIDE)
        image.thumbnail((SIDE, SIDE))
        shown.append(np.asarray(image))
        true, said = (pictures.classes[c] for c in (pictures.labels[i], predicted[i]))
        titles.append(f"{true} / {said} {confidence[i]:.0%}")
        notes.append([names[i]])
    colors = [RIGHT if right[i] else WRONG for i in order]
    figures.save(gallery(shown, titles, notes, colors=colors, heading=HEADING), path)
