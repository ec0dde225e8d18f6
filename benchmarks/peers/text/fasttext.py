"""fastText: the mean of word vectors and a linear layer, asked for all labels with their
probabilities."""

import os
import tempfile
from functools import partial
from pathlib import Path

import fasttext
import numpy as np

from fastrnn.backends import get_num_threads
from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.peers import Idiom
from fastrnn.benchmarks.texts import CLASSES, some_labelled
from fastrnn.text.formats import PREFIX

# Fewer than its 5 epochs of the race's do not suffice, however few there are.
SENTENCES = 100_000
# Each fills a tenth of the word vectors, the eleventh what is over: of fewer the rest is whatever
# the memory held, at times NaN (0.9.3).
THREADS = 11


def build(case: Case, operands: dict[str, object]) -> dict[str, Idiom]:
    """Averaged word vectors, trained and asked; its numbers are float32."""
    if case.cell != "avg" or case.dtype != "float32":
        return {}
    if hasattr(os, "sched_setaffinity"):  # its threads are more, their CPUs are not
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: get_num_threads()])
    return {"": (_fit if case.direction == "fit" else _predict)(case, **operands)}


def _fit(case: Case, texts, y, dev_texts, dev_y) -> Idiom:
    def collect(model) -> dict[str, np.ndarray]:
        labels, _ = _ask(model, dev_texts, 1)
        said = [int(label.removeprefix(PREFIX)) for (label,) in labels]
        return {"accuracy": np.mean(said == dev_y)}

    return Idiom(partial(_train, case, texts, y), collect)


def _predict(case: Case, text: str) -> Idiom:
    """By a model of its own, which ours cannot be put into: it reads the line's end as a word."""
    model = _train(case, *some_labelled(case))
    return Idiom(partial(_ask, model, [text], len(CLASSES)), None)


def _train(case: Case, texts, y):
    """It reads nothing but files."""
    options = {"dim": case.D, "epoch": max(5, SENTENCES // len(texts)), "thread": THREADS}
    with tempfile.TemporaryDirectory(prefix="fasttext-") as folder:
        path = Path(folder) / "train.txt"
        lines = (f"{PREFIX}{label} {text}\n" for text, label in zip(texts, y, strict=True))
        path.write_text("".join(lines), encoding="utf-8")
        return fasttext.train_supervised(str(path), verbose=0, **options)


def _ask(model, texts: list[str], k: int):
    """Labels and probabilities, of a list: of one text predict fails with NumPy 2."""
    return model.predict(texts, k=k)
