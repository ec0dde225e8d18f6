"""The published captioning data set: HDF5 captions and features, a JSON vocabulary, lists of URLs.

coco2014_captions.h5           train_captions (n, T) int32, train_image_idxs (n,) int32, val_...
{train,val}2014_vgg16_fc7.h5   features (images, D) float32, from whatever network made them
{train,val}2014_vgg16_fc7_pca.h5   the same, reduced; there may be only one of the two
coco2014_vocab.json            idx_to_word, word_to_idx
{train,val}2014_urls.txt       a line an image: its address, or its path from this folder
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastrnn.captioning.vocabulary import decode_captions
from fastrnn.optional import require
from fastrnn.storage import read_json, replacing, write_json

__all__ = [
    "Features",
    "decode_captions",
    "has_pca",
    "load_coco_data",
    "sample_coco_minibatch",
    "write_coco_data",
]

SPLITS = ("train", "val")
CAPTIONS, VOCABULARY = "coco2014_captions.h5", "coco2014_vocab.json"


def _features_file(split: str, pca: bool) -> str:
    return f"{split}2014_vgg16_fc7{'_pca' if pca else ''}.h5"


class Features:
    """Rows of a dataset in an HDF5 file, read when they are asked for, so that memory stays bounded
    by a minibatch: features[indices] (len(indices), D) float32, indices >= 0 in any order, also
    repeated."""

    def __init__(self, path: Path | str, name: str = "features") -> None:
        self.path = Path(path)
        file = _open(self.path)
        if name not in file:
            file.close()
            raise ValueError(f"{path}: no dataset {name}")
        self._dataset = file[name]
        self.shape = self._dataset.shape
        self.dtype = self._dataset.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray | slice | int) -> np.ndarray:
        if isinstance(indices, slice | int | np.integer):
            return self._dataset[indices]
        # HDF5 selects rows in ascending order, each once, and fast only if they are few or dense.
        rows, inverse = np.unique(np.asarray(indices), return_inverse=True)
        if len(rows) == 0:
            return np.empty((0, *self.shape[1:]), self.dtype)
        if rows[-1] - rows[0] < 4 * len(rows):
            block = self._dataset[int(rows[0]) : int(rows[-1]) + 1]
            return block[(rows - rows[0])[inverse]]
        return self._dataset[rows][inverse]

    def __array__(self, dtype: type | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._dataset[:], dtype)


def _open(path: Path):
    h5py = require("h5py")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: not an HDF5 file ({error})") from None


def has_pca(base_dir: Path | str) -> bool:
    """Whether a data set has reduced features."""
    return (Path(base_dir) / _features_file("train", pca=True)).is_file()


def load_coco_data(
    base_dir: Path | str,
    max_train: int | None = None,
    pca_features: bool = True,
    *,
    seed: int = 0,
) -> dict[str, object]:
    """Open a data set of the published layout.

    Inputs: base_dir; max_train, so many training captions drawn at random, of different pictures as
    long as there are any (None: all); pca_features, whether to take the reduced features; seed of
    the draw.
    Returns: a dict of train_captions (n, T) and val_captions int32, train_image_idxs (n,) and
    val_image_idxs int32 (caption to row of the features), train_features (images, D) and
    val_features (Features, read by minibatch), idx_to_word (list), word_to_idx (dict), train_urls
    and val_urls (arrays of str).
    Raises FileNotFoundError or ValueError that names the file that is missing or does not fit.
    """
    base = Path(base_dir)
    vocabulary = read_json(base / VOCABULARY)
    data: dict[str, object] = {}
    for key in ("idx_to_word", "word_to_idx"):
        if key not in vocabulary:
            raise ValueError(f"{base / VOCABULARY}: no {key}")
        data[key] = vocabulary[key]
    with _open(base / CAPTIONS) as file:
        for name in ("captions", "image_idxs"):
            for split in SPLITS:
                key = f"{split}_{name}"
                if key not in file:
                    raise ValueError(f"{base / CAPTIONS}: no dataset {key}")
                data[key] = file[key][:]
    for split in SPLITS:
        path = base / _features_file(split, pca_features)
        other = base / _features_file(split, not pca_features)
        if not path.is_file() and other.is_file():
            raise FileNotFoundError(
                f"{path}: no such file, but {other.name} is there: pca_features={not pca_features}"
            )
        data[f"{split}_features"] = Features(path)
        urls = base / f"{split}2014_urls.txt"
        data[f"{split}_urls"] = np.array(urls.read_text(encoding="utf-8").splitlines())
        _check_split(data, split, path)
    if max_train is not None:
        if max_train < 1:
            raise ValueError(f"max_train: expected at least 1, got {max_train}")
        chosen = _draw(data["train_image_idxs"], max_train, np.random.default_rng(seed))
        data["train_captions"] = data["train_captions"][chosen]
        data["train_image_idxs"] = data["train_image_idxs"][chosen]
    return data


def _draw(images: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of n random captions, of different pictures as long as there are any left: a model
    cannot learn two captions of one picture by heart."""
    order = rng.permutation(len(images))
    by_image = order[np.argsort(images[order], kind="stable")]
    _, first, counts = np.unique(images[by_image], return_index=True, return_counts=True)
    turn = np.arange(len(images)) - np.repeat(first, counts)  # of a caption within its picture
    turns = np.empty_like(turn)
    turns[by_image] = turn
    return order[np.argsort(turns[order], kind="stable")][:n]


def _check_split(data: dict[str, object], split: str, features: Path) -> None:
    urls, images = len(data[f"{split}_urls"]), len(data[f"{split}_features"])
    if urls != images:
        raise ValueError(f"{split}_urls: expected {images} lines to go with {features}, got {urls}")
    captions, images = data[f"{split}_captions"], data[f"{split}_image_idxs"]
    if captions.ndim != 2 or images.shape != captions.shape[:1]:
        raise ValueError(
            f"{split}_image_idxs: expected shape ({len(captions)},) to go with {split}_captions "
            f"{captions.shape}, got {images.shape}"
        )
    for name, values, limit in (
        (f"{split}_image_idxs", images, len(data[f"{split}_features"])),
        (f"{split}_captions", captions, len(data["idx_to_word"])),
    ):
        if values.size and not (values.min() >= 0 and values.max() < limit):
            raise ValueError(
                f"{name}: expected indices in [0, {limit}), got {values.min()} to {values.max()} "
                f"(beside {features})"
            )


def sample_coco_minibatch(
    data: dict[str, object],
    batch_size: int = 100,
    split: str = "train",
    *,
    rng: np.random.Generator | int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random captions with their pictures' features and addresses.

    Inputs: data of load_coco_data; batch_size; split "train" or "val"; rng, generator or seed.
    Returns: captions (batch_size, T), features (batch_size, D), urls (batch_size,).
    Raises ValueError for an unknown or empty split.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {SPLITS}, got {split!r}")
    n = len(data[f"{split}_captions"])
    if n == 0:
        raise ValueError(f"split: {split} has no captions")
    chosen = np.random.default_rng(rng).integers(n, size=batch_size)
    images = data[f"{split}_image_idxs"][chosen]
    names = (f"{split}_features", f"{split}_urls")
    return data[f"{split}_captions"][chosen], *(data[name][images] for name in names)


def write_coco_data(
    base_dir: Path | str,
    idx_to_word: Sequence[str],
    splits: dict[str, dict[str, object]],
    *,
    source: dict[str, str] | None = None,
    reduction: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Write a data set of the published layout, each file atomically, the captions last.

    Inputs: idx_to_word; splits, "train" and "val" to a dict of captions (n, T), image_idxs (n,),
    features (images, D) and urls (images); source, where the features come from, kept as
    attributes beside them; reduction, the mean (D,) and components (D, K) of a PCA, kept in the
    reduced file of the training split, with which each split has features_pca (images, K) too.
    """
    base = Path(base_dir)
    base.mkdir(parents=True, exist_ok=True)
    h5py = require("h5py")
    (base / CAPTIONS).unlink(missing_ok=True)  # half a data set shall not open
    for split, content in splits.items():
        for key, pca in (("features", False), ("features_pca", True)):
            path = base / _features_file(split, pca)
            if pca and reduction is None:
                path.unlink(missing_ok=True)  # of an earlier data set in this folder
                continue
            with replacing(path) as temporary, h5py.File(temporary, "w") as file:
                file["features"] = np.asarray(content[key], np.float32)
                file["features"].attrs.update(source or {})
                if pca and split == "train":
                    file["mean"], file["components"] = reduction
        with replacing(base / f"{split}2014_urls.txt") as path:
            path.write_text("".join(f"{url}\n" for url in content["urls"]), encoding="utf-8")
    word_to_idx = {word: i for i, word in enumerate(idx_to_word)}
    vocabulary = {"idx_to_word": list(idx_to_word), "word_to_idx": word_to_idx}
    write_json(base / VOCABULARY, vocabulary)
    with replacing(base / CAPTIONS) as path, h5py.File(path, "w") as file:
        for split, content in splits.items():
            file[f"{split}_captions"] = np.asarray(content["captions"], np.int32)
            file[f"{split}_image_idxs"] = np.asarray(content["image_idxs"], np.int32)


def feature_source(base_dir: Path | str, pca: bool = False) -> dict[str, str]:
    """Where the features come from, as write_coco_data was told ({} if it was not)."""
    with _open(Path(base_dir) / _features_file("train", pca)) as file:
        return {key: str(value) for key, value in file["features"].attrs.items()}


def pca_reduction(base_dir: Path | str) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean (D,) and components (D, K) of the reduced features; None where they are not known."""
    with _open(Path(base_dir) / _features_file("train", pca=True)) as file:
        if "components" not in file:
            return None
        return file["mean"][:], file["components"][:]
