"""The published captioning data set: HDF5 captions and features, a JSON vocabulary, lists of URLs.

coco2014_captions.h5           train_captions (n, T) int32, train_image_idxs (n,) int32, val_...
{train,val}2014_vgg16_fc7.h5   features (images, D) float32, from whatever network made them
{train,val}2014_vgg16_fc7_pca.h5   the same, reduced; there may be only one of the two
coco2014_vocab.json            idx_to_word, word_to_idx
{train,val}2014_urls.txt       a line an image: its address, or its path from this folder

What fastrnn prepares may have test_... and test2014_... as well, and {split}2014_texts.txt, a line
a caption: its text, of which the indices are what the vocabulary has.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.captioning.vocabulary import check_indices, decode_captions
from fastrnn.optional import require
from fastrnn.settings import TEXT, check, integer, listed, mapped
from fastrnn.storage import named, read_json, reading, replacing, sweep

if TYPE_CHECKING:
    import h5py

__all__ = [
    "Features",
    "decode_captions",
    "has_pca",
    "load_coco_data",
    "sample_coco_minibatch",
    "write_coco_data",
]

SPLITS = ("train", "val")  # what every data set has
TEST = "test"
CAPTIONS, VOCABULARY = "coco2014_captions.h5", "coco2014_vocab.json"
# All files of a data set that fastrnn writes, as a regular expression.
FILES = (
    r"coco2014_captions\.h5|coco2014_vocab\.json"
    r"|(train|val|test)2014_((vgg16_fc7(_pca)?|grid|views)\.h5|(urls|texts)\.txt)"
)
_KINDS = {"fiu": "numbers", "iu": "integers"}
_BLOCK = 4096  # rows that are looked at together


def _features_file(split: str, pca: bool) -> str:
    return f"{split}2014_vgg16_fc7{'_pca' if pca else ''}.h5"


class Features:
    """Rows of a dataset in an HDF5 file, read when they are asked for, so that memory stays bounded
    by a minibatch: features[indices] (len(indices), D) float32, or with axes = 3 (len(indices), L,
    D), indices >= 0 in any order, also repeated."""

    def __init__(self, path: Path | str, name: str = "features", axes: int = 2) -> None:
        self.path = Path(path)
        with reading(path, "an HDF5 file"):
            self._dataset = _dataset(path, _open(path), name, axes, "fiu")
        self.shape = self._dataset.shape
        self.dtype = self._dataset.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray | slice | int) -> np.ndarray:
        with named(self.path, "readable features"):
            return self._rows(indices)

    def _rows(self, indices):
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
        return np.asarray(self[:], dtype)

    def check_finite(self) -> None:
        """Raise ValueError where a feature is not finite: one is enough to spoil a training."""
        for begin in range(0, len(self), _BLOCK):
            rows = np.isfinite(self[begin : begin + _BLOCK])
            good = rows.reshape(len(rows), -1).all(axis=1)
            if not good.all():
                row = begin + int(good.argmin())
                raise ValueError(f"{self.path}: row {row}: expected finite numbers")


def _open(path: Path | str):
    return require("h5py").File(path, "r")


def _dataset(path: Path | str, file, name: str, ndim: int, kinds: str):
    """A dataset of an HDF5 file, of so many dimensions and one of these kinds of dtype."""
    found = file.get(name)
    if not isinstance(found, require("h5py").Dataset):
        raise ValueError(f"{path}: no dataset {name}")
    if len(found.shape or ()) != ndim or found.dtype.kind not in kinds:
        raise ValueError(
            f"{path}: {name}: expected {ndim} dimensions of {_KINDS[kinds]}, got {found.shape} "
            f"{found.dtype}"
        )
    return found


def _read_lines(path: Path) -> list[str]:
    """Lines that end as Python's text files have it, and not where Unicode has other ends."""
    with reading(path, "UTF-8"):
        lines = path.read_text(encoding="utf-8").split("\n")
    return lines if lines[-1] else lines[:-1]


def has_pca(base_dir: Path | str) -> bool:
    """Whether a data set has reduced features."""
    return (Path(base_dir) / _features_file("train", pca=True)).is_file()


def load_coco_data(
    base_dir: Path | str,
    max_train: int | None = None,
    pca_features: bool = True,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Open a data set of the published layout.

    Inputs: base_dir; max_train, so many training captions drawn at random, of different pictures as
    long as there are any (None: all); pca_features, whether to take the reduced features; seed of
    the draw.
    Returns: a dict of train_captions (n, T) and val_captions int32, train_image_idxs (n,) and
    val_image_idxs int32 (caption to row of the features), train_features (images, D) and
    val_features (Features, read by minibatch), idx_to_word (list), word_to_idx (dict), train_urls
    and val_urls (arrays of str); the same of test, and train_texts (n,), the captions as they were
    written, and so on, where the data set has them.
    Raises FileNotFoundError or ValueError that names the file that is missing or does not fit.
    """
    base = Path(base_dir)
    if not (base / VOCABULARY).exists():
        raise FileNotFoundError(
            f"{base}: not a data set (no {VOCABULARY}; caption prepare writes it)"
        )
    data: dict[str, Any] = _read_vocabulary(base / VOCABULARY)
    path = base / CAPTIONS
    with reading(path, "an HDF5 file"), _open(path) as file:
        splits = (*SPLITS, TEST) if f"{TEST}_captions" in file else SPLITS
        for name, ndim in (("captions", 2), ("image_idxs", 1)):
            for split in splits:
                key = f"{split}_{name}"
                data[key] = _dataset(path, file, key, ndim, "iu")[:]
    for split in splits:
        path = base / _features_file(split, pca_features)
        other = base / _features_file(split, not pca_features)
        if not path.is_file() and other.is_file():
            raise FileNotFoundError(
                f"{path}: no such file, but {other.name} is there: pca_features={not pca_features}"
            )
        data[f"{split}_features"] = Features(path)
        for name in ("urls", "texts"):
            lines = base / f"{split}2014_{name}.txt"
            if name == "urls" or lines.is_file():
                data[f"{split}_{name}"] = np.array(_read_lines(lines), str)
        _check_split(data, split, path)
    widths = [data[f"{split}_features"].shape[1] for split in splits]
    if len(set(widths)) > 1 or not widths[0]:
        others = " and ".join(map(str, widths[1:]))
        raise ValueError(
            f"{path}: expected as many columns as train has, and at least one, got {others}, and "
            f"of train {widths[0]}"
        )
    if max_train is not None:
        if max_train < 1:
            raise ValueError(f"max_train: expected at least 1, got {max_train}")
        chosen = _draw(data["train_image_idxs"], max_train, np.random.default_rng(seed))
        data["train_captions"] = data["train_captions"][chosen]
        data["train_image_idxs"] = data["train_image_idxs"][chosen]
        if "train_texts" in data:
            data["train_texts"] = data["train_texts"][chosen]
    return data


def _read_vocabulary(path: Path) -> dict[str, object]:
    content = read_json(path)
    kinds = {"idx_to_word": listed(TEXT), "word_to_idx": mapped(integer(0))}
    with named(path, "a vocabulary"):
        vocabulary = {key: content[key] for key in kinds}
        check(vocabulary, kinds)
        check_indices(vocabulary["word_to_idx"])
    return vocabulary


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


def _check_split(data: Mapping[str, Any], split: str, features: Path) -> None:
    urls, images = len(data[f"{split}_urls"]), len(data[f"{split}_features"])
    if urls != images:
        raise ValueError(f"{split}_urls: expected {images} lines to go with {features}, got {urls}")
    captions, images = data[f"{split}_captions"], data[f"{split}_image_idxs"]
    if images.shape != captions.shape[:1]:
        raise ValueError(
            f"{split}_image_idxs: expected shape ({len(captions)},) to go with {split}_captions "
            f"{captions.shape}, got {images.shape}"
        )
    texts = data.get(f"{split}_texts", captions)
    if len(texts) != len(captions):
        raise ValueError(f"{split}_texts: expected {len(captions)} lines, got {len(texts)}")
    for name, values, limit in (
        (f"{split}_image_idxs", images, len(data[f"{split}_features"])),
        (f"{split}_captions", captions, len(data["idx_to_word"])),
    ):
        if values.size and not (values.min() >= 0 and values.max() < limit):
            raise ValueError(
                f"{name}: expected indices in [0, {limit}), got {values.min()} to {values.max()} "
                f"(beside {features})"
            )


def check_split(data: Mapping[str, Any], split: str) -> None:
    """Raise ValueError unless a data set has a split."""
    there = [name for name in (*SPLITS, TEST) if f"{name}_captions" in data]
    if split not in there:
        raise ValueError(f"split: expected one of {', '.join(there)}, got {split!r}")


def sample_coco_minibatch(
    data: Mapping[str, Any],
    batch_size: int = 100,
    split: str = "train",
    *,
    rng: np.random.Generator | int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random captions with their pictures' features and addresses.

    Inputs: data of load_coco_data; batch_size; split "train", "val" or, where the data set has it,
    "test"; rng, generator or seed.
    Returns: captions (batch_size, T), features (batch_size, D), urls (batch_size,).
    Raises ValueError for an unknown or empty split.
    """
    check_split(data, split)
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
    """Write a data set of the published layout: all its files, or where one cannot be written none,
    and then a data set that was in the folder stays.

    Inputs: idx_to_word; splits, "train", "val" and perhaps "test" to a dict of captions (n, T),
    image_idxs (n,), features (images, D), urls (images) and perhaps texts (n); source, where the
    features come from, kept as attributes beside them; reduction, the mean (D,) and components
    (D, K) of a PCA, kept in the reduced file of the training split, with which each split has
    features_pca (images, K) too. Features need not be arrays: blocks of rows are asked for.
    """
    base = Path(base_dir)
    base.mkdir(parents=True, exist_ok=True)
    sweep(base, FILES)
    with ExitStack() as stack:  # when all are written they take their places, the captions last
        written = []

        def place(name: str) -> Path:
            written.append(name)
            return stack.enter_context(replacing(base / name))

        of_captions = place(CAPTIONS)
        for split, content in splits.items():
            for key, pca in (("features", False), ("features_pca", True)):
                if pca and reduction is None:
                    continue
                with new_hdf5(place(_features_file(split, pca))) as file:
                    _write_rows(file, content[key])
                    file["features"].attrs.update(source or {})
                    if pca and split == "train":
                        file["mean"], file["components"] = reduction
            for key in ("urls", "texts"):
                if key in content:
                    lines = (f"{line}\n" for line in content[key])
                    place(f"{split}2014_{key}.txt").write_text("".join(lines), encoding="utf-8")
        word_to_idx = {word: i for i, word in enumerate(idx_to_word)}
        vocabulary = {"idx_to_word": list(idx_to_word), "word_to_idx": word_to_idx}
        place(VOCABULARY).write_text(json.dumps(vocabulary, indent=1) + "\n", encoding="utf-8")
        with new_hdf5(of_captions) as file:
            for split, content in splits.items():
                file[f"{split}_captions"] = np.asarray(content["captions"], np.int32)
                file[f"{split}_image_idxs"] = np.asarray(content["image_idxs"], np.int32)
        (base / CAPTIONS).unlink(missing_ok=True)  # half a data set shall not open
        for path in base.iterdir():  # of an earlier data set
            if re.fullmatch(FILES, path.name) and path.name not in written:
                path.unlink()


def _write_rows(file: "h5py.File", rows: np.ndarray) -> None:
    features = file.create_dataset("features", np.shape(rows), np.float32)
    for begin in range(0, len(rows), _BLOCK):
        features[begin : begin + _BLOCK] = rows[begin : begin + _BLOCK]


class _Tolerant(FileIO):
    """A file that keeps an error of writing to itself: HDF5, when it learns of one, may end the
    process as it closes the file."""

    error: OSError | None = None

    def write(self, block: memoryview) -> int:
        rest = memoryview(block)
        with self._kept():
            while rest:
                rest = rest[super().write(rest) :]
        return len(block)

    def truncate(self, size: int | None = None) -> int | None:
        with self._kept():
            super().truncate(size)
        return size

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error


@contextmanager
def new_hdf5(path: Path) -> Iterator["h5py.File"]:
    """An HDF5 file to write; what goes wrong with that is an OSError at the block's end."""
    with _Tolerant(path, "wb+") as file:
        with require("h5py").File(file, "w") as content:
            yield content
        if file.error is not None:
            raise file.error


def feature_source(base_dir: Path | str, pca: bool = False) -> dict[str, str]:
    """Where the features come from, as write_coco_data was told ({} if it was not)."""
    path = Path(base_dir) / _features_file("train", pca)
    with reading(path, "an HDF5 file"), _open(path) as file:
        return {key: str(value) for key, value in file["features"].attrs.items()}


def pca_reduction(base_dir: Path | str) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean (D,) and components (D, K) of the reduced features; None where they are not known."""
    return reduction_in(Path(base_dir) / _features_file("train", pca=True))


def reduction_in(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """The same of a file of features."""
    with reading(path, "an HDF5 file"), _open(path) as file:
        if "components" not in file:
            return None
        mean, components = (
            _dataset(path, file, name, ndim, "fiu")[:]
            for name, ndim in (("mean", 1), ("components", 2))
        )
    if mean.shape != components.shape[:1] or not np.isfinite(components).all():
        raise ValueError(
            f"{path}: expected mean (D,) and components (D, K), finite numbers, got {mean.shape} "
            f"and {components.shape}"
        )
    return mean, components
