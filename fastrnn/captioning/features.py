"""From pictures to features: a torchvision network without its head, or the scenes' own pixels.

The one module of captioning that uses torch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrnn.captioning import scenes
from fastrnn.optional import require
from fastrnn.vision import backbones
from fastrnn.vision.images import open_rgb
from fastrnn.vision.weights import Report, silent

Progress = Callable[[Iterable], Iterable]
VIEWS = "centre", "whole"


class Extracted(NamedTuple):
    """features (len(names), D) of the pictures that could be read; why the others could not."""

    names: list[str]
    features: np.ndarray
    unreadable: dict[str, str]


class Batch(NamedTuple):
    """The same of some pictures, by their paths."""

    paths: list[Path]
    features: np.ndarray
    unreadable: dict[Path, str]


def extract(
    paths: Sequence[Path],
    backbone: str,
    weights: str | None = None,
    *,
    columns: int | None = None,
    batch_size: int = 32,
    progress: Progress = iter,
    view: str = "centre",
    network: Callable | None = None,
    base: Path | None = None,
) -> Extracted:
    """Features of pictures: those of `batches`, which has the parameters, in one array; their names
    are their paths from the folder base (None: the files' alone)."""

    def name(path: Path) -> str:
        return path.name if base is None else path.relative_to(base).as_posix()

    options = {"columns": columns, "batch_size": batch_size, "progress": progress}
    found = [*batches(paths, backbone, weights, view=view, network=network, **options)]
    rows = [batch.features for batch in found if batch.paths]
    features = np.concatenate(rows) if rows else np.empty((0, 0), np.float32)
    names = [name(path) for batch in found for path in batch.paths]
    why = {name(path): why for batch in found for path, why in batch.unreadable.items()}
    return Extracted(names, features, why)


def batches(
    paths: Sequence[Path],
    backbone: str,
    weights: str | None = None,
    *,
    columns: int | None = None,
    batch_size: int = 32,
    progress: Progress = iter,
    view: str = "centre",
    network: Callable | None = None,
    report: Report = silent,
) -> Iterator[Batch]:
    """Features of picture files, a batch after the other.

    Inputs: paths; backbone, "scenes" or the name of a torchvision classification model; weights,
    "default" (torchvision downloads and checks them), a path to its state dict, as weights.load
    takes it, or "none" (random, from seed 0); columns, how many features they must be (None: any);
    progress wraps the iteration over pictures; view, one of VIEWS: what a torchvision network is
    shown of a picture, the square in its centre, or the whole, squeezed into the square; network,
    what makes load and run of backbone, weights, view and report (None: torch_network); report,
    weights.load's.
    Yields: Batch; a picture that cannot be read is left out and named with its error.
    Raises ValueError for an unknown backbone, weights that do not fit, and, with the first batch,
    features of another width or that are not finite; FileNotFoundError.
    """
    network = network or (scenes_network if backbone == scenes.BACKBONE else torch_network)
    load, run = network(backbone, weights, view, report)
    good, batch, unreadable = [], [], {}

    def extracted() -> Batch:
        found = run(batch) if batch else np.empty((0, 0), np.float32)
        if good and columns not in (None, found.shape[-1]):
            raise ValueError(f"{backbone}: expected {columns} features, got {found.shape[-1]}")
        if not np.isfinite(found).all():
            raise ValueError(f"{backbone}: features that are not finite; are its weights damaged?")
        return Batch(good, found, unreadable)

    for path in progress(paths):
        try:
            batch.append(load(path))
        except OSError as error:
            unreadable[path] = str(error).removeprefix(f"{path}: ")
            continue
        good.append(path)
        if len(batch) == batch_size:
            yield extracted()
            good, batch, unreadable = [], [], {}
    if good or unreadable:
        yield extracted()


def check_backbone(backbone: str) -> None:
    """Raise ValueError for an unknown backbone, ModuleNotFoundError without what runs it."""
    if backbone != scenes.BACKBONE:
        require("torch")
        backbones.preprocessing(backbone)


def scenes_network(*_):
    """load(path) and run(batch) for the features of the embedded scenes."""

    def load(path: Path) -> np.ndarray:
        return np.asarray(open_rgb(path).resize((scenes.SIZE, scenes.SIZE)))

    return load, lambda batch: scenes.features(np.stack(batch))


def torch_network(backbone: str, weights: str | None, view: str, report: Report = silent):
    """load(path) and run(batch) for a torchvision classification model without its last layer."""
    transform, run, _ = headless(backbone, weights, view, report)
    return lambda path: transform(open_rgb(path)), run


def preprocessing(backbone: str, view: str) -> backbones.Preprocessing:
    """A network's, for one of VIEWS. Raises ValueError for another."""
    if view not in VIEWS:
        raise ValueError(f"view: expected one of {[*VIEWS]}, got {view!r}")
    to = backbones.preprocessing(backbone)
    return to if view == "centre" else to._replace(resize=None)


def headless(backbone: str, weights: str | None, view: str, report: Report = silent):
    """transform(image) and run(batch) of the same, and the network itself."""
    torch, to = require("torch"), preprocessing(backbone, view)
    if weights is None:
        raise ValueError('weights: expected "default", "none" or a path, got None')
    torch.manual_seed(0)
    model = backbones.build(backbone, weights, report)
    backbones.replace_head(model, lambda _: torch.nn.Identity())

    def run(batch: list) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.stack(batch)).numpy()

    return backbones.eval_transform(to), run, model
