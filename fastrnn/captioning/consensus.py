"""Choosing among the captions that a beam has found by what people said of pictures alike."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain

import numpy as np

from fastrnn.captioning import baselines
from fastrnn.captioning.decode import Hypotheses
from fastrnn.captioning.metrics import ngrams, words_of
from fastrnn.captioning.partial import Rows
from fastrnn.captioning.vocabulary import decode_captions

NEIGHBOURS = 90
KEPT = 5000  # training pictures whose n-grams stay in memory


class Consensus:
    """Ranks captions of a picture by their score plus weight times their likeness to those of the
    training pictures whose features are the most alike (Devlin et al. 2015): the mean cosine of
    n-grams of one to four words, weighted by how few training pictures have them as in CIDEr
    (Vedantam et al. 2015), a neighbour counting by the cosine of its features.

    Parameters: features (n, ...) of training pictures, references, their captions as lists of
    words; idx_to_word, the captioner's; weight. Raises ValueError for a weight out of range and
    without pictures.
    """

    def __init__(
        self,
        features: np.ndarray | Rows,
        references: Sequence[list[list[str]]],
        idx_to_word: Mapping[int, str],
        weight: float,
    ) -> None:
        if not 0 <= weight < np.inf:
            raise ValueError(f"consensus: expected a number of at least 0, got {weight}")
        if not references:
            raise ValueError("consensus: expected training pictures with captions")
        self.features, self.references, self.weight = features, references, weight
        self.words = [idx_to_word[i] for i in range(len(idx_to_word))]
        some = references[:: -(-len(references) // baselines.MOST_PICTURES)]
        said = ({*chain.from_iterable(map(ngrams, captions))} for captions in some)
        self._having, self._pictures = Counter(chain.from_iterable(said)), len(some)
        self._of_picture = lru_cache(KEPT)(self._mean)

    def __call__(self, features: np.ndarray, found: Hypotheses) -> np.ndarray:
        """Which of the hypotheses found for pictures is ranked first: indices (N,).

        Inputs: features (N, ...).
        """
        alike, cosines = baselines.nearest(self.features, features, NEIGHBOURS)
        shares = np.maximum(cosines, 0)
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
        likeness = [
            [*self._likeness(*around, decode_captions(captions, self.words))]
            for *around, captions in zip(alike.tolist(), shares.tolist(), found.words, strict=True)
        ]
        return (found.scores + self.weight * np.reshape(likeness, found.scores.shape)).argmax(
            axis=1
        )

    def _likeness(self, pictures, shares, captions):
        around: Counter = Counter()
        for picture, share in zip(pictures, shares, strict=True):
            for ngram, value in self._of_picture(picture).items():
                around[ngram] += share * value
        for caption in captions:
            vector = self._vector(words_of(caption))
            yield sum(value * around[ngram] for ngram, value in vector.items()) / 4

    def _mean(self, picture):
        """Of the vectors of a training picture's captions."""
        captions, mean = self.references[picture], Counter()
        for words in captions:
            for ngram, value in self._vector(words).items():
                mean[ngram] += value / len(captions)
        return mean

    def _vector(self, words):
        """A weight for each n-gram, those of one length together of length 1."""
        vector, squares = {}, [0.0] * 4
        for ngram, count in ngrams(words).items():
            value = count * math.log(self._pictures / max(1, self._having[ngram]))
            vector[ngram] = value
            squares[len(ngram) - 1] += value * value
        norms = [math.sqrt(square) or 1.0 for square in squares]
        return {ngram: value / norms[len(ngram) - 1] for ngram, value in vector.items()}
