"""Folders of pictures, a folder a class; how a network sees a picture; batches of them."""

import hashlib
import json
import signal
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrnn.optional import require
from fastrnn.storage import check_regular
from fastrnn.vision.backbones import Preprocessing, eval_transform
from fastrnn.vision.images import NAMED, find_images, is_ignored, open_rgb

if TYPE_CHECKING:
    import PIL.Image
    import torch

Progress = Callable[[Iterable], Iterable]
# Path, class, and what the randomness of its transform is seeded with.
Example = tuple[Path, int, tuple[int, ...]]
# What folders of a split are called.
TRAIN, VAL, TEST = ("train", "training"), ("val", "valid", "validation"), ("test", "testing")
LAYOUTS = "train/CLASS/* and val/CLASS/* in it, or CLASS/*"
VAL_SHARE = 0.2  # of each class's pictures, set aside where there is no folder val
# Of the area, what a random crop has at least.
LEAST_CROP = 0.35
JITTER = 0.2


class Pictures(NamedTuple):
    """Picture files with their classes (indices), the sha256 of each file and of its pixels; the
    folder that they have their names from (None: each its own)."""

    classes: list[str]
    paths: list[Path]
    labels: list[int]
    keys: list[str]
    pixels: Sequence[str] = ()
    base: Path | None = None

    def names(self) -> list[str]:
        """The files' paths from the folder."""
        if self.base is None:
            return [path.name for path in self.paths]
        return [path.relative_to(self.base).as_posix() for path in self.paths]


class Listed(NamedTuple):
    """What a folder has, none of which has been opened: (path, class) of pictures to train and to
    validate on; others, files that are no pictures; val_share, what share of the pictures has been
    set aside to validate (None: they have a folder)."""

    classes: list[str]
    train: list[tuple[Path, int]]
    val: list[tuple[Path, int]]
    others: list[Path]
    val_share: float | None


class Seen(NamedTuple):
    """Of picture files the sha256 of their content and of their pixels, and why the others cannot
    be read."""

    keys: dict[Path, str]
    pixels: dict[Path, str]
    problems: dict[Path, str]


# ---- what there is -------------------------------------------------------------------------------


def class_folders(folder: Path) -> list[Path]:
    """The folders in a folder, but hidden ones. Raises NotADirectoryError where there is none."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder")
    found = sorted(path for path in folder.iterdir() if path.is_dir() and not is_ignored(path))
    if not found:
        raise NotADirectoryError(f"{folder}: no folders in it; expected one for each class")
    return found


def split_folder(folder: Path, names: Sequence[str]) -> Path | None:
    """The folder of a split in a folder, by any of its names. Raises ValueError where there are
    several."""
    inner = folder.iterdir() if folder.is_dir() else ()
    found = sorted(path for path in inner if path.is_dir() and path.name.lower() in names)
    if len(found) > 1:
        raise ValueError(f"{folder}: expected one of {found[0].name} and {found[1].name}, got both")
    return found[0] if found else None


def find_pictures(
    folder: Path, classes: Sequence[str] | None = None
) -> tuple[list[tuple[Path, int]], list[Path]]:
    """The pictures of FOLDER/CLASS/*, also of folders within, in order, each with the index of its
    class in classes (None: the folders' names); and the files that are none.

    Raises ValueError for a class that is not among them, FileNotFoundError for one without
    pictures.
    """
    folders = class_folders(folder)
    classes = [path.name for path in folders] if classes is None else classes
    for path in folders:
        if path.name not in classes:
            raise ValueError(f"{path}: class {path.name!r} is not one of {', '.join(classes)}")
    index = {name: i for i, name in enumerate(classes)}
    pictures, others = (
        [],
        [p for p in sorted(folder.iterdir()) if p.is_file() and not is_ignored(p)],
    )
    for path in folders:
        found = find_images(path)
        pictures += [(picture, index[path.name]) for picture in found.pictures]
        others += found.others
    return pictures, others


def find_folders(folder: Path, val_share: float | None = None, seed: int = 0) -> Listed:
    """What is to be learnt in FOLDER/train/CLASS/* and FOLDER/val/CLASS/*, which have other names,
    too (TRAIN, VAL); without val a share of train's pictures is set aside, drawn in each class from
    seed; without either, of FOLDER/CLASS/*.

    Inputs: val_share, None for VAL_SHARE where there is no val.
    Raises NotADirectoryError where there are no such folders, ValueError for less than two classes,
    one of val's that train lacks, or a share beside val, FileNotFoundError for a class without
    pictures.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder; expected {LAYOUTS}")
    train, val = (split_folder(folder, names) for names in (TRAIN, VAL))
    if val and not train:
        raise NotADirectoryError(f"{folder}: no folder train beside {val.name}; expected {LAYOUTS}")
    if val and val_share is not None:
        raise ValueError(f"val_share: {val} is what is validated on; no share beside it")
    train = train or folder
    classes = [path.name for path in class_folders(train)]
    if len(classes) < 2:
        raise ValueError(f"{train}: expected at least two classes, got {classes[0]!r}")
    found, others = find_pictures(train, classes)
    if val:
        of_val, more = find_pictures(val, classes)
        return Listed(classes, found, of_val, others + more, None)
    val_share = VAL_SHARE if val_share is None else val_share
    aside = _set_aside([label for _, label in found], val_share, seed)
    if not aside:
        raise ValueError(f"{train}: no class has two pictures, one of which could be set aside")
    kept = [example for i, example in enumerate(found) if i not in aside]
    return Listed(classes, kept, [found[i] for i in sorted(aside)], others, val_share)


def _set_aside(labels: Sequence[int], share: float, seed: int) -> set[int]:
    """Of each class so many, at least one, if one is left."""
    labels, rng, aside = np.asarray(labels), np.random.default_rng(seed), set()
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(share * len(members))), len(members) - 1)
        aside |= {*members[:count].tolist()}
    return aside


# ---- what is in it -------------------------------------------------------------------------------


def file_key(path: Path) -> str:
    """The sha256 of a file's content. Raises OSError that names it where it cannot be read."""
    try:
        check_regular(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).removeprefix(f"{path}: ")
        raise OSError(f"{path}: not a readable picture ({reason})") from None


def pixels_key(image: "PIL.Image.Image") -> str:
    """The sha256 of an image's pixels."""
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()


def look(paths: Sequence[Path], at_least: int | None, progress: Progress = iter) -> Seen:
    """Open every picture once, as open_rgb does with at_least."""
    seen = Seen({}, {}, {})
    for path in progress(paths):
        try:
            seen.keys[path] = file_key(path)
            seen.pixels[path] = pixels_key(open_rgb(path, at_least))
        except OSError as error:
            seen.problems[path] = str(error)
    return seen


def check_readable(
    found: Sequence[tuple[Path, int]], seen: Seen, skip: bool, note: Callable[[str], object]
) -> None:
    """Note which pictures cannot be read, or unless they are to be skipped, raise OSError that
    counts them and names some."""
    problems = [seen.problems[path] for path, _ in found if path in seen.problems]
    if not problems:
        return
    if not skip or len(problems) == len(found):
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise OSError(
            f"{len(problems)} of {len(found)} pictures cannot be read: "
            f"{'; '.join(problems[:NAMED])}{more}"
        )
    for problem in problems:
        note(f"left out: {problem}")


def pictures_of(
    found: Sequence[tuple[Path, int]], classes: Sequence[str], seen: Seen, base: Path
) -> Pictures:
    """Those of the pictures found that can be read."""
    good = [(path, label) for path, label in found if path not in seen.problems]
    paths, labels = ([*column] for column in zip(*good, strict=True)) if good else ([], [])
    keys, pixels = ([of[path] for path in paths] for of in (seen.keys, seen.pixels))
    return Pictures([*classes], paths, labels, keys, pixels, base)


def read_folders(folder: Path, progress: Progress = iter) -> tuple[Pictures, Pictures]:
    """The pictures to train and to validate on. Raises what find_folders does, and OSError where
    some cannot be read."""
    listed = find_folders(folder)
    found = listed.train + listed.val
    seen = look([path for path, _ in found], None, progress)
    check_readable(found, seen, False, lambda _: None)
    parts = listed.train, listed.val
    return tuple(pictures_of(part, listed.classes, seen, folder) for part in parts)


def seen_before(pictures: Pictures, keys: Collection[str], pixels: Collection[str]) -> list[int]:
    """Which pictures are among others of which the sha256 are these: the same file, or the same
    pixels in another."""
    keys, pixels = {*keys}, {*pixels}
    pairs = enumerate(zip(pictures.keys, pictures.pixels, strict=True))
    return [i for i, (key, pixel) in pairs if key in keys or pixel in pixels]


def absent(pictures: Pictures) -> list[str]:
    """The classes of which there is no picture."""
    there = {*pictures.labels}
    return [name for i, name in enumerate(pictures.classes) if i not in there]


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


def enough(to: Preprocessing) -> int:
    """Of a picture's shorter side, the pixels of which no more are wanted: twice as many as it is
    resized to, and of its smallest random crop as many as the network sees."""
    return 2 * (to.resize or to.crop)


def seeded(transform: Callable, image: "PIL.Image.Image", entropy: Sequence[int]) -> "torch.Tensor":
    """A transform of an image with its randomness from some numbers alone, so that no other
    example, batch or process has a part in it."""
    torch = require("torch")
    (seed,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(int(seed))
        return transform(image)


class Reader:
    """Reads an example as (tensor, class)."""

    def __init__(self, transform: Callable, at_least: int | None = None) -> None:
        self.transform, self.at_least = transform, at_least

    def __getitem__(self, example: Example) -> tuple["torch.Tensor", int]:
        path, label, entropy = example
        return seeded(self.transform, open_rgb(path, self.at_least), entropy), label


class ViewsReader:
    """Reads (path, key, numbers) once, as (key, the pixels' sha256, views (V, 3, crop, crop)) or,
    where it cannot be read, (key, why, None)."""

    def __init__(self, to: Preprocessing, views: int) -> None:
        self.at_least, self.views = enough(to), [view(to, number) for number in range(views)]

    def __getitem__(self, example: tuple[Path, str, Sequence[int]]):
        path, key, numbers = example
        try:
            image = open_rgb(path, self.at_least)
        except OSError as error:
            return key, str(error), None
        seen = [seeded(self.views[n], image, (int(key, 16), n)) for n in numbers]
        torch = require("torch")
        return key, pixels_key(image), torch.stack(seen) if seen else torch.empty(0)


def loader(
    reader: "Reader | ViewsReader", batches: Sequence[Sequence], workers: int = 0, **options
) -> "torch.utils.data.DataLoader":
    """A DataLoader of these batches: of a Reader's (n, 3, crop, crop) float32 and (n,) int64."""
    torch = require("torch")
    return torch.utils.data.DataLoader(
        reader,
        batch_sampler=batches,
        num_workers=workers,
        worker_init_fn=_ignore_interrupt,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # it would draw from the one that dropout uses
        **options,
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
    pictures: Pictures, reader: Reader, size: int, seed: int, workers: int
) -> Callable[[int, int], Iterable]:
    """batches(epoch, first) of a Training: each epoch in another order, each example of it
    transformed in another way, whatever was read before."""

    def batches(epoch: int, first: int) -> Iterable:
        groups = shuffled(len(pictures.paths), size, seed, epoch)[first:]
        examples = [
            [(pictures.paths[i], pictures.labels[i], (seed, epoch, i)) for i in group.tolist()]
            for group in groups
        ]
        return loader(reader, examples, workers)

    return batches
