"""The report of a run of `fastrnn caption`, and which pictures are shown of many."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrnn import report
from fastrnn.captioning.evaluation import COLUMNS, Pictures
from fastrnn.captioning.heatmaps import spotlight
from fastrnn.captioning.metrics import cider_d, words_of
from fastrnn.solver import Solver
from fastrnn.vision.thumbnails import thumbnail

RANDOM, ENDS = 24, 18  # pictures of a page; as many of the best as of the worst
GROUPS = {"random": "random", "best": "the best", "worst": "the worst"}
SCORES = {f"bleu{n}": f"BLEU-{n}" for n in range(1, 5)}
TILES = ("bleu4", "cider", "rouge_l", "meteor", "words")
ROWS = {
    "model": "this model",
    "constant": "one caption for all",
    "nearest": "nearest training picture's",
    "human": "a human, against the others",
}
LOOK, LOOK_BYTES = 120, 5_000  # of a heat-map's longer side, and of its file


class Looks(NamedTuple):
    """Pictures (height, width, 3) as a network sees them, the words that are said of each, and
    where it looks to say them, (T, L) of each."""

    pictures: list[np.ndarray]
    words: list[list[str]]
    weights: Sequence[np.ndarray]


def chosen(
    held: Pictures, samples: Sequence[str], random: int, ends: int
) -> tuple[dict[str, list[int]], np.ndarray]:
    """Random pictures, and of the others those with the best and the worst CIDEr-D, of which there
    are files if there are any, by the keys of GROUPS; and the CIDEr-D of all."""
    cider = cider_d(held.references, samples)
    there = [i for i, url in enumerate(held.urls) if (held.folder / url).is_file()]
    there = there or [*range(len(samples))]
    some = np.random.default_rng(0).permutation(there)[:random].tolist()
    ranked = sorted({*there} - {*some}, key=lambda i: -cider[i])
    ends = min(ends, len(ranked) // 2)
    worst = ranked[len(ranked) - ends :][::-1]
    return {"random": some, "best": ranked[:ends], "worst": worst}, cider


def write(
    folder: Path,
    title: str,
    held: Pictures,
    samples: Sequence[str],
    scores: Mapping[str, Mapping[str, float]],
    solvers: Sequence[Solver] = (),
    looks: Looks | None = None,
) -> None:
    """Add to a run's report captions of pictures, and scores, the model's beside others; of a
    training also how it went, and where it looks. What keeps the report from being made is a
    warning."""
    with report.attempted(folder):
        sections = {"training": _training(solvers)} if solvers else {}
        model = scores["model"]
        columns = [key for key in COLUMNS if any(key in row for row in scores.values())]
        rows = [[ROWS[who], *(row.get(key) for key in columns)] for who, row in scores.items()]
        parts = [report.table("Beside captions by no model", ["", *columns], rows)]
        parts.append(report.examples("Captions", _cards(held, samples), GROUPS))
        if looks is not None:
            parts.append(_heatmaps(looks))
        tiles = {"pictures": len(samples)} | {key: model[key] for key in TILES if key in model}
        report.add(folder, sections | {title: report.section(f"Captions: {title}", parts, tiles)})


def _cards(held: Pictures, samples: Sequence[str]) -> list[dict]:
    by_group, cider = chosen(held, samples, RANDOM, ENDS)
    cards = []
    for group, images in by_group.items():
        for i in images:
            caption, pictures = " ".join(words_of(samples[i])), []
            with suppress(OSError):  # it is missing, or broken
                pictures = [thumbnail(held.folder / held.urls[i], held.urls[i])]
            true = [("true", " ".join(words)) for words in held.references[i][:2]]
            lines = [*true, ("CIDEr-D", f"{cider[i]:.2f}"), ("file", held.urls[i])]
            cards.append(report.card(caption, lines=lines, pictures=pictures, groups=[group]))
    return cards


def _heatmaps(looks: Looks) -> dict[str, object]:
    cards = []
    for picture, words, weights in zip(*looks, strict=True):
        shown = [thumbnail(picture, "the whole picture", side=LOOK, most_bytes=LOOK_BYTES)]
        for word, places in zip(words, weights, strict=False):
            lit = spotlight(picture, places)
            alt = f"what is looked at to say {word}"
            shown.append(thumbnail(lit, alt, word, side=LOOK, most_bytes=LOOK_BYTES))
        cards.append(report.card(" ".join(words_of(" ".join(words))), pictures=shown))
    note = "Bright is what attention looks at to say the word below."
    return report.examples("Where it looks", cards, {}, note=note, width="large")


def _training(solvers: Sequence[Solver]) -> dict[str, object]:
    best, nats = ("bleu4", "BLEU-4"), "loss (nats a caption)"
    return report.trained(solvers, "val", SCORES, best, nats=nats)
