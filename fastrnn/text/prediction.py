"""Labels for the texts of a file, as they come: what `fastrnn classify predict` does."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from fastrnn.printing import printable
from fastrnn.text.corpus import name_of, read_rows
from fastrnn.text.detection import AUTO
from fastrnn.text.formats import LINES
from fastrnn.text.model import TextModel

SEVERAL = "|"  # between the predicted labels of a text
CHUNK = 1 << 18  # characters that are classified together: some thousand lines


def predict(
    model: TextModel,
    path: Path | str,
    *,
    proba: bool = False,
    top: int = 0,
    threshold: float | None = None,
    chunk: int = CHUNK,
    tell: Callable[[str], object] = lambda said: None,
    **reading: object,
) -> Iterator[str]:
    """Classify the texts of a file, or with "-" of the standard input, as they come.

    Inputs: chunk, characters that are read before they are classified, 0 for every text by itself;
    in memory there is one chunk, or the longest line; top, how many labels to name with their
    probabilities, the likeliest first, 0 for those that are predicted alone; threshold, the
    probability without which no label is named (None: the model's); reading, as read_rows takes it;
    tell, gets in a line what the file seems to be where that is more than a text a line.
    Returns: with proba first a line of the columns' names; then for one chunk after the other as
    many lines as it has texts: labels, and with proba, after tabs, the classes' probabilities.
    Raises what form_of raises and, when it gets there, what read_rows says.
    """
    classes = [*map(printable, model.classes)]
    lines = texts_of(model, path, tell, reading)
    if proba:
        yield "\t".join(["label", *map("p({})".format, classes)]) + "\n"
    for texts in _chunks(lines, chunk):
        p = model.predict_proba(texts)
        rows = _answers(model, p, classes, top, threshold)
        if proba:
            form = "\t".join(["{}"] + ["{:.6g}"] * len(classes)).format
            rows = [form(label, *row) for label, row in zip(rows, p.tolist(), strict=True)]
        yield "\n".join(rows) + "\n"


def texts_of(
    model: TextModel, path: Path | str, tell: Callable[[str], object], reading: dict[str, object]
) -> Iterator[str]:
    """The texts of a file to predict for."""
    # What comes slowly is judged by its first line: who sent it waits for the answer.
    head = {"head": 1} if str(path) == "-" else {}
    known = {*map(str, model.classes)}
    form, rows = read_rows(path, classes=known, labelled=False, **head, **reading)
    if form.kind != LINES and reading.get("file_format", AUTO) == AUTO:
        tell(f"{name_of(path)}: read as {form}")
    return (row.text for row in rows)


def _answers(
    model: TextModel, proba: np.ndarray, classes: list[str], top: int, threshold: float | None
) -> list[str]:
    """A line a text: its labels, or pairs of label and probability of the top likeliest ones."""
    least = 0.0 if threshold is None else threshold
    if top:
        order = np.argsort(-proba, axis=1, kind="stable")[:, :top].tolist()
        rows = zip(order, proba.tolist(), strict=True)
        named = ([f"{classes[i]}\t{p[i]:.6g}" for i in best if p[i] >= least] for best, p in rows)
        return ["\t".join(pairs) for pairs in named]
    if model.multilabel:
        said = model.decide(proba) if threshold is None else proba >= threshold
        return [SEVERAL.join(classes[i] for i in np.flatnonzero(row)) for row in said]
    sure = proba.max(axis=1) >= least
    best = zip(proba.argmax(axis=1).tolist(), sure, strict=True)
    return [classes[i] if is_sure else "" for i, is_sure in best]


def _chunks(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lines together as soon as they have so many characters, line ends included."""
    chunk, length = [], 0
    for line in lines:
        chunk.append(line)
        length += len(line) + 1
        if length >= size:
            yield chunk
            chunk, length = [], 0
    if chunk:
        yield chunk
