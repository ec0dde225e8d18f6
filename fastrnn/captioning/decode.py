"""From a step function to words: greedy, random, beam search. Nothing here knows what a step is.

Letters: N pictures, M rows, B beams, L most words, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

State = tuple[np.ndarray, ...]  # arrays of M rows
Step = Callable[[np.ndarray, State], tuple[np.ndarray, State]]  # words (M,) -> scores (M, V)


class Vocabulary(NamedTuple):
    """The words that mean something here, and those that are never said: these, and, where
    block_ngrams is not 0, the last of so many words in a row that have been said before."""

    null: int
    start: int
    end: int
    banned: Sequence[int]
    block_ngrams: int = 0

    def ban(self, scores: np.ndarray, said: np.ndarray) -> None:
        """Put -inf in scores (M, V) where a word must not follow those said so far (M, t). <END>
        may always follow: what goes on has not said it."""
        scores[:, self.banned] = -np.inf
        n, t = self.block_ngrams, said.shape[1]
        if 0 < n <= t:
            grams = np.lib.stride_tricks.sliding_window_view(said, n, axis=1)
            same = (grams[:, :, :-1] == said[:, None, t - n + 1 :]).all(axis=2)
            rows, places = np.nonzero(same)
            scores[rows, grams[rows, places, -1]] = -np.inf


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Log-probabilities of rows of scores (M, V), float64."""
    shifted = scores.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def likeliest(scores: np.ndarray) -> np.ndarray:
    """Greedy choice: the words (M,) of the highest scores (M, V)."""
    return scores.argmax(axis=1)


class Draw:
    """Random choice from the softmax of scores / temperature, cut to the top_k likeliest words and
    to the fewest that cover probability top_p. Raises ValueError for parameters out of range."""

    def __init__(
        self, temperature: float, top_k: int | None, top_p: float | None, seed: int | None
    ) -> None:
        if not 0 < temperature < np.inf:
            raise ValueError(f"temperature: expected a number above 0, got {temperature}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k: expected at least 1, got {top_k}")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p: expected a probability in (0, 1], got {top_p}")
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.rng = np.random.default_rng(seed)

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        order = np.argsort(-scores, axis=1, kind="stable")
        ranked = np.take_along_axis(scores, order, axis=1)
        with np.errstate(over="ignore"):  # near temperature 0 all but the likeliest become -inf
            ranked = (ranked.astype(np.float64) - ranked[:, :1]) / self.temperature
        p = np.exp(log_softmax(ranked))
        if self.top_k is not None:
            p[:, self.top_k :] = 0
        if self.top_p is not None:
            before = np.cumsum(p, axis=1) - p
            p[before >= self.top_p * p.sum(axis=1, keepdims=True)] = 0
        cumulative = np.cumsum(p, axis=1)
        drawn = self.rng.random((len(p), 1)) * cumulative[:, -1:]
        # Rounding may put a draw on the very end; the last word of any probability is meant.
        rank = np.minimum((cumulative <= drawn).sum(axis=1), (p > 0).sum(axis=1) - 1)
        return order[np.arange(len(p)), rank]


def generate(
    step: Step,
    state: State,
    vocabulary: Vocabulary,
    max_length: int,
    choose: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """One word after the other until <END>; choose turns scores (M, V) into words (M,).

    Returns: captions (N, max_length), <NULL> after <END>.
    """
    N = len(state[0])
    captions = np.full((N, max_length), vocabulary.null, dtype=np.intp)
    words = np.full(N, vocabulary.start, dtype=np.intp)
    talking = np.ones(N, dtype=bool)
    for t in range(max_length):
        scores, state = step(words, state)
        vocabulary.ban(scores, captions[:, :t])
        words = choose(scores)
        captions[talking, t] = words[talking]
        talking &= words != vocabulary.end
        if not talking.any():
            break
    return captions


def _candidates(
    total: np.ndarray, scores: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The n best continuations of each picture's beams, best first: their log-probabilities, beams
    and words, each (N, n). total (N, B) are the beams' own, scores (N * B, V) the next words'."""
    N, B = total.shape
    V = scores.shape[1]
    flat = (total[:, :, None] + log_softmax(scores).reshape(N, B, V)).reshape(N, B * V)
    top = np.argpartition(-flat, min(n, B * V) - 1, axis=1)[:, :n]
    value = np.take_along_axis(flat, top, axis=1)
    order = np.argsort(-value, axis=1, kind="stable")
    top = np.take_along_axis(top, order, axis=1)
    return np.take_along_axis(value, order, axis=1), top // V, top % V


def beam_search(
    step: Step,
    state: State,
    vocabulary: Vocabulary,
    max_length: int,
    beam_size: int,
    length_penalty: float = 1.0,
) -> np.ndarray:
    """The hypothesis of the highest log-probability / length**length_penalty among those that a
    beam of that width finds, for all pictures at once (length normalisation: Wu et al. 2016).

    A hypothesis that says <END> leaves the beam, so short ones do not crowd out those still
    growing; the best of them is kept. Returns: captions (N, max_length), <NULL> after <END>.
    """
    N, B, L = len(state[0]), beam_size, max_length
    null, start, end = vocabulary[:3]
    if N == 0 or L == 0:
        return np.full((N, L), null, dtype=np.intp)
    rows = np.arange(N)[:, None]
    state = tuple(np.repeat(s, B, axis=0) for s in state)
    words = np.full((N, B, L), null, dtype=np.intp)
    last = np.full((N, B), start, dtype=np.intp)
    total = np.full((N, B), -np.inf)
    total[:, 0] = 0  # all beams begin alike: one of them counts
    best_words = np.full((N, L), null, dtype=np.intp)
    best_score = np.full(N, -np.inf)
    for t in range(L):
        scores, state = step(last.reshape(-1), state)
        vocabulary.ban(scores, words.reshape(N * B, L)[:, :t])
        # At most B candidates end, so B are left to go on.
        value, beam, word = _candidates(total, scores, 2 * B)
        grown = words[rows, beam]
        grown[:, :, t] = word

        ended = word == end
        score = np.where(ended, value / (t + 1) ** length_penalty, -np.inf)
        first = score.argmax(axis=1)
        better = score[rows[:, 0], first] > best_score
        best_score[better] = score[better, first[better]]
        best_words[better] = grown[better, first[better]]

        alive = np.argsort(ended, axis=1, kind="stable")[:, :B]
        total = np.where(ended[rows, alive], -np.inf, value[rows, alive])
        words, last, source = grown[rows, alive], word[rows, alive], beam[rows, alive]
        state = tuple(s[(rows * B + source).reshape(-1)] for s in state)
        # Log-probabilities only fall, so the best a live one can still reach is its value now over
        # the greatest length (for a penalty of 0: over 1).
        reachable = total.max(axis=1) / L**length_penalty
        if (best_score >= reachable).all():
            break
    unfinished = ~np.isfinite(best_score)
    best_words[unfinished] = words[unfinished, 0]
    return best_words
