"""A data set of the published layout from a folder of pictures and a file of captions."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from sys import intern
from typing import NamedTuple

import numpy as np

from fastrnn.captioning import scenes
from fastrnn.captioning.data import SPLITS, TEST, write_coco_data
from fastrnn.captioning.features import Progress, batches, check_backbone
from fastrnn.captioning.files import CaptionFile, match, read_captions
from fastrnn.captioning.partial import Partial, Rows, blocks, stamp
from fastrnn.captioning.settings import PREPARE
from fastrnn.captioning.vocabulary import build_vocabulary, encode, tokenize
from fastrnn.optional import require
from fastrnn.settings import completed
from fastrnn.storage import check_folder, locked, named

ALL = (*SPLITS, TEST)
MOST_WORDS = 100  # of a caption that is not trained on: those are references, and stay whole


class Report(NamedTuple):
    """What became of the input: counts; every picture or caption left out, with the reason; how
    many validation and test captions were cut to MOST_WORDS."""

    train_images: int
    val_images: int
    train_captions: int
    val_captions: int
    vocabulary: int
    features: int
    problems: list[str]
    test_images: int = 0
    test_captions: int = 0
    cut: int = 0


def prepare(
    images: Path | str,
    captions: Path | str,
    out: Path | str,
    *,
    progress: Progress = iter,
    note: Callable[[str], object] = lambda _: None,
    **settings: object,
) -> Report:
    """Build vocabulary, splits and features and write them in the published layout.

    Inputs: images, a folder; captions, a file for read_captions; out, the folder to write; note
    gets a line on what the captions file and the weights were taken for, and on what an earlier
    call, which was killed, had done: this one goes on from there; settings of PREPARE: backbone,
    weights and view for features.batches; pca, most principal components of them to keep, scaled to
    unit variance (0: none); val, the fraction of pictures, or with 1 and more their number, for
    validation, drawn by picture from seed where the captions file names no splits; split, the one
    in which all pictures are to be, of a data set that is there to evaluate on; min_count,
    occurrences in training captions below which a word is <UNK>; max_words, words kept of a
    training caption (others stay whole, up to MOST_WORDS); strict, to refuse where otherwise
    something is left out.
    A picture that cannot be read, a caption whose picture is missing, a caption without words and a
    picture without captions are left out and named in the report; with strict, or where half of the
    pictures or more are lost, nothing is written.
    Raises ValueError, FileNotFoundError or OSError; a data set that was in out is whole then.
    """
    s = completed(settings, PREPARE)
    check_folder(out)
    check_backbone(s["backbone"])
    if not Path(images).is_dir():
        raise NotADirectoryError(f"{images}: no such folder")
    read = read_captions(captions)
    note(f"{captions}: {read.kind}, {sum(map(len, read.captions.values()))} captions")
    file = _of_folder(read, Path(images))

    def divided(names: list[str], problems: list[str]) -> dict[str, str]:
        _refuse(s["strict"], problems)
        _check_enough(images, captions, len(names), len(read.captions), problems)
        return _divided(captions, names, file.splits, s["split"], s["val"], s["seed"])

    wanted = sorted(file.captions)
    divided(wanted, file.problems)  # what is certain to be refused is so before the work
    source = {name: s[name] for name in ("backbone", "weights", "view")}
    source["weights"] = _remembered(s["weights"])
    paths = {name: Path(images, name) for name in wanted}
    with _extracted(Path(out), paths, source, progress, note) as (store, unreadable):
        problems = file.problems + [f"{n}: cannot be read ({why})" for n, why in unreadable.items()]
        names = [name for name in wanted if name not in unreadable]
        splits = divided(names, problems)
        source["images"] = str(Path(images).resolve())
        limits = {name: s[name] for name in ("pca", "min_count", "max_words")}
        report = write(
            out, names, store.rows(names), file.captions, splits, **limits, source=source
        )
    return report._replace(problems=sorted(problems))


def _of_folder(file: CaptionFile, images: Path) -> CaptionFile:
    """A captions file whose pictures are paths from a folder; what is not there is a problem."""
    found, there = match(file.captions, images)
    captions: dict[str, list[str]] = {}
    splits, problems = {}, [*file.problems]
    for name, texts in file.captions.items():
        path, split = found.get(name), file.splits.get(name)
        if path is None:
            problems.append(f"{name}: {len(texts)} captions, but no such picture")
        elif re.search(r"[\r\n\ud800-\udfff]", path):
            problems.append(f"{path}: a name with line ends, or not of Unicode, fits no list")
        elif splits.setdefault(path, split) != split:
            raise ValueError(f"{path}: in the splits {splits[path]} and {split}")
        else:
            captions.setdefault(path, []).extend(texts)
    problems += [f"{path}: no captions" for path in {*there} - {*found.values()}]
    return CaptionFile(captions, splits if file.splits else {}, problems, file.kind)


def _refuse(strict: bool, problems: list[str]) -> None:
    if strict and problems:
        raise ValueError(f"{len(problems)} problems, first {min(problems)}")


def _check_enough(images, captions, usable: int, total: int, problems: list[str]) -> None:
    if 2 * usable <= total:
        raise ValueError(
            f"{images}: only {usable} of the {total} pictures in {captions} can be used; first "
            f"problem: {min(problems, default='none is left')}"
        )


def _divided(
    captions: Path | str,
    names: list[str],
    splits: dict[str, str],
    split: str | None,
    val: float,
    seed: int,
) -> dict[str, str]:
    """Split by picture: the one for all, that of the captions file, or a random one."""
    if split is not None:
        return dict.fromkeys(names, split)
    splits = splits or split_randomly(names, val, seed)
    for needed in SPLITS:
        if needed not in {splits[name] for name in names}:
            raise ValueError(f"{captions}: no pictures of the split {needed}")
    return splits


def _remembered(weights: str) -> str:
    return weights if weights in ("default", "none") else str(Path(weights).resolve())


@contextmanager
def _extracted(
    out: Path,
    paths: Mapping[str, Path],
    source: Mapping[str, str],
    progress: Progress,
    note: Callable[[str], object],
) -> Iterator[tuple[Partial, dict[str, str]]]:
    """Features of pictures by their names, in a folder that is this process's alone, and why the
    others have none. They go with the block's end, but stay after a kill or Ctrl-C."""
    with _held(out):
        made_with = dict(source)
        if Path(source["weights"]).is_file():
            made_with["stamp"] = stamp(Path(source["weights"]))
        store = Partial(out, made_with, len(paths))
        try:
            todo = {path: name for name, path in paths.items() if not store.has(name, path)}
            if len(todo) < len(paths):
                done = len(paths) - len(todo)
                note(f"{out}: going on where {done} of {len(paths)} pictures have been done")
            unreadable = {}
            network = source["backbone"], source["weights"]
            options = {"view": source["view"], "progress": progress, "report": note}
            for batch in batches([*todo], *network, **options):
                if batch.paths:
                    store.append({todo[path]: path for path in batch.paths}, batch.features)
                unreadable |= {todo[path]: why for path, why in batch.unreadable.items()}
            yield store, unreadable
        except (ValueError, OSError):
            store.delete()
            raise
        store.delete()


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """A block that has a folder for itself; made for it, the folder goes if it stays empty."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):
            yield
    finally:
        if made:
            with suppress(OSError):
                folder.rmdir()


def split_randomly(names: Sequence[str], val: float, seed: int) -> dict[str, str]:
    """name to "train" or "val". Raises ValueError where one of the two would be empty."""
    n = round(val * len(names)) if val < 1 else int(val)
    if not 0 < n < len(names):
        got = f"{val} of them, {n}" if val < 1 else n
        raise ValueError(f"val: expected 1 to {len(names) - 1} of {len(names)} pictures, got {got}")
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[i]: "val" if rank < n else "train" for rank, i in enumerate(order)}


def write(
    out: Path | str,
    names: Sequence[str],
    features: Rows,
    captions: Mapping[str, list[str]],
    splits: Mapping[str, str],
    *,
    pca: int,
    min_count: int,
    max_words: int,
    source: dict[str, str],
) -> Report:
    """Encode and write what has been read; source is remembered beside the features."""
    words = {name: [[*map(intern, tokenize(c))] for c in captions[name]] for name in names}
    members = {s: [i for i, name in enumerate(names) if splits[name] == s] for s in ALL}
    learnt = members["train"] or range(len(names))  # what there is, where nothing is trained on
    idx_to_word = build_vocabulary((c for i in learnt for c in words[names[i]]), min_count)
    word_to_idx = {word: i for i, word in enumerate(idx_to_word)}
    content = {}
    for split, rows in members.items():
        if rows or split in SPLITS:
            chosen = [names[i] for i in rows]
            most = max_words if split == "train" else MOST_WORDS
            content[split] = _said(chosen, captions, words, word_to_idx, most)
            content[split] |= {"features": features.take(rows), "urls": chosen}
    reduction = None
    if pca and members["train"]:
        reduction = mean, components = fit_pca(content["train"]["features"], pca)
        reduced = partial(apply_pca, mean=mean, components=components)
        for split in content.values():
            split["features_pca"] = split["features"].changed(reduced)
    write_coco_data(out, idx_to_word, content, source=source, reduction=reduction)
    images = {f"{split}_images": len(rows) for split, rows in members.items()}
    texts = {f"{s}_captions": len(content[s]["captions"]) if s in content else 0 for s in ALL}
    width = features.shape[1] if reduction is None else components.shape[1]
    scored = (c for name in names if splits[name] != "train" for c in words[name])
    cut = sum(len(caption) > MOST_WORDS for caption in scored)
    counts = {"vocabulary": len(idx_to_word), "features": width, "cut": cut}
    return Report(**images, **texts, **counts, problems=[])


def _said(names, captions, words, word_to_idx, most):
    """The captions of a split's pictures, as words and as they were written."""
    lines = [_line(*pair) for n in names for pair in zip(captions[n], words[n], strict=True)]
    return {
        "captions": encode([c for name in names for c in words[name]], word_to_idx, most),
        "image_idxs": [k for k, name in enumerate(names) for _ in words[name]],
        "texts": lines,
    }


def _line(caption: str, words: list[str]) -> str:
    """A caption as it was written, in one line of a text file; of a long one the first words."""
    if len(words) > MOST_WORDS:
        return " ".join(words[:MOST_WORDS])
    return " ".join(caption.encode(errors="replace").decode().split())


def fit_pca(features: np.ndarray | Rows, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean (D,) and at most k principal components (D, k), float32, of rows (n, D), with one
    factor on all components that makes the reduced features' variance 1 on average: backbones
    differ by orders of magnitude, and learning rates are found for features of that size.

    Raises ValueError unless k is at least 1.
    """
    if k < 1:
        raise ValueError(f"pca: expected at least 1 component, got {k}")
    n = len(features)
    mean = sum(block.sum(axis=0, dtype=np.float64) for block in blocks(features)) / n
    centred = (block - mean for block in blocks(features))
    covariance = sum(block.T @ block for block in centred) / n
    values, vectors = np.linalg.eigh(covariance)
    k = min(k, *features.shape)
    components = vectors[:, ::-1][:, :k] / np.sqrt(max(values[::-1][:k].mean(), 1e-30))
    return mean.astype(np.float32), components.astype(np.float32)


def apply_pca(features: np.ndarray, mean: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Rows (n, D) in k principal components (n, k)."""
    return (features - mean) @ components


def prepare_scenes(out: Path | str, train: int, val: int, seed: int) -> Report:
    """Make the embedded data set in a folder, pictures as PNG files included."""
    image = require("PIL.Image")
    pictures, captions = scenes.make(train + val, seed)
    folder = Path(out) / "images"
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"images/{i:05}.png" for i in range(train + val)]
    for name, picture in zip(names, pictures, strict=True):
        path = Path(out) / name
        with named(path):
            image.fromarray(picture).save(path)
    return write(
        out,
        names,
        Rows(scenes.features(pictures), np.arange(train + val)),
        dict(zip(names, captions, strict=True)),
        {name: "train" if i < train else "val" for i, name in enumerate(names)},
        pca=512,
        min_count=1,
        max_words=20,
        source={"backbone": scenes.BACKBONE, "weights": "none"},
    )
