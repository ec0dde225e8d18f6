"""What the races of texts start from: made-up labelled sentences, a classifier of them, a file of
word vectors."""

from pathlib import Path

import numpy as np

from fastrnn.benchmarks.cases import Case
from fastrnn.text.model import TextModel, build
from fastrnn.text.settings import complete
from fastrnn.text.vocabulary import UNKNOWN, Sentences, Vocabulary

BATCH = 64  # sentences a step of training
CLASSES = (0, 1)
# The classifier that every library has: the last state of one network, nothing dropped out.
PLAIN = {
    "bidirectional": False,
    "pooling": "last",
    "dropout": 0.0,
    "embedding_dropout": 0.0,
    "word_dropout": 0.0,
}
# Standard deviation of a word's log-odds; with it a bag of words is right for some 96 % of new
# sentences, as for reviews.
LOG_ODDS = 1.5


def draw(case: Case, folder: Path) -> dict[str, object]:
    """Operands by name.

    Inputs: folder for files, which are written where they are not there yet.
    Returns: of "training" sentences and y (N,); of "fit" texts, y, and dev_texts, dev_y, a quarter
    as many; of "predict" text; of "load" path, and words, which are wanted.
    """
    if case.direction == "load":
        path = folder / f"vectors-{case.N}-{case.D}.txt"
        if not path.exists():
            write_vectors(path, case.N, case.D)
        wanted = np.random.default_rng(0).permutation(case.N)[: case.V]
        return {"path": path, "words": [f"w{i}" for i in wanted]}
    if case.direction == "predict":
        words = np.random.default_rng(0).integers(1, case.V, size=case.T)
        return {"text": " ".join(f"w{i}" for i in words)}
    if case.direction == "training":
        sentences, y = make_sentences(case.N, case.T, case.V)
        return {"sentences": sentences, "y": y}
    texts, y = make_texts(case.N + case.N // 4, case.T, case.V)
    left, held_out = slice(case.N), slice(case.N, None)
    return {
        "texts": texts[left],
        "y": y[left],
        "dev_texts": texts[held_out],
        "dev_y": y[held_out],
    }


def make_texts(n: int, longest: int, V: int) -> tuple[list[str], np.ndarray]:
    """The sentences of make_sentences as strings, and their classes (n,)."""
    sentences, y = make_sentences(n, longest, V)
    return [" ".join(f"w{i}" for i in words) for words in split(sentences)], y


def some_labelled(case: Case) -> tuple[list[str], np.ndarray]:
    """Texts and classes for whoever has to train a model to have one that predicts."""
    return make_texts(1000, 40, case.V)


def make_sentences(n: int, longest: int, V: int) -> tuple[Sentences, np.ndarray]:
    """Draw sentences of words 1..V - 1 and their classes (n,).

    Lengths are as those of real sentences, 10 on average and from 1 to longest; words follow Zipf's
    law, and each is likelier in one of the classes.
    """
    rng = np.random.default_rng(0)
    lengths = np.minimum(1 + rng.negative_binomial(4, 4 / 13, size=n), longest)
    y = rng.integers(len(CLASSES), size=n)
    log_odds = LOG_ODDS * rng.standard_normal(V - 1)
    words = np.empty(lengths.sum(), np.intp)
    for label in CLASSES:
        p = np.exp((label - 0.5) * log_odds) / np.arange(1, V)
        here = np.repeat(y == label, lengths)
        words[here] = rng.choice(np.arange(1, V), size=here.sum(), p=p / p.sum())
    return Sentences(words, np.concatenate([[0], np.cumsum(lengths)])), y


def split(sentences: Sentences) -> list[np.ndarray]:
    """The words of each sentence."""
    return np.split(sentences.words, sentences.first[1:-1])


def classifier(case: Case) -> TextModel:
    """fastrnn's untrained classifier of a case, with the same parameters in every process."""
    sizes = {"embedding_dim": case.D or 1, "hidden_dim": case.H or 1}
    settings = complete({"model": case.cell, "dtype": case.dtype, **PLAIN, **sizes})
    network = build(settings, case.V, len(CLASSES), seed=0)
    rng = np.random.default_rng(0)
    for w in network.params.values():  # the weights of a bag of words are zeros at first
        w += 0.1 * rng.standard_normal(w.shape)
    vocabulary = Vocabulary([UNKNOWN, *(f"w{i}" for i in range(1, case.V))])
    return TextModel(vocabulary, CLASSES, [network], settings)


def write_vectors(path: Path, rows: int, dim: int) -> None:
    """Write a file of word vectors as GloVe's are: a line "w0 number ... number" a word."""
    rng = np.random.default_rng(0)
    numbers = [f"{x:.5f}" for x in 0.4 * rng.standard_normal(1 << 16)]
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            drawn = rng.integers(len(numbers), size=dim).tolist()
            file.write(f"w{row} {' '.join(map(numbers.__getitem__, drawn))}\n")
