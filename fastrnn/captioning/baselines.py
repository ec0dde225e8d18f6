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


def nearest(
    training: np.ndarray, rows: np.ndarray, count: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Of training's rows of features (n, ...) the count at the least angles to each of rows
    (N, ...), the nearest first, fewer where there are fewer: their indices and cosines, (N, count);
    both may be arrays or give slices of rows."""
    ours, begin = np.concatenate([_unit(block) for block in blocks(rows)]), 0
    found, cosines = np.empty((len(rows), 0), int), np.empty((len(rows), 0), np.float32)
    for block in blocks(training):
        index = np.broadcast_to(np.arange(begin, begin + len(block)), (len(rows), len(block)))
        found = np.concatenate([found, index], axis=1)
        cosines = np.concatenate([cosines, ours @ _unit(block).T], axis=1)
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        found, cosines = (np.take_along_axis(a, order, axis=1) for a in (found, cosines))
        begin += len(block)
    return found, cosines


def _unit(rows: np.ndarray) -> np.ndarray:
    flat = np.reshape(rows, (len(rows), -1)).astype(np.float32)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
