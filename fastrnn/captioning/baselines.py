"""What a captioner's figures are to be read beside: captions by no model at all."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np

from fastrnn.captioning.metrics import ngrams
from fastrnn.captioning.partial import blocks

MOST_PICTURES = 5000  # of which the constant caption is chosen


def constant(references: Sequence[list[list[str]]]) -> list[str]:
    """Of all captions of pictures the one that has the highest BLEU-4 when it is said of every one
    of them (and, of those alike, the highest BLEU-1), an n-gram counting once a picture.

    Inputs: references, for each picture its captions as lists of words, of which no more than
    MOST_PICTURES are looked at. Returns: its words.
    """
    references = references[:: -(-len(references) // MOST_PICTURES)]
    counted = [[ngrams(words) for words in captions] for captions in references]
    having = Counter(chain.from_iterable(set().union(*captions) for captions in counted))
    lengths = [[len(words) for words in captions] for captions in references]
    closest = {
        n: sum(min(of_one, key=lambda length: (abs(length - n), length)) for of_one in lengths)
        for n in {*chain.from_iterable(lengths)}
    }

    def bleu(words: tuple[str, ...]) -> tuple[float, float]:
        found = [0] * 4
        for ngram in ngrams(words):
            found[len(ngram) - 1] += having[ngram]
        said = [len(references) * max(0, len(words) - n) for n in range(4)]
        brevity = math.exp(min(0.0, 1 - closest[len(words)] / max(1, said[0])))
        precision = [a / max(1, b) for a, b in zip(found, said, strict=True)]
        return brevity * math.prod(precision) ** 0.25, brevity * precision[0]

    candidates = sorted({tuple(words) for captions in references for words in captions})
    return [*max(candidates, key=bleu)]


def nearest(training: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of training's rows of features (n, ...) the one at the least angle to each of rows (N, ...),
    as indices (N,); both may be arrays or give slices of rows."""
    best = np.full(len(rows), -np.inf)
    found = np.zeros(len(rows), int)
    ours, begin = np.concatenate([_unit(block) for block in blocks(rows)]), 0
    for block in blocks(training):
        cosine = ours @ _unit(block).T
        first = cosine.argmax(axis=1)
        value = cosine[np.arange(len(rows)), first]
        better = value > best
        best[better], found[better] = value[better], begin + first[better]
        begin += len(block)
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    flat = np.reshape(rows, (len(rows), -1)).astype(np.float32)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
