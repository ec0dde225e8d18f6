"""Folders of pictures, a folder a class; how a network sees a picture; batches of them."""

import hashlib
import json
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrnn.optional import require
from fastrnn.vision.backbones import Preprocessing, eval_transform
from fastrnn.vision.images import find_images, open_rgb

if TYPE_CHECKING:
    import torch

Progress = Callable[[Iterable], Iterable]
# Path, class, and what the randomness of its transform is seeded with.
Example = tuple[Path, int, tuple[int, ...]]
NAMED = 3  # unreadable pictures that an error names
# Of the area, what a random crop has at least.
LEAST_CROP = 0.35
JITTER = 0.2


class Pictures(NamedTuple):
    """Picture files with their classes (indices) and the sha256 of each file."""

    classes: list[str]
    paths: list[Path]
    labels: list[int]
    keys: list[str]


def class_folders(folder: Path) -> list[Path]:
    """The folders in a folder, but hidden ones. Raises NotADirectoryError where there is none."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder")
    found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise NotADirectoryError(f"{folder}: no folders in it; expected one for each class")
    return found


def find_pictures(folder: Path, classes: Sequence[str] | None = None) -> list[tuple[Path, int]]:
    """The pictures of FOLDER/CLASS/*, in order, each with the index of its class in classes (None:
    the folders' names).

    Raises ValueError for a class that is not among them, FileNotFoundError for one without
    pictures.
    """
    folders = class_folders(folder)
    classes = [path.name for path in folders] if classes is None else classes
    for path in folders:
        if path.name not in classes:
            raise ValueError(f"{path}: class {path.name!r} is not one of {', '.join(classes)}")
    index = {name: i for i, name in enumerate(classes)}
    return [(path, index[f.name]) for f in folders for path in find_images(f).pictures]


def read_pictures(
    found: Sequence[tuple[Path, int]], classes: Sequence[str], progress: Progress = iter
) -> Pictures:
    """Open every picture once. Raises OSError that counts those that cannot be read, and names
    some."""
    keys, problems = [], []
    for path, _ in progress(found):
        try:
            open_rgb(path)
            keys.append(hashlib.sha256(path.read_bytes()).hexdigest())
        except OSError as error:
            problems.append(str(error))
    if problems:
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise OSError(
            f"{len(problems)} of {len(found)} pictures cannot be read: "
            f"{'; '.join(problems[:NAMED])}{more}"
        )
    paths, labels = zip(*found, strict=True)
    return Pictures(list(classes), list(paths), list(labels), keys)


def find_folders(folder: Path) -> tuple[list[str], list[tuple[Path, int]], list[tuple[Path, int]]]:
    """The classes of FOLDER/train/CLASS/*, its pictures, and those of FOLDER/val/CLASS/*.

    Raises NotADirectoryError where one of the two is missing, ValueError for less than two classes
    or one of val's that train lacks, FileNotFoundError for a class without pictures.
    """
    for split in ("train", "val"):
        if not (folder / split).is_dir():
            raise NotADirectoryError(
                f"{folder}: no folder {split}; expected train/CLASS/* and val/CLASS/* in it"
            )
    classes = [path.name for path in class_folders(folder / "train")]
    if len(classes) < 2:
        raise ValueError(f"{folder / 'train'}: expected at least two classes, got {classes[0]!r}")
    train, val = (find_pictures(folder / split, classes) for split in ("train", "val"))
    return classes, train, val


def read_folders(folder: Path, progress: Progress = iter) -> tuple[Pictures, Pictures]:
    """The pictures to train and to validate on. Raises what find_folders and read_pictures do."""
    classes, train, val = find_folders(folder)
    _, paths, labels, keys = read_pictures(train + val, classes, progress)
    n = len(train)
    return (
        Pictures(classes, paths[:n], labels[:n], keys[:n]),
        Pictures(classes, paths[n:], labels[n:], keys[n:]),
    )


def digest(*splits: Pictures) -> str:
    """What identifies data: classes, and every file's content in order."""
    content = json.dumps([(p.classes, p.labels, p.keys) for p in splits])
    return hashlib.sha256(content.encode()).hexdigest()


def resized(to: Preprocessing, image_size: int | None) -> Preprocessing:
    """A preprocessing with another crop (None: its own), the resized side in proportion."""
    if image_size is None:
        return to
    return to._replace(resize=round(to.resize * image_size / to.crop), crop=image_size)


def augmentation(to: Preprocessing) -> Callable:
    """From an RGB image of Pillow's to what a network trains on, (3, crop, crop): a random part of
    it, mirrored or not, its colours changed a little."""
    v2 = require("torchvision.transforms.v2")
    scale, mode = (LEAST_CROP, 1.0), v2.InterpolationMode(to.interpolation)
    return v2.Compose(
        [
            v2.RandomResizedCrop(to.crop, scale=scale, interpolation=mode),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(JITTER, JITTER, JITTER),
            eval_transform(to._replace(resize=to.crop)),
        ]
    )


def view(to: Preprocessing, number: int) -> Callable:
    """The transform of a view: 0 what is evaluated, 1 its mirror image, from 2 on random ones."""
    if number >= 2:
        return augmentation(to)
    v2 = require("torchvision.transforms.v2")
    return v2.Compose([eval_transform(to), v2.RandomHorizontalFlip(p=float(number))])


class Reader:
    """Reads an example as (tensor, class), the transform's randomness seeded by the example, so
    that no other example, batch or process has a part in it."""

    def __init__(self, transform: Callable) -> None:
        self.transform = transform

    def __getitem__(self, example: Example) -> tuple["torch.Tensor", int]:
        torch = require("torch")
        path, label, entropy = example
        (seed,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
        image = open_rgb(path)
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(int(seed))
            return self.transform(image), label


def loader(
    transform: Callable, batches: Sequence[Sequence[Example]], workers: int = 0
) -> "torch.utils.data.DataLoader":
    """A DataLoader of these batches: (n, 3, crop, crop) float32 and (n,) int64."""
    torch = require("torch")
    return torch.utils.data.DataLoader(
        Reader(transform),
        batch_sampler=batches,
        num_workers=workers,
        worker_init_fn=_ignore_interrupt,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # it would draw from the one that dropout uses
    )


def _ignore_interrupt(_worker: int) -> None:
    """Ctrl-C is the main process's, which still needs the batch at hand."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def in_order(pictures: Pictures, size: int) -> list[list[Example]]:
    """Batches in the order of the pictures."""
    examples = [(p, c, (0,)) for p, c in zip(pictures.paths, pictures.labels, strict=True)]
    return [examples[i : i + size] for i in range(0, len(examples), size)]


def shuffled(count: int, size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """An epoch's indices in random order, in as few batches as have at most `size` each, of nearly
    the same size, as batch normalisation fails on a batch of one."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return np.array_split(order, -(-count // size))


def random_batches(
    pictures: Pictures, transform: Callable, size: int, seed: int, workers: int
) -> Callable[[int, int], Iterable]:
    """batches(epoch, first) of a Training: each epoch in another order, each example of it
    transformed in another way, whatever was read before."""

    def batches(epoch: int, first: int) -> Iterable:
        groups = shuffled(len(pictures.paths), size, seed, epoch)[first:]
        examples = [
            [(pictures.paths[i], pictures.labels[i], (seed, epoch, i)) for i in group.tolist()]
            for group in groups
        ]
        return loader(transform, examples, workers)

    return batches
