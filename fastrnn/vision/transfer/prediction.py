"""What a trained network says of pictures: of any files, and as a table of those that it was judged
by."""

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrnn import storage
from fastrnn.optional import require
from fastrnn.vision.images import look_for, open_rgb
from fastrnn.vision.transfer import data
from fastrnn.vision.transfer.training import probabilities

if TYPE_CHECKING:
    from fastrnn.vision.transfer.programs import Run

BATCH = 32  # pictures that a network reads together


def write_predictions(path: Path, pictures: data.Pictures, proba: np.ndarray) -> None:
    """A table of pictures: file, true class, predicted class, the probabilities of both."""
    with storage.writing(path, newline="", errors="surrogateescape") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "class", "predicted", "probability", "probability_of_class"])
        for name, label, p in zip(pictures.names(), pictures.labels, proba, strict=True):
            best = int(p.argmax())
            said = pictures.classes[label], pictures.classes[best]
            rows.writerow([name, *said, f"{p[best]:.6f}", f"{p[label]:.6f}"])


class Prediction(NamedTuple):
    """The probabilities (C,) of a picture file's classes, or why the file cannot be read."""

    file: str
    proba: np.ndarray | None = None
    problem: str | None = None


def find_files(
    places: Sequence[Path | str], note: Callable[[str], object] = lambda _: None
) -> tuple[dict[Path, str], int]:
    """Picture files, and those of folders and of folders within, with their names: of one folder
    their paths from it, else the paths as they are given; and how many other files there are in the
    folders.

    Raises FileNotFoundError where there is nothing, or no picture in a folder.
    """
    names: dict[Path, str] = {}
    others = 0
    for place in map(Path, places):
        found = look_for(place, note)
        others += len(found.others)
        alone = len(places) == 1 and place.is_dir()
        names |= {p: (p.relative_to(place) if alone else p).as_posix() for p in found.pictures}
    return names, others


def predict(
    run: "Run", files: dict[Path, str], *, progress: data.Progress = iter
) -> Iterator[Prediction]:
    """Classify picture files, by their names, some together as they are read; those that cannot be
    read come as soon as that is known."""
    torch, transform, at_least = require("torch"), run.transform(), data.enough(run.preprocessing())
    names, batch = [], []
    for i, (path, name) in enumerate(progress([*files.items()]), 1):
        try:
            batch.append(transform(open_rgb(path, at_least)))
            names.append(name)
        except (OSError, MemoryError) as error:
            problem = str(error).removeprefix(f"{path}: ") or type(error).__name__
            yield Prediction(name, problem=problem)
        if batch and (len(batch) == BATCH or i == len(files)):
            labels = torch.zeros(len(batch), dtype=torch.int64)
            read, options = torch.stack(batch), {"mirrored": run.settings["tta"]}
            _, proba = probabilities(run.model, [(read, labels)], run.device, **options)
            yield from map(Prediction, names, proba)
            names, batch = [], []
