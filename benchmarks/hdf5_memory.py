"""Do lazily read features keep memory bounded? A file of the published training set's size, read by
random minibatches: python -m fastrnn.benchmarks.hdf5_memory [FOLDER].

Prints the size of the file, minibatches a second, and how much the process grew while it read.
"""

import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fastrnn.benchmarks.memory import peak_resident_bytes
from fastrnn.captioning.data import Features
from fastrnn.optional import require

IMAGES, COLUMNS = 82_783, 4_096  # the published training features
BATCH, BATCHES = 100, 300


def write_features(path: Path, images: int, columns: int) -> None:
    """Write random features block by block."""
    rng = np.random.default_rng(0)
    with require("h5py").File(path, "w") as file:
        dataset = file.create_dataset("features", (images, columns), np.float32)
        for begin in range(0, images, 4096):
            rows = min(4096, images - begin)
            dataset[begin : begin + rows] = rng.random((rows, columns), dtype=np.float32)


def main(folder: Path, images: int = IMAGES, columns: int = COLUMNS) -> dict[str, float]:
    """Generate, read, report; returns the figures."""
    path = folder / "features.h5"
    # In another process: this one's largest size shall not be that of writing.
    writer = multiprocessing.get_context("spawn").Process(
        target=write_features, args=(path, images, columns)
    )
    writer.start()
    writer.join()
    before = peak_resident_bytes()
    features = Features(path)
    rng = np.random.default_rng(0)
    begun = time.perf_counter()
    for _ in range(BATCHES):
        features[rng.integers(images, size=BATCH)]
    seconds = time.perf_counter() - begun
    figures = {
        "file_megabytes": path.stat().st_size / 2**20,
        "grown_megabytes": (peak_resident_bytes() - before) / 2**20,
        "minibatches_per_second": BATCHES / seconds,
    }
    path.unlink()
    for name, value in figures.items():
        print(f"{name:24} {value:10.1f}")
    return figures


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
