"""What a network has been trained and validated on, as a table in the run's folder, by which later
evaluations know it again."""

import csv
from pathlib import Path
from typing import NamedTuple

from fastrnn import storage
from fastrnn.vision.transfer.data import TRAIN, VAL, Pictures

HEADER = ["part", "file", "class", "sha256", "sha256_of_pixels"]


class Trained(NamedTuple):
    """The sha256 of the files and of the pixels of pictures that were trained on."""

    keys: set[str]
    pixels: set[str]


def write(path: Path, train: Pictures, val: Pictures) -> None:
    """Write the table, a row a picture."""
    with storage.writing(path, newline="", errors="surrogateescape") as file:
        rows = csv.writer(file)
        rows.writerow(HEADER)
        for part, of in (TRAIN[0], train), (VAL[0], val):
            classes = [of.classes[label] for label in of.labels]
            for row in zip(of.names(), classes, of.keys, of.pixels, strict=True):
                rows.writerow([part, *row])


def read(path: Path) -> Trained:
    """What was trained on; nothing where there is no table, as earlier versions wrote none. Raises
    ValueError for a file that is no such table."""
    found = Trained(set(), set())
    if not path.exists():
        return found
    with (
        storage.reading(path, "a table of the pictures of a run"),
        path.open(encoding="utf-8", newline="", errors="surrogateescape") as file,
    ):
        header, *rows = csv.reader(file)
        if header != HEADER:
            raise ValueError(f"expected the columns {', '.join(HEADER)}, got {', '.join(header)}")
        for part, _, _, key, pixels in rows:
            if part == TRAIN[0]:
                found.keys.add(key)
                found.pixels.add(pixels)
    return found
