"""What people said of pictures alike: to choose among the captions of a beam, and to find words."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain

import numpy as np

from fastrnn.captioning import baselines
from fastrnn.captioning.captioner import Captioner
from fastrnn.captioning.decode import Hypotheses, State, Step, log_softmax
from fastrnn.captioning.metrics import ngrams, words_of
from fastrnn.captioning.partial import Rows
from fastrnn.captioning.vocabulary import decode_captions
from fastrnn.settings import NOT_NEGATIVE, check

NEIGHBOURS = 90
SMALL = 0.01  # a share of captions that is next to none
KEPT = 5000  # training pictures whose n-grams stay in memory


class Neighbours:
    """Training pictures, of which some are asked what people said of them.

    Parameters: features (n, ...), references, their captions as lists of words. Raises ValueError
    without pictures.
    """

    def __init__(self, features: np.ndarray | Rows, references: Sequence[list[list[str]]]) -> None:
        if not references:
            raise ValueError("references: expected training pictures with captions")
        self.features, self.references = features, references
        self.some = references[:: -(-len(references) // baselines.MOST_PICTURES)]

    def alike(self, features: np.ndarray) -> list[list[tuple[int, float]]]:
        """For pictures, features (N, ...), each of the nearest training pictures and its share of
        the say, which goes with the cosine of its features; shares sum to 1."""
        found, cosines = baselines.nearest(self.features, features, NEIGHBOURS)
        shares = np.maximum(cosines, 0)
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
        pairs = zip(found.tolist(), shares.tolist(), strict=True)
        return [[*zip(*pair, strict=True)] for pair in pairs]


class Consensus:
    """Ranks captions of a picture by their score plus weight times their likeness to those of the
    training pictures whose features are the most alike (Devlin et al. 2015): the mean cosine of
    n-grams of one to four words, weighted by how few training pictures have them as in CIDEr
    (Vedantam et al. 2015). It is a Captioner's choose.

    Parameters: neighbours; idx_to_word, the captioner's; weight.
    Raises ValueError for a weight out of range.
    """

    def __init__(
        self, neighbours: Neighbours, idx_to_word: Mapping[int, str], weight: float
    ) -> None:
        check({"consensus": weight}, {"consensus": NOT_NEGATIVE})
        self.neighbours, self.weight = neighbours, weight
        self.words = [idx_to_word[i] for i in range(len(idx_to_word))]
        said = ({*chain.from_iterable(map(ngrams, captions))} for captions in neighbours.some)
        self._having = Counter(chain.from_iterable(said))
        self._of_picture = lru_cache(KEPT)(self._mean)

    def __call__(self, features: np.ndarray, found: Hypotheses) -> np.ndarray:
        """Which of the hypotheses found for pictures is ranked first: indices (N,).

        Inputs: features (N, ...).
        """
        likeness = [
            [*self._likeness(alike, decode_captions(captions, self.words))]
            for alike, captions in zip(self.neighbours.alike(features), found.words, strict=True)
        ]
        ranked = found.scores + self.weight * np.reshape(likeness, found.scores.shape)
        return ranked.argmax(axis=1)

    def _likeness(self, alike, captions):
        around: Counter = Counter()
        for picture, share in alike:
            for ngram, value in self._of_picture(picture).items():
                around[ngram] += share * value
        for caption in captions:
            vector = self._vector(words_of(caption))
            yield sum(value * around[ngram] for ngram, value in vector.items()) / 4

    def _mean(self, picture):
        """Of the vectors of a training picture's captions."""
        captions, mean = self.neighbours.references[picture], Counter()
        for words in captions:
            for ngram, value in self._vector(words).items():
                mean[ngram] += value / len(captions)
        return mean

    def _vector(self, words):
        """A weight for each n-gram, those of one length together of length 1."""
        vector, squares, pictures = {}, [0.0] * 4, len(self.neighbours.some)
        for ngram, count in ngrams(words).items():
            value = count * math.log(pictures / max(1, self._having[ngram]))
            vector[ngram] = value
            squares[len(ngram) - 1] += value * value
        norms = [math.sqrt(square) or 1.0 for square in squares]
        return {ngram: value / norms[len(ngram) - 1] for ngram, value in vector.items()}


class Reminded(Captioner):
    """A captioner that is reminded of the words that people said of pictures alike: a word's
    log-probability gains weight * log((p + SMALL) / (q + SMALL)), where p is the share of captions
    that have it among those of the nearest training pictures, and q among all.

    Parameters: captioner; neighbours; weight. Raises ValueError for a weight out of range.
    """

    def __init__(self, captioner: Captioner, neighbours: Neighbours, weight: float) -> None:
        check({"reminders": weight}, {"reminders": NOT_NEGATIVE})
        super().__init__(captioner.word_to_idx)
        self.captioner, self.neighbours, self.weight = captioner, neighbours, weight
        self._usual = np.mean([self._shares(captions) for captions in neighbours.some], axis=0)

    def start(self, features: np.ndarray) -> tuple[Step, State]:
        """The captioner's step, whose state has the numbers (N,) of the pictures behind it."""
        step, state = self.captioner.start(features)
        references = self.neighbours.references
        near = [
            sum(share * self._shares(references[picture]) for picture, share in alike)
            for alike in self.neighbours.alike(features)
        ]
        near = np.reshape(near, (len(features), len(self._usual)))
        gains = self.weight * np.log((near + SMALL) / (self._usual + SMALL))

        def reminded(words: np.ndarray, state: State) -> tuple[np.ndarray, State]:
            scores, after = step(words, state[:-1])
            return log_softmax(scores) + gains[state[-1]], (*after, state[-1])

        return reminded, (*state, np.arange(len(features)))

    def _shares(self, captions):
        """Of captions that have each word (V,)."""
        shares = np.zeros(len(self.word_to_idx))
        for words in captions:
            known = [self.word_to_idx[word] for word in {*words} if word in self.word_to_idx]
            shares[known] += 1 / len(captions)
        return shares
