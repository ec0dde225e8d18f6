"""A data set of the published layout from a folder of pictures and a file of captions."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrnn.captioning import scenes
from fastrnn.captioning.data import SPLITS, write_coco_data
from fastrnn.captioning.features import Progress, extract
from fastrnn.captioning.vocabulary import build_vocabulary, encode, tokenize
from fastrnn.optional import require
from fastrnn.storage import check_folder, named, reading
from fastrnn.vision.images import list_images


class CaptionFile(NamedTuple):
    """captions and, where the file has them, splits by picture; problems, a line each."""

    captions: dict[str, list[str]]
    splits: dict[str, str]
    problems: list[str]


class Report(NamedTuple):
    """What became of the input: counts, and every picture or caption left out, with the reason."""

    train_images: int
    val_images: int
    train_captions: int
    val_captions: int
    vocabulary: int
    features: int
    problems: list[str]


def read_captions(path: Path | str) -> CaptionFile:
    """Read captions by picture: CSV with the columns image and caption, COCO's captions JSON, or
    Karpathy's dataset JSON (whose splits are kept; its restval counts as train).

    Raises FileNotFoundError, and ValueError that names the file for any other content. An empty
    caption is left out and named.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    with reading(path, "UTF-8"):
        text = path.read_text(encoding="utf-8-sig")
    is_json = text.lstrip()[:1] in ("{", "[")
    with named(path, "a JSON file" if is_json else "CSV"):
        pairs, splits = _json_pairs(path, text) if is_json else (_csv_pairs(path, text), {})
    captions: dict[str, list[str]] = {}
    problems = []
    for image, caption in pairs:
        if tokenize(caption):
            captions.setdefault(image, []).append(caption)
        else:
            problems.append(f"{image}: a caption without words ({caption.strip()!r})")
    if not captions:
        raise ValueError(f"{path}: no captions")
    return CaptionFile(captions, splits, problems)


def _csv_pairs(path: Path, text: str) -> list[tuple[str, str]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if not {"image", "caption"} <= set(rows.fieldnames or ()):
        raise ValueError(f"{path}: expected the columns image,caption, got {rows.fieldnames}")
    pairs = []
    try:
        for row in rows:
            # An unquoted comma belongs to the caption where that is the last column.
            surplus = row.pop(None, [])
            if surplus and rows.fieldnames[-1] == "caption":
                row["caption"] = ",".join([row["caption"], *surplus])
                surplus = []
            if not row["image"] or row["caption"] is None or surplus:
                raise ValueError(f"{path}:{rows.line_num}: expected image,caption, got {row}")
            pairs.append((row["image"], row["caption"]))
    except csv.Error as error:
        raise ValueError(f"{path}:{rows.line_num}: {error}") from None
    return pairs


def _json_pairs(path: Path, text: str) -> tuple[list[tuple[str, str]], dict[str, str]]:
    try:
        content = json.loads(text)
        images = content["images"]
        if "annotations" in content:  # COCO
            names = {image["id"]: image["file_name"] for image in images}
            notes = content["annotations"]
            # A name that no picture has stands for an annotation whose picture is not listed.
            pairs = [(names.get(a["image_id"], f"id {a['image_id']}"), a["caption"]) for a in notes]
            splits = {}
        else:
            pairs = [(i["filename"], s["raw"]) for i in images for s in i["sentences"]]
            splits = {i["filename"]: i["split"].replace("restval", "train") for i in images}
    except KeyError as error:
        raise ValueError(
            f"{path}: expected COCO's captions or Karpathy's dataset, but {error} is missing"
        ) from None
    except (AttributeError, TypeError):
        raise ValueError(f"{path}: expected COCO's captions or Karpathy's dataset") from None
    for name, caption in pairs:
        if not isinstance(name, str) or not isinstance(caption, str):
            raise ValueError(f"{path}: {name}: expected text for a caption, got {caption!r}")
    return pairs, splits


def prepare(
    images: Path | str,
    captions: Path | str,
    out: Path | str,
    *,
    backbone: str = "squeezenet1_1",
    weights: str = "default",
    pca: int = 512,
    val: float = 0.125,
    min_count: int = 2,
    max_words: int = 15,
    strict: bool = False,
    seed: int = 0,
    progress: Progress = iter,
) -> Report:
    """Build vocabulary, splits and features and write them in the published layout.

    Inputs: images, a folder; captions, a file for read_captions; out, the folder to write; backbone
    and weights for features.extract; pca, most principal components of them to keep as well, scaled
    to unit variance (0: none); val, the
    fraction of pictures, or with 1 and more their number, for validation, drawn by picture from
    seed where the captions file names no splits; min_count, occurrences in training captions below
    which a word is <UNK>; max_words, words kept of a training caption (validation captions stay
    whole); strict, to refuse where otherwise something is left out.
    A picture that cannot be read, a caption whose picture is missing, a caption without words and a
    picture without captions are left out and named in the report; with strict, or where half of the
    pictures or more are lost, nothing is written.
    Raises ValueError or FileNotFoundError.
    """
    check_folder(out)
    paths = {path.name: path for path in list_images(images)}
    file = read_captions(captions)
    problems = list(file.problems)
    for name in file.captions.keys() - paths.keys():
        problems.append(f"{name}: {len(file.captions[name])} captions, but no such picture")
    for name in paths.keys() - file.captions.keys():
        problems.append(f"{name}: no captions")
    wanted = []
    for name in sorted(file.captions.keys() & paths.keys()):
        split = file.splits.get(name, "train")
        if split in SPLITS:
            wanted.append(name)
        else:
            problems.append(f"{name}: of the split {split}")
    _refuse(strict, problems)
    got = extract([paths[name] for name in wanted], backbone, weights, progress=progress)
    problems += [f"{name}: cannot be read ({why})" for name, why in got.unreadable.items()]
    _refuse(strict, problems)
    if 2 * len(got.names) <= len(file.captions):
        raise ValueError(
            f"{images}: only {len(got.names)} of the {len(file.captions)} pictures in {captions} "
            f"can be used; first problem: {min(problems, default='none is left')}"
        )
    splits = file.splits or split_randomly(got.names, val, seed)
    for split in SPLITS:
        if split not in {splits[name] for name in got.names}:
            raise ValueError(f"{captions}: no pictures of the split {split}")
    report = write(
        out,
        got.names,
        got.features,
        file.captions,
        splits,
        pca,
        min_count,
        max_words,
        {
            "backbone": backbone,
            "weights": _remembered(weights),
            "images": str(Path(images).resolve()),
        },
    )
    return report._replace(problems=sorted(problems))


def _refuse(strict: bool, problems: list[str]) -> None:
    if strict and problems:
        raise ValueError(f"{len(problems)} problems, first {min(problems)}")


def _remembered(weights: str) -> str:
    return weights if weights in ("default", "none") else str(Path(weights).resolve())


def split_randomly(names: Sequence[str], val: float, seed: int) -> dict[str, str]:
    """name to "train" or "val". Raises ValueError where one of the two would be empty."""
    n = round(val * len(names)) if val < 1 else int(val)
    if not 0 < n < len(names):
        raise ValueError(f"val: expected 1 to {len(names) - 1} of {len(names)} pictures, got {n}")
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[i]: "val" if rank < n else "train" for rank, i in enumerate(order)}


def write(
    out: Path | str,
    names: Sequence[str],
    features: np.ndarray,
    captions: dict[str, list[str]],
    splits: dict[str, str],
    pca: int,
    min_count: int,
    max_words: int,
    source: dict[str, str],
) -> Report:
    """Encode and write what has been read; source is remembered beside the features."""
    words = {name: [tokenize(caption) for caption in captions[name]] for name in names}
    members = {s: [i for i, name in enumerate(names) if splits[name] == s] for s in SPLITS}
    idx_to_word = build_vocabulary(
        (caption for i in members["train"] for caption in words[names[i]]), min_count
    )
    word_to_idx = {word: i for i, word in enumerate(idx_to_word)}
    content: dict[str, dict[str, object]] = {}
    for split, rows in members.items():
        pairs = [(k, caption) for k, i in enumerate(rows) for caption in words[names[i]]]
        content[split] = {
            "captions": encode(
                [caption for _, caption in pairs],
                word_to_idx,
                max_words if split == "train" else None,
            ),
            "image_idxs": [k for k, _ in pairs],
            "features": features[rows],
            "urls": [names[i] for i in rows],
        }
    reduction = None
    if pca:
        reduction = fit_pca(content["train"]["features"], pca)
        for split in content.values():
            split["features_pca"] = apply_pca(split["features"], *reduction)
    write_coco_data(out, idx_to_word, content, source=source, reduction=reduction)
    train, val = content["train"], content["val"]
    return Report(
        len(members["train"]),
        len(members["val"]),
        len(train["captions"]),
        len(val["captions"]),
        len(idx_to_word),
        features.shape[1] if reduction is None else reduction[1].shape[1],
        [],
    )


def fit_pca(features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean (D,) and at most k principal components (D, k), float32, of rows (n, D), with one
    factor on all components that makes the reduced features' variance 1 on average: backbones
    differ by orders of magnitude, and learning rates are found for features of that size.

    Raises ValueError unless k is at least 1.
    """
    if k < 1:
        raise ValueError(f"pca: expected at least 1 component, got {k}")
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(features))
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
        scenes.features(pictures),
        dict(zip(names, captions, strict=True)),
        {name: "train" if i < train else "val" for i, name in enumerate(names)},
        pca=512,
        min_count=1,
        max_words=20,
        source={"backbone": scenes.BACKBONE, "weights": "none"},
    )
