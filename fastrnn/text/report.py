"""The report of a run of `fastrnn classify`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrnn import report
from fastrnn.report.classifier import classified, labelled
from fastrnn.solver import Solver
from fastrnn.text.explanation import Explanation, explain
from fastrnn.text.model import TextModel
from fastrnn.text.vocabulary import TOKENIZERS

COLORS = (
    "Blue words speak for the class that is named, red ones against it: without them its "
    "probability would be lower, or higher."
)
# Tokens that are read to explain texts: a text's are read as often as it has some.
MOST_READ = 1_000_000


class Judged(NamedTuple):
    """What a model says of labelled texts: figures; y (N,), or of several labels (N, C); proba
    (N, C); the C classes' names, perhaps more than the model has."""

    figures: dict
    y: np.ndarray
    proba: np.ndarray
    classes: list[str]


def write(
    folder: Path,
    name: str,
    model: TextModel,
    texts: Sequence[str],
    judged: Judged,
    solvers: Sequence[Solver] = (),
) -> None:
    """Add to a run's report what its model says of texts; of a training also how it went. What
    keeps the report from being made is a warning."""
    figures, y, proba, classes = judged
    title, show = f"Texts of {name}", _Shown(model, texts)
    with report.attempted(folder):
        if model.multilabel:
            known = len(model.classes)
            predicted = model.decide(proba[:, :known])
            predicted = np.pad(predicted, ((0, 0), (0, len(classes) - known)))
            section = labelled(title, figures, y, predicted, proba, classes, show, COLORS)
        else:
            section = classified(title, figures, y, proba, classes, show, COLORS)
        training = {"training": _training(solvers)} if solvers else {}
        report.add(folder, training | {name: section})


class _Shown:
    """A text as a report has it, by its number: its words, coloured by what they mean to the
    likeliest class, as long as that is quick."""

    def __init__(self, model: TextModel, texts: Sequence[str]) -> None:
        self.model, self.texts, self.left = model, texts, MOST_READ

    def __call__(self, i: int) -> dict[str, object]:
        tokens = TOKENIZERS[self.model.vocabulary.tokenizer](self.texts[i])
        self.left -= len(tokens) ** 2
        if self.left < 0:
            return {"words": [(token, 0.0) for token in tokens]}
        said = explain(self.model, self.texts[i])
        return _colored(said, int(said.proba.argmax()))


def _colored(said: Explanation, c: int) -> dict[str, object]:
    """A text as keywords of report.card: its words, by how they moved a class, and the strongest of
    them in a line."""
    moved = [(token, by) for token, by in said.strongest(c, 3) if abs(by) >= 0.005]
    strongest = " ".join(f"“{token}” {by:+.2f}" for token, by in moved)
    words = [*zip(said.tokens, said.moved[:, c].tolist(), strict=True)]
    return {"words": words, "lines": [("moved by", strongest)] if strongest else []}


def explained(said: Explanation, label: str, c: int, truth: str = "") -> dict[str, object]:
    """A text, whole, for write_explained: class c, whose name is label, and the true one where it
    is known."""
    own = _colored(said, c)
    own["lines"] = [*([("true", truth)] if truth else []), *own["lines"]]
    return report.card(f"{label} · {said.proba[c]:.1%}", most_words=len(said.tokens), **own)


def write_explained(path: Path, title: str, cards: Sequence[dict]) -> None:
    """Write a page, as long as it gets, of texts that were explained. Raises OSError."""
    texts = report.examples("", cards, {}, note=COLORS)
    report.write(path, title, {"texts": report.section("Texts", [texts])}, limit=None)


def _training(solvers: Sequence[Solver]) -> dict[str, object]:
    scores = {"train_accuracy": "training", "dev_accuracy": "dev", "dev_macro_f1": "dev macro F1"}
    return report.trained(solvers, "dev", scores, ("dev_accuracy", "dev accuracy"))
