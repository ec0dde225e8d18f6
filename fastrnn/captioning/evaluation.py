"""How good a run's captions of a split are, and what that is to be read beside."""

import csv
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrnn.captioning import baselines, metrics, views
from fastrnn.captioning import data as coco
from fastrnn.captioning.captioner import Captioner
from fastrnn.captioning.partial import Rows
from fastrnn.captioning.prepare import apply_pca
from fastrnn.captioning.run import Run
from fastrnn.captioning.vocabulary import decode_captions
from fastrnn.storage import writing

BATCH = 100  # pictures that are captioned together
COLUMNS = {
    **{f"bleu{n}": f"BLEU-{n}" for n in range(1, 5)},
    **{"rouge_l": "ROUGE-L", "cider": "CIDEr-D", "meteor": "METEOR"},
    **{"words": "words", "distinct1": "distinct-1", "distinct2": "distinct-2", "novel": "novel"},
}


class Pictures(NamedTuple):
    """The captioned pictures of a split: references as lists of words; features as the run has
    them; urls, addresses or paths from folder; known, whether the data set's words are the run's,
    and unknown, how many different words of the references are not."""

    references: list[list[list[str]]]
    features: Rows
    urls: list[str]
    folder: Path
    known: bool
    unknown: int

    def take(self, index: Sequence[int]) -> "Pictures":
        """Some of them."""
        references, urls = ([values[i] for i in index] for values in (self.references, self.urls))
        return self._replace(references=references, features=self.features.take(index), urls=urls)


class Scores(NamedTuple):
    """figures of all pictures; by_picture, those that are means over pictures; missing, why others
    are not there."""

    figures: dict[str, float]
    by_picture: dict[str, np.ndarray]
    missing: list[str]


def open_pictures(run: Run, base: Path, split: str) -> Pictures:
    """The pictures of a split of a data set, for a run. Raises ValueError where their features are
    of another backbone than the run's, or not as wide."""
    content, source, rows, change = _open(run, base, split)
    references = metrics.references_by_image(content, split)
    images = np.array([*references], int)
    words = {word for captions in references.values() for words in captions for word in words}
    if not references:
        raise ValueError(f"{base}: no captions of the split {split}")
    return Pictures(
        [*references.values()],
        Rows(rows, images, change),
        [str(url) for url in content[f"{split}_urls"][images]],
        Path(source.get("images", base)),
        content["word_to_idx"] == run.model.word_to_idx,
        len(words - run.model.word_to_idx.keys()),
    )


def _open(run: Run, base: Path, split: str):
    """A data set, where its features come from, those of a split, and what makes them the run's:
    nothing where they were reduced alike."""
    if run.model.decoder == "attention":
        return _open_grids(run, base, split)
    pca, reduction = run.settings["pca"], run.reduction
    if pca and reduction is not None:
        own = coco.pca_reduction(base) if coco.has_pca(base) else None
        pca = own is not None and all(map(np.array_equal, own, reduction))
    content, source = _load(run, base, split, pca)
    if pca or reduction is None:
        columns, change = run.model.params["W_proj"].shape[0], None
    else:
        columns, change = (
            len(reduction[0]),
            partial(apply_pca, mean=reduction[0], components=reduction[1]),
        )
    return content, source, _checked(content[f"{split}_features"], columns), change


def _load(run: Run, base: Path, split: str, pca: bool):
    """A data set that has the split, and where its features come from: the run's backbone."""
    content, source = coco.load_coco_data(base, pca_features=pca), coco.feature_source(base, pca)
    coco.check_split(content, split)
    for theirs, ours in zip(_features_of(source), _features_of(run.source), strict=True):
        if None not in (theirs, ours) and theirs != ours:
            raise ValueError(f"{base}: expected features of {ours}, as the run has, got {theirs}")
    return content, source


def _checked(rows: coco.Features, columns: int) -> coco.Features:
    if rows.shape[-1] != columns:
        raise ValueError(f"{rows.path}: expected {columns} columns, got {rows.shape[-1]}")
    rows.check_finite()
    return rows


def _features_of(source: Mapping[str, str]) -> tuple[str | None, str]:
    """Their backbone, where it is told, and, in words, what it was shown."""
    shown = "whole pictures" if source.get("view") == "whole" else "pictures' centres"
    return source.get("backbone"), shown


def _open_grids(run: Run, base: Path, split: str):
    """The same of grids: the data set's own where they are reduced as the run's, else what the
    network sees in its pictures."""
    content, source = _load(run, base, split, coco.has_pca(base))
    path = views.grid_file(base, "train")
    own = coco.reduction_in(path) if path.is_file() else None
    if own is not None and all(map(np.array_equal, own, run.reduction or own)):
        rows = views.with_grids(content, base)[f"{split}_features"]
        return content, source, _checked(rows, run.model.params["W_proj"].shape[0]), None
    if run.reduction is None:
        raise ValueError(f"{base}: expected grids that are reduced as those of the run")
    return content, source, views.grids_of(base, split, *run.reduction), None


def say(captioner: Captioner, features: np.ndarray | Rows, **options) -> list[str]:
    """Decoded captions; options go to sample."""
    words = [captioner.idx_to_word[i] for i in range(len(captioner.idx_to_word))]
    samples = []
    for begin in range(0, len(features), BATCH):
        said = captioner.sample(features[begin : begin + BATCH], **options)
        samples += decode_captions(said, words)
    return samples


def score(
    references: Sequence[list[list[str]]],
    samples: Sequence[str],
    training: Sequence[list[str]] | None = None,
) -> Scores:
    """All figures of captions; training, captions that are not novel (None: not known)."""
    by_picture = {
        "rouge_l": metrics.rouge_l(references, samples),
        "cider": metrics.cider_d(references, samples),
    }
    missing = []
    try:
        by_picture["meteor"] = metrics.meteor(references, samples)
    except LookupError as error:
        missing.append(str(error))
    means = {name: float(values.mean()) for name, values in by_picture.items()}
    figures = metrics.corpus_bleu(references, samples) | means
    return Scores(figures | metrics.diversity(samples, training), by_picture, missing)


def beside(pictures: Pictures, training: Pictures | None) -> dict[str, dict[str, float]]:
    """Figures of captions by no model, by what says them: "constant", the caption that is best for
    all training pictures; "nearest", the first caption of the training picture whose features are
    the most alike; "human", one caption of each picture against its others, the mean over which one
    it is. The first two need the training pictures."""
    found, said = {}, None
    if training is not None:
        said = [words for captions in training.references for words in captions]
        constant = " ".join(baselines.constant(training.references))
        like, _ = baselines.nearest(training.features, pictures.features)
        first = [" ".join(training.references[i][0]) for i in like[:, 0]]
        for name, samples in (("constant", [constant] * len(first)), ("nearest", first)):
            found[name] = score(pictures.references, samples, said).figures
    several = [captions for captions in pictures.references if len(captions) > 1]
    turns = []
    for turn in range(max(map(len, several), default=0)):
        having = [captions for captions in several if len(captions) > turn]
        others = [captions[:turn] + captions[turn + 1 :] for captions in having]
        turns.append(score(others, [" ".join(c[turn]) for c in having], said).figures)
    if turns:
        found["human"] = {key: float(np.mean([f[key] for f in turns])) for key in turns[0]}
    return found


def table(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Lines of a table: what says the captions by its figures."""
    columns = [key for key in COLUMNS if any(key in row for row in figures.values())]
    width = max(map(len, figures))
    lines = [" ".join([" " * width, *(COLUMNS[key] for key in columns)])]
    for name, row in figures.items():
        cells = []
        for key in columns:
            shown = (
                "" if key not in row else f"{row[key]:.0f}" if key == "words" else f"{row[key]:.3f}"
            )
            cells.append(shown.rjust(len(COLUMNS[key])))
        lines.append(" ".join([name.ljust(width), *cells]))
    return lines


def write_by_picture(
    path: Path, pictures: Pictures, samples: Sequence[str], scores: Mapping[str, np.ndarray]
) -> None:
    """A CSV file of a line a picture: image, caption, its scores, and its references."""
    with writing(path, newline="", errors="surrogateescape") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption", *scores, "references"])
        for i, (url, sample) in enumerate(zip(pictures.urls, samples, strict=True)):
            caption = " ".join(metrics.words_of(sample))
            true = " / ".join(" ".join(words) for words in pictures.references[i])
            rows.writerow([url, caption, *(f"{values[i]:.4f}" for values in scores.values()), true])
