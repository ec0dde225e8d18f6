"""More of a data set's pictures than one row of features each: grids of places, for attention to
look at; crops and mirrors, to learn from.

{train,val,test}2014_grid.h5   features (images, L, D) float16, of the training split also mean (C,)
                               and components (C, D), by which they come from a network's C channels
train2014_views.h5             features (images, K, D), reduced where the pictures' own are
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fastrnn.captioning import data as coco
from fastrnn.captioning import features, prepare, scenes
from fastrnn.storage import named, replacing
from fastrnn.vision.images import open_rgb
from fastrnn.vision.weights import Report, silent

FITTED = 200  # pictures whose places the components of grids are found from
BATCH = 32
LEAST_AREA = 0.4  # of a picture, that a crop covers

VIEWS = "train2014_views.h5"

Run = Callable[[list], np.ndarray]


def grid_file(base: Path, split: str) -> Path:
    """Of a data set."""
    return base / f"{split}2014_grid.h5"


def with_grids(data: dict[str, object], base: Path) -> dict[str, object]:
    """A data set of load_coco_data with grids, features (images, L, D), in the place of features.

    Raises FileNotFoundError where it has none, ValueError for what does not fit.
    """
    grids = {}
    for split in (name.removesuffix("_features") for name in data if name.endswith("_features")):
        path = grid_file(base, split)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; caption prepare --grid writes it")
        grids[f"{split}_features"] = found = coco.Features(path, axes=3)
        if len(found) != len(data[f"{split}_features"]):
            raise ValueError(
                f"{path}: expected {len(data[f'{split}_features'])} pictures, got {len(found)}"
            )
    return data | grids


def with_views(data: dict[str, object], base: Path) -> dict[str, object]:
    """A data set of load_coco_data with train_views (images, K, D), if it has any.

    Raises ValueError for what does not fit.
    """
    path, own = base / VIEWS, data["train_features"]
    if not path.is_file():
        return data
    found = coco.Features(path, axes=3)
    if (len(found), found.shape[2]) != own.shape:
        raise ValueError(f"{path}: expected views like features {own.shape}, got {found.shape}")
    return data | {"train_views": found}


def add_grids(
    base: Path | str, components: int = 256, *, progress: features.Progress = iter
) -> tuple[int, int]:
    """Write grids of all pictures of a data set that caption prepare has written, reduced to so
    many principal components. Returns their L and D.

    Raises ValueError where the data set does not tell its network and pictures, or the network has
    no grid, OSError where a picture cannot be read.
    """
    base = Path(base)
    source, paths = _pictures(base)
    load, run = grid_network(*_network(source))
    rng = np.random.default_rng(0)
    some = rng.permutation(len(paths["train"]))[:FITTED]
    places = np.concatenate([*_batches([paths["train"][i] for i in some], load, run, iter)])
    mean, axes = prepare.fit_pca(places.reshape(-1, places.shape[2]), components)
    reduced = _reduced(run, mean, axes)
    for split in paths:
        with replacing(grid_file(base, split)) as temporary, coco.new_hdf5(temporary) as file:
            shape = len(paths[split]), places.shape[1], axes.shape[1]
            grids = file.create_dataset("features", shape, np.float16)
            grids.attrs.update(source)
            done = 0
            for batch in _batches(paths[split], load, reduced, progress):
                grids[done : done + len(batch)] = batch
                done += len(batch)
            if split == "train":
                file["mean"], file["components"] = mean, axes
    return shape[1:]


def grids_of(base: Path, split: str, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Grids (images, L, D) of a split's pictures as their network sees them, reduced to components
    found elsewhere. Raises as add_grids does."""
    source, paths = _pictures(base)
    load, run = grid_network(*_network(source))
    return np.concatenate([*_batches(paths[split], load, _reduced(run, mean, axes), iter)])


def _reduced(run: Run, mean: np.ndarray, axes: np.ndarray) -> Run:
    return lambda batch: prepare.apply_pca(run(batch), mean, axes).astype(np.float16)


def grid_network(
    backbone: str, weights: str, view: str, report: Report = silent
) -> tuple[Callable[[Path], object], Run]:
    """load(path), and run(batch) for the grid (n, L, C) that a torchvision network pools last: of
    SqueezeNet 13 x 13, of ResNet 7 x 7, of VGG, before its last pooling but one, 14 x 14.

    Raises ValueError for another network.
    """
    pooled = {"squeezenet": "classifier.0", "resnet": "avgpool", "resnext": "avgpool"}
    pooled |= {"wide_resnet": "avgpool", "vgg": "features.-1"}
    layer = next((m for name, m in pooled.items() if backbone.startswith(name)), None)
    if layer is None:
        raise ValueError(f"backbone: expected one of {[*pooled]} for grids, got {backbone!r}")
    transform, run, network = features.headless(backbone, weights, view, report)
    found = []
    of_layer = network.get_submodule(layer.removesuffix(".-1"))
    (of_layer[-1] if layer.endswith("-1") else of_layer).register_forward_pre_hook(
        lambda _, inputs: found.append(inputs[0])
    )

    def grids(batch: list) -> np.ndarray:
        run(batch)
        return found.pop().flatten(2).transpose(1, 2).numpy()

    return lambda path: transform(open_rgb(path)), grids


def add_views(
    base: Path | str, views: int, *, seed: int = 0, progress: features.Progress = iter
) -> None:
    """Write features of other views of a data set's training pictures: the mirrored picture, then
    crops, every other one mirrored. Raises as add_grids does."""
    base = Path(base)
    source, paths = _pictures(base)
    transform, run, _ = features.headless(*_network(source))
    rng = np.random.default_rng(seed)
    reduction = coco.pca_reduction(base) if coco.has_pca(base) else None

    def load(path: Path) -> list:
        return [transform(view) for view in views_of(open_rgb(path), views, rng)]

    def rows(batch: list) -> np.ndarray:
        found = run([view for picture in batch for view in picture])
        return found if reduction is None else prepare.apply_pca(found, *reduction)

    with replacing(base / VIEWS) as temporary, coco.new_hdf5(temporary) as file:
        done = 0
        for batch in _batches(paths["train"], load, rows, progress):
            batch = batch.reshape(-1, views, batch.shape[1])
            if not done:
                shape = len(paths["train"]), *batch.shape[1:]
                file.create_dataset("features", shape, np.float32).attrs.update(source)
            file["features"][done : done + len(batch)] = batch
            done += len(batch)


def views_of(picture, views: int, rng: np.random.Generator) -> list:
    """So many views of a Pillow image: the mirrored whole, then crops of two fifths or more of it,
    every other one mirrored."""
    mirror = 0  # Pillow's FLIP_LEFT_RIGHT
    found = [picture.transpose(mirror)]
    while len(found) < views:
        share = rng.uniform(LEAST_AREA, 1) ** 0.5
        width, height = (max(1, round(share * side)) for side in picture.size)
        left = int(rng.integers(picture.size[0] - width + 1))
        top = int(rng.integers(picture.size[1] - height + 1))
        crop = picture.crop((left, top, left + width, top + height))
        found.append(crop.transpose(mirror) if len(found) % 2 == 0 else crop)
    return found[:views]


def _network(source: dict[str, str]) -> tuple[str, str, str]:
    return source["backbone"], source["weights"], source.get("view", "centre")


def _pictures(base: Path) -> tuple[dict[str, str], dict[str, list[Path]]]:
    """Where a data set's features come from, and its pictures' paths by split."""
    source = coco.feature_source(base, coco.has_pca(base))
    missing = {"backbone", "weights", "images"} - source.keys()
    if missing or source["backbone"] == scenes.BACKBONE:
        raise ValueError(f"{base}: does not tell a network and a folder of pictures to look at")
    data = coco.load_coco_data(base, pca_features=coco.has_pca(base))
    folder = Path(source["images"])
    splits = [name.removesuffix("_urls") for name in data if name.endswith("_urls")]
    return source, {s: [folder / name for name in data[f"{s}_urls"]] for s in splits}


def _batches(
    paths: Sequence[Path], load: Callable[[Path], object], run: Run, progress: features.Progress
) -> Iterator[np.ndarray]:
    batch = []
    for i, path in enumerate(progress(paths), 1):
        with named(path):
            batch.append(load(path))
        if len(batch) == BATCH or i == len(paths):
            yield run(batch)
            batch = []
