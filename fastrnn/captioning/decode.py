"""From a step function to words: greedy, random, beam search. Nothing here knows what a step is.

Letters: N pictures, M rows, B beams, L most words, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


class Hypotheses(NamedTuple):
    """K captions a picture, best first: words (N, K, L), <NULL> after <END>; their scores (N, K),
    log-probability / length**length_penalty, -inf where fewer have been found."""

    words: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Beam:
    """How a beam is searched: size, hypotheses kept a picture, ranked by log-probability /
    length**length_penalty; groups, in which they are kept: a word loses diversity of its
    log-probability, where they are kept and not where they are ranked, for each hypothesis of the
    groups before that says it at the same place (Vijayakumar et al. 2018).

    Raises ValueError for parameters out of range.
    """

    size: int
    length_penalty: float = 1.0
    groups: int = 1
    diversity: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"beam_size: expected at least 1, got {self.size}")
        if not math.isfinite(self.length_penalty):
            raise ValueError(f"length_penalty: expected a number, got {self.length_penalty}")
        if self.groups < 1 or self.size % self.groups:
            raise ValueError(
                f"diverse_groups: expected a divisor of beam_size {self.size}, got {self.groups}"
            )
        if not 0 <= self.diversity < np.inf:
            raise ValueError(f"diversity: expected a number of at least 0, got {self.diversity}")


def _continuations(
    total: np.ndarray, logs: np.ndarray, penalty: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The n best continuations of each picture's beams, best first: their log-probabilities, beams
    and words, each (N, n). total (N, B) are the beams' own, logs (N, B, V) the next words'; penalty
    (N, 1, V) tells against words without a part in what they count."""
    N, B, V = logs.shape
    grown = total[:, :, None] + logs
    flat = (grown - penalty).reshape(N, B * V)
    top = np.argpartition(-flat, min(n, B * V) - 1, axis=1)[:, :n]
    order = np.argsort(-np.take_along_axis(flat, top, axis=1), axis=1, kind="stable")
    top = np.take_along_axis(top, order, axis=1)
    value = np.take_along_axis(grown.reshape(N, B * V), top, axis=1)
    return value, top // V, top % V


def beam_search(
    step: Step, state: State, vocabulary: Vocabulary, max_length: int, beam: Beam, n_best: int = 1
) -> Hypotheses:
    """The n_best hypotheses of the highest log-probability / length**length_penalty among those
    that a beam finds, for all pictures at once (length normalisation: Wu et al. 2016).

    A hypothesis that says <END> leaves the beam, so short ones do not crowd out those still
    growing; the best of them are kept.
    """
    N, B, L = len(state[0]), beam.size, max_length
    null, start, end = vocabulary[:3]
    found = Hypotheses(np.full((N, n_best, L), null, dtype=np.intp), np.full((N, n_best), -np.inf))
    if N == 0 or L == 0:
        return found
    rows, b = np.arange(N)[:, None], B // beam.groups
    state = tuple(np.repeat(s, B, axis=0) for s in state)
    words = np.full((N, B, L), null, dtype=np.intp)
    last = np.full((N, B), start, dtype=np.intp)
    total = np.full((N, B), -np.inf)
    total[:, ::b] = 0  # all beams of a group begin alike: one of them counts
    for t in range(L):
        scores, state = step(last.reshape(-1), state)
        vocabulary.ban(scores, words.reshape(N * B, L)[:, :t])
        logs, said = log_softmax(scores).reshape(N, B, -1), np.zeros((N, 1, scores.shape[1]))
        parts = []
        for first in range(0, B, b):
            group = slice(first, first + b)
            # At most b candidates end, so b are left to go on.
            value, source, word = _continuations(
                total[:, group], logs[:, group], beam.diversity * said, 2 * b
            )
            source += first
            grown = words[rows, source]
            grown[:, :, t] = word
            ended = word == end
            score = np.where(ended, value / (t + 1) ** beam.length_penalty, -np.inf)
            found = _best(found, grown, score)
            alive = np.argsort(ended, axis=1, kind="stable")[:, :b]
            value = np.where(ended, -np.inf, value)
            parts.append([a[rows, alive] for a in (value, grown, word, source)])
            np.add.at(said, (rows, 0, parts[-1][2]), 1)
        total, words, last, source = (np.concatenate(a, axis=1) for a in zip(*parts, strict=True))
        state = tuple(s[(rows * B + source).reshape(-1)] for s in state)
        # Log-probabilities only fall, so the best a live one can still reach is its value now over
        # the greatest length (for a penalty of 0: over 1).
        reachable = total.max(axis=1) / L**beam.length_penalty
        if (found.scores[:, -1] >= reachable).all():
            break
    unfinished = ~np.isfinite(found.scores[:, 0])
    found.words[unfinished, 0] = words[unfinished, 0]
    return found


def _best(found: Hypotheses, words: np.ndarray, scores: np.ndarray) -> Hypotheses:
    """The best of those found and of others, words (N, n, L) and scores (N, n), as many."""
    both = np.concatenate([found.scores, scores], axis=1)
    order = np.argsort(-both, axis=1, kind="stable")[:, : found.scores.shape[1]]
    rows = np.arange(len(both))[:, None]
    return Hypotheses(np.concatenate([found.words, words], axis=1)[rows, order], both[rows, order])
